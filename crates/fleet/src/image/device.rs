//! A card or stick: looked at before it is overwritten, and read back afterwards.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::copy::fill;
use super::error::{Doing, ImageError};
use super::ioctl;

/// What is written and compared at a time.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// What is known of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Its path.
    pub path: PathBuf,
    /// What its maker calls it.
    pub model: String,
    /// Its size.
    pub bytes: u64,
    /// It is a disk, not a part of one.
    pub is_whole: bool,
    /// It cannot be written to.
    pub is_read_only: bool,
    /// Where it or its partitions are mounted, and what else uses them.
    pub users: Vec<String>,
}

impl Device {
    /// Looks at a device.
    pub fn look(path: &Path) -> Result<Self, ImageError> {
        let doing = || format!("looking at {}", path.display());
        let path = fs::canonicalize(path).doing(doing)?;
        let about = fs::metadata(&path).doing(doing)?;
        if !about.file_type().is_block_device() {
            return Err(ImageError::refused(
                format!("{} is no device", path.display()),
                "--output DIR makes image files; --device names a card, such as /dev/sdb",
            ));
        }
        let sysfs = PathBuf::from(format!("/sys/dev/block/{}", numbers(about.rdev())));
        let text =
            |name: &str| fs::read_to_string(sysfs.join(name)).unwrap_or_default().trim().to_owned();
        let model = [text("device/vendor"), text("device/model"), text("device/name")];
        let model: Vec<String> = model.into_iter().filter(|word| !word.is_empty()).collect();
        let model = if model.is_empty() { "unnamed".to_owned() } else { model.join(" ") };
        let parts = parts(&sysfs);
        let mut users = users(&parts);
        users.extend(holders(&sysfs));
        Ok(Device {
            bytes: text("size").parse::<u64>().unwrap_or(0) * 512,
            is_whole: !sysfs.join("partition").exists(),
            is_read_only: text("ro") == "1",
            model,
            users,
            path,
        })
    }

    /// Fails where an image of this length must not be written to it.
    pub fn must_take(&self, image_bytes: u64) -> Result<(), ImageError> {
        let path = self.path.display();
        let refused = |what: String, hint: &str| Err(ImageError::refused(what, hint));
        if let Some(user) = self.users.iter().find(|user| *user == "/") {
            let what = format!("{path} is the disk that this system runs from (mounted at {user})");
            return refused(what, "lsblk shows which one is the card");
        }
        if !self.users.is_empty() {
            let what = format!("{path} is in use: {}", self.users.join(", "));
            return refused(what, "umount it, if it is the right one (lsblk shows all)");
        }
        if !self.is_whole {
            let what = format!("{path} is a part of a disk, and the image is a whole one");
            return refused(what, "name the disk, such as /dev/sdb or /dev/mmcblk0");
        }
        if self.is_read_only {
            return refused(
                format!("{path} cannot be written to"),
                "cards have a small slide for it",
            );
        }
        if self.bytes < image_bytes {
            let what = format!(
                "{path} has {}, and the image {}",
                gigabytes(self.bytes),
                gigabytes(image_bytes)
            );
            return refused(what, "take a larger card");
        }
        Ok(())
    }

    /// What a person is asked about: model, size and path.
    pub fn described(&self) -> String {
        format!("{}, {} ({})", self.model, gigabytes(self.bytes), self.path.display())
    }

    /// Writes an image, and compares what was written with it. `progress` is told of bytes done and of
    /// all there are, of both passes together.
    pub fn write(
        &self,
        image: &Path,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), ImageError> {
        let path = self.path.display();
        let doing = || format!("writing to {path}");
        let mut from = File::open(image).doing(|| format!("reading {}", image.display()))?;
        let length = from.metadata().doing(doing)?.len();
        // The kernel refuses O_EXCL where somebody else has mounted it meanwhile.
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(libc::O_EXCL);
        let mut device = options.open(&self.path).doing(|| format!("opening {path}"))?;
        let mut block = vec![0; BLOCK_BYTES];
        let mut done = 0;
        while done < length {
            let count = fill(&mut from, &mut block).doing(doing)?;
            device.write_all(&block[..count]).doing(doing)?;
            done += count as u64;
            progress(done, 2 * length);
        }
        device.sync_all().doing(doing)?;
        // What is read back must come from the card and not from memory.
        ioctl::forget_buffers(&device).doing(doing)?;
        same(&mut from, &mut device, length, |done| progress(length + done, 2 * length)).and_then(
            |place| match place {
                None => Ok(()),
                Some(place) => Err(ImageError::Tool {
                    doing: format!("reading back what was written to {path}"),
                    said: format!("it differs within 4 MiB of byte {place}: the card is broken"),
                }),
            },
        )?;
        // Whoever plugs it in next reads the table anyway.
        let _ = ioctl::read_table_again(&device);
        Ok(())
    }
}

