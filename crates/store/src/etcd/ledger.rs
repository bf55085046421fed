//! The attempts under way, and which of them the watch has shown.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::layout::Mark;

/// Numbers attempts and notes those that were seen.
pub(super) struct Ledger {
    process: u64,
    attempts: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    last: u64,
    /// The revision at which an attempt was seen, if it was.
    open: HashMap<u64, Option<i64>>,
}

/// An attempt under way; forgotten when dropped.
pub(super) struct Open<'a> {
    ledger: &'a Ledger,
    number: u64,
}

impl Ledger {
    /// A ledger whose marks are of this process alone.
    pub(super) fn new(process: u64) -> Self {
        Self { process, attempts: Mutex::default() }
    }

    fn attempts(&self) -> std::sync::MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new attempt.
    pub(super) fn begin(&self) -> Open<'_> {
        let mut attempts = self.attempts();
        attempts.last += 1;
        let number = attempts.last;
        attempts.open.insert(number, None);
        Open { ledger: self, number }
    }

    /// The watch has shown a mark.
    pub(super) fn note(&self, mark: Mark, revision: i64) {
        if mark.process == self.process
            && let Some(seen) = self.attempts().open.get_mut(&mark.number)
        {
            *seen = Some(revision);
        }
    }

    /// The revision at which an open attempt was seen.
    pub(super) fn seen(&self, mark: Mark) -> Option<i64> {
        self.attempts().open.get(&mark.number).copied().flatten()
    }
}

impl Open<'_> {
    pub(super) fn mark(&self) -> Mark {
        Mark { process: self.ledger.process, number: self.number }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.ledger.attempts().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_attempts_of_this_process_are_noted() {
        let ledger = Ledger::new(7);
        let (first, second) = (ledger.begin(), ledger.begin());
        ledger.note(first.mark(), 3);
        ledger.note(Mark { process: 8, number: 2 }, 4);
        assert_eq!((ledger.seen(first.mark()), ledger.seen(second.mark())), (Some(3), None));
        let mark = first.mark();
        drop(first);
        ledger.note(mark, 5);
        assert_eq!(ledger.seen(mark), None);
    }
}
