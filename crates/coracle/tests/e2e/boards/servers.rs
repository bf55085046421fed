//! Servers of one cluster: their disks are torn or replaced, they leave and come back.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::harness::{Boards, Kubectl, RECOVERY, Stack, eventually_some, within};

const ALL: [&str; 3] = ["server-1", "server-2", "server-3"];

fn data(stack: &Stack, board: &str) -> PathBuf {
    stack.boards().join("lab/boards").join(board).join("disk/var/lib/coracle")
}

/// The middle of what was written to a member's log, which is cut there.
fn cut_log(stack: &Stack, board: &str) {
    let folder = fs::read_dir(data(stack, board).join("server/etcd/member/wal")).expect("wal");
    let mut logs: Vec<PathBuf> = folder.map(|file| file.expect("file").path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    logs.sort();
    let last = logs.last().expect("a log");
    let whole = fs::read(last).expect("a log");
    let written = whole.iter().rposition(|byte| *byte != 0).expect("records");
    fs::write(last, &whole[..written / 2]).expect("cut");
}

/// What the server says of the datastore, once it says `wanted`.
fn until_status(stack: &Stack, server: &str, wanted: &str) -> String {
    eventually_some(wanted, || {
        let (_, said) = stack.run(&format!("exec {server} -- coracle datastore status"));
        if said.contains(wanted) { Ok(said) } else { Err(said) }
    })
}

#[test]
fn servers_are_mended_leave_and_come_back() {
    let stack = Stack::up("--servers 3 --agents 0");
    let kubectl = stack.kubectl_at(1);
    kubectl.ok("create configmap kept --from-literal=a=b");

    // Torn: the log of one member is empty after a power cut.
    stack.ok("kill server-3");
    for file in fs::read_dir(data(&stack, "server-3").join("server/etcd/member/wal")).expect("wal")
    {
        File::create(file.expect("file").path()).expect("emptied");
    }
    stack.ok("restore server-3");
    stack.until_ready(&ALL);
    until_status(&stack, "server-3", "3 of 3 answer");
    assert!(stack.log("server-3").contains("are damaged"), "it says what it did");
    assert!(data(&stack, "server-3").join("server/etcd.damaged").exists(), "the files are kept");
    assert_eq!(stack.kubectl_at(3).field("configmap/kept", ".data.a"), "b");

    // Forgotten: one member is behind, and the log of another has lost its end. These two are a
    // majority, but must not go on without what was acknowledged by the third.
    stack.ok("kill server-2");
    let late: Vec<String> = (0..20).map(|n| format!("late-{n}")).collect();
    late.iter().for_each(|name| drop(kubectl.ok(&format!("create configmap {name}"))));
    stack.ok("kill --all");
    cut_log(&stack, "server-3");
    stack.ok("restore server-3");
    stack.ok("restore server-2");
    eventually_some("the log that was cut is found out", || {
        let log = stack.log("server-3");
        if log.contains(" was cut to ") { Ok(()) } else { Err("not said yet") }
    });
    stack.ok("restore server-1");
    stack.until_ready(&ALL);
    until_status(&stack, "server-3", "3 of 3 answer");
    let names = stack.kubectl_at(3).ok("get configmaps -o name");
    let lost: Vec<_> = late.iter().filter(|name| !names.contains(*name)).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");

    // Replaced: the same board with an empty disk.
    stack.ok("kill server-2");
    fs::remove_dir_all(data(&stack, "server-2").join("server")).expect("removed");
    fs::remove_dir_all(data(&stack, "server-2").join("agent")).expect("removed");
    stack.ok("restore server-2");
    stack.until_ready(&ALL);
    until_status(&stack, "server-1", "3 of 3 answer");

    // Left: its node is deleted, and with that its member. The board's init, unlike systemd, starts
    // it again after two seconds, so that two members may be seen only for a moment.
    kubectl.ok("delete node server-3 --timeout=60s");
    let removed = "this server was removed from the cluster";
    eventually_some(removed, || {
        let log = stack.log("server-3");
        if log.contains(removed) { Ok(()) } else { Err("not said yet") }
    });
    assert!(data(&stack, "server-3").join("server/etcd.removed").exists(), "the files are kept");

    // Back: started again by a person, it joins anew.
    stack.ok("restart-process server-3");
    stack.until_ready(&ALL);
    until_status(&stack, "server-1", "3 of 3 answer");
    assert_eq!(stack.kubectl_at(3).field("configmap/kept", ".data.a"), "b");
}

/// Waits until the log of a board contains `wanted`.
fn until_logged(stack: &Stack, board: &str, wanted: &str) {
    within(RECOVERY, &format!("{board} says {wanted:?}"), || {
        if stack.log(board).contains(wanted) { Ok(()) } else { Err("not yet") }
    });
}

/// A board's configuration as it finds it at its next start.
fn config(stack: &Stack, board: &str) -> PathBuf {
    stack.boards().join("lab/boards").join(board).join("config.yaml")
}

const GOOD: &[u8] = b"as-it-was-written";
const BAD: &[u8] = b"as-it-was-altered";
/// Where the second server is from some moment on.
const NEXT_ADDRESS: &str = "10.87.0.52";

/// One member holds something else than the others, as failing flash does it.
fn alter(stack: &Stack) {
    let kubectl = stack.kubectl_at(1);
    let text = String::from_utf8_lossy(GOOD);
    kubectl.ok(&format!("create configmap altered --from-literal=k={text}"));
    eventually_some("server-3 has it", || {
        let run = stack.kubectl_at(3).run("get configmap altered");
        if run.success { Ok(()) } else { Err(run) }
    });
    stack.ok("stop server-3");
    let path = data(stack, "server-3").join("server/etcd/member/snap/db");
    let mut db = fs::read(&path).expect("the database");
    let places: Vec<usize> =
        (0..db.len() - GOOD.len()).filter(|at| db[*at..].starts_with(GOOD)).collect();
    assert!(!places.is_empty());
    for at in places {
        db[at..at + BAD.len()].copy_from_slice(BAD);
    }
    fs::write(&path, db).expect("written");
    stack.ok("restore server-3");
    until_logged(stack, "server-3", "they are not what the other members hold");
    stack.until_ready(&["agent-1", "server-1", "server-2", "server-3"]);
    until_status(stack, "server-1", "3 of 3 answer");
    assert_eq!(stack.kubectl_at(3).field("configmap/altered", ".data.k"), text);
}

/// The network gives a board another address, and its server starts again.
fn readdress(stack: &Stack) {
    let script = format!(
        "ip addr flush dev eth0; ip addr add {NEXT_ADDRESS}/24 dev eth0; \
         ip route replace default via 10.87.0.1"
    );
    let mut line = stack.command("exec server-2 -- sh -c");
    assert!(line.arg(script).status().expect("coracle").success());
    stack.ok("restart-process server-2");
    let kubectl = stack.kubectl_at(1);
    let internal = "{.status.addresses[?(@.type==\"InternalIP\")].address}";
    kubectl.until(&format!("get node server-2 -o 'jsonpath={internal}'"), NEXT_ADDRESS);
    let endpoints = "get endpointslice kubernetes -o 'jsonpath={.endpoints[*].addresses[*]}'";
    kubectl.until_that(endpoints, |ips| {
        let mut ips: Vec<&str> = ips.split(' ').collect();
        ips.sort_unstable();
        ips == ["10.87.0.11", "10.87.0.13", NEXT_ADDRESS]
    });
    let status = until_status(stack, "server-1", "3 of 3 answer");
    assert!(status.contains(&format!("https://{NEXT_ADDRESS}:2380")), "{status}");
    // Its certificate is for the address, and so is its kubelet's.
    let there = Kubectl { server: Some(format!("https://{NEXT_ADDRESS}:6443")), ..stack.kubectl() };
    there.ok("get configmap altered");
    kubectl.until("get --raw /api/v1/nodes/server-2/proxy/healthz", "ok");
    let known = stack.boards().join("lab/boards/agent-1/disk/var/lib/coracle/agent/cluster.json");
    eventually_some("the agent knows it", || {
        let text = fs::read_to_string(&known).unwrap_or_default();
        if text.contains(NEXT_ADDRESS) { Ok(()) } else { Err(text) }
    });
}

/// Two of three are lost for good; the one that is left goes on alone.
fn reset(stack: &Stack) {
    let reset = "exec server-1 -- coracle server --cluster-reset";
    let said = stack.fails(reset);
    assert!(said.contains("a server is running in") && said.contains("hint: "), "{said}");
    let said = stack.fails("exec agent-1 -- coracle server --cluster-reset --data-dir /tmp/none");
    assert!(said.contains("there is no etcd on this server to reset"), "{said}");
    stack.ok("kill server-2 server-3");
    // As the board's service manager would keep it from starting.
    let kept = fs::read(config(stack, "server-1")).expect("a configuration");
    fs::write(config(stack, "server-1"), "off: true\n").expect("written");
    stack.ok("restart-process server-1");
    until_logged(stack, "server-1", "unknown key \"off\"");
    let said =
        stack.ok("exec server-1 -- env CORACLE_CONFIG=/dev/null coracle server --cluster-reset");
    assert!(said.contains("the cluster has one server now, server-1"), "{said}");
    assert!(said.contains("kubectl delete node NAME"), "{said}");
    fs::write(config(stack, "server-1"), kept).expect("written");
    stack.ok("restart-process server-1");
    until_status(stack, "server-1", "1 of 1 answer");
    let kubectl = stack.kubectl_at(1);
    kubectl.until_that("get configmap altered -o name", |name| !name.is_empty());

    // One comes back with its old data, and is told; the other has an empty disk.
    stack.ok("restore server-3");
    until_logged(stack, "server-3", "this server was removed from the cluster");
    until_status(stack, "server-1", "2 of 2 answer");
    kubectl.ok("delete node server-2 --timeout=60s");
    fs::remove_dir_all(data(stack, "server-2")).expect("removed");
    stack.ok("restore server-2");
    stack.until_ready_at(&kubectl, &["agent-1", "server-1", "server-2", "server-3"]);
    until_status(stack, "server-1", "3 of 3 answer");
    assert!(!stack.kubectl_at(2).field("configmap/altered", ".data.k").is_empty());
}

#[test]
fn servers_are_altered_readdressed_and_lost_for_good() {
    let check = "--server-arg etcd-arg=experimental-corrupt-check-time=5s";
    let stack = Stack::up(&format!("--servers 3 --agents 1 {check}"));
    alter(&stack);
    readdress(&stack);
    reset(&stack);
}
