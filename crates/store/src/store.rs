//! The store as its callers see it.

use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::driver::{Driver, Proposal};
use crate::index::Index;
use crate::writer::{self, Job, Shared};
use crate::{
    Codec, Compacted, Entry, Expect, Key, List, ListError, OpenError, Options, Page, Range,
    Recovery, Revision, Stats, VALUE_MAX_BYTES, Watch, WriteError,
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

/// Wakes the store so that it asks its driver for changes others have made.
#[derive(Clone)]
pub struct Waker(mpsc::Sender<Job>);

impl Waker {
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
        let writer = writer::Writer::new(driver, index.clone(), shared.clone(), inbox);
        let waker = Waker(jobs.clone());
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&options, waker, loaded))
            .map_err(OpenError::Thread)?;
        let jobs = Arc::new(Jobs(jobs));
        let recovery = opened.await.map_err(|_| OpenError::Gone)??;
        let queue = Arc::new(Semaphore::new(QUEUE_MAX_WRITES));
        Ok((Store { index, jobs, queue, shared }, recovery))
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
