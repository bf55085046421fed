//! Moving a cluster from one engine to another, on one board.

use std::process::Command;

use crate::harness::{Board, Kubectl, tools};

/// A command that knows where etcd is.
fn with_etcd(mut command: Command) -> Command {
    command.env("CORACLE_ETCD_BINARY", tools().join("etcd/usr/bin/etcd"));
    command.env("CORACLE_NODE_NAME", "board");
    command
}

fn moved(board: &Board, to: &str) -> String {
    let line = format!("datastore move --to {to}");
    let out = with_etcd(board.coracle(&line)).output().expect("coracle");
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{line}\n{said}");
    said
}

fn revision(kubectl: &Kubectl, name: &str) -> u64 {
    let field = format!("configmap/{name}");
    kubectl.field(&field, ".metadata.resourceVersion").parse().expect("a number")
}

#[test]
fn a_cluster_moves_to_etcd_and_back_with_all_it_holds() {
    let board = Board::unstarted();
    board.serve_api();
    let kubectl = Kubectl::default(&board);
    kubectl.ok("create configmap first --from-literal=a=b");
    let first = revision(&kubectl, "first");
    let out = board.coracle("datastore move --to etcd").output().expect("coracle");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("a server is running in"), "{said}");
    assert!(board.stop().success());

    let said = moved(&board, "etcd");
    assert!(said.contains("the old data are kept in"), "{said}");
    let mut line = board.server();
    line.arg("--disable-agent");
    board.launch(with_etcd(line));
    assert_eq!(kubectl.field("configmap/first", ".data.a"), "b");
    kubectl.ok("create configmap second --from-literal=a=b");
    let second = revision(&kubectl, "second");
    assert!(second > first, "{second} after {first}");
    assert!(board.stop().success());

    moved(&board, "sqlite");
    board.serve_api();
    for name in ["first", "second"] {
        assert_eq!(kubectl.field(&format!("configmap/{name}"), ".data.a"), "b");
    }
    kubectl.ok("create configmap third --from-literal=a=b");
    assert!(revision(&kubectl, "third") > second);
    assert!(board.stop().success());

    let out = board.coracle("datastore forget").output().expect("coracle");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(said.matches("removed ").count(), 2, "{said}");
}
