//! A disk for the data: formatted once, mounted by its label, and left alone from then on.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::stack::Fleet;

/// Room for the data, in bytes.
const SIZE: u64 = 1 << 30;

/// A file as a block device.
struct Loop {
    device: String,
}

impl Loop {
    fn new(file: &PathBuf) -> Self {
        fs::File::create(file).and_then(|file| file.set_len(SIZE)).expect("a file");
        let out = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
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

#[test]
fn a_disk_that_holds_nothing_becomes_the_datas() {
    let fleet = Fleet::new(1);
    // Of the board's own file system, so that what is written costs no disk of the machine's.
    let file = fleet.boards[0].lock().expect("no panic").folder.join("stick");
    let stick = Loop::new(&file);
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
