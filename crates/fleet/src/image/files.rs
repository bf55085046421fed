use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ext4_view::{Ext4, Ext4Error};
use fatfs::{FileSystem, FsOptions};

use super::error::{Doing, ImageError};
use super::table::{Partition, Table};
use super::volume::{Kind, Volume};
use super::window::Window;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File {
        /// What it holds.
        bytes: Vec<u8>,
        /// Permissions.
        mode: u16,
        /// User and group.
        owner: (u32, u32),
    },
    /// A folder.
    Folder {
        /// What is in it, sorted.
        names: Vec<String>,
        /// Permissions.
        mode: u16,
        /// User and group.
        owner: (u32, u32),
    },
    /// A symbolic link.
    Link(String),
    /// A device or the like.
    Other,
}

enum Reader {
    Ext(Ext4),
    Fat(Box<FileSystem<Window>>),
}

/// One file system of an image, where the running board mounts it.
pub struct Mount {
    /// The mount point without a slash at its end: empty for the root.
    pub at: String,
    /// The partition.
    pub volume: Volume,
    reader: Reader,
}

/// The files of an image, across its partitions, as the running board would see them. They are read
/// without the tools that write them, so that what was written is read back by another hand.
pub struct Files {
    mounts: Vec<Mount>,
}

impl Files {
    /// Finds the root and what its fstab mounts.
    pub fn open(image: &Path) -> Result<Self, ImageError> {
        let doing = || format!("reading {}", image.display());
        let mut file = File::open(image).doing(doing)?;
        let table = Table::read(&mut file)?;
        let handle = || file.try_clone().doing(doing);
        let mut volumes = Vec::new();
        for partition in table.partitions() {
            volumes.push(Volume::probe(&file, partition)?);
        }
        let mut root = None;
        for volume in volumes.iter().filter(|volume| volume.kind == Kind::Ext) {
            let reader = ext(handle()?, &volume.partition)?;
            if reader.exists("/etc/fstab").unwrap_or(false) {
                root = Some((reader, volume.clone()));
            }
        }
        let (reader, volume) = root.ok_or_else(|| no_root(&volumes))?;
        let fstab = reader.read_to_string("/etc/fstab").doing(|| "reading its fstab".into())?;
        let mut mounts = Vec::new();
        for (at, volume) in mounted(&fstab, &volumes, volume.partition.number) {
            let reader = match volume.kind {
                Kind::Ext => Reader::Ext(ext(handle()?, &volume.partition)?),
                _ => Reader::Fat(Box::new(fat(handle()?, &volume.partition)?)),
            };
            mounts.push(Mount { at, volume, reader });
        }
        mounts.push(Mount { at: String::new(), volume, reader: Reader::Ext(reader) });
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.at.len()));
        Ok(Files { mounts })
    }

    /// The file systems, the root last.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// The root's partition.
    pub fn root(&self) -> &Volume {
        &self.mounts[self.mounts.len() - 1].volume
    }

    /// Which file system a path is in, and what it is called there.
    pub fn place<'a>(&self, path: &'a str) -> (&Mount, &'a str) {
        let inside = |mount: &Mount| {
            path.strip_prefix(mount.at.as_str()).filter(|rest| rest.starts_with('/'))
        };
        let found = self.mounts.iter().find_map(|mount| Some((mount, inside(mount)?)));
        found.unwrap_or((&self.mounts[self.mounts.len() - 1], path))
    }

    /// What stands at a path; the last link is not followed.
    pub fn look(&self, path: &str) -> Result<Option<Node>, ImageError> {
        let (mount, inside) = self.place(path);
        match &mount.reader {
            Reader::Ext(ext) => missing_is_none(look_ext(ext, inside)),
            Reader::Fat(fat) => Ok(look_fat(fat, inside).doing(|| format!("reading {path}"))?),
        }
        .map_err(|error| match error {
            ImageError::Ext { source, .. } => {
                ImageError::Ext { doing: format!("reading {path}"), source }
            }
            other => other,
        })
    }

    /// What stands at a path, behind links within the same file system.
    pub fn behind(&self, path: &str) -> Result<Option<Node>, ImageError> {
        let found = self.look(path)?;
        let (Some(Node::Link(_)), (Mount { reader: Reader::Ext(ext), .. }, inside)) =
            (&found, self.place(path))
        else {
            return Ok(found);
        };
        match ext.canonicalize(inside) {
            Ok(real) => missing_is_none(look_ext(ext, &real.display().to_string())),
            Err(_) => Ok(found),
        }
    }
}

