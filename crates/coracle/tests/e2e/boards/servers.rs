//! Servers of one cluster: their disks are torn or replaced, they leave and come back.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::harness::{Stack, eventually_some};

const ALL: [&str; 3] = ["server-1", "server-2", "server-3"];

fn data(stack: &Stack, board: &str) -> PathBuf {
    stack.boards().join("lab/boards").join(board).join("disk/var/lib/coracle")
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
