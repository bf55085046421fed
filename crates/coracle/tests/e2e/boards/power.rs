//! The power goes, for all boards at once, at any time; it comes back in any order.

use std::time::Duration;

use fastrand::Rng;

use super::trouble::{judged, seed, until_served};
use crate::harness::Stack;

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
}