fn ext(file: File, partition: &Partition) -> Result<Ext4, ImageError> {
    let number = partition.number;
    Ext4::load(Box::new(Window::new(file, partition)))
        .doing(|| format!("reading the ext4 file system of partition {number}"))
}

/// A FAT file system of an image.
pub fn fat(file: File, partition: &Partition) -> Result<FileSystem<Window>, ImageError> {
    let number = partition.number;
    FileSystem::new(Window::new(file, partition), FsOptions::new())
        .doing(|| format!("reading the FAT file system of partition {number}"))
}

fn no_root(volumes: &[Volume]) -> ImageError {
    let shown = volumes.iter().map(|volume| match volume.kind {
        Kind::Fat => format!("{}: FAT", volume.partition.number),
        Kind::Ext => format!("{}: ext4", volume.partition.number),
        Kind::Other(what) => format!("{}: {what}", volume.partition.number),
    });
    ImageError::refused(
        format!("no partition holds a system on ext4 ({})", shown.collect::<Vec<_>>().join(", ")),
        "take the distribution's image for boards or for clouds, raw; installers and other file \
         systems are set up by hand, then by `coracle up`",
    )
}

/// Where fstab mounts which of the volumes, without the root.
fn mounted(fstab: &str, volumes: &[Volume], root: u32) -> Vec<(String, Volume)> {
    let lines = fstab.lines().filter(|line| !line.trim_start().starts_with('#'));
    let fields = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?))
    });
    let usable = |volume: &&Volume| {
        volume.partition.number != root && matches!(volume.kind, Kind::Fat | Kind::Ext)
    };
    fields
        .filter(|(_, at)| at.starts_with('/') && *at != "/")
        .filter_map(|(source, at)| {
            let volume = volumes.iter().filter(usable).find(|volume| volume.is_named(source))?;
            Some((at.trim_end_matches('/').to_owned(), volume.clone()))
        })
        .collect()
}

fn missing_is_none(found: Result<Node, Ext4Error>) -> Result<Option<Node>, ImageError> {
    match found {
        Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => Ok(None),
        other => other.map(Some).doing(String::new),
    }
}

fn look_ext(ext: &Ext4, path: &str) -> Result<Node, Ext4Error> {
    let about = ext.symlink_metadata(path)?;
    let (mode, owner) = (about.mode() & 0o7777, (about.uid(), about.gid()));
    if about.is_symlink() {
        return Ok(Node::Link(ext.read_link(path)?.display().to_string()));
    }
    if about.is_dir() {
        let mut names = Vec::new();
        for entry in ext.read_dir(path)? {
            let name = entry?.file_name().display().to_string();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        return Ok(Node::Folder { names, mode, owner });
    }
    match about.file_type().is_regular_file() {
        true => Ok(Node::File { bytes: ext.read(path)?, mode, owner }),
        false => Ok(Node::Other),
    }
}

/// Files of FAT belong to root, and everybody may run them, as they are mounted by default.
fn look_fat(fat: &FileSystem<Window>, path: &str) -> io::Result<Option<Node>> {
    let (root, path) = (fat.root_dir(), path.trim_start_matches('/'));
    let names = |folder: fatfs::Dir<'_, Window>| -> io::Result<Node> {
        let mut names = Vec::new();
        for entry in folder.iter() {
            names.push(entry?.file_name());
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(Node::Folder { names, mode: 0o755, owner: (0, 0) })
    };
    if path.is_empty() {
        return names(root).map(Some);
    }
    if let Ok(folder) = root.open_dir(path) {
        return names(folder).map(Some);
    }
    match root.open_file(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(Some(Node::File { bytes, mode: 0o755, owner: (0, 0) }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fstab_says_where_partitions_are_mounted() {
        let volume = |number: u32, label: &str, kind| Volume {
            partition: Partition { number, start: 0, length: 0, uuid: format!("ab-0{number}") },
            kind,
            label: label.into(),
            uuid: String::new(),
            free: 0,
        };
        let volumes = [volume(1, "firmware", Kind::Fat), volume(2, "root", Kind::Ext)];
        let volumes: Vec<_> =
            volumes.into_iter().chain([volume(3, "x", Kind::Other("XFS"))]).collect();
        for (fstab, expected) in [
            ("PARTUUID=ab-01 /boot/firmware vfat defaults 0 2", Some("/boot/firmware")),
            ("LABEL=firmware  /boot/  vfat", Some("/boot")),
            ("# LABEL=firmware /boot vfat", None),
            ("LABEL=root / ext4\nLABEL=x /srv xfs\nproc /proc proc defaults", None),
        ] {
            let found = mounted(fstab, &volumes, 2);
            assert_eq!(found.first().map(|(at, _)| at.as_str()), expected, "{fstab}");
        }
    }
}
