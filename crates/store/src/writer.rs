//! The writer thread: takes what has queued up, commits it as one batch, answers.
//!
//! Group commit needs no timer: while one batch waits for the disk, the next one gathers.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::Key;
use crate::driver::Shared as Remote;
use crate::driver::{Change, Driver, Proposal, Verdict};
use crate::feed::Pulse;
use crate::index::Index;
use crate::{
    DriverError, Entry, Event, Feed, OpenError, Options, Recovery, Revision, Stats,
    VALUE_MAX_BYTES, WriteError,
};

/// Most writes in one batch.
const BATCH_MAX_WRITES: usize = 1024;
/// Bytes of values after which a batch takes no more writes.
const BATCH_MAX_BYTES: usize = 4 << 20;

type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// What the writer thread can be asked for.
pub(crate) enum Job {
    Write { proposal: Proposal, reply: Reply<Arc<Entry>>, _permit: OwnedSemaphorePermit },
    Wake,
    Flush(Reply<()>),
    Copy(Reply<()>),
    Close(Option<Reply<()>>),
}

/// What the thread shows to the outside.
#[derive(Default)]
pub(crate) struct Shared(Mutex<Stats>);

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, stats: Stats) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}

/// How a store was opened.
pub(crate) struct Opened {
    pub(crate) recovery: Recovery,
    pub(crate) remote: Option<Arc<dyn Remote>>,
}

/// The thread's state.
pub(crate) struct Writer<D> {
    driver: D,
    index: Arc<Index>,
    pulse: Arc<Pulse>,
    shared: Arc<Shared>,
    inbox: Receiver<Job>,
}

/// Writes that go together.
#[derive(Default)]
struct Batch {
    proposals: Vec<Proposal>,
    replies: Vec<(Reply<Arc<Entry>>, OwnedSemaphorePermit)>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, proposal: Proposal, reply: Reply<Arc<Entry>>, permit: OwnedSemaphorePermit) {
        self.bytes += proposal.value.as_ref().map_or(0, |v| v.len());
        self.proposals.push(proposal);
        self.replies.push((reply, permit));
    }

    fn is_full(&self) -> bool {
        self.proposals.len() >= BATCH_MAX_WRITES || self.bytes >= BATCH_MAX_BYTES
    }
}

impl<D: Driver> Writer<D> {
    pub(crate) fn new(
        driver: D,
        index: Arc<Index>,
        (shared, pulse): (Arc<Shared>, Arc<Pulse>),
        inbox: Receiver<Job>,
    ) -> Self {
        Self { driver, index, pulse, shared, inbox }
    }

    /// Loads, then serves until the store is closed.
    pub(crate) fn run(
        mut self,
        options: &Options,
        feed: Feed,
        opened: oneshot::Sender<Result<Opened, OpenError>>,
    ) {
        let result = self.load(options, feed);
        let ready = result.is_ok();
        if opened.send(result).is_err() || !ready {
            return;
        }
        let closer = self.serve();
        let closed = self.driver.close(&*self.index);
        self.shared.set(self.driver.stats());
        if let Err(error) = &closed {
            tracing::error!(error = base::chain(error), "close the store");
        }
        self.index.close();
        if let Some(reply) = closer {
            let _ = reply.send(closed.map_err(storage));
        }
    }

    fn load(&mut self, options: &Options, feed: Feed) -> Result<Opened, OpenError> {
        let index = self.index.clone();
        let loaded = self.driver.load(options, feed, &mut |change: Change| index.load(change))?;
        self.index.begin(loaded.revision);
        self.driver.begin();
        self.pulse.alive();
        self.shared.set(self.driver.stats());
        Ok(Opened { recovery: loaded.recovery, remote: loaded.shared })
    }

    /// Works until told to close, or until nobody is left who could tell.
    fn serve(&mut self) -> Option<Reply<()>> {
        loop {
            let mut next = match self.wait() {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            let mut batch = Batch::default();
            while let Some(Job::Write { proposal, reply, _permit }) = next {
                batch.add(proposal, reply, _permit);
                next = if batch.is_full() { None } else { self.inbox.try_recv().ok() };
            }
            self.commit(batch);
            match next {
                Some(Job::Flush(reply)) => {
                    let flushed = self.driver.flush(&*self.index);
                    self.shared.set(self.driver.stats());
                    let _ = reply.send(flushed.map_err(storage));
                }
                Some(Job::Copy(reply)) => {
                    let copied = self.driver.copy();
                    self.shared.set(self.driver.stats());
                    let _ = reply.send(copied.map_err(storage));
                }
                Some(Job::Close(reply)) => return reply,
                Some(Job::Wake) => self.tend(),
                Some(Job::Write { .. }) | None => {}
            }
            if self.driver.wake_at().is_some_and(|at| at <= Instant::now()) {
                self.tend();
            }
            self.shared.set(self.driver.stats());
        }
    }

    fn wait(&self) -> Result<Job, RecvTimeoutError> {
        match self.driver.wake_at() {
            Some(at) => self.inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn tend(&mut self) {
        self.driver.tend(Instant::now(), &*self.index);
    }

    fn commit(&mut self, batch: Batch) {
        if batch.proposals.is_empty() {
            return;
        }
        let keys: Vec<_> = batch.proposals.iter().map(|p| p.key.clone()).collect();
        let outcome = self.driver.commit(batch.proposals, &*self.index);
        let events = self.index.apply(outcome.changes);
        // Before the answers, so that whoever got one finds it counted.
        self.shared.set(self.driver.stats());
        for (((reply, _permit), verdict), key) in
            batch.replies.into_iter().zip(outcome.verdicts).zip(keys)
        {
            // The caller may have gone away; the write stands all the same.
            let _ = reply.send(self.answer(key, verdict, &events));
        }
    }

    /// What the caller gets to hear.
    fn answer(
        &self,
        key: Key,
        verdict: Verdict,
        events: &[Arc<Event>],
    ) -> Result<Arc<Entry>, WriteError> {
        match verdict {
            Verdict::Applied(change) => {
                self.pulse.alive();
                Ok(find(events, change.revision).unwrap_or_else(|| self.index.entry_of(change)))
            }
            Verdict::Conflict => Err(WriteError::Conflict { current: self.index.get(&key) }),
            Verdict::NotFound => Err(WriteError::NotFound),
            Verdict::TooLarge => {
                Err(WriteError::TooLarge { size: VALUE_MAX_BYTES, limit: VALUE_MAX_BYTES })
            }
            Verdict::Failed(error) => {
                self.pulse.failing(&error);
                Err(WriteError::Storage(error))
            }
            Verdict::Unresolved(error) => {
                self.pulse.failing(&error);
                Err(WriteError::Unresolved(error))
            }
        }
    }
}

impl<D> Drop for Writer<D> {
    /// However the thread ends, also by a panic in a driver: no watcher waits for ever.
    fn drop(&mut self) {
        self.index.close();
    }
}

/// The entry a batch has made at a revision.
fn find(events: &[Arc<Event>], revision: Revision) -> Option<Arc<Entry>> {
    let at = events.binary_search_by_key(&revision, |e| e.revision).ok()?;
    Some(events[at].entry.clone())
}

fn storage(error: DriverError) -> WriteError {
    WriteError::Storage(Arc::new(error))
}
