//! What a durable store must be able to do.
//!
//! The driver, not the store, decides compare-and-swap and hands out revisions, since for
//! etcd and SQL servers that decision falls elsewhere: there a batch becomes transactions
//! sent at once, and what happened comes back through the [`Feed`], in one order for all
//! servers. Drivers of one process ([`Memory`](crate::Memory), [`Sqlite`](crate::Sqlite))
//! share the deciding half, [`Local`](crate::Local), and implement the smaller
//! [`Medium`](crate::Medium).
//! All methods of a driver may block: only the store's writer thread calls them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{DriverError, Dump, Entry, Expect, Feed, Key, Options, Recovery, Revision, Stats};

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
    /// Done, durable as far as the collection's class promises. The change is among the
    /// outcome's, or comes through the feed; of a deletion it has the last value.
    Applied(Change),
    /// The expectation did not hold.
    Conflict,
    /// There was nothing to delete.
    NotFound,
    /// It could not be made durable and is not done, nor will be.
    Failed(Arc<DriverError>),
    /// The datastore went away over it: it is done, or will be, or not.
    Unresolved(Arc<DriverError>),
    /// The datastore takes no request of that size.
    TooLarge,
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
    /// The changes it has made, unless they come through the feed.
    pub changes: Vec<Change>,
}

/// What a driver found when it loaded.
pub struct Loaded {
    /// The revision to go on from: all changes above it will be told.
    pub revision: Revision,
    /// How the data came back.
    pub recovery: Recovery,
    /// For a datastore that others write to as well.
    pub shared: Option<Arc<dyn Shared>>,
}

/// A datastore that others write to as well.
pub trait Shared: Send + Sync + 'static {
    /// The newest revision, asked of the datastore at this moment: whatever anybody was
    /// acknowledged before the call is at or below it. Also sees to it that the feed gets
    /// there. Asked from any runtime, one question at a time.
    fn newest(&self) -> BoxFuture<'_, Result<Revision, DriverError>>;
}

/// The newest state of each object, as the driver's own changes have made it.
pub trait Ground {
    /// The object of that key.
    fn entry(&self, key: &Key) -> Option<Arc<Entry>>;
}

/// A durable store of objects.
pub trait Driver: Send + 'static {
    /// What is stored where, for messages; without secrets.
    fn name(&self) -> String;

    /// Brings up everything stored: one [`Change`] with a value for each object, in any
    /// order. Called once, first. A driver with other writers keeps `feed` and tells it
    /// all that happens from [`Loaded::revision`] on, but nothing before
    /// [`begin`](Self::begin).
    fn load(
        &mut self,
        options: &Options,
        feed: Feed,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Loaded, DriverError>;

    /// What was loaded is taken in: the feed may be told what follows.
    fn begin(&mut self) {}

    /// Writes a dump into a datastore that holds nothing, see [`fill`](crate::fill). The
    /// only call.
    fn fill(&mut self, options: &Options, dump: &Dump) -> Result<(), DriverError>;

    /// Decides a batch and makes it durable before returning: one wait for the disk, or
    /// the network, for all of it.
    fn commit(&mut self, batch: Vec<Proposal>, ground: &dyn Ground) -> Outcome;

    /// When [`tend`](Self::tend) wants to be called next; `None` while there is nothing to do.
    fn wake_at(&self) -> Option<Instant>;

    /// Does what is due by now (checkpoints, copies).
    fn tend(&mut self, now: Instant, ground: &dyn Ground);

    /// Makes everything durable, volatile collections too.
    fn flush(&mut self, ground: &dyn Ground) -> Result<(), DriverError>;

    /// Makes a verified copy now, where the driver keeps such.
    fn copy(&mut self) -> Result<(), DriverError>;

    /// Flushes and lets go of everything. The last call.
    fn close(&mut self, ground: &dyn Ground) -> Result<(), DriverError>;

    /// What was written so far.
    fn stats(&self) -> Stats;
}

impl Driver for Box<dyn Driver> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn load(
        &mut self,
        options: &Options,
        feed: Feed,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Loaded, DriverError> {
        (**self).load(options, feed, sink)
    }

    fn begin(&mut self) {
        (**self).begin();
    }

    fn fill(&mut self, options: &Options, dump: &Dump) -> Result<(), DriverError> {
        (**self).fill(options, dump)
    }

    fn commit(&mut self, batch: Vec<Proposal>, ground: &dyn Ground) -> Outcome {
        (**self).commit(batch, ground)
    }

    fn wake_at(&self) -> Option<Instant> {
        (**self).wake_at()
    }

    fn tend(&mut self, now: Instant, ground: &dyn Ground) {
        (**self).tend(now, ground);
    }

    fn flush(&mut self, ground: &dyn Ground) -> Result<(), DriverError> {
        (**self).flush(ground)
    }

    fn copy(&mut self) -> Result<(), DriverError> {
        (**self).copy()
    }

    fn close(&mut self, ground: &dyn Ground) -> Result<(), DriverError> {
        (**self).close(ground)
    }

    fn stats(&self) -> Stats {
        (**self).stats()
    }
}
