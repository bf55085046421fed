//! Moments at which all boards do what they do again and again.
//!
//! A datastore syncs its log once for all that arrives together, and once for each of what does
//! not. What every board renews is therefore renewed at the multiples of its period on the wall
//! clock, which boards agree on without a word. Chance would be no worse for correctness: a clock
//! that is wrong, or jumps, costs a sync more, and the period holds within a quarter.

use std::time::Duration;

use jiff::Timestamp;

/// A multiple that is nearer than this share of the period counts as reached: timers, and clocks
/// that are being set right, are a little early.
const REACHED: u32 = 4;

/// How long it is from `now` to the next multiple of `period` since the epoch: between a quarter
/// of the period and one and a quarter, whatever `now` is.
pub fn next_beat(now: Timestamp, period: Duration) -> Duration {
    let nanos = i128::try_from(period.as_nanos()).unwrap_or(i128::MAX).max(1);
    let since = now.as_nanosecond().rem_euclid(nanos);
    let left = Duration::from_nanos(u64::try_from(nanos - since).unwrap_or(u64::MAX));
    if left < period / REACHED { left + period } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_multiples_of_the_period() {
        for (now, seconds) in [
            ("2026-01-01T00:00:00Z", 10.0),
            ("2026-01-01T00:00:00.02Z", 9.98),
            ("2026-01-01T00:00:07Z", 3.0),
            ("2026-01-01T00:00:07.5Z", 2.5),
            // A timer that was early has not missed its beat, and does not beat twice.
            ("2026-01-01T00:00:07.6Z", 12.4),
            ("2026-01-01T00:00:09.99Z", 10.01),
            // A board without a battery begins in 1970, or before.
            ("1970-01-01T00:00:03Z", 7.0),
            ("1969-12-31T23:59:55Z", 5.0),
        ] {
            let wait = next_beat(now.parse().unwrap(), Duration::from_secs(10));
            assert_eq!(wait.as_secs_f64(), seconds, "{now}");
        }
    }

    #[test]
    fn no_clock_stretches_the_period_beyond_a_quarter() {
        let period = Duration::from_secs(10);
        for seed in 0..10_000 {
            let at = fastrand::Rng::with_seed(seed).i64(-1_000_000_000_000..1_000_000_000_000);
            let wait = next_beat(Timestamp::from_millisecond(at).unwrap(), period);
            assert!(wait >= period / 4 && wait < period * 5 / 4, "{at}: {wait:?}");
        }
    }
}
