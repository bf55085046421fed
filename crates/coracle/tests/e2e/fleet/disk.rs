//! A disk for the data: formatted once, mounted by its label, and left alone from then on.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::stack::Fleet;
use crate::harness::Boards;

/// Room for the data, in bytes.
const SIZE: u64 = 1 << 30;

/// A file as a block device.
struct Loop {
    device: String,
}

impl Loop {
    /// `options` are further ones of losetup.
    fn new(file: &PathBuf, options: &[&str]) -> Self {
        let made = fs::File::options().create(true).append(true).open(file);
        made.and_then(|file| file.set_len(SIZE)).expect("a file");
        let mut losetup = Command::new("losetup");
        let out = losetup.args(["--find", "--show"]).args(options).arg(file).output();
        let out = out.expect("losetup");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Self { device: String::from_utf8_lossy(&out.stdout).trim().to_owned() }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

/// A table of partitions as disks had it before GPT, with one partition of Linux.
fn table() -> [u8; 512] {
    let mut sector = [0; 512];
    let entry = [0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0];
    sector[446..462].copy_from_slice(&entry);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Tells the kernel of partitions; one that reads tables by itself knows already.
fn partx(what: &str, device: &str) {
    let partx = Command::new("partx").args([what, device]).stderr(Stdio::null()).status();
    partx.expect("partx");
}

#[test]
fn a_whole_disk_gets_one_partition_unless_it_holds_anything() {
    let fleet = Fleet::new(1);
    let file = fleet.boards[0].lock().expect("no panic").folder.join("stick");
    fs::write(&file, table()).expect("written");
    let stick = Loop::new(&file, &["--partscan"]);
    let device = &stick.device;
    partx("--add", device);
    let name = device.trim_start_matches("/dev/");
    let part = format!("{device}p1");
    fleet.boot([0]);
    fleet.on(0, &format!("mknod {device} b 7 {}", name.trim_start_matches("loop")));
    fleet.on(0, "umount /var/lib/coracle");
    // What lsblk calls a loop is a disk here, and a kernel without code for partition tables (this test's
    // may be one) is told of them.
    let script =
        "#!/bin/sh\n/usr/bin/lsblk \"$@\" | sed 's/TYPE=\"loop\"/TYPE=\"disk\"/; s/^loop$/disk/'\n";
    fleet.program(0, "lsblk", script);
    // The board has no udev that would make the device of the partition, whose number is another each time.
    let script = "#!/bin/sh\n/usr/sbin/sfdisk \"$@\" && for disk; do :; done && { partx -a \"$disk\" 2>/dev/null || :; }\n\
        name=${disk##*/}; [ -e \"${disk}p1\" ] || mknod \"${disk}p1\" b $(tr : ' ' <\"/sys/block/$name/${name}p1/dev\")\n";
    fleet.program(0, "sfdisk", script);
    let describe = |device: &str| {
        let data = format!("data: {{device: {device}, format: true}}");
        fleet.describe(
            &format!("- {{name: pi1, address: 10.77.0.11, roles: [server], {data}}}\n"),
            "",
        );
    };
    let refused = |said: &str| {
        let told = fleet.run("up --yes --accept-new-host-keys").fails();
        assert!(told.contains(said) && told.contains("nothing was changed"), "{told}");
    };
    describe(device);
    refused("has partitions: name one of them");
    describe("/dev/nowhere");
    refused("there is no /dev/nowhere");

    // The partition goes, and the disk gets a file system of somebody's.
    let blank = || {
        let wiped = fs::File::options().write(true).open(device);
        wiped.and_then(|mut disk| disk.write_all(&[0; 1 << 16])).expect("wiped");
        partx("--delete", device);
    };
    blank();
    let photos = Command::new("mkfs.ext4").args(["-q", "-L", "photos", device]).status();
    assert!(photos.expect("mkfs.ext4").success());
    describe(device);
    refused("holds ext4 with the label \"photos\", and nothing that holds something is formatted");

    blank();
    let said = fleet.run("up --yes --accept-new-host-keys").ok();
    assert!(said.contains(&format!("data disk: format and mount {device}")), "{said}");
    let mounted = fleet.on(0, "findmnt --noheadings --output SOURCE,FSTYPE,LABEL /var/lib/coracle");
    assert_eq!(mounted.split_whitespace().collect::<Vec<_>>(), [&part, "ext4", "coracle"]);
    let table = fleet.on(0, &format!("sfdisk --dump {device}"));
    assert!(table.contains("label: gpt") && table.matches(&part).count() == 1, "{table}");
    assert!(fleet.on(0, "ls /var/lib/coracle/server").contains("db"));
    assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));
    fleet.run("down --yes --no-backup").ok();
}

#[test]
fn a_disk_that_holds_nothing_becomes_the_datas() {
    let fleet = Fleet::new(1);
    // Of the board's own file system, so that what is written costs no disk of the machine's.
    let file = fleet.boards[0].lock().expect("no panic").folder.join("stick");
    let stick = Loop::new(&file, &[]);
    let device = &stick.device;
    let boards = |format: &str| {
        format!(
            "- {{name: pi1, address: 10.77.0.11, roles: [server], \
             data: {{device: {device}{format}}}}}\n"
        )
    };
    fleet.boot([0]);
    let number = device.trim_start_matches("/dev/loop");
    fleet.on(0, &format!("mknod {device} b 7 {number}"));
    fleet.on(0, "umount /var/lib/coracle");
    fleet.describe(&boards(""), "");
    let said = fleet.run("up --yes --accept-new-host-keys").fails();
    assert!(said.contains("holds no file system, and `format` is not set"), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");

    fleet.describe(&boards(", format: true"), "");
    let said = fleet.run("up --yes --accept-new-host-keys").ok();
    assert!(said.contains(&format!("data disk: format and mount {device}")), "{said}");
    let mounted = fleet.on(0, "findmnt --noheadings --output SOURCE,FSTYPE /var/lib/coracle");
    assert_eq!(mounted.split_whitespace().collect::<Vec<_>>(), [device.as_str(), "ext4"]);
    assert!(fleet.on(0, "ls /var/lib/coracle/server").contains("db"));
    assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));

    // Away and back: mounted by its label, and not formatted a second time.
    fleet.on(0, "systemctl stop coracle");
    fleet.on(0, "sh -c rm${IFS}-rf${IFS}/etc/fstab;umount${IFS}-l${IFS}/var/lib/coracle");
    let said = fleet.run("up --yes").ok();
    assert!(said.contains(&format!("data disk: mount {device}")), "{said}");
    assert_eq!(fleet.kubectl().ok("get nodes -o name"), "node/pi1\n");
    fleet.run("down --yes --no-backup").ok();
}
