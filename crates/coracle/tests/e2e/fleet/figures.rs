//! What `coracle up` takes; `bench/fleet.sh` runs it and makes a table of its lines.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::stack::Fleet;
use crate::harness::{Boards, within};

const BOARDS: &str = "\
- {name: pi1, address: 10.77.0.11, roles: [server]}
- {name: pi2, address: 10.77.0.12}
- {name: pi3, address: 10.77.0.13}
";

/// Runs to the end: how long it took, and the most memory that it had, in KiB.
fn measured(fleet: &Fleet, words: &str) -> (Duration, u64) {
    let began = Instant::now();
    let mut child = fleet.command(words).stdout(Stdio::null()).spawn().expect("coracle");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    within(Duration::from_secs(600), words, || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        most = most.max(now.unwrap_or(0));
        match child.try_wait().expect("wait") {
            Some(ended) => {
                assert!(ended.success(), "coracle {words}");
                Ok(())
            }
            None => Err("it runs"),
        }
    });
    (began.elapsed(), most)
}

#[test]
#[ignore = "a measurement, for bench/fleet.sh"]
fn figures_of_three_boards() {
    let fleet = Fleet::new(3);
    fleet.describe(BOARDS, "network: {vip: 10.77.0.40}\n");
    fleet.boot(0..3);
    let (first, memory) = measured(&fleet, "up --yes --accept-new-host-keys");
    fleet.kubectl().ok("wait --for=condition=Ready node --all --timeout=30s");
    println!("FIGURE up_from_bare_seconds {:.2}", first.as_secs_f64());
    println!("FIGURE up_memory_mib {:.1}", memory as f64 / 1024.0);
    for _ in 0..5 {
        let (again, memory) = measured(&fleet, "up --yes");
        println!("FIGURE second_run_seconds {:.2}", again.as_secs_f64());
        println!("FIGURE second_run_memory_mib {:.1}", memory as f64 / 1024.0);
    }
    let (status, _) = measured(&fleet, "status");
    println!("FIGURE status_seconds {:.2}", status.as_secs_f64());
    let (down, _) = measured(&fleet, "down --yes --no-backup");
    println!("FIGURE down_seconds {:.2}", down.as_secs_f64());
}
