//! `coracle up` and its like on three boards.

use std::fs;

use super::stack::{Fleet, private};
use crate::harness::{Boards, eventually};

/// A server that root may enter, an agent whose sudo asks for a password, and an agent as the
/// firmware of a Raspberry Pi leaves it.
const BOARDS: &str = "\
- {name: pi1, address: 10.77.0.11, roles: [server]}
- {name: pi2, address: 10.77.0.12, labels: {disk: ssd}, ssh: {user: pi, sudoPassword: {file: password}}}
- {name: pi3, address: 10.77.0.13, taints: ['slow=yes:NoSchedule']}
";
const NETWORK: &str = "network: {vip: 10.77.0.40}\n";

fn three() -> Fleet {
    let fleet = Fleet::new(3);
    let third = fleet.boards[2].lock().expect("no panic");
    third.write("/boot/firmware/cmdline.txt", "console=tty1 root=/dev/mmcblk0p2 rootwait\n", 0o755);
    drop(third);
    fleet.describe(BOARDS, NETWORK);
    fleet
}

#[test]
fn three_bare_boards_become_a_cluster_and_bare_again() {
    let fleet = three();
    fleet.boot(0..2);
    fleet.on(0, "hostname raspberrypi");
    let said = fleet.run("up --yes").fails();
    assert!(said.contains("the host key of pi1 is not known"), "{said}");
    assert!(said.contains("--accept-new-host-keys"), "{said}");

    // One board is off: the others come up, and it is named.
    let up = fleet.run("up --yes --accept-new-host-keys");
    println!("{}{} ({:?})", up.out, up.error, up.took);
    let said = up.fails();
    assert!(said.contains("pi3 cannot be reached"), "{said}");
    assert!(said.contains("host name: raspberrypi -> pi1"), "{said}");
    assert_eq!(fleet.on(0, "cat /etc/hostname /proc/sys/kernel/hostname"), "pi1\npi1\n");
    let kubectl = fleet.kubectl();
    let names = "get nodes -o name";
    assert_eq!(kubectl.ok(names), "node/pi1\nnode/pi2\n");

    fleet.boot([2]);
    let up = fleet.with_power(|| fleet.run("up --yes --accept-new-host-keys"));
    println!("{}{} ({:?})", up.out, up.error, up.took);
    let said = up.ok();
    assert!(said.contains("pi1: no change\npi2: no change\npi3:\n"), "{said}");
    assert!(said.contains("+ reboot"), "{said}");
    kubectl.ok("wait --for=condition=Ready node --all --timeout=30s");
    assert_eq!(kubectl.field("node/pi2", ".metadata.labels.disk"), "ssd");
    assert_eq!(kubectl.field("node/pi3", ".spec.taints[0].key"), "slow");
    let config = fs::read_to_string(fleet.folder.join("home/.kube/config")).expect("merged");
    assert!(config.contains("https://10.77.0.40:6443"), "the virtual address");
    let line = fleet.on(2, "cat /boot/firmware/cmdline.txt");
    assert!(line.starts_with("console=tty1 root=/dev/mmcblk0p2 rootwait cgroup_enable="), "{line}");

    let again = fleet.run("up --yes");
    println!("second run: {:?}", again.took);
    assert_eq!(again.ok(), "pi1: no change\npi2: no change\npi3: no change\nno change\n");

    changes_are_made_and_nothing_else(&fleet);
    boards_are_looked_at(&fleet);
    what_cannot_be_is_refused(&fleet);

    let said = fleet.run("down --yes --backup saved");
    println!("{}{} ({:?})", said.out, said.error, said.took);
    assert!(said.ok().contains("kubectl: context home is out of "));
    let config = fs::read_to_string(fleet.folder.join("home/.kube/config")).expect("left");
    assert!(!config.contains("10.77.0.40"), "{config}");
    let saved: Vec<_> = fs::read_dir(fleet.folder.join("saved")).expect("saved").collect();
    assert_eq!(saved.len(), 2, "a snapshot and its token");
    for board in 0..3 {
        let left = "find / -xdev -iname *coracle* -not -path /mnt/* -not -path /run/*";
        let left = fleet.on(board, left);
        assert_eq!(left, "", "nothing of Coracle");
        assert!(!fleet.on(board, "cat /etc/hosts").contains("coracle"));
    }
}

