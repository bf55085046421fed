//! Clients that are not kubectl: what people write scripts and operators with.

mod kube_rs;

use std::fs;
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

#[test]
fn an_operator_of_two_kinds_with_webhooks() {
    let board = Board::unstarted();
    board.serve_api();
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let [certificate, secret] = ["webhook.crt", "webhook.key"].map(|name| board.folder.join(name));
    fs::write(&certificate, key.cert.pem()).expect("written");
    fs::write(&secret, key.signing_key.serialize_pem()).expect("written");
    let paths = [&certificate, &secret].map(|path| path.to_str().expect("a plain path"));
    python(&board, "fleets.py", &paths);
}
