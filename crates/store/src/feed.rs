//! The way from a driver with other writers to its store.
//!
//! The index is fed here and not by the writer thread, so that what other servers write
//! arrives, and reads stay fresh, while a commit of our own waits for the datastore.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::driver::Change;
use crate::index::Index;
use crate::store::Waker;
use crate::{DriverError, Entry, Key, Revision};

/// What a driver tells its store, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    index: Arc<Index>,
    waker: Waker,
    health: Arc<Pulse>,
}

impl Feed {
    pub(crate) fn new(index: Arc<Index>, waker: Waker, health: Arc<Pulse>) -> Self {
        Self { index, waker, health }
    }

    /// What has [`Driver::tend`](crate::Driver::tend) called.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Takes in what has happened up to `revision`: all changes since the last publication,
    /// in order, whoever wrote them. Those that are known already are left out.
    pub fn publish(&self, changes: Vec<Change>, revision: Revision) {
        self.index.publish(changes, revision);
    }

    /// Takes in those of `changes` that follow the newest revision without a gap, since
    /// nothing can have happened before them that is not known. Gives the newest revision.
    pub fn follow(&self, changes: Vec<Change>) -> Revision {
        self.index.follow(changes)
    }

    /// Replaces everything by the state at `revision`, of which the history is not known:
    /// all watches end and their callers list anew.
    pub fn reset(&self, state: Vec<Change>, revision: Revision) {
        self.index.reset(state, revision);
    }

    /// Up to where everything is known.
    pub fn revision(&self) -> Revision {
        self.index.revision()
    }

    /// An object as it is known.
    pub fn entry(&self, key: &Key) -> Option<Arc<Entry>> {
        self.index.get(key)
    }

    /// Waits until everything up to `revision` is known.
    pub async fn reached(&self, revision: Revision) {
        self.index.reached(revision).await;
    }

    /// The datastore has answered.
    pub fn alive(&self) {
        self.health.alive();
    }

    /// The datastore has not answered, or has refused what it should not.
    pub fn failing(&self, error: &DriverError) {
        self.health.failing(error);
    }

    /// When the datastore was last heard of.
    pub fn heard(&self) -> Option<Instant> {
        self.health.heard()
    }
}

/// How a store's datastore fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How long ago it last answered, or took a write; `None` if it never did.
    pub last_success: Option<Duration>,
    /// What goes wrong at present, causes included.
    pub error: Option<String>,
}

/// The newest good and bad news.
#[derive(Default)]
pub(crate) struct Pulse(Mutex<(Option<Instant>, Option<String>)>);

impl Pulse {
    fn with<T>(&self, f: impl FnOnce(&mut (Option<Instant>, Option<String>)) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn alive(&self) {
        self.with(|pulse| *pulse = (Some(Instant::now()), None));
    }

    pub(crate) fn failing(&self, error: &DriverError) {
        self.with(|pulse| pulse.1 = Some(base::chain(error).to_string()));
    }

    fn heard(&self) -> Option<Instant> {
        self.with(|pulse| pulse.0)
    }

    pub(crate) fn health(&self) -> Health {
        self.with(|(heard, error)| Health {
            last_success: heard.map(|at| at.elapsed()),
            error: error.clone(),
        })
    }
}
