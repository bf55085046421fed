//! Waiting on conditions. Nothing here waits for a time to pass.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// What is waited for happens within this, also on a busy machine with two cores.
pub const SOON: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until `look` gives `Ok`; panics with the last `Err`.
pub fn eventually_some<T, E: Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    within(SOON, what, look)
}

/// Waits until `look` gives `Ok`, no longer than `patience`; panics with the last `Err`.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition")]
pub fn within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("never happened: {what}; last seen: {seen:?}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()).ok_or("not so"));
}
