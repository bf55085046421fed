//! Three servers: etcd from the distribution's packages, what boards of the sandbox stand, and an
//! upgrade of one after the other.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::stack::{Fleet, address};
use crate::boards::{across, power, story};
use crate::harness::{Boards, coracle, eventually_some, get};
use crate::hello;

const BOARDS: &str = "\
- {name: pi1, address: 10.77.0.11, roles: [server]}
- {name: pi2, address: 10.77.0.12, roles: [server]}
- {name: pi3, address: 10.77.0.13, roles: [server]}
";
const ALL: [&str; 3] = ["pi1", "pi2", "pi3"];
/// What this binary says that it is, and what another of the same length does.
const RELEASE: &str = env!("CARGO_PKG_VERSION");
const NEXT: &str = "0.2.0";

#[test]
fn three_servers_come_up_stand_what_boards_do_and_are_upgraded() {
    let fleet = Fleet::new(3);
    let network = "network: {vip: 10.77.0.40}\n";
    fleet.describe_servers(BOARDS, network, ", node-monitor-grace-period: 15s");
    fleet.boot(0..3);
    let up = fleet.run("up --yes --accept-new-host-keys");
    println!("{}{} ({:?})", up.out, up.error, up.took);
    assert!(up.ok().contains("packages: etcd-server"));
    let kubectl = fleet.kubectl();
    assert_eq!(
        kubectl.ok("wait --for=condition=Ready node --all --timeout=30s").lines().count(),
        3
    );
    assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));
    let members = fleet.on(0, "coracle datastore status");
    assert!(members.contains("pi2") && members.contains("pi3"), "{members}");
    stands_what_boards_do(&fleet);
    assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));
    is_upgraded(&fleet);
}

/// The scenarios of a stack that the sandbox made, on this one; `CORACLE_TEST_SCENARIOS=all` takes each
/// board out, and the power of all more often.
fn stands_what_boards_do(fleet: &Fleet) {
    let all = std::env::var("CORACLE_TEST_SCENARIOS").is_ok_and(|which| which == "all");
    let (unplugged, cuts) = if all { (3, 10) } else { (1, 1) };
    fleet.import(0..3);
    let kubectl = fleet.kubectl();
    // The image is the whole binary: one board that has it is enough.
    fleet.on(0, "coracle image import --hello");
    let here =
        "    spec:\n      nodeSelector: {kubernetes.io/hostname: pi1}\n      terminationGrace";
    let hello = hello::manifest(2, 30081).replace("    spec:\n      terminationGrace", here);
    assert!(hello.contains("nodeSelector"), "{hello}");
    kubectl.apply(&hello);
    kubectl.ok("rollout status deployment/hello --timeout=90s");
    let page = |at: &str| fleet.lan.run(|| get(&format!("{at}:30081"), "/").map(|page| page.body));
    eventually_some("the hello page at the virtual address", || match page("10.77.0.40") {
        Ok(body) if body.contains("node: pi") => Ok(()),
        other => Err(other),
    });
    let addresses: Vec<String> = (0..3).map(address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    across::all_reach_all(fleet, &ALL, &addresses);
    kubectl.ok("delete daemonset,service web");
    story::each_is_unplugged(fleet, &ALL, unplugged);
    power::power_goes(fleet, &ALL, cuts);
    kubectl.ok("rollout status deployment/hello --timeout=90s");
    kubectl.ok("rollout status deployment/web --timeout=90s");
}

/// The same program, calling itself the next release.
fn next_release(folder: &Path) -> PathBuf {
    assert_eq!(RELEASE.len(), NEXT.len());
    let path = folder.join("coracle");
    let script = format!("s/{}/{NEXT}/g", RELEASE.replace('.', "\\."));
    let mut sed = Command::new("sed");
    sed.env("LC_ALL", "C").arg(script).arg(coracle()).stdout(File::create(&path).expect("a file"));
    assert!(sed.status().expect("sed").success());
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("permissions");
    path
}

fn is_upgraded(fleet: &Fleet) {
    let kubectl = fleet.kubectl();
    let versions = "get nodes -o 'jsonpath={.items[*].status.nodeInfo.kubeletVersion}'";
    assert_eq!(kubectl.ok(versions).matches(&format!("+coracle{RELEASE}")).count(), 3);
    let newer = next_release(&fleet.folder);
    let newer = |words: &str| {
        let mut command = fleet.lan.command(&newer);
        command.args(words.split(' ')).current_dir(&fleet.folder);
        command.env("HOME", fleet.folder.join("home"));
        let said = command.output().expect("coracle");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let said = newer("upgrade --yes");
    println!("{said}");
    assert!(said.starts_with(&format!("pi1: {RELEASE} -> {NEXT}\n")), "{said}");
    let done: Vec<&str> = said.lines().filter(|line| line.ends_with("upgraded, ready")).collect();
    assert_eq!(done, ALL.map(|name| format!("{name}: upgraded, ready")));
    fleet.until_ready(&ALL);
    let unschedulable = "get nodes -o 'jsonpath={.items[*].spec.unschedulable}'";
    assert_eq!(kubectl.ok(unschedulable), "");
    kubectl.until_that(versions, |told| told.matches(&format!("+coracle{NEXT}")).count() == 3);
    let status = newer("status");
    assert_eq!(status.matches(&format!(" {NEXT} ")).count(), 3, "{status}");
    assert_eq!(newer("upgrade --yes"), "no change: all boards have this binary\n");
}
