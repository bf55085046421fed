//! Disks of the board that this runs on.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::super::error::{Doing, ImageError};
use super::super::ioctl;
use super::super::table::{ALIGNMENT_BYTES, Partition, SECTOR_BYTES, Table};

/// A whole disk.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Disk {
    /// Opens a disk, or a file in the place of one.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let doing = || format!("opening {}", path.display());
        let mut file = OpenOptions::new().read(true).write(true).open(path).doing(doing)?;
        let bytes = file.seek(SeekFrom::End(0)).doing(doing)?;
        let disk = Disk { path: path.to_owned(), file, bytes };
        let sector = disk.sector().doing(doing)?;
        match sector == SECTOR_BYTES {
            true => Ok(disk),
            false => Err(ImageError::refused(
                format!("{} has sectors of {sector} bytes", path.display()),
                "partition it by hand (cfdisk), and name the partition",
            )),
        }
    }

    fn is_device(&self) -> bool {
        self.file.metadata().is_ok_and(|about| about.file_type().is_block_device())
    }

    fn sector(&self) -> std::io::Result<u64> {
        match self.is_device() {
            true => ioctl::sector_bytes(&self.file),
            false => Ok(SECTOR_BYTES),
        }
    }

    /// Its table.
    pub fn table(&mut self) -> Result<Table, ImageError> {
        Table::read(&mut self.file)
    }

    /// Whether its beginning is empty.
    pub fn is_empty(&mut self) -> Result<bool, ImageError> {
        use std::os::unix::fs::FileExt;
        let mut head = vec![0; ALIGNMENT_BYTES.min(self.bytes) as usize];
        self.file
            .read_exact_at(&mut head, 0)
            .doing(|| format!("reading {}", self.path.display()))?;
        Ok(head.iter().all(|byte| *byte == 0))
    }

    /// Lets a partition reach to the disk's end, if nothing lies behind it, and has the kernel know.
    pub fn grow(&mut self, number: u32) -> Result<Option<Partition>, ImageError> {
        let mut table = self.table()?;
        if !table.grow(number, table.limit(self.bytes)) {
            return Ok(None);
        }
        self.write(&table)?;
        let Some(partition) = table.partition(number) else { return Ok(None) };
        if self.is_device() {
            ioctl::resize_partition(&self.file, &partition)
                .doing(|| format!("resizing partition {number} of {}", self.path.display()))?;
        }
        Ok(Some(partition))
    }

    /// Gives an empty disk a table with one partition.
    pub fn partition_whole(&mut self) -> Result<Partition, ImageError> {
        let mut random = [0; 16];
        fastrand::fill(&mut random);
        let mut table = Table::empty(random);
        fastrand::fill(&mut random);
        let length = table.limit(self.bytes).saturating_sub(ALIGNMENT_BYTES);
        let added = table.add(ALIGNMENT_BYTES, length, random).filter(|p| p.length > 0);
        let added = added.ok_or_else(|| {
            ImageError::refused(
                format!("{} is too small", self.path.display()),
                "take a larger disk",
            )
        })?;
        self.write(&table)?;
        if self.is_device() {
            ioctl::read_table_again(&self.file)
                .doing(|| format!("having the kernel read the table of {}", self.path.display()))?;
        }
        Ok(added)
    }

    fn write(&mut self, table: &Table) -> Result<(), ImageError> {
        table.write(&mut self.file, self.bytes)?;
        self.file.sync_all().doing(|| format!("writing to {}", self.path.display()))
    }

    /// The device of a partition: a name that ends with a digit has a `p` before the number.
    pub fn device(&self, number: u32) -> PathBuf {
        let path = self.path.display().to_string();
        let gap = if path.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        PathBuf::from(format!("{path}{gap}{number}"))
    }
}

/// Lets the file system that is mounted there fill its partition.
pub fn fill(mount: &Path, partition_bytes: u64) -> Result<(), ImageError> {
    let doing = || format!("growing the file system of {}", mount.display());
    let block = nix::sys::statvfs::statvfs(mount).map_err(std::io::Error::from).doing(doing)?;
    let blocks = partition_bytes / block.fragment_size();
    let folder = File::open(mount).doing(doing)?;
    ioctl::resize_mounted(&folder, blocks).doing(doing)
}

/// The disk that a mounted folder is on, and the number of its partition.
pub fn disk_of(mount: &Path) -> Option<(PathBuf, u32)> {
    let device = fs::metadata(mount).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    partition_in(Path::new(&format!("/sys/dev/block/{major}:{minor}")))
}

/// The disk that a device is a partition of, and its number.
pub fn disk_of_device(device: &Path) -> Option<(PathBuf, u32)> {
    let about = fs::metadata(device).ok().filter(|about| about.file_type().is_block_device())?;
    let (major, minor) = (nix::sys::stat::major(about.rdev()), nix::sys::stat::minor(about.rdev()));
    partition_in(Path::new(&format!("/sys/dev/block/{major}:{minor}")))
}

fn partition_in(sysfs: &Path) -> Option<(PathBuf, u32)> {
    let number = fs::read_to_string(sysfs.join("partition")).ok()?.trim().parse().ok()?;
    let real = fs::canonicalize(sysfs).ok()?;
    let disk = real.parent()?.file_name()?;
    Some((Path::new("/dev").join(disk), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_disk_gets_one_partition_and_grows_with_its_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk");
        File::create(&path).and_then(|file| file.set_len(8 << 20)).expect("made");
        let mut disk = Disk::open(&path).expect("opened");
        assert!(disk.is_empty().expect("read"));
        let first = disk.partition_whole().expect("partitioned");
        assert_eq!((first.number, first.start), (1, 1 << 20));
        assert!(!disk.is_empty().expect("read"));
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|f| f.set_len(64 << 20))
            .expect("grown");
        let mut disk = Disk::open(&path).expect("opened");
        let grown = disk.grow(1).expect("written").expect("larger");
        assert_eq!(grown.end(), (64 << 20) - 33 * 512);
        assert_eq!(disk.grow(1).expect("read"), None, "there is nothing more");
    }

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        let disk = |path: &str| {
            let file = tempfile::tempfile().expect("a file");
            Disk { path: path.into(), file, bytes: 0 }
        };
        assert_eq!(disk("/dev/sda").device(1), Path::new("/dev/sda1"));
        assert_eq!(disk("/dev/mmcblk0").device(3), Path::new("/dev/mmcblk0p3"));
    }
}
