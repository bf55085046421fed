//! The store as its callers see it.

use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::barrier::Barrier;
use crate::driver::{Driver, Proposal};
use crate::feed::Pulse;
use crate::index::Index;
use crate::writer::{self, Job, Opened, Shared};
use crate::{
    BarrierError, Codec, Compacted, Dump, Entry, Expect, Feed, Health, Key, List, ListError,
    OpenError, Options, Page, Range, Recovery, Revision, Stats, VALUE_MAX_BYTES, Watch, WriteError,
};

/// Most writes that may wait for the writer thread; more wait before they are taken in.
const QUEUE_MAX_WRITES: usize = 4096;

/// What a collection holds, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The collection.
    pub collection: Arc<str>,
    /// Its objects.
    pub objects: usize,
    /// The bytes of their values.
    pub bytes: usize,
    /// The events in its window.
    pub window_events: usize,
    /// The bytes these may keep alive.
    pub window_bytes: usize,
}

/// Wakes the writer thread so that it looks after its driver.
#[derive(Clone)]
pub struct Waker(mpsc::Sender<Job>);

impl Waker {
    pub(crate) fn new(jobs: mpsc::Sender<Job>) -> Self {
        Self(jobs)
    }

    /// Has the writer thread call [`Driver::tend`]. Cheap, from any thread.
    pub fn wake(&self) {
        // A closed store has nobody left to wake.
        let _ = self.0.send(Job::Wake);
    }
}

/// Revisioned objects. Cheap to clone; reads never touch the disk, writes are durable
/// when they return. When the last clone is dropped the store closes itself.
#[derive(Clone)]
pub struct Store {
    index: Arc<Index>,
    jobs: Arc<Jobs>,
    queue: Arc<Semaphore>,
    shared: Arc<Shared>,
    pulse: Arc<Pulse>,
    /// Where the datastore has other writers.
    barrier: Option<Arc<Barrier>>,
}

/// The way to the writer thread. A driver's [`Waker`] keeps the channel open, so the last
/// clone of the store has to say that it goes.
struct Jobs(mpsc::Sender<Job>);

impl Drop for Jobs {
    fn drop(&mut self) {
        // The thread may be gone already.
        let _ = self.0.send(Job::Close(None));
    }
}

impl Store {
    /// Opens what `driver` stores. Loading happens on the store's own writer thread.
    pub async fn open(
        driver: impl Driver,
        codec: Arc<dyn Codec>,
        options: Options,
    ) -> Result<(Store, Recovery), OpenError> {
        let index = Arc::new(Index::new(codec, options.clone()));
        let shared = Arc::new(Shared::default());
        let (jobs, inbox) = mpsc::channel();
        let (loaded, opened) = oneshot::channel();
        let pulse = Arc::new(Pulse::default());
        let seen = (shared.clone(), pulse.clone());
        let writer = writer::Writer::new(driver, index.clone(), seen, inbox);
        let feed = Feed::new(index.clone(), Waker(jobs.clone()), pulse.clone());
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&options, feed, loaded))
            .map_err(OpenError::Thread)?;
        let jobs = Arc::new(Jobs(jobs));
        let Opened { recovery, remote } = opened.await.map_err(|_| OpenError::Gone)??;
        let queue = Arc::new(Semaphore::new(QUEUE_MAX_WRITES));
        let barrier = remote.map(|remote| Arc::new(Barrier::new(remote)));
        Ok((Store { index, jobs, queue, shared, pulse, barrier }, recovery))
    }

    /// Whether other processes write to the same datastore, so that a leader must be elected.
    pub fn is_shared(&self) -> bool {
        self.barrier.is_some()
    }

    /// Waits until this store shows whatever anybody was acknowledged before the call, and
    /// gives the revision that stands for it: a read from now on is linearizable. At once
    /// where there are no other writers; else one question to the datastore, shared by all
    /// who wait.
    pub async fn barrier(&self) -> Result<Revision, BarrierError> {
        match &self.barrier {
            None => Ok(self.revision()),
            Some(_) if self.index.is_closed() => Err(BarrierError::Closed),
            Some(barrier) => barrier.pass(&self.index).await,
        }
    }

    /// Returns when the newest revision here is at least this one, which may be never.
    pub async fn reached(&self, revision: Revision) {
        self.index.reached(revision).await;
    }

    /// How the datastore fares, for readiness checks.
    pub fn health(&self) -> Health {
        self.pulse.health()
    }

    /// All objects of all collections as of the newest revision. Clones pointers, not values.
    pub fn dump(&self) -> Dump {
        self.index.dump()
    }

    /// The newest committed revision.
    pub fn revision(&self) -> Revision {
        self.index.revision()
    }

    /// The object of that key.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.index.get(key)
    }

    /// A page of the objects in a range, in order of namespace and name, as of one
    /// revision. Clones pointers, not values.
    pub fn list(&self, range: Range<'_>, page: Page) -> Result<List, ListError> {
        self.index.list(range, page)
    }

    /// Refuses lists as of revisions before this one from now on. Watches may still begin there:
    /// they need only what is in the window anyway.
    pub fn compact(&self, before: Revision) {
        self.index.compact(before);
    }

    /// Writes an object if it is as expected; durable when it returns. An object that is
    /// not there conflicts with `Expect::Revision`. Dropping the future does not take the
    /// write back.
    pub async fn put(
        &self,
        key: Key,
        expect: Expect,
        value: Bytes,
    ) -> Result<Arc<Entry>, WriteError> {
        if value.len() > VALUE_MAX_BYTES {
            return Err(WriteError::TooLarge { size: value.len(), limit: VALUE_MAX_BYTES });
        }
        self.write(Proposal { key, expect, value: Some(value) }).await
    }

    /// Deletes an object if it is as expected. Gives its last state, stamped with the
    /// deletion's revision.
    pub async fn delete(&self, key: &Key, expect: Expect) -> Result<Arc<Entry>, WriteError> {
        self.write(Proposal { key: key.clone(), expect, value: None }).await
    }

    async fn write(&self, proposal: Proposal) -> Result<Arc<Entry>, WriteError> {
        let queue = self.queue.clone().acquire_owned();
        let permit = queue.await.map_err(|_| WriteError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Job::Write { proposal, reply, _permit: permit };
        self.jobs.0.send(job).map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// All changes in a range after a revision, in order and without gaps.
    pub fn watch(&self, range: Range<'_>, after: Revision) -> Result<Watch, Compacted> {
        let subscription = self.index.subscribe(range.collection, after)?;
        Ok(Watch::new(self.index.clone(), subscription, range.namespace, after))
    }

    /// What each collection holds, in the order of their names.
    pub fn counts(&self) -> Vec<Count> {
        self.index.counts()
    }

    /// What was written since the store was opened.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Makes volatile collections durable now.
    pub async fn flush(&self) -> Result<(), WriteError> {
        self.ask(Job::Flush).await?
    }

    /// Makes a verified copy now, where the driver keeps such.
    pub async fn copy(&self) -> Result<(), WriteError> {
        self.ask(Job::Copy).await?
    }

    /// Makes everything durable and closes; later writes fail, watches end, and reads by
    /// other clones go on.
    pub async fn close(self) -> Result<(), WriteError> {
        self.ask(|reply| Job::Close(Some(reply))).await?
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.0.send(job(reply)).map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)
    }
}
