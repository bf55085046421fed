//! The authorities of a cluster of several servers are replaced while it is used, etcd's too.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use testkit::history::{History, Outcome};

use super::trouble::{judged, judged_at, until_served};
use crate::harness::{Boards, Stack, eventually_some};

const ALL: [&str; 3] = ["server-1", "server-2", "server-3"];
const DATA: &str = "/var/lib/coracle";
/// How often etcd is started by its supervisor; its log says so each time.
const STARTED: &str = "etcd started";

/// The server's data folder, which is seen there as [`DATA`].
fn data(stack: &Stack, server: &str) -> PathBuf {
    stack.boards().join("lab/boards").join(server).join("disk").join(&DATA[1..])
}

/// Waits until the members have been started so often.
fn until_started(stack: &Stack, times: [usize; 3]) {
    eventually_some("etcd starts again on each server", || {
        let started = ALL.map(|server| stack.log(server).matches(STARTED).count());
        if started == times { Ok(()) } else { Err(started) }
    });
}

/// Every call of the workload had an answer that says what became of it.
fn all_answered(history: &History) {
    let open = |outcome: &Outcome| matches!(outcome, Outcome::Unknown | Outcome::Rejected);
    let open: Vec<_> = history.operations.iter().filter(|o| open(&o.outcome)).collect();
    assert!(open.is_empty(), "without an answer: {}", {
        open.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    });
}

/// What etcd on a server answers who shows the certificate of before: true, and its health.
fn shown_the_old(stack: &Stack, server: usize) -> (bool, String) {
    let url = format!("https://{}:2379/health", stack.address(server));
    let own = format!("--cert {DATA}/old/etcd-member.crt --key {DATA}/old/etcd-member.key");
    let trusted = format!("--cacert {DATA}/server/tls/etcd-ca.crt");
    stack.run(&format!("exec server-1 -- curl -sS {trusted} {own} {url}"))
}

#[test]
fn etcds_authority_is_replaced_under_writers() {
    let stack = Stack::up("--servers 3 --agents 0");
    let folder = data(&stack, "server-1");
    fs::create_dir_all(folder.join("old")).expect("a folder");
    for file in ["etcd-member.crt", "etcd-member.key"] {
        let kept = folder.join("server/tls").join(file);
        fs::copy(kept, folder.join("old").join(file)).expect("a copy");
    }
    let kubectl = stack.kubectl_at(1);
    let mut watch = kubectl.spawn("get configmaps -w -o name");
    let mut seen = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let mut next = |wanted: &str| {
        assert!(seen.any(|line| line.is_ok_and(|line| line == wanted)), "the watch goes on");
    };
    kubectl.ok("create configmap before");
    next("configmap/before");

    // A server that is off takes no new authority, so the old one must not end.
    stack.ok("kill server-3");
    eventually_some("the authorities are replaced", || {
        let (done, said) = stack.run("exec server-1 -- coracle certificate rotate-ca");
        if done { Ok(()) } else { Err(said) }
    });
    eventually_some("the end is refused", || {
        let early = stack.fails("exec server-1 -- coracle certificate rotate-ca --finish");
        if early.contains("server-3") { Ok(()) } else { Err(early) }
    });
    let history = judged_at(&stack, 2, |run| {
        until_served(run, 20);
        stack.ok("restore server-3");
        until_started(&stack, [2, 2, 3]);
        until_served(run, 50);
    });
    all_answered(&history);
    kubectl.ok("create configmap between");
    next("configmap/between");
    for server in 1..=3 {
        eventually_some("both are trusted", || match shown_the_old(&stack, server) {
            (true, said) if said.contains("\"health\":\"true\"") => Ok(()),
            (_, said) => Err(said),
        });
    }

    stack.ok("kubeconfig");
    let history = judged(&stack, |run| {
        eventually_some("all have taken the new ones", || {
            let (done, said) = stack.run("exec server-1 -- coracle certificate rotate-ca --finish");
            if done { Ok(()) } else { Err(said) }
        });
        for server in 1..=3 {
            eventually_some("the old certificate is refused", || {
                let (_, said) = shown_the_old(&stack, server);
                if said.contains(" alert ") { Ok(()) } else { Err(said) }
            });
        }
        until_served(run, 50);
    });
    all_answered(&history);
    kubectl.ok("create configmap after");
    next("configmap/after");
    watch.kill().expect("kill");
    watch.wait().expect("wait");
    stack.until_ready(&ALL);
    until_started(&stack, [3, 3, 4]);
    assert!(stack.ok("exec server-2 -- coracle datastore status").contains("3 of 3 answer"));
}
