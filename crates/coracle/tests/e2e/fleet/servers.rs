//! Three servers: etcd from the distribution's packages, and an upgrade of one after the other.

use std::fs;
use std::io::Write;

use super::stack::Fleet;
use crate::harness::coracle;

const BOARDS: &str = "\
- {name: pi1, address: 10.77.0.11, roles: [server]}
- {name: pi2, address: 10.77.0.12, roles: [server]}
- {name: pi3, address: 10.77.0.13, roles: [server]}
";

#[test]
fn three_servers_come_up_and_are_upgraded_one_after_the_other() {
    let fleet = Fleet::new(3);
    fleet.describe(BOARDS, "network: {vip: 10.77.0.40}\n");
    fleet.boot(0..3);
    let up = fleet.run("up --yes --accept-new-host-keys");
    println!("{}{} ({:?})", up.out, up.error, up.took);
    assert!(up.ok().contains("packages: etcd-server"));
    let kubectl = fleet.kubectl();
    let ready = "wait --for=condition=Ready node --all --timeout=30s";
    assert_eq!(kubectl.ok(ready).lines().count(), 3);
    assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));
    let members = fleet.on(0, "coracle datastore status");
    assert!(members.contains("pi2") && members.contains("pi3"), "{members}");

    // The same program with a tail is another binary.
    let newer = fleet.folder.join("coracle");
    fs::copy(coracle(), &newer).expect("copied");
    let file = fs::OpenOptions::new().append(true).open(&newer);
    file.and_then(|mut file| file.write_all(b"newer")).expect("written");
    let upgrade = || {
        let mut command = fleet.lan.command(&newer);
        command.args(["upgrade", "--yes"]).current_dir(&fleet.folder);
        command.env("HOME", fleet.folder.join("home"));
        let said = command.output().expect("coracle");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let said = upgrade();
    println!("{said}");
    let done: Vec<&str> = said.lines().filter(|line| line.ends_with("upgraded, ready")).collect();
    assert_eq!(done, ["pi1", "pi2", "pi3"].map(|name| format!("{name}: upgraded, ready")));
    assert_eq!(kubectl.ok(ready).lines().count(), 3);
    let unschedulable = "get nodes -o 'jsonpath={.items[*].spec.unschedulable}'";
    assert_eq!(kubectl.ok(unschedulable), "");
    assert_eq!(upgrade(), "no change: all boards have this binary\n");
}