fn changes_are_made_and_nothing_else(fleet: &Fleet) {
    let boards = BOARDS.replace("labels: {disk: ssd}", "labels: {room: attic}");
    fleet.describe(&boards, NETWORK);
    let dry = fleet.run("up --dry-run").ok();
    assert!(
        dry.contains("pi2:\n  + configuration: node-label\n  + node: room=attic, disk-\n"),
        "{dry}"
    );
    // Nobody is there to say yes; then somebody is, at a terminal, and says no, and yes.
    let said = fleet.run("up").fails();
    assert!(said.contains("there is nobody to ask"), "{said}");
    let said = fleet.at_terminal("up", "no\n");
    assert!(said.contains("error: nothing was changed"), "{said}");
    let said = fleet.at_terminal("up", "yes\n");
    assert!(!said.contains("restart") && said.contains("pi1: no change"), "{said}");
    assert!(said.contains("\u{1b}[2Kpi2  [1/2] configuration: node-label"), "{said}");
    assert!(said.contains("\u{1b}[1A\u{1b}[2Kpi2  done"), "rows are drawn over: {said}");
    let kubectl = fleet.kubectl();
    assert_eq!(kubectl.field("node/pi2", ".metadata.labels.disk"), "");
    assert_eq!(kubectl.field("node/pi2", ".metadata.labels.room"), "attic");

    // What was changed by another hand is set right.
    fleet.on(1, "rm /etc/sysctl.d/90-coracle.conf");
    fleet.on(1, "systemctl stop coracle-agent");
    let said = fleet.run("up --yes").ok();
    assert!(said.contains("write /etc/sysctl.d/90-coracle.conf"), "{said}");
    assert!(said.contains("start coracle-agent.service"), "{said}");
}

fn boards_are_looked_at(fleet: &Fleet) {
    let status = fleet.run("status").ok();
    assert!(status.lines().count() == 4 && !status.contains("NotReady"), "{status}");
    let json = fleet.run("status --output json").ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[1]["node"], "Ready");
    let checked = fleet.run("check");
    println!("{}{}", checked.out, checked.error);
    assert!(checked.out.contains("disk writes"), "{}", checked.out);
    assert!(checked.out.contains("all other boards are found by name"), "{}", checked.out);
    let said = fleet.run("exec -- hostname; exit 0").ok();
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["pi1: pi1", "pi2: pi2", "pi3: pi3"]);
    let said = fleet.run("exec --board pi2 --root -- id -un; exit 3").fails();
    assert!(said.starts_with("pi2: root\n") && said.contains("exit code 3"), "{said}");
    let said = fleet.run("logs -n 5 --board pi1,pi3").ok();
    assert!(said.contains("pi1: ") && said.contains("pi3: "), "{said}");
    assert_eq!(fleet.run("ssh pi1 hostname").ok(), "pi1\n");
}

fn what_cannot_be_is_refused(fleet: &Fleet) {
    let before = fleet.kubectl().ok("get nodes -o name");
    // A key that changed: the known one is another board's.
    let known = fleet.folder.join("known_hosts");
    let text = fs::read_to_string(&known).expect("known hosts");
    let key = |position: usize| {
        let path = fleet.folder.join(format!("host{position}.pub"));
        let line = fs::read_to_string(path).expect("a key");
        line.split_whitespace().nth(1).expect("a key").to_owned()
    };
    let other = text.replace(&key(2), &key(1));
    fs::write(&known, other).expect("written");
    let said = fleet.run("up --yes").fails();
    assert!(said.contains("the host key of pi3 has changed"), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    fs::write(&known, text).expect("written");

    // Secrets that others can read.
    fs::write(fleet.folder.join("token"), "s3cret").expect("written");
    fleet.describe(BOARDS, &format!("{NETWORK}token: {{file: token}}\n"));
    let said = fleet.run("up --yes").fails();
    assert!(said.contains("chmod 600") && !said.contains("s3cret"), "{said}");
    private(&fleet.folder.join("token"));

    // A board of another cluster: this one's, to somebody who describes another.
    let alone = "- {name: pi9, address: 10.77.0.12, roles: [server], \
                 ssh: {user: pi, sudoPassword: {file: password}}}\n\
                 - {name: pi3, address: 10.77.0.13}\n";
    fleet.describe(alone, "");
    let said = fleet.run("up --yes").fails();
    assert!(said.contains("runs coracle-agent.service already"), "{said}");
    let twice = BOARDS.replace("10.77.0.13", "10.77.0.12");
    fleet.describe(&twice, NETWORK);
    let said = fleet.run("up --yes").fails();
    assert!(said.contains("cluster.yaml:"), "{said}");
    fleet.describe(&BOARDS.replace("disk: ssd", "room: attic"), NETWORK);
    eventually("all is as before", || fleet.kubectl().ok("get nodes -o name") == before);
    assert!(fleet.run("up --yes").ok().ends_with("no change\n"));
}
