use std::time::Duration;

/// Exponential back-off: doubles from `initial` to `max`; the count of failures is the caller's,
/// so that it can be kept beside what failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub initial: Duration,
    /// The delay is never longer than this.
    pub max: Duration,
}

impl Backoff {
    /// A back-off from `initial`, doubling up to `max`.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Backoff { initial, max }
    }

    /// The delay after `failures` failures in a row; zero failures wait not at all.
    pub fn delay(&self, failures: u32) -> Duration {
        match failures {
            0 => Duration::ZERO,
            n => self.initial.saturating_mul(2u32.saturating_pow(n - 1)).min(self.max),
        }
    }

    /// The same with up to a quarter added at random, so that many waiters do not wake as one.
    pub fn jittered(&self, failures: u32) -> Duration {
        self.delay(failures).mul_f64(1.0 + fastrand::f64() / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_limit() {
        let backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        let seconds: Vec<u64> = (0..8).map(|n| backoff.delay(n).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(300));
    }
}
