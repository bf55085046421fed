//! Clients that are not kubectl: what people write scripts and operators with.

use std::path::PathBuf;

use crate::harness::{Board, SHELL, tools};

/// Runs a script with the Python client against a board; it says itself what is wrong.
fn python(board: &Board, script: &str, arguments: &[&str]) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/clients"));
    let mut line = board.netns.command(tools().join("python/bin/python3"));
    let kubeconfig = board.kubeconfig();
    line.arg("-u").arg(folder.join(script)).arg(kubeconfig).args(arguments);
    let status = line.status().expect("python3");
    assert!(status.success(), "{script}: {status}");
}

#[test]
fn the_typed_python_client() {
    let board = Board::start();
    python(&board, "typed.py", &[SHELL]);
}
