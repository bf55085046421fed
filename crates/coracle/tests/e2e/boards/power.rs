//! The power goes, for all boards at once, at any time; it comes back in any order.

use std::fs;
use std::time::Duration;

use fastrand::Rng;

use super::trouble::{judged, seed, until_served};
use crate::harness::{Boards, RECOVERY, Stack, eventually_some, within};

/// How often the power goes in the everyday test; `CORACLE_POWER_CUTS=100` is the long one.
const ROUNDS: u32 = 3;
/// The most writes between power coming back and going again.
const WRITES_MAX: usize = 200;

#[test]
fn every_acknowledged_write_outlives_power_cuts_of_all_boards() {
    let rounds = std::env::var("CORACLE_POWER_CUTS").ok();
    let rounds = rounds.and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let stack = Stack::up("--servers 3 --agents 0");
    power_goes(&stack, &ALL, rounds);
    one_alone_says_whom_it_waits_for(&stack);
}

/// Takes the power from all boards so often, under clients that write; what they saw is judged.
pub fn power_goes(boards: &impl Boards, nodes: &[&str], rounds: u32) {
    let mut order = nodes.to_vec();
    judged(boards, |run| {
        let mut random = Rng::with_seed(seed());
        for round in 0..rounds {
            until_served(run, random.usize(1..WRITES_MAX));
            boards.power_off();
            random.shuffle(&mut order);
            let begun = std::time::Instant::now();
            order.iter().for_each(|board| boards.power_on(board));
            until_served(run, 1);
            println!("round {round}: {order:?}, writes after {:?}", begun.elapsed());
            assert!(begun.elapsed() < Duration::from_secs(120));
        }
    });
    boards.until_ready(nodes);
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

const ALL: [&str; 3] = ["server-1", "server-2", "server-3"];
/// The longest that a command runs before the power goes.
const HEAD_START_MAX_MS: u64 = 600;

/// Cuts the power of all boards while `line` runs on the first, and gives it back.
#[expect(clippy::disallowed_methods, reason = "the power goes at a random moment, by the seed")]
fn cut_during(stack: &Stack, random: &mut Rng, line: &str) {
    let mut running = stack.command(&format!("exec server-1 -- {line}"));
    let mut running = running.spawn().expect("coracle");
    std::thread::sleep(Duration::from_millis(random.u64(..HEAD_START_MAX_MS)));
    stack.ok("kill --all");
    let ended = running.wait().expect("it ends with its board");
    println!("{line}: {ended}");
    give_back(stack, random);
}

fn give_back(stack: &Stack, random: &mut Rng) {
    let mut order = ALL;
    random.shuffle(&mut order);
    order.iter().for_each(|server| drop(stack.ok(&format!("restore {server}"))));
    stack.until_ready(&ALL);
    assert_eq!(stack.kubectl_at(2).field("configmap/kept", ".data.a"), "b");
}

#[test]
fn the_power_goes_while_a_board_joins_a_snapshot_is_taken_and_keys_are_replaced() {
    println!("seed {}", seed());
    let mut random = Rng::with_seed(seed());
    let stack = Stack::up("--servers 3 --agents 0");
    stack.kubectl().ok("create configmap kept --from-literal=a=b");

    // A board that was set up anew has been let in, and has not caught up.
    stack.ok("kill server-3");
    let disk = stack.boards().join("lab/boards/server-3/disk/var/lib/coracle");
    fs::remove_dir_all(disk.join("server")).expect("removed");
    let before = stack.log("server-3").len();
    stack.ok("restore server-3");
    eventually_some("server-3 joins", || {
        let log = stack.log("server-3");
        let joins = log[before..].contains("joining the cluster as member");
        if joins { Ok(()) } else { Err(log[before..].to_owned()) }
    });
    stack.ok("kill --all");
    give_back(&stack, &mut random);

    cut_during(&stack, &mut random, "coracle snapshot save");
    let saved = stack.ok("exec server-1 -- coracle snapshot save");
    println!("{saved}");
    let listed = stack.ok("exec server-1 -- coracle snapshot list");
    assert!(!listed.contains("damaged"), "{listed}");

    cut_during(&stack, &mut random, "coracle certificate rotate-ca");
    // It was written before the power went, or it is done now.
    let again = stack.command("exec server-2 -- coracle certificate rotate-ca").output();
    let again = again.expect("coracle");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        again.status.success() || said.contains("an authority is being replaced already"),
        "{said}"
    );
    let generation = ".metadata.annotations.coracle\\.dev/trust-generation";
    let first = stack.kubectl_at(1);
    let trusted = |node: &str| first.field(&format!("node/{node}"), generation);
    eventually_some("all boards trust the same", || {
        let all = ALL.map(trusted);
        if all.iter().all(|one| *one == all[0]) && !all[0].is_empty() { Ok(()) } else { Err(all) }
    });
    stack.until_ready(&ALL);
}
