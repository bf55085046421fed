use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a board's clock differs from ours, and how well that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// Milliseconds that it is ahead; negative: behind.
    pub millis: i64,
    /// Half of the time that the question took, in milliseconds.
    pub error: i64,
}

impl Offset {
    /// From the board's `seconds.nanoseconds` and the times here before and after it was asked.
    pub fn new(board: &str, before: SystemTime, after: SystemTime) -> Option<Self> {
        let board: f64 = board.parse().ok()?;
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (before, after) = (since(before).as_secs_f64(), since(after).as_secs_f64());
        let millis = |seconds: f64| (seconds * 1000.0) as i64;
        let middle = f64::midpoint(before, after);
        Some(Self { millis: millis(board - middle), error: millis((after - before) / 2.0) })
    }

    /// The least that the clocks are apart for certain, in milliseconds.
    pub fn at_least(self) -> i64 {
        (self.millis.abs() - self.error).max(0)
    }
}
