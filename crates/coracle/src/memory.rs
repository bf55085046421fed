//! When a process gives back what only its start or a burst of requests needed
//! ([`runtime::memory`]).

use std::time::Duration;

use runtime::memory::{give_back, mapped_bytes};

use crate::allocator;

/// How often a process at rest looks whether it has become busy, and how long after giving back
/// what is mapped again counts as what it needs at rest.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often one that has something to give back looks whether it has come to rest.
const LOOK_WHILE_BUSY: Duration = Duration::from_millis(500);
/// With less than this much work between two looks a process is at rest, in parts of one core.
const REST_SHARE: f64 = 0.1;
/// What must be mapped beyond the need at rest to be worth the trouble.
const WORTH_BYTES: usize = 4 << 20;

/// Looks until what a process needs at rest is found out anew: it may have been busy at the time.
const LOOKS_A_ROUND: usize = 6;

/// Gives memory back whenever there was much to do and there is no more. Never ends.
pub async fn watch() {
    loop {
        while !at_rest_for(LOOK_WHILE_BUSY).await {}
        give_back();
        allocator::give_back();
        tokio::time::sleep(LOOK_EVERY).await;
        let needed = mapped_bytes();
        for _ in 0..LOOKS_A_ROUND {
            // What a thread has freed is its own until it ends, seconds later.
            allocator::give_back();
            if mapped_bytes() >= needed + WORTH_BYTES {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Waits for so long and says whether there was little to do meanwhile.
async fn at_rest_for(pause: Duration) -> bool {
    let before = worked();
    tokio::time::sleep(pause).await;
    worked().saturating_sub(before) < pause.mul_f64(REST_SHARE)
}

/// Gives back, once, what the start of a small process has used; what it does later is always the
/// same little.
pub async fn once_started() {
    tokio::time::sleep(LOOK_EVERY).await;
    give_back();
}

/// The processor time that this process has taken so far.
fn worked() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in a structure that is ours; of our own clock it does not fail.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
