//! Runs of `coracle up` that are cut at any moment.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::stack::Fleet;
use crate::harness::Boards;

const BOARDS: &str = "\
- {name: pi1, address: 10.77.0.11, roles: [server]}
- {name: pi2, address: 10.77.0.12, labels: {disk: ssd}}
- {name: pi3, address: 10.77.0.13}
";
/// How often unless `CORACLE_TEST_INTERRUPTIONS` says otherwise.
const TIMES: u64 = 2;
/// A run from bare boards takes about this long here; from the first on it is measured.
const WHOLE: Duration = Duration::from_secs(8);

#[test]
fn a_run_that_was_cut_is_finished_by_the_next() {
    let times = std::env::var("CORACLE_TEST_INTERRUPTIONS").ok();
    let times = times.and_then(|text| text.parse().ok()).unwrap_or(TIMES);
    let seed = std::env::var("CORACLE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("CORACLE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let fleet = Fleet::new(3);
    fleet.describe(BOARDS, "");
    fleet.boot(0..3);
    let mut whole = WHOLE;
    for turn in 0..times {
        let after = whole.mul_f64(random.f64());
        let lines = cut(&fleet, after);
        let next = fleet.run("up --yes --accept-new-host-keys");
        println!("{turn}: cut after {after:?} and {lines} lines, then {:?}", next.took);
        // One that was cut late leaves little to the next.
        whole = (whole + next.took.max(after)) / 2;
        next.ok();
        assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));
        let kubectl = fleet.kubectl();
        kubectl.ok("wait --for=condition=Ready node --all --timeout=30s");
        assert_eq!(kubectl.field("node/pi2", ".metadata.labels.disk"), "ssd");
        if turn + 1 < times {
            fleet.run("down --yes --no-backup").ok();
        }
    }
}

/// Starts a run and kills it with all that it has started; how many lines it had printed.
fn cut(fleet: &Fleet, after: Duration) -> usize {
    let mut command = fleet.command("up --yes --accept-new-host-keys");
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("coracle");
    let out = child.stdout.take().expect("a pipe");
    let (ended, end) = mpsc::channel();
    let lines = thread::spawn(move || {
        use std::io::BufRead;
        let count = std::io::BufReader::new(out).lines().count();
        let _ = ended.send(());
        count
    });
    let _ = end.recv_timeout(after);
    let group = i32::try_from(child.id()).expect("a process");
    // SAFETY: plain system call on the group that was made for this child.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    let _ = child.wait();
    lines.join().expect("no panic")
}
