//! What `coracle up` takes; `bench/fleet.sh` runs it and makes a table of its lines.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::stack::Fleet;

const BOARDS: &str = "\
- {name: pi1, address: 10.77.0.11, roles: [server]}
- {name: pi2, address: 10.77.0.12}
- {name: pi3, address: 10.77.0.13}
";

/// Runs to the end: how long it took, and the most memory that one of its processes had.
fn measured(fleet: &Fleet, words: &str) -> (Duration, i64) {
    let began = Instant::now();
    let mut command = fleet.command(words);
    command.process_group(0).stdout(Stdio::null());
    let child = command.spawn().expect("coracle");
    let pid = i32::try_from(child.id()).expect("a process");
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: the child is ours and nobody else waits for it; the kernel fills both values.
    let ended = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    assert_eq!((ended, status), (pid, 0), "coracle {words}");
    // SAFETY: zeroed is a value of this structure, and the kernel has filled it.
    (began.elapsed(), unsafe { usage.assume_init() }.ru_maxrss)
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
