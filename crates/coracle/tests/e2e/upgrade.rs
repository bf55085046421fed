//! One release after another on a board. A build for debugging says what release it is when it is
//! told by a variable, so one binary plays all of them; what differs between real releases is held
//! by the tests of the shim's packets and of the datastore's form.

use std::fs;

use crate::harness::{Board, Kubectl, eventually};
use crate::rollouts::sleeper;
use crate::survive::containers;

/// Starts the board's server as another release.
fn serve_as(board: &Board, release: &str) {
    let mut line = board.server();
    line.env("CORACLE_VERSION_OVERRIDE", release);
    board.launch(line);
    let kubectl = Kubectl::default(board);
    let version = "{.status.nodeInfo.kubeletVersion}";
    kubectl.until_that(&format!("get node board -o 'jsonpath={version}'"), |shown| {
        shown.ends_with(&format!("+coracle{release}"))
    });
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    kubectl.until(&format!("get node board -o 'jsonpath={ready}'"), "True");
}

/// Must not start as this release; gives what it says.
fn refused_as(board: &Board, release: &str) -> String {
    let mut line = board.server();
    let out = line.env("CORACLE_VERSION_OVERRIDE", release).output().expect("coracle");
    assert!(!out.status.success(), "{release} started");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("error: ") && said.contains("hint: "), "{said}");
    said
}

fn snapshots(board: &Board) -> Vec<String> {
    let entries = fs::read_dir(board.data().join("server/snapshots")).into_iter().flatten();
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_new_release_leaves_pods_alone_and_has_a_way_back() {
    let board = Board::unstarted();
    serve_as(&board, "0.1.0");
    board.import(&crate::harness::busybox(), crate::harness::SHELL);
    let kubectl = Kubectl::default(&board);
    kubectl.apply(&sleeper("s", 2));
    kubectl.ok("rollout status deployment/s --timeout=90s");
    kubectl.ok("create configmap before");
    let (before, shims, dns) = (containers(&kubectl), board.shims(), board.dns());
    assert_eq!(snapshots(&board), [""; 0]);

    board.stop();
    serve_as(&board, "0.2.0");
    assert_eq!((containers(&kubectl), board.shims()), (before.clone(), shims.clone()));
    let taken = snapshots(&board);
    let [way_back] = &taken[..] else { panic!("one snapshot: {taken:?}") };
    assert!(way_back.starts_with("pre-upgrade-0.1.0-to-0.2.0-board-"), "{way_back}");
    // The new release answers for cluster DNS itself.
    eventually("one process answers", || board.dns().len() == 1 && board.dns() != dns);
    let dns = board.dns();
    // Pods of the older release's shims can be logged into, and new ones start beside them.
    kubectl.ok("exec deployment/s -- true");
    kubectl.ok("scale deployment/s --replicas=3");
    kubectl.ok("rollout status deployment/s --timeout=90s");
    kubectl.ok("create configmap after");

    // The next start of the same release takes none, and a schedule does not remove it.
    board.kill();
    serve_as(&board, "0.2.0");
    assert_eq!((snapshots(&board), board.dns()), (taken.clone(), dns));
    let pruned = board.coracle("snapshot prune --keep 1").output().expect("coracle");
    assert!(pruned.status.success());
    assert_eq!(snapshots(&board), taken);

    // Two minors at once, up or down.
    board.stop();
    let said = refused_as(&board, "0.4.0");
    assert!(said.contains("last used by release 0.2.0; this is 0.4.0"), "{said}");
    assert!(said.contains("one minor release at a time"), "{said}");
    let said = refused_as(&board, "0.0.9");
    assert!(said.contains("last used by release 0.2.0; this is 0.0.9"), "{said}");

    // Back by one minor needs nothing; back to what was there before takes the snapshot.
    serve_as(&board, "0.1.0");
    kubectl.ok("get configmap before after");
    board.stop();
    let restore = format!("snapshot restore {way_back} --replace");
    let mut line = board.coracle(&restore);
    let out = line.env("CORACLE_VERSION_OVERRIDE", "0.1.0").output().expect("coracle");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serve_as(&board, "0.1.0");
    kubectl.ok("get configmap before");
    assert!(kubectl.fails("get configmap after").contains("NotFound"));
    kubectl.until_that("get pods -o name", |pods| pods.lines().count() == 2);
    assert_eq!(containers(&kubectl), before, "the pods of then have never stopped");
}

#[test]
fn a_snapshot_of_a_newer_release_is_refused() {
    let board = Board::unstarted();
    let mut line = board.server();
    line.arg("--disable-agent").env("CORACLE_VERSION_OVERRIDE", "0.3.0");
    board.launch(line);
    let saved = board.coracle("snapshot save").output().expect("coracle");
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let file = String::from_utf8_lossy(&saved.stdout).trim().to_owned();
    let other = Board::unstarted();
    let mut line = other.coracle(&format!("snapshot restore {file} --token x"));
    let out = line.output().expect("coracle");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("is of release 0.3.0, this is 0.1.0"), "{said}");
}
