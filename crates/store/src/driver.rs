//! What a durable store must be able to do.
//!
//! The driver, not the store, decides compare-and-swap and hands out revisions, since for
//! etcd and PostgreSQL that decision falls elsewhere: there a batch becomes transactions
//! sent at once, and `changes` carries what other servers wrote in between. Drivers of one
//! process ([`Memory`](crate::Memory), [`Sqlite`](crate::Sqlite)) share the deciding half,
//! [`Local`](crate::Local), and implement the smaller [`Medium`](crate::Medium).
//! All methods may block: only the store's writer thread calls them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::{DriverError, Entry, Expect, Key, Options, Recovery, Revision, Stats, Waker};

/// A write somebody wants done.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What is written.
    pub key: Key,
    /// What must be there for it.
    pub expect: Expect,
    /// The new value without a stamp; `None` deletes.
    pub value: Option<Bytes>,
}

/// What became of a proposal.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Done, durable as far as the collection's class promises, at this revision.
    Applied(Revision),
    /// The expectation did not hold.
    Conflict,
    /// There was nothing to delete.
    NotFound,
    /// It could not be made durable and is not done.
    Failed(Arc<DriverError>),
}

/// A change that has happened. Changes come in the order of their revisions, no two share one.
#[derive(Clone, Debug)]
pub struct Change {
    /// What changed.
    pub key: Key,
    /// The revision that created the object.
    pub created: Revision,
    /// The revision of the change.
    pub revision: Revision,
    /// The new value; `None` for a deletion.
    pub value: Option<Bytes>,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One for each proposal, in their order.
    pub verdicts: Vec<Verdict>,
    /// All changes since the last outcome, this batch's and other servers'.
    pub changes: Vec<Change>,
}

/// What a driver found when it loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The revision to go on from; no revision above it was ever handed out.
    pub revision: Revision,
    /// How the data came back.
    pub recovery: Recovery,
}

/// The newest state of each object, as the driver's own changes have made it.
pub trait Ground {
    /// The object of that key.
    fn entry(&self, key: &Key) -> Option<Arc<Entry>>;
}

/// A durable store of objects.
pub trait Driver: Send + 'static {
    /// Brings up everything stored: one [`Change`] with a value for each object, in any
    /// order. Called once, first. A driver with other writers keeps `wake` and calls it
    /// when they have changed something.
    fn load(
        &mut self,
        options: &Options,
        wake: Waker,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Loaded, DriverError>;

    /// Decides a batch and makes it durable before returning: one wait for the disk, or
    /// the network, for all of it.
    fn commit(&mut self, batch: Vec<Proposal>, ground: &dyn Ground) -> Outcome;

    /// When [`tend`](Self::tend) wants to be called next; `None` while there is nothing to do.
    fn wake_at(&self) -> Option<Instant>;

    /// Does what is due by now (checkpoints, copies), and gives the changes of other writers.
    fn tend(&mut self, now: Instant, ground: &dyn Ground) -> Vec<Change>;

    /// Makes everything durable, volatile collections too.
    fn flush(&mut self, ground: &dyn Ground) -> Result<(), DriverError>;

    /// Makes a verified copy now, where the driver keeps such.
    fn copy(&mut self) -> Result<(), DriverError>;

    /// Flushes and lets go of everything. The last call.
    fn close(&mut self, ground: &dyn Ground) -> Result<(), DriverError>;

    /// What was written so far.
    fn stats(&self) -> Stats;
}
