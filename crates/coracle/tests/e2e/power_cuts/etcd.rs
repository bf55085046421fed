//! A server over etcd, alone, whose files are torn.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{every_way, files, ways};
use crate::harness::{Board, Kubectl, tools};

/// What the log says where a file was emptied, cut, altered or removed, by how its path ends. The
/// others are made anew, without a word, from what these hold.
const SAID: [(&str, [&str; 4]); 7] = [
    ("snap/db", ["made anew from its log"; 4]),
    // What is cut has been applied to the database.
    (".wal", ["with its database alone"; 4]),
    // The member itself says anew who its companions are.
    ("etcd-members.json", [""; 4]),
    ("etcd-members.json.copy", [""; 4]),
    (".copy", ["it is made anew from", "it is made anew from", "it is made anew from", ""]),
    ("agent/node-password", [MENDED; 4]),
    (".json", [MENDED; 4]),
];
const MENDED: &str = "it is mended from its verified copy";

fn said_of(path: &Path) -> Option<[&'static str; 4]> {
    let path = path.to_string_lossy();
    SAID.iter().find(|(end, _)| path.ends_with(end)).map(|(_, said)| *said)
}

fn server(board: &Board) -> Command {
    let mut line = board.server();
    let path = std::env::var("PATH").unwrap_or_default();
    line.env("PATH", format!("{}:{path}", tools().join("etcd/usr/bin").display()));
    line.args(["--disable-agent", "--cluster-init"]);
    line
}

#[test]
fn a_torn_file_of_a_lone_etcd_server_is_mended() {
    let board = Board::unstarted();
    board.launch(server(&board));
    let kubectl = Kubectl::default(&board);
    kubectl.ok("create configmap kept --from-literal=a=b");
    let uid = kubectl.ok("get namespace kube-system -o 'jsonpath={.metadata.uid}'");
    let authority = fs::read(board.data().join("server/tls/server-ca.crt")).expect("an authority");
    board.stop();
    let mut all = BTreeSet::new();
    files(&board.data(), &mut all);
    // The rest is made anew as it is over sqlite, which is another test's.
    let of_etcd =
        |path: &PathBuf| said_of(path).is_some() || path.to_string_lossy().contains("etcd");
    all.retain(|path| every_way() || of_etcd(path));
    for (number, path) in all.iter().enumerate() {
        for (way, (how, tear)) in ways(number) {
            let Ok(whole) = fs::read(path) else { continue };
            if whole.is_empty() && how != "removed" {
                continue;
            }
            tear(path, &whole);
            let what = format!("{} {how}", path.display());
            // What is left of the last start must not count as this one's.
            let _ = fs::remove_file(board.kubeconfig());
            let said =
                board.try_launch(server(&board)).unwrap_or_else(|said| panic!("{what}: {said}"));
            let wanted = said_of(path).map_or("", |said| said[way]);
            let told = said.lines().find(|line| !wanted.is_empty() && line.contains(wanted));
            println!("{what}: {}", told.unwrap_or("back"));
            assert!(said.contains(wanted) && !said.contains("panicked"), "{what}: {said}");
            kubectl.ok("get configmap kept");
            let same = kubectl.ok("get namespace kube-system -o 'jsonpath={.metadata.uid}'");
            assert_eq!(same, uid, "another cluster: {what}");
            let now = board.data().join("server/tls/server-ca.crt");
            assert_eq!(fs::read(now).expect("an authority"), authority);
            board.stop();
        }
    }
}
