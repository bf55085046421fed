//! Writing to ext4: `debugfs` of e2fsprogs, at an offset in the image file, so that neither root nor a
//! loop device is needed. Crates that write ext4 are young; these tools are what made the file system.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::change::{Change, Content};
use super::copy::{overwrite, sparse};
use super::error::{Doing, ImageError};
use super::files::{Files, Mount, Node};
use super::table::Partition;
use super::window::Window;

/// Where system programs lie that an ordinary user's PATH leaves out.
const FURTHER_PATHS: &str = "/usr/sbin:/sbin:/usr/local/sbin";

/// An ext4 file system within an image file.
pub struct Ext<'a> {
    image: &'a Path,
    partition: Partition,
}

impl<'a> Ext<'a> {
    /// The file system of a mount.
    pub fn new(image: &'a Path, mount: &Mount) -> Self {
        Ext { image, partition: mount.volume.partition.clone() }
    }

    /// Repairs what an image that was not unmounted leaves behind, so that it can be written to.
    pub fn settle(&self) -> Result<(), ImageError> {
        // 1: something was repaired.
        self.run("e2fsck", &["-fp"], &[0, 1]).map(drop)
    }

    /// Fails where the file system is not as it should be.
    pub fn check(&self) -> Result<(), ImageError> {
        self.run("e2fsck", &["-fn"], &[0]).map(drop)
    }

    /// Lets the file system fill this many bytes. That is done in a copy of it: resize2fs cuts a file
    /// to the file system's length, without regard to an offset.
    pub fn grow(&self, bytes: u64) -> Result<(), ImageError> {
        let doing = || format!("growing the file system in {}", self.image.display());
        let folder = self.image.parent().filter(|folder| !folder.as_os_str().is_empty());
        let copy =
            tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).doing(doing)?;
        let options = OpenOptions::new().read(true).write(true).open(self.image);
        let mut window = Window::new(options.doing(doing)?, &self.partition);
        let mut file = copy.as_file();
        sparse(&mut window, &mut file).and_then(|_| file.set_len(bytes)).doing(doing)?;
        tool("resize2fs", &["-f", &copy.path().display().to_string()], &[0])?;
        let grown = Partition { length: bytes, ..self.partition.clone() };
        let image = OpenOptions::new().read(true).write(true).open(self.image).doing(doing)?;
        let mut file = copy.reopen().doing(doing)?;
        overwrite(&mut file, &mut Window::new(image, &grown), self.partition.length).doing(doing)
    }

    /// Makes the changes, whose paths are as this file system has them.
    pub fn apply(&self, files: &Files, changes: &[(Change, String)]) -> Result<(), ImageError> {
        let doing = || "keeping files for debugfs".to_owned();
        let folder = tempfile::tempdir().doing(doing)?;
        let script = folder.path().join("script");
        let mut contents = Vec::new();
        for (number, (change, _)) in changes.iter().enumerate() {
            let Change::File { content, .. } = change else { continue };
            let file = match content {
                Content::Copy(from, _) => fs::canonicalize(from).doing(doing)?,
                Content::Bytes(bytes) => {
                    let file = folder.path().join(number.to_string());
                    fs::write(&file, bytes).doing(doing)?;
                    file
                }
            };
            contents.push((number, file));
        }
        let text = commands(files, changes, &contents)?;
        fs::File::create(&script)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .doing(doing)?;
        let said = self.run("debugfs", &["-w", "-f", &script.display().to_string()], &[0])?;
        // It ends well whatever happened; what went wrong it says beside its version.
        match said.lines().find(|line| !line.starts_with("debugfs ") && !line.trim().is_empty()) {
            None => Ok(()),
            Some(wrong) => Err(ImageError::Tool {
                doing: format!("writing to {}", self.image.display()),
                said: wrong.to_owned(),
            }),
        }
    }

    fn place(&self) -> String {
        format!("{}?offset={}", self.image.display(), self.partition.start)
    }

    fn run(&self, program: &str, arguments: &[&str], fine: &[i32]) -> Result<String, ImageError> {
        let place = self.place();
        let all: Vec<&str> = arguments.iter().copied().chain([place.as_str()]).collect();
        tool(program, &all, fine)
    }
}

