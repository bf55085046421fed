//! What another server said, and until when it counts.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Answers that are remembered; when there are more, all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Answers by what was asked.
pub(crate) struct Remembered<T>(Mutex<HashMap<Vec<u8>, (T, Instant)>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Remembered(Mutex::default())
    }
}

impl<T: Clone> Remembered<T> {
    /// What was said, if it still counts.
    pub(crate) fn get(&self, key: &[u8]) -> Option<T> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).filter(|(_, until)| *until > Instant::now()).map(|(said, _)| said.clone())
    }

    /// Remembers what was said for a while; for no time where that is zero.
    pub(crate) fn put(&self, key: Vec<u8>, said: T, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(key, (said, Instant::now() + ttl));
    }
}
