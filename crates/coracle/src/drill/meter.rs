//! Asks something over and over and notes when it answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(100);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most answers that are kept: an hour's.
const MAX_SAMPLES: usize = 36_000;
/// So many answers in a row show that nothing is left of an outage: a service that still sends
/// one request of three to a board that is gone would not give them.
const STEADY: usize = 10;

/// What came of a question.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was asked.
    pub asked: Instant,
    /// Whether it was answered.
    pub answered: bool,
}

/// How well something answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Away {
    /// The longest time without an answer, in milliseconds.
    pub longest_ms: u64,
    /// Questions without an answer.
    pub failed: usize,
    /// Questions.
    pub asked: usize,
    /// Whether it answered in the end.
    pub back: bool,
}

/// The answers of one questioner.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Vec<Sample>>>);

impl Meter {
    /// Asks until `stop`.
    pub async fn run<F>(self, ask: impl Fn() -> F, stop: CancellationToken)
    where
        F: Future<Output = bool>,
    {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let asked = Instant::now();
            let answered = tokio::time::timeout(PATIENCE, ask()).await.unwrap_or(false);
            let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if samples.len() < MAX_SAMPLES {
                samples.push(Sample { asked, answered });
            }
        }
    }

    /// Whether it answers again, not just now and then.
    pub fn is_steady(&self) -> bool {
        is_steady(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How well it answered since `from`.
    pub fn since(&self, from: Instant) -> Away {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away(samples.iter().filter(|sample| sample.asked >= from), Instant::now())
    }
}

fn is_steady(samples: &[Sample]) -> bool {
    let first = samples.len().saturating_sub(STEADY);
    samples.len() >= STEADY && samples[first..].iter().all(|sample| sample.answered)
}

/// The longest silence runs from the first question without an answer to the next answer.
fn away<'a>(samples: impl Iterator<Item = &'a Sample>, now: Instant) -> Away {
    let mut away = Away { back: true, ..Away::default() };
    let mut silent: Option<Instant> = None;
    let mut longest = Duration::ZERO;
    for sample in samples {
        away.asked += 1;
        if sample.answered {
            longest =
                longest.max(silent.take().map_or(Duration::ZERO, |since| sample.asked - since));
        } else {
            away.failed += 1;
            silent.get_or_insert(sample.asked);
        }
    }
    longest = longest.max(silent.map_or(Duration::ZERO, |since| now.duration_since(since)));
    away.back = silent.is_none();
    away.longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    away
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, index: usize) -> Instant {
        start + EVERY * u32::try_from(index).expect("few")
    }

    fn samples(start: Instant, text: &str) -> Vec<Sample> {
        let sample = |(index, c)| Sample { asked: at(start, index), answered: c == '+' };
        text.chars().enumerate().map(sample).collect()
    }

    fn judge(text: &str) -> (u64, usize, bool) {
        let start = Instant::now();
        let samples = samples(start, text);
        let Away { longest_ms, failed, back, .. } = away(samples.iter(), at(start, text.len()));
        (longest_ms, failed, back)
    }

    #[test]
    fn the_longest_silence_counts() {
        assert_eq!(judge("++++"), (0, 0, true));
        assert_eq!(judge("+-+---++-+"), (300, 5, true));
        assert_eq!(judge("++--"), (200, 2, false));
        assert_eq!(judge(""), (0, 0, true));
    }
    #[test]
    fn ten_answers_in_a_row_are_steady() {
        let steady = |text| is_steady(&samples(Instant::now(), text));
        assert!(steady("--++++++++++"));
        assert!(!steady("+++++++++"), "too few to tell");
        assert!(!steady("++++++++++++-"));
        assert!(!steady("++++++++-+++++++"));
    }
}
