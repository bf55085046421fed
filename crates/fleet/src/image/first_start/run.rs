use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::block::{Disk, disk_of, disk_of_device, fill};
use super::{FirstStart, PACKAGES, TASKS};
use crate::config::{CARD, DataDisk};
use crate::image::error::{Doing, ImageError};

const ROOT: &str = "/";
const BY_LABEL: &str = "/dev/disk/by-label";
/// Most that udev is waited for, in seconds.
const SETTLE: &str = "--timeout=120";
const HOST_KEYS: &str = "/etc/ssh";

/// Disks as large as they can be, the data's disk formatted if it may be, and host keys. What fails
/// leaves the rest to be done, and is tried again at the next start.
pub fn disks() -> Result<(), ImageError> {
    let text = fs::read_to_string(TASKS).doing(|| format!("reading {TASKS}"))?;
    let tasks: FirstStart = serde_json::from_str(&text).map_err(|error| {
        ImageError::refused(format!("{TASKS} cannot be read: {error}"), "remove it to do without")
    })?;
    let data = tasks.data.as_ref();
    let outcomes = [host_keys(), grow_root(), data.map_or(Ok(()), data_disk)];
    outcomes.into_iter().collect::<Result<(), ImageError>>()?;
    fs::remove_file(TASKS).doing(|| format!("removing {TASKS}"))?;
    // The service may have given up on a disk that took long.
    if let Some(service) = &tasks.service {
        run("systemctl", &["start", "--no-block", service])?;
    }
    Ok(())
}

/// Installs what is still missing, and has those packages start nothing that was not wanted.
pub fn packages() -> Result<(), ImageError> {
    let text = fs::read_to_string(PACKAGES).doing(|| format!("reading {PACKAGES}"))?;
    let known = |package: &&str| {
        let asked =
            Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).output();
        asked.is_ok_and(|output| output.stdout == b"installed")
    };
    let missing: Vec<&str> = text.split_whitespace().filter(|package| !known(package)).collect();
    if !missing.is_empty() {
        println!("installing {}", missing.join(" "));
        run("apt-get", &["update", "-q"])?;
        let install = ["install", "-y", "-q", "--no-install-recommends"];
        run("apt-get", &[&install[..], &missing].concat())?;
    }
    fs::remove_file(PACKAGES).doing(|| format!("removing {PACKAGES}"))
}

fn host_keys() -> Result<(), ImageError> {
    let there = fs::read_dir(HOST_KEYS).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("ssh_host_") && name.ends_with("_key")
    });
    match there || !Path::new("/usr/bin/ssh-keygen").exists() {
        true => Ok(()),
        false => run("ssh-keygen", &["-A"]),
    }
}

fn grow_root() -> Result<(), ImageError> {
    // A root that is on no partition (a container's, a network's) has its size from elsewhere.
    let Some((disk, number)) = disk_of(Path::new(ROOT)) else { return Ok(()) };
    let mut disk = Disk::open(&disk)?;
    disk.grow(number)?;
    let table = disk.table()?;
    // The table may have been grown before, by a start that was cut off here.
    match table.partition(number).filter(|_| table.is_last(number)) {
        Some(partition) => fill(Path::new(ROOT), partition.length),
        None => Ok(()),
    }
}

/// Formats the data's disk, if it may be and holds nothing.
fn data_disk(data: &DataDisk) -> Result<(), ImageError> {
    if Path::new(BY_LABEL).join(&data.label).exists() {
        return Ok(());
    }
    let device = Path::new(&data.device);
    if data.device != CARD && !device.exists() {
        return Err(ImageError::refused(
            format!("{} is not there", device.display()),
            "plug it in, and start the board again",
        ));
    }
    if !data.format {
        println!("{} is not formatted: data.format does not say so", data.device);
        return Ok(());
    }
    let partition = match data.device.as_str() {
        CARD => last_of_card()?,
        _ if disk_of_device(device).is_some() => device.to_owned(),
        _ => partition_whole(device)?,
    };
    format(&partition, &data.label)
}

/// The partition behind the root, grown.
fn last_of_card() -> Result<PathBuf, ImageError> {
    let none = || {
        ImageError::refused(
            "there is no partition for the data behind the root's",
            "prepare the image anew, or name another disk",
        )
    };
    let (disk, root) = disk_of(Path::new(ROOT)).ok_or_else(none)?;
    let mut disk = Disk::open(&disk)?;
    let last = disk.table()?.partitions().into_iter().max_by_key(|partition| partition.start);
    let last = last.filter(|last| last.number != root).ok_or_else(none)?;
    disk.grow(last.number)?;
    Ok(disk.device(last.number))
}

fn partition_whole(device: &Path) -> Result<PathBuf, ImageError> {
    // Names of links tell nothing of partitions.
    let device = fs::canonicalize(device).doing(|| format!("looking for {}", device.display()))?;
    let mut disk = Disk::open(&device)?;
    if !disk.is_empty()? {
        return Err(ImageError::refused(
            format!("{} holds something already, and is left alone", device.display()),
            format!(
                "wipefs -a {} if it may go, or give its partition the label; then start again",
                device.display()
            ),
        ));
    }
    let partition = disk.partition_whole()?;
    Ok(disk.device(partition.number))
}

fn format(partition: &Path, label: &str) -> Result<(), ImageError> {
    let name = partition.display().to_string();
    let looking = ["-p", "-o", "value", "-s", "USAGE", "-s", "PTTYPE", &name];
    let looked = Command::new("blkid").args(looking).output();
    let looked = looked.doing(|| format!("looking at {name}"))?;
    // 2: nothing was found there. What it cannot tell for sure is something, too.
    if !looked.stdout.is_empty() || !matches!(looked.status.code(), Some(0 | 2)) {
        return Err(ImageError::refused(
            format!("{name} holds something already, and is left alone"),
            format!("e2label {name} {label} if it is the data, wipefs -a {name} if it may go"),
        ));
    }
    println!("formatting {name}");
    run("mkfs.ext4", &["-q", "-m", "1", "-L", label, &name])?;
    // It is mounted by its label, which udev has to see first; at a start it has much else to do.
    run("udevadm", &["trigger", "--action=change", &name])?;
    let seen = format!("--exit-if-exists={BY_LABEL}/{label}");
    run("udevadm", &["settle", SETTLE, &seen]).or_else(|error| {
        println!("{error}; the service waits for the disk by itself");
        Ok(())
    })
}

fn run(program: &str, arguments: &[&str]) -> Result<(), ImageError> {
    let doing = || format!("{program} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .doing(doing)?;
    match status.success() {
        true => Ok(()),
        false => Err(ImageError::Tool { doing: doing(), said: status.to_string() }),
    }
}
