//! Files that a power cut or a bad card has torn, each in turn and in every way.

mod agent;
mod etcd;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Board, Kubectl};

/// What happens to a file, in a word, and how: from its path and its whole content.
type Way = (&'static str, fn(&Path, &[u8]));

/// What happens to each file.
const WAYS: [Way; 4] = [
    ("emptied", |path, _| fs::write(path, "").expect("written")),
    ("cut", |path, whole| fs::write(path, &whole[..middle(whole)]).expect("written")),
    ("altered", |path, whole| {
        let mut bytes = whole.to_vec();
        bytes[middle(whole)..].iter_mut().take(8).for_each(|byte| *byte ^= 0x55);
        fs::write(path, bytes).expect("written");
    }),
    ("removed", |path, _| fs::remove_file(path).expect("removed")),
];

/// The middle of what was written; zeros behind that are room that was reserved.
fn middle(whole: &[u8]) -> usize {
    whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.div_ceil(2))
}

/// The ways in which the `number`th file is torn: one of them, another for the next file, or all
/// in the long run. Each with its number.
fn ways(number: usize) -> Vec<(usize, Way)> {
    let ways = WAYS.into_iter().enumerate();
    ways.filter(|(way, _)| every_way() || *way == number % WAYS.len()).collect()
}

/// Whether `CORACLE_TORN=all` asks for the long run.
fn every_way() -> bool {
    std::env::var("CORACLE_TORN").is_ok_and(|which| which == "all")
}

/// The files below a folder but those of sqlite, whose tests tear them in ways of their own.
fn files(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true if path.ends_with("server/db") || path.ends_with("images/layers") => {}
            true if path.ends_with("agent/logs") => {}
            true => files(&path, found),
            false => drop(found.insert(path)),
        }
    }
}

#[test]
fn a_torn_file_of_a_server_is_made_anew_or_named() {
    let board = Board::unstarted();
    board.serve_api();
    let kubectl = Kubectl::default(&board);
    kubectl.ok("create configmap kept");
    let uid = kubectl.ok("get namespace kube-system -o 'jsonpath={.metadata.uid}'");
    let authority = fs::read(board.data().join("server/tls/server-ca.crt")).expect("an authority");
    board.stop();
    let mut all = BTreeSet::new();
    files(&board.data(), &mut all);
    assert!(all.len() > 8, "{all:?}");
    let (mut healed, mut named) = (0, Vec::new());
    for path in &all {
        let whole = fs::read(path).expect("a file");
        for (how, tear) in WAYS {
            if whole.is_empty() && how != "removed" {
                continue;
            }
            tear(path, &whole);
            println!("{} {how}", path.display());
            let kubeconfig = board.kubeconfig();
            // What is left of the last start must not count as this one's.
            let _ = fs::remove_file(&kubeconfig);
            let mut server = board.server();
            server.arg("--disable-agent");
            match board.try_launch(server) {
                Ok(_) => {
                    healed += 1;
                    kubectl.ok("get configmap kept");
                    let same =
                        kubectl.ok("get namespace kube-system -o 'jsonpath={.metadata.uid}'");
                    assert_eq!(same, uid, "another cluster: {} {how}", path.display());
                    let now = board.data().join("server/tls/server-ca.crt");
                    assert_eq!(fs::read(now).expect("an authority"), authority);
                    board.stop();
                }
                Err(said) => {
                    assert!(said.contains("error: ") && said.contains("hint: "), "{how}: {said}");
                    assert!(!said.contains("panicked"), "{how}: {said}");
                    named.push(format!("{} {how}: {said}", path.display()));
                    fs::write(path, &whole).expect("put back");
                }
            }
        }
        if !path.exists() {
            fs::write(path, &whole).expect("put back");
        }
    }
    println!("{healed} healed, {} refused:\n{}", named.len(), named.join("\n"));
    assert_eq!(named, Vec::<String>::new(), "one server alone heals all of these by itself");
}
