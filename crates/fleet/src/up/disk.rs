//! The disk for the data: what is to be done with it, and how.

use super::Step;
use crate::board::{fstab, paths::DATA};
use crate::config::{CARD, DataDisk};
use crate::facts::{Disk, Facts};
use crate::ssh::quoted;

/// What has to be done so that the disk is mounted, or why it cannot be.
pub fn wanted(disk: &DataDisk, facts: &Facts) -> Result<Option<Step>, String> {
    let disks = facts.disks();
    let table = fstab::with_data(facts.get("fstab"), disk);
    let labelled = disks.iter().find(|found| found.label == disk.label);
    let is_mounted = facts.mounted_at(DATA).is_some();
    if is_mounted && table == facts.get("fstab") {
        return Ok(None);
    }
    let step = |format| Some(Step::DataDisk { disk: disk.clone(), format, fstab: table.clone() });
    if is_mounted || labelled.is_some() {
        return Ok(step(false));
    }
    if facts.has("holds-data") {
        return Err(format!(
            "{DATA} on the system's disk holds a cluster's data, which would be hidden by {}",
            disk.device
        ));
    }
    if disk.device == CARD {
        let label = &disk.label;
        return Err(format!(
            "its card has no partition {label:?}: `coracle image prepare` makes one"
        ));
    }
    let Some(found) = disks.iter().find(|found| found.path == real(disk, facts)) else {
        return Err(format!("there is no {}", disk.device));
    };
    let parts = |of: &Disk| disks.iter().any(|other| is_part(&other.path, &of.path));
    match (found.filesystem.as_str(), disk.format) {
        ("", true) if !parts(found) && found.mounted.is_empty() => Ok(step(true)),
        ("", false) => {
            Err(format!("{} holds no file system, and `format` is not set", disk.device))
        }
        ("", true) => Err(format!("{} has partitions: name one of them", disk.device)),
        (other, _) => Err(format!(
            "{} holds {other} with the label {:?}, and nothing that holds something is formatted",
            disk.device, found.label
        )),
    }
}

/// Whether a device is a partition of a disk, by the kernel's names: `sda1`, `mmcblk0p1`. What merely
/// begins alike (`sdaa`, `loop10`) is another.
fn is_part(path: &str, disk: &str) -> bool {
    let Some(rest) = path.strip_prefix(disk) else { return false };
    let number = match disk.ends_with(|c: char| c.is_ascii_digit()) {
        true => rest.strip_prefix('p'),
        false => Some(rest),
    };
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Names such as `/dev/disk/by-id/...` lead to the device itself.
fn real(disk: &DataDisk, facts: &Facts) -> String {
    match facts.get(&format!("device.{}", disk.device)) {
        "" => disk.device.clone(),
        real => real.to_owned(),
    }
}

/// The script. A whole disk gets one partition.
pub fn script(disk: &DataDisk, format: bool, table: &str) -> String {
    use base64::Engine;
    let table = base64::engine::general_purpose::STANDARD.encode(table);
    let label = quoted(&disk.label);
    let make = match format {
        false => String::new(),
        true => format!(
            "device=$(readlink -f {})\n\
             [ -b \"$device\" ] || {{ echo \"$device is no disk\" >&2; exit 1; }}\n\
             if [ \"$(lsblk -dno TYPE \"$device\")\" = disk ]; then\n\
             echo ',,L' | sfdisk -q --label gpt \"$device\" >&2\nudevadm settle || :\n\
             device=$(lsblk -nrpo PATH,TYPE \"$device\" | awk '$2 == \"part\" {{ print $1; exit }}')\nfi\n\
             [ -z \"$(blkid -c /dev/null -o value -s TYPE \"$device\" || :)\" ] || \
             {{ echo \"$device holds something\" >&2; exit 1; }}\n\
             mkfs.ext4 -q -m 1 -L {label} \"$device\" >&2\nudevadm settle || :\n",
            quoted(&disk.device)
        ),
    };
    format!(
        "{make}mkdir -p {DATA}\nput /etc/fstab 644 <<'END'\n{table}\nEND\n\
         systemctl daemon-reload\nmountpoint -q {DATA} || mount {DATA}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(lines: &[&str]) -> Facts {
        use base64::Engine;
        let table = lines.iter().map(|line| format!("{line} MOUNTPOINT=\"\" MODEL=\"\"\n"));
        let table = base64::engine::general_purpose::STANDARD.encode(table.collect::<String>());
        Facts::parse(&format!("disks:={table}\ndone=yes\n")).expect("facts")
    }

    fn decided(device: &str, format: bool, lines: &[&str]) -> Result<Option<bool>, String> {
        let disk = DataDisk { device: device.into(), label: "coracle".into(), format };
        let step = wanted(&disk, &facts(lines))?;
        Ok(step.map(|step| matches!(step, Step::DataDisk { format: true, .. })))
    }

    #[test]
    fn partitions_are_told_from_disks_that_begin_alike() {
        for (path, disk, expected) in [
            ("/dev/sda1", "/dev/sda", true),
            ("/dev/mmcblk0p2", "/dev/mmcblk0", true),
            ("/dev/sda", "/dev/sda", false),
            ("/dev/sdaa", "/dev/sda", false),
            ("/dev/loop10", "/dev/loop1", false),
            ("/dev/nvme0n1p1", "/dev/nvme0n1", true),
        ] {
            assert_eq!(is_part(path, disk), expected, "{path} of {disk}");
        }
    }

    #[test]
    fn only_what_holds_nothing_is_formatted() {
        let empty = "PATH=\"/dev/sda\" TYPE=\"disk\" SIZE=\"9\" FSTYPE=\"\" LABEL=\"\"";
        let part = "PATH=\"/dev/sda1\" TYPE=\"part\" SIZE=\"9\" FSTYPE=\"\" LABEL=\"\"";
        let photos = "PATH=\"/dev/sda\" TYPE=\"disk\" SIZE=\"9\" FSTYPE=\"vfat\" LABEL=\"photos\"";
        let ours = "PATH=\"/dev/sda1\" TYPE=\"part\" SIZE=\"9\" FSTYPE=\"ext4\" LABEL=\"coracle\"";
        for (device, format, lines, expected) in [
            ("/dev/sda", true, &[empty][..], Ok(Some(true))),
            ("/dev/sda", false, &[empty], Err("`format` is not set")),
            ("/dev/sda", true, &[empty, part], Err("has partitions")),
            ("/dev/sda1", true, &[empty, part], Ok(Some(true))),
            ("/dev/sda", true, &[photos], Err("holds vfat with the label \"photos\"")),
            ("/dev/sda", false, &[empty, ours], Ok(Some(false))),
            ("/dev/sdb", true, &[empty], Err("there is no /dev/sdb")),
            ("card", true, &[empty], Err("`coracle image prepare` makes one")),
            ("card", true, &[empty, ours], Ok(Some(false))),
        ] {
            match (decided(device, format, lines), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{device} {lines:?}"),
                (Err(said), Err(expected)) => assert!(said.contains(expected), "{said}"),
                (found, expected) => panic!("{device} {lines:?}: {found:?}, not {expected:?}"),
            }
        }
    }
}
