//! `coracle uninstall` leaves nothing behind, and takes nothing away from a running server.

use std::fs;

use crate::harness::{Board, Kubectl, pids_with};

#[test]
fn uninstall_ends_the_pods_and_leaves_nothing() {
    let board = Board::start();
    let kubectl = Kubectl::default(&board);
    kubectl.ok("run sleeper --image=test.local/busybox:1 --restart=Never -- sleep 1000");
    kubectl.ok("wait --for=condition=Ready pod/sleeper --timeout=60s");

    let refused = uninstall(&board);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("a server is running in") && said.contains("stop coracle"), "{said}");
    kubectl.ok("get pod sleeper");
    assert_eq!(board.dns().len(), 1);

    board.stop();
    assert_eq!(board.shims().len(), 1, "the pod goes on without the server");
    assert_eq!(board.dns().len(), 1, "and so does what it asks for names");
    let done = uninstall(&board);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let left = pids_with(board.folder.as_os_str().as_encoded_bytes());
    assert!(left.is_empty(), "{left:?} are left");
    for gone in [board.data(), board.folder.join("run"), board.kubeconfig()] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
    let inside = format!("{}/", board.folder.display());
    assert!(!mounts.contains(&inside), "{mounts}");
    let links = board.netns.command("ip").args(["-o", "link"]).output().expect("ip");
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    assert!(!links.contains("coracle"), "{links}");
}

fn uninstall(board: &Board) -> std::process::Output {
    let mut line = board.coracle("uninstall --yes");
    line.arg("--write-kubeconfig").arg(board.kubeconfig());
    line.arg("--cgroup-root").arg(board.cgroup());
    // Nothing was installed as a service here.
    line.arg("--binary").arg(board.folder.join("no-binary"));
    line.arg("--unit").arg(board.folder.join("no-unit"));
    line.output().expect("coracle")
}
