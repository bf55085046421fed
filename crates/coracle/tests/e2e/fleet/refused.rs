//! What cannot work is found out before anything is changed on any board.

use std::fs;

use super::stack::Fleet;
use crate::harness::Boards;

const FIRST: &str = "- {name: pi1, address: 10.77.0.11, roles: [server]}\n";
const SECOND: &str = "- {name: pi2, address: 10.77.0.12, roles: [server]}\n";
const BARE: &str = "- {name: pi3, address: 10.77.0.13}\n";
/// Where `up` writes.
const WRITTEN: &str = "find /etc /usr/local /root /home -type f -newer /run/before";

/// Runs `up` in vain; what it said. No file on any board is newer than before.
fn refused(fleet: &Fleet, boards: &str, more: &str) -> String {
    fleet.describe(boards, "");
    let running = fleet
        .boards
        .iter()
        .enumerate()
        .filter(|(_, board)| !board.lock().expect("no panic").is_off());
    let running: Vec<usize> = running.map(|(position, _)| position).collect();
    running.iter().for_each(|position| drop(fleet.on(*position, "touch /run/before")));
    let said = fleet.run(&format!("up --yes {more}")).fails();
    assert!(said.contains("nothing was changed"), "{said}");
    for position in running {
        assert_eq!(fleet.on(position, WRITTEN), "", "{said}");
    }
    said
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_changed() {
    let fleet = Fleet::new(3);
    fleet.boot(0..3);
    for alone in [FIRST, SECOND] {
        fleet.describe(alone, "");
        fleet.run("up --yes --accept-new-host-keys").ok();
    }
    another_clusters(&fleet);
    fleet.describe(FIRST, "");
    an_architecture(&fleet);
    a_full_disk(&fleet);
    // Nothing of it was the boards' own trouble.
    fleet.describe(&format!("{FIRST}{BARE}"), "");
    fleet.run("up --yes").ok();
    fleet.kubectl().ok("wait --for=condition=Ready node/pi1 node/pi3 --timeout=30s");
}

/// Boards of two clusters in one file, a server and an agent of the other's.
fn another_clusters(fleet: &Fleet) {
    let said = refused(fleet, &format!("{FIRST}{SECOND}{BARE}"), "--accept-new-host-keys");
    assert!(said.contains("pi2 is in another cluster already"), "{said}");
    assert!(said.contains("`coracle uninstall` on pi2"), "{said}");

    // pi3 joins the second cluster; to the first it is a stranger's, by that one's authority.
    fleet.describe(&format!("{SECOND}{BARE}"), "");
    fleet.run("up --yes").ok();
    let said = refused(fleet, &format!("{FIRST}{BARE}"), "");
    assert!(said.contains("pi3 is in another cluster already"), "{said}");
    fleet.describe(&format!("{SECOND}{BARE}"), "");
    fleet.run("down --yes --no-backup --board pi3").ok();
}

fn an_architecture(fleet: &Fleet) {
    let script = "#!/bin/sh\n[ \"$1\" = -m ] && echo aarch64 || /usr/bin/uname \"$@\"\n";
    fleet.program(2, "uname", script);
    let boards = format!("{FIRST}{BARE}");
    let said = refused(fleet, &boards, "");
    assert!(said.contains("pi3 is of aarch64, and there is no binary for that here"), "{said}");
    assert!(said.contains("--binary aarch64=FILE"), "{said}");
    // This machine's own, given for the other's.
    let own = crate::harness::coracle();
    let said = fleet.run(&format!("up --yes --binary aarch64={}", own.display())).fails();
    assert!(said.contains("is for x86_64, and not for aarch64"), "{said}");
    // One that says that it is of the other, and is cut: the board tries it before it is put in place.
    let mut header = fs::read(&own).expect("the binary")[..4096].to_vec();
    header[18] = 183;
    fs::write(fleet.folder.join("other"), header).expect("written");
    let said = fleet.run("up --yes --binary other").fails();
    assert!(said.contains("pi3") && said.contains("the binary does not run here"), "{said}");
    assert!(!said.contains("start coracle-agent.service ("), "{said}");
    assert_eq!(fleet.on(2, "find /usr/local/bin -name *coracle*"), "");
    fleet.on(2, "rm /usr/local/bin/uname");
}

/// The board's disk shrinks until the binary has no room on it.
fn a_full_disk(fleet: &Fleet) {
    let folder = fleet.boards[2].lock().expect("no panic").folder.clone();
    let resize = |size: &str| {
        let options = format!("remount,size={size}");
        let mut mount = std::process::Command::new("mount");
        assert!(mount.args(["-o", &options]).arg(&folder).status().expect("mount").success());
    };
    resize("100m");
    let said = refused(fleet, &format!("{FIRST}{BARE}"), "");
    assert!(said.contains("pi3 has ") && said.contains(" MiB free, and needs "), "{said}");
    assert!(said.contains("make room there"), "{said}");
    resize("4g");
}