/// Runs a program of e2fsprogs; what it said on its second channel.
fn tool(program: &str, arguments: &[&str], fine: &[i32]) -> Result<String, ImageError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:{FURTHER_PATHS}");
    let folders = std::env::split_paths(&path);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    let found = found.ok_or_else(|| {
        ImageError::refused(
            format!("there is no {program} on this machine"),
            "apt install e2fsprogs",
        )
    })?;
    let output =
        Command::new(found).args(arguments).output().doing(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code().is_some_and(|code| fine.contains(&code)) {
        return Ok(said);
    }
    let all = format!("{}\n{said}", String::from_utf8_lossy(&output.stdout));
    let last = all.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    Err(ImageError::Tool {
        doing: format!("{program} {}", arguments.join(" ")),
        said: last.join("; "),
    })
}

/// What debugfs is to do. Its `write` takes a name within the current folder, not a path.
fn commands(
    files: &Files,
    changes: &[(Change, String)],
    contents: &[(usize, PathBuf)],
) -> Result<String, ImageError> {
    let mut script = String::new();
    let mut made = BTreeSet::new();
    for (number, (change, inside)) in changes.iter().enumerate() {
        let present = files.look(change.path())?;
        let at_root = change.path().len() - inside.len();
        if !matches!(change, Change::Remove { .. }) {
            make_parents(&mut script, files, &mut made, change.path(), at_root)?;
        }
        let path = quoted(inside)?;
        let there = present.is_some() && !matches!(change, Change::Folder { .. });
        if there {
            let _ = writeln!(script, "rm {path}");
        }
        match change {
            Change::Folder { mode, owner, .. } => {
                if present.is_none() && made.insert(change.path().to_owned()) {
                    let _ = writeln!(script, "mkdir {path}");
                }
                set(&mut script, &path, 0o040_000 | mode, *owner);
            }
            Change::Link { target, .. } => {
                let _ = writeln!(script, "symlink {path} {}", quoted(target)?);
            }
            Change::File { mode, owner, .. } => {
                let (parent, name) = inside.rsplit_once('/').unwrap_or(("", inside));
                let parent = quoted(if parent.is_empty() { "/" } else { parent })?;
                let from = contents.iter().find(|(n, _)| *n == number).map(|(_, file)| file);
                let from =
                    quoted(&from.map(|file| file.display().to_string()).unwrap_or_default())?;
                let _ = writeln!(script, "cd {parent}\nwrite {from} {}\ncd /", quoted(name)?);
                set(&mut script, &path, 0o100_000 | mode, *owner);
            }
            Change::Remove { .. } => {}
        }
    }
    Ok(script)
}

fn make_parents(
    script: &mut String,
    files: &Files,
    made: &mut BTreeSet<String>,
    path: &str,
    at_root: usize,
) -> Result<(), ImageError> {
    let slashes = path.char_indices().filter(|(at, c)| *c == '/' && *at > at_root);
    for (end, _) in slashes {
        let folder = &path[..end];
        match files.behind(folder)? {
            Some(Node::Folder { .. }) => {}
            Some(_) => {
                return Err(ImageError::refused(
                    format!("{folder} of the image is no folder"),
                    "this image is laid out in a way that is not known here",
                ));
            }
            None if made.insert(folder.to_owned()) => {
                let inside = quoted(&folder[at_root..])?;
                let _ = writeln!(script, "mkdir {inside}");
                set(script, &inside, 0o040_755, (0, 0));
            }
            None => {}
        }
    }
    Ok(())
}

fn set(script: &mut String, path: &str, mode: u16, owner: (u32, u32)) {
    let (user, group) = owner;
    let _ = writeln!(
        script,
        "sif {path} mode 0{mode:o}\nsif {path} uid {user}\nsif {path} gid {group}"
    );
}

/// A word of debugfs' language, which knows no way to write a quotation mark into one.
fn quoted(word: &str) -> Result<String, ImageError> {
    match word.contains(['"', '\n', '\\']) || word.is_empty() {
        true => Err(ImageError::refused(
            format!("debugfs cannot be told of {word:?}"),
            "use names without quotation marks, and a folder for temporary files (TMPDIR) without them",
        )),
        false => Ok(format!("\"{word}\"")),
    }
}
