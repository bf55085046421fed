//! When a process gives back what only its start or a burst of requests needed
//! ([`runtime::memory`]).

use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use runtime::memory::give_back;

/// How often a process at rest looks whether it has become busy.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often a busy one looks whether it has come to rest.
const LOOK_WHILE_BUSY: Duration = Duration::from_secs(1);
/// With less than this much work between two looks a process is at rest, in parts of one core.
const REST_SHARE: f64 = 0.1;
/// Page faults that are worth the trouble: below this it is about what a process at rest needs.
const FAULTS_MIN: i64 = 500;

/// Gives memory back whenever there was much to do and there is no more. Never ends.
pub async fn watch() {
    let mut given = 0;
    let mut before = Look::now();
    let mut pause = LOOK_WHILE_BUSY;
    loop {
        tokio::time::sleep(pause).await;
        let now = Look::now();
        let busy = now.worked.saturating_sub(before.worked).as_secs_f64()
            > pause.as_secs_f64() * REST_SHARE;
        let worth_it = now.faults - given >= FAULTS_MIN;
        if worth_it && !busy {
            give_back();
            given = now.faults;
        }
        pause = if worth_it && busy { LOOK_WHILE_BUSY } else { LOOK_EVERY };
        before = now;
    }
}

/// Gives back, once, what the start of a small process has used; what it does later is always the
/// same little.
pub async fn once_started() {
    tokio::time::sleep(LOOK_EVERY).await;
    give_back();
}

/// What a process has done so far.
struct Look {
    worked: Duration,
    faults: i64,
}

impl Look {
    fn now() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_SELF);
        let time = |usage: &Usage| {
            let micros = (usage.user_time() + usage.system_time()).num_microseconds();
            Duration::from_micros(micros.try_into().unwrap_or_default())
        };
        // It fails for an unknown subject only; zeros mean that nothing is given back.
        let (worked, faults) = usage
            .map_or_else(|_| Default::default(), |usage| (time(&usage), usage.minor_page_faults()));
        Look { worked, faults }
    }
}