/// Compares; the place of the first block that differs.
fn same(
    image: &mut File,
    device: &mut File,
    length: u64,
    mut progress: impl FnMut(u64),
) -> Result<Option<u64>, ImageError> {
    let doing = || "reading back what was written".to_owned();
    for file in [&mut *image, &mut *device] {
        file.seek(SeekFrom::Start(0)).doing(doing)?;
    }
    let (mut wanted, mut found) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let mut done = 0;
    while done < length {
        let count = fill(image, &mut wanted).doing(doing)?;
        device.read_exact(&mut found[..count]).doing(doing)?;
        if wanted[..count] != found[..count] {
            return Ok(Some(done));
        }
        done += count as u64;
        progress(done);
    }
    Ok(None)
}

/// As people buy them.
fn gigabytes(bytes: u64) -> String {
    match bytes {
        0..10_000_000_000 => format!("{:.2} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn numbers(device: u64) -> String {
    format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

/// The numbers of a disk and of its partitions.
fn parts(sysfs: &Path) -> BTreeSet<String> {
    let folders = fs::read_dir(sysfs).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts = folders.filter(|folder| folder.join("partition").exists());
    let numbers = parts.chain([sysfs.to_owned()]).map(|folder| folder.join("dev"));
    numbers.filter_map(|file| Some(fs::read_to_string(file).ok()?.trim().to_owned())).collect()
}

/// Volume managers, arrays and encryption that sit on it.
fn holders(sysfs: &Path) -> Vec<String> {
    let folders = fs::read_dir(sysfs).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts = folders.filter(|folder| folder.join("partition").exists());
    let all = parts.chain([sysfs.to_owned()]).map(|folder| folder.join("holders"));
    let names = all.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn users(parts: &BTreeSet<String>) -> Vec<String> {
    let number = |path: &str| fs::metadata(path).ok().map(|about| numbers(about.rdev()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    users_in(&mounts, &swaps, parts, number)
}

/// Mount points of these devices, and "swap". A file system of several disks, such as btrfs, has a number
/// of its own there, and its source tells.
fn users_in(
    mounts: &str,
    swaps: &str,
    parts: &BTreeSet<String>,
    number: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mounted = mounts.lines().filter_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(2);
        let (device, at) = (fields.next()?, fields.nth(1)?);
        let source = rest.split(' ').nth(1).filter(|source| source.starts_with("/dev/"));
        let is_ours = |device: &str| parts.contains(device);
        let ours = is_ours(device) || source.and_then(&number).is_some_and(|n| is_ours(&n));
        ours.then(|| at.to_owned())
    });
    let swapped = swaps.lines().skip(1).filter_map(|line| {
        let device = number(line.split_whitespace().next()?)?;
        parts.contains(&device).then(|| "swap".to_owned())
    });
    mounted.chain(swapped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Device {
        Device {
            path: "/dev/sdb".into(),
            model: "Generic MassStorage".into(),
            bytes: 31_914_983_424,
            is_whole: true,
            ..Device::default()
        }
    }

    #[test]
    fn what_must_not_be_overwritten_is_refused() {
        card().must_take(2 << 30).expect("a card like any other");
        assert_eq!(card().described(), "Generic MassStorage, 31.9 GB (/dev/sdb)");
        let used = |users: &[&str]| users.iter().map(|user| (*user).to_owned()).collect();
        for (device, said) in [
            (
                Device { users: used(&["/boot", "/"]), ..card() },
                "the disk that this system runs from",
            ),
            (Device { users: used(&["/media/card"]), ..card() }, "in use: /media/card"),
            (Device { is_whole: false, ..card() }, "a part of a disk"),
            (Device { is_read_only: true, ..card() }, "cannot be written to"),
            (Device { bytes: 1 << 30, ..card() }, "has 1.07 GB, and the image 2.15 GB"),
        ] {
            let refused = device.must_take(2 << 30).expect_err("refused");
            assert!(refused.to_string().contains(said), "{refused}");
            assert!(refused.hint().is_some());
        }
    }

    #[test]
    fn mounts_and_swap_are_found_by_number_and_by_source() {
        let mounts = "22 1 8:2 / / rw,noatime shared:1 - ext4 /dev/sda2 rw\n\
                      40 22 0:35 /@home /home rw - btrfs /dev/sdb1 rw\n\
                      41 22 8:33 / /media/card rw - vfat /dev/sdc1 rw\n";
        let swaps = "Filename Type Size Used Priority\n/dev/sdd1 partition 1 0 -2\n";
        let number = |path: &str| {
            let known = [("/dev/sda2", "8:2"), ("/dev/sdb1", "8:17"), ("/dev/sdd1", "8:49")];
            known.iter().find(|(known, _)| *known == path).map(|(_, n)| (*n).to_owned())
        };
        let users = |parts: &[&str]| {
            let parts = parts.iter().map(|part| (*part).to_owned()).collect();
            users_in(mounts, swaps, &parts, number)
        };
        assert_eq!(users(&["8:0", "8:1", "8:2"]), ["/"]);
        assert_eq!(users(&["8:16", "8:17"]), ["/home"]);
        assert_eq!(users(&["8:32", "8:33"]), ["/media/card"]);
        assert_eq!(users(&["8:48", "8:49"]), ["swap"]);
        assert!(users(&["8:64"]).is_empty());
    }
}
