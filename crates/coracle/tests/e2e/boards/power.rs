//! The power goes, for all boards at once, at any time; it comes back in any order.

use std::time::Duration;

use fastrand::Rng;

use super::trouble::{judged, seed, until_served};
use crate::harness::{RECOVERY, Stack, within};

/// How often the power goes in the everyday test; `CORACLE_POWER_CUTS=100` is the long one.
const ROUNDS: u32 = 3;
/// The most writes between power coming back and going again.
const WRITES_MAX: usize = 200;

#[test]
fn every_acknowledged_write_outlives_power_cuts_of_all_boards() {
    let rounds = std::env::var("CORACLE_POWER_CUTS").ok();
    let rounds = rounds.and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let stack = Stack::up("--servers 3 --agents 0");
    judged(&stack, |run| {
        let mut random = Rng::with_seed(seed());
        for round in 0..rounds {
            until_served(run, random.usize(1..WRITES_MAX));
            stack.ok("kill --all");
            let mut order = ["server-1", "server-2", "server-3"];
            random.shuffle(&mut order);
            let begun = std::time::Instant::now();
            for server in order {
                stack.ok(&format!("restore {server}"));
            }
            until_served(run, 1);
            println!("round {round}: {order:?}, writes after {:?}", begun.elapsed());
            assert!(begun.elapsed() < Duration::from_secs(120));
        }
    });
    stack.until_ready(&["server-1", "server-2", "server-3"]);
    one_alone_says_whom_it_waits_for(&stack);
}

/// A server that comes back alone answers, with the reason why it cannot do more.
fn one_alone_says_whom_it_waits_for(stack: &Stack) {
    stack.ok("kill --all");
    stack.ok("restore server-1");
    let kubectl = stack.kubectl_at(1);
    within(RECOVERY, "kubectl prints the reason", || {
        let run = kubectl.run("get --raw /api/v1/nodes");
        let named = ["ServiceUnavailable", "server-2", "server-3", "2 of 3 are needed"];
        if named.iter().all(|word| run.stderr.contains(word)) { Ok(()) } else { Err(run) }
    });
    assert_eq!(asked(stack, "/livez"), "200 ok");
    let ready = asked(stack, "/readyz");
    assert!(ready.starts_with("503") && ready.contains("[-]datastore failed"), "{ready}");
    stack.ok("restore server-2");
    within(RECOVERY, "it is ready, and was never out of reach", || match asked(stack, "/readyz") {
        ready if ready == "200 ok" => Ok(()),
        other => Err(other),
    });
}

/// What server-1 answers: status and body. A connection that is not taken is a fault.
fn asked(stack: &Stack, path: &str) -> String {
    let url = format!("https://{}:6443{path}", stack.address(1));
    let out =
        stack.laptop.command("curl").args(["-sk", "-w", "%{stderr}%{http_code}", &url]).output();
    let out = out.expect("curl");
    assert!(out.status.success(), "{path}: {out:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{} {}", text(&out.stderr), text(&out.stdout))
}
