//! An agent whose files are torn: what heals each, and what the agent says of it.

use std::collections::BTreeSet;
use std::fs;

use super::{files, ways};
use crate::harness::{BOARD_ADDRESS, Board, Kubectl, Member, SHELL, busybox, eventually_some};

/// How a file gets whole again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Heals {
    /// From its verified copy, or the copy from it.
    Copy,
    /// The agent asks for another one, or makes it anew; nothing depends on the old one.
    Anew,
    /// It is put aside where it cannot be read; pods get other addresses.
    Aside,
    /// It cannot: an image has to be pulled or imported again.
    Image,
}

/// What heals each file, by how its path ends. A file that is not here fails the test: whoever
/// makes one says what becomes of it.
const HEALED: [(&str, Heals); 11] = [
    ("agent/cluster.json", Heals::Copy),
    ("agent/node-password", Heals::Copy),
    ("agent/pki/kubelet-client-current.pem", Heals::Copy),
    ("agent/pki/kubelet-server-current.pem", Heals::Copy),
    ("agent/runtime/images/index.json", Heals::Copy),
    (".copy", Heals::Copy),
    ("agent/network/pod-addresses.json", Heals::Aside),
    (".lock", Heals::Anew),
    ("blobs/sha256/", Heals::Image),
    ("agent/runtime/containers/", Heals::Anew),
    ("agent/pods/", Heals::Anew),
];

fn heals(path: &str) -> Option<Heals> {
    HEALED
        .iter()
        .find(|(part, _)| path.ends_with(part) || part.ends_with('/') && path.contains(part))
        .map(|(_, heals)| *heals)
}

fn talker() -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: talker}}
spec:
  nodeName: member1
  terminationGracePeriodSeconds: 0
  volumes:
  - {{name: settings, configMap: {{name: kept}}}}
  - {{name: cache, emptyDir: {{}}}}
  containers:
  - name: main
    image: {SHELL}
    command: [sh, -c, 'while true; do sleep 1; done']
    volumeMounts: [{{name: settings, mountPath: /settings}}, {{name: cache, mountPath: /cache}}]
"
    )
}

#[test]
fn a_torn_file_of_an_agent_is_mended_or_named() {
    let board = Board::unstarted();
    board.serve_api();
    let kubectl = Kubectl::default(&board);
    kubectl.ok("create configmap kept --from-literal=a=b");
    kubectl.until_that("get serviceaccount default", |out| out.contains("default"));
    let member = Member::new(&board, 1);
    member.import(&busybox(), SHELL);
    let token = fs::read_to_string(board.data().join("server/agent-token")).expect("a token");
    member.start(&format!("--server https://{BOARD_ADDRESS}:6443 --token {}", token.trim()));
    kubectl.until_that("get --raw /api/v1/nodes/member1/proxy/healthz", |out| out == "ok");
    kubectl.apply(&talker());
    until_running(&kubectl);
    let mut all = BTreeSet::new();
    files(&member.data(), &mut all);
    let unknown: Vec<_> =
        all.iter().filter(|path| heals(&path.to_string_lossy()).is_none()).collect();
    assert!(unknown.is_empty(), "what heals these? {unknown:?}");
    for (number, path) in all.iter().enumerate() {
        for (_, (how, tear)) in ways(number) {
            let Ok(whole) = fs::read(path) else { continue };
            if whole.is_empty() && how != "removed" {
                continue;
            }
            member.cut_power();
            tear(path, &whole);
            let begin = std::time::Instant::now();
            let from = member.log().len();
            member.start("");
            eventually_some(&format!("{} {how}: the agent is back", path.display()), || {
                if let Some(said) = member.ended(from) {
                    panic!("{} {how}: it ended: {said}", path.display());
                }
                let run = kubectl.run("get --raw /api/v1/nodes/member1/proxy/healthz");
                if run.stdout == "ok" { Ok(()) } else { Err(run) }
            });
            let heals = heals(&path.to_string_lossy()).expect("checked above");
            let said = member.log()[from..].to_owned();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            let wanted = match heals {
                Heals::Copy if name.ends_with(".copy") && how == "removed" => "",
                Heals::Copy if name.ends_with(".copy") => "it is made anew from",
                Heals::Copy => "it is mended from its verified copy",
                Heals::Image => "is damaged on disk and was dropped",
                Heals::Aside if matches!(how, "emptied" | "cut") => "is put aside",
                Heals::Anew | Heals::Aside => "",
            };
            let told = said.lines().find(|line| line.contains(wanted) && !wanted.is_empty());
            println!("{} {how}: {:?} {told:?}", path.display(), begin.elapsed());
            assert!(said.contains(wanted), "{} {how}: {said}", path.display());
            assert!(!said.contains("panicked"), "{} {how}: {said}", path.display());
            if heals == Heals::Image {
                member.import(&busybox(), SHELL);
            }
            until_running(&kubectl);
        }
    }
}

/// Waits until the pod does what it is told, with its volumes.
fn until_running(kubectl: &Kubectl) {
    kubectl.until_that("exec talker -- cat /settings/a", |out| out == "b");
}
