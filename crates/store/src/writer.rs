//! The writer thread: takes what has queued up, commits it as one batch, answers.
//!
//! Group commit needs no timer: while one batch waits for the disk, the next one gathers. The
//! exception are renewals, which come from all boards at about the same moment (`base::next_beat`)
//! and are in no hurry: in front of a datastore elsewhere they wait for the next tick that all
//! servers share, unless a write comes that does not wait.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::{Clock, SystemClock};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::Key;
use crate::driver::Shared as Remote;
use crate::driver::{Change, Driver, Proposal, Verdict};
use crate::feed::Pulse;
use crate::index::Index;
use crate::{
    DriverError, Entry, Event, Expect, Feed, OpenError, Options, Recovery, Revision, Stats,
    VALUE_MAX_BYTES, WriteError,
};

/// Most writes in one batch.
const BATCH_MAX_WRITES: usize = 1024;
/// Bytes of values after which a batch takes no more writes.
const BATCH_MAX_BYTES: usize = 4 << 20;

/// The ticks, on the wall clock, that patient writes go at. A board that is busy is late by a good
/// part of this.
pub const GATHER: Duration = Duration::from_millis(250);

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
    inbox: Inbox,
}

/// What has queued up.
struct Inbox {
    jobs: Receiver<Job>,
    tick: Duration,
    /// See [`Options::patient`]; empty where nobody else writes.
    patient: Vec<String>,
}

/// Writes that go together.
#[derive(Default)]
struct Batch {
    proposals: Vec<Proposal>,
    replies: Vec<(Reply<Arc<Entry>>, OwnedSemaphorePermit)>,
    bytes: usize,
    /// Whether something in it does not wait.
    urgent: bool,
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

impl Inbox {
    /// What goes together, beginning with `next`, and the job after it, if that is no write.
    fn gather(&self, mut next: Option<Job>) -> (Batch, Option<Job>) {
        let mut batch = Batch::default();
        let mut tick = None;
        while let Some(Job::Write { proposal, reply, _permit }) = next {
            batch.urgent |= !self.is_patient(&proposal);
            batch.add(proposal, reply, _permit);
            next = if batch.is_full() {
                None
            } else if batch.urgent {
                self.jobs.try_recv().ok()
            } else {
                let until = *tick.get_or_insert_with(|| {
                    Instant::now() + base::next_beat(SystemClock.now(), self.tick)
                });
                self.jobs.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
            };
        }
        (batch, next)
    }

    fn is_patient(&self, proposal: &Proposal) -> bool {
        let updates = matches!(proposal.expect, Expect::Revision(_)) && proposal.value.is_some();
        updates && self.patient.iter().any(|patient| **patient == *proposal.key.collection)
    }
}

impl<D: Driver> Writer<D> {
    pub(crate) fn new(
        driver: D,
        index: Arc<Index>,
        (shared, pulse): (Arc<Shared>, Arc<Pulse>),
        inbox: Receiver<Job>,
    ) -> Self {
        let inbox = Inbox { jobs: inbox, tick: GATHER, patient: Vec::new() };
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
        if loaded.shared.is_some() {
            self.inbox.patient.clone_from(&options.patient);
        }
        self.pulse.alive();
        self.shared.set(self.driver.stats());
        Ok(Opened { recovery: loaded.recovery, remote: loaded.shared })
    }

    /// Works until told to close, or until nobody is left who could tell.
    fn serve(&mut self) -> Option<Reply<()>> {
        loop {
            let first = match self.wait() {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            let (batch, next) = self.inbox.gather(first);
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
            Some(at) => self.inbox.jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.inbox.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use tokio::sync::Semaphore;

    use super::*;

    fn queue(jobs: &Sender<Job>, collection: &str, expect: Expect) {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let key = Key::new(collection, "", "a");
        let proposal = Proposal { key, expect, value: Some("{}".into()) };
        jobs.send(Job::Write { proposal, reply: oneshot::channel().0, _permit: permit }).unwrap();
    }

    /// How many writes go together, and how long that took.
    fn gathered(tick: Duration, patient: &[&str], queued: &[(&str, Expect)]) -> (usize, Duration) {
        let (jobs, inbox) = channel();
        let patient = patient.iter().map(|&name| name.to_owned()).collect();
        let inbox = Inbox { jobs: inbox, tick, patient };
        queued.iter().for_each(|(collection, expect)| queue(&jobs, collection, *expect));
        let begun = Instant::now();
        let (batch, next) = inbox.gather(inbox.jobs.recv().ok());
        assert!(next.is_none());
        (batch.proposals.len(), begun.elapsed())
    }

    #[test]
    fn patient_updates_wait_for_others_and_nothing_waits_with_them() {
        let renewal = ("leases", Expect::Revision(1));
        let (writes, took) = gathered(GATHER, &["leases"], &[renewal, renewal]);
        assert!(writes == 2 && took >= GATHER / 4, "{writes} after {took:?}");
        let minute = Duration::from_secs(60);
        for (patient, queued) in [
            (vec!["leases"], [renewal, ("leases", Expect::Absent)]),
            (vec!["leases"], [renewal, ("pods", Expect::Revision(1))]),
            (vec!["leases"], [("pods", Expect::Revision(1)), renewal]),
            (vec![], [renewal, renewal]),
        ] {
            let (writes, took) = gathered(minute, &patient, &queued);
            assert!(writes == 2 && took < minute / 4, "{queued:?}: {writes} after {took:?}");
        }
    }
}
