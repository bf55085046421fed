//! A medium that forgets with the process: for tests, and as the plainest example of one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::driver::Change;
use crate::local::{Found, Local, Medium, Row};
use crate::{DriverError, Key, Options, Recovery, Revision, Stats, Waker};

/// Objects kept in memory. Clones share them, so that a store can be "reopened".
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    rows: BTreeMap<Key, Row>,
    reserved: Revision,
    clean: bool,
    commits: u64,
}

impl Memory {
    /// A driver over this memory.
    pub fn driver(&self) -> Local<Memory> {
        Local::new(self.clone())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Medium for Memory {
    fn name(&self) -> String {
        "memory".into()
    }

    fn load(
        &mut self,
        _options: &Options,
        _wake: Waker,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Found, DriverError> {
        self.with(|kept| {
            for row in kept.rows.values().cloned() {
                let Row { key, created, revision, value, .. } = row;
                sink(Change { key, created, revision, value });
            }
            let recovery = match (kept.reserved, kept.clean) {
                (0, _) => Recovery::Fresh,
                (_, true) => Recovery::Clean,
                (_, false) => Recovery::Unclean,
            };
            kept.clean = false;
            Ok(Found { reserved: kept.reserved, recovery })
        })
    }

    fn commit(&mut self, rows: &[Row], reserved: Option<Revision>) -> Result<(), DriverError> {
        self.with(|kept| {
            for row in rows {
                match row.value {
                    Some(_) => kept.rows.insert(row.key.clone(), row.clone()),
                    None => kept.rows.remove(&row.key),
                };
            }
            kept.reserved = reserved.unwrap_or(kept.reserved);
            kept.commits += 1;
        });
        Ok(())
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn tend(&mut self, _now: Instant) {}

    fn copy(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn close(&mut self, revision: Revision) -> Result<(), DriverError> {
        self.with(|kept| {
            kept.reserved = revision;
            kept.clean = true;
        });
        Ok(())
    }

    fn count(&self, stats: &mut Stats) {
        stats.commits = self.with(|kept| kept.commits);
    }
}
