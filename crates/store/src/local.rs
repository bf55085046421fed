//! The deciding half of a driver whose medium no other process writes to.
//!
//! Revisions are reserved in blocks: the medium always holds a number that no revision
//! handed out exceeds. After a crash the store goes on from there, so that no revision is
//! given twice although volatile writes use revisions without touching the medium.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::decide::decide;
use crate::driver::{Change, Driver, Ground, Loaded, Outcome, Proposal, Verdict};
use crate::dump::{Holdings, nobody};
use crate::{DriverError, Dump, Feed, Key, Options, Recovery, Revision, Stats, Waker};

/// Revisions reserved at a time. With a volatile write each second a block lasts four hours,
/// under full load some seconds; after a crash the counter jumps by at most this much.
pub const REVISION_BLOCK: Revision = 16_384;
/// Volatile objects changed since the last checkpoint that bring the next one forward.
const DIRTY_MAX_OBJECTS: usize = 16_384;
/// However many objects have changed, checkpoints are at least this far apart.
const CHECKPOINT_MIN_SPACING: Duration = Duration::from_secs(60);

/// A row to be written: a value, or a deletion.
#[derive(Clone, Debug)]
pub struct Row {
    /// Of which object.
    pub key: Key,
    /// The revision that created it.
    pub created: Revision,
    /// The revision of the change.
    pub revision: Revision,
    /// The new value; `None` deletes.
    pub value: Option<Bytes>,
    /// Whether its collection is volatile.
    pub volatile: bool,
}

/// What a medium holds beside its rows.
#[derive(Debug)]
pub struct Found {
    /// The reserved revision: none handed out exceeds it.
    pub reserved: Revision,
    /// How the data came back.
    pub recovery: Recovery,
}

/// Somewhere to keep rows. Its methods may block.
pub trait Medium: Send + 'static {
    /// What it is, for messages.
    fn name(&self) -> String;

    /// Brings up all rows, each with a value. A medium that works on a thread of its own
    /// keeps `wake` to have [`tend`](Self::tend) called.
    fn load(
        &mut self,
        options: &Options,
        wake: Waker,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Found, DriverError>;

    /// Makes rows and, where given, a new reserved revision durable: all or nothing, and
    /// after an error nothing.
    fn commit(&mut self, rows: &[Row], reserved: Option<Revision>) -> Result<(), DriverError>;

    /// When [`tend`](Self::tend) wants to be called next.
    fn wake_at(&self) -> Option<Instant>;

    /// Does what is due.
    fn tend(&mut self, now: Instant);

    /// Makes a verified copy now, where the medium keeps such.
    fn copy(&mut self) -> Result<(), DriverError>;

    /// Notes that the store was closed and lets go of everything.
    fn close(&mut self, revision: Revision) -> Result<(), DriverError>;

    /// Counts what the medium wrote into `stats`.
    fn count(&self, stats: &mut Stats);
}

/// A driver over a medium of one's own.
pub struct Local<M> {
    medium: M,
    options: Options,
    /// The newest revision handed out, successful or not.
    last: Revision,
    reserved: Revision,
    /// Volatile objects that differ from the medium.
    dirty: HashSet<Key>,
    /// When the next checkpoint is due, if anything is dirty.
    due: Option<Instant>,
    checkpointed: Option<Instant>,
    stats: Stats,
}

impl<M: Medium> Local<M> {
    /// A driver over `medium`.
    pub fn new(medium: M) -> Self {
        Self {
            medium,
            options: Options::default(),
            last: 0,
            reserved: 0,
            dirty: HashSet::new(),
            due: None,
            checkpointed: None,
            stats: Stats::default(),
        }
    }

    /// Decides a batch: the rows to write, and a verdict each.
    fn decide(&mut self, batch: Vec<Proposal>, ground: &dyn Ground) -> (Vec<Row>, Vec<Verdict>) {
        let (changes, verdicts) = decide(batch, ground, &mut self.last);
        let row = |change: Change| Row {
            volatile: self.options.is_volatile(&change.key.collection),
            key: change.key,
            created: change.created,
            revision: change.revision,
            value: change.value,
        };
        (changes.into_iter().map(row).collect(), verdicts)
    }

    /// Writes what must be durable now. On failure the revisions stay used up: part of
    /// them may have reached the disk.
    fn write(&mut self, durable: &[Row]) -> Result<(), DriverError> {
        let reserve = (self.last > self.reserved).then(|| self.last + REVISION_BLOCK);
        if durable.is_empty() && reserve.is_none() {
            return Ok(());
        }
        if let Err(error) = self.medium.commit(durable, reserve) {
            self.stats.failures += 1;
            return Err(error);
        }
        self.reserved = reserve.unwrap_or(self.reserved);
        if !durable.is_empty() {
            self.stats.batch(durable.len());
        }
        Ok(())
    }

    /// Notes that an object differs from the medium, and when that must end.
    fn touch(&mut self, key: Key) {
        self.dirty.insert(key);
        let interval = self.options.checkpoint_interval;
        let full = self.dirty.len() >= DIRTY_MAX_OBJECTS;
        let spacing = if full { interval.min(CHECKPOINT_MIN_SPACING) } else { interval };
        let now = Instant::now();
        let due = (self.checkpointed.unwrap_or(now) + spacing).max(now);
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    fn checkpoint(&mut self, ground: &dyn Ground) -> Result<(), DriverError> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let row = |key: &Key| {
            let entry = ground.entry(key);
            Row {
                key: key.clone(),
                created: entry.as_ref().map_or(0, |e| e.created),
                revision: entry.as_ref().map_or(0, |e| e.revision),
                value: entry.map(|e| e.value.clone()),
                volatile: true,
            }
        };
        let rows: Vec<Row> = self.dirty.iter().map(row).collect();
        let now = Instant::now();
        self.checkpointed = Some(now);
        if let Err(error) = self.medium.commit(&rows, None) {
            self.stats.failures += 1;
            self.due = Some(now + self.options.checkpoint_interval);
            return Err(error);
        }
        self.stats.checkpoints += 1;
        self.dirty.clear();
        self.due = None;
        Ok(())
    }
}

impl<M: Medium> Driver for Local<M> {
    fn name(&self) -> String {
        self.medium.name()
    }

    fn load(
        &mut self,
        options: &Options,
        feed: Feed,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Loaded, DriverError> {
        self.options = options.clone();
        let Found { reserved, recovery } = self.medium.load(options, feed.waker(), sink)?;
        // History starts above zero: zero means "from anywhere" to a Kubernetes client.
        self.reserved = reserved.max(1);
        self.last = self.reserved;
        Ok(Loaded { revision: self.last, recovery, shared: None })
    }

    fn fill(&mut self, options: &Options, dump: &Dump) -> Result<(), DriverError> {
        let mut holdings = Holdings::default();
        let count = &mut |change: Change| holdings.add(&change.key.collection);
        let found = self.medium.load(options, nobody(), count)?;
        holdings.must_be_empty(self.name())?;
        let row = |entry: &Arc<crate::Entry>| Row {
            key: entry.key.clone(),
            created: entry.created,
            revision: entry.revision,
            value: Some(entry.value.clone()),
            volatile: options.is_volatile(&entry.key.collection),
        };
        let rows: Vec<Row> = dump.entries.iter().map(row).collect();
        let reserved = dump.revision.max(found.reserved);
        self.medium.commit(&rows, Some(reserved))?;
        self.medium.close(reserved)
    }

    fn commit(&mut self, batch: Vec<Proposal>, ground: &dyn Ground) -> Outcome {
        let reserved = self.reserved;
        let (rows, mut verdicts) = self.decide(batch, ground);
        let (durable, volatile): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|r| !r.volatile);
        let mut done = volatile;
        match self.write(&durable) {
            Ok(()) => done.extend(durable),
            Err(error) => {
                // Heartbeats go on while the disk is full, as far as revisions are reserved.
                done.retain(|row| row.revision <= reserved);
                let error = Arc::new(error);
                let kept: HashSet<Revision> = done.iter().map(|row| row.revision).collect();
                for verdict in &mut verdicts {
                    if matches!(verdict, Verdict::Applied(c) if !kept.contains(&c.revision)) {
                        *verdict = Verdict::Failed(error.clone());
                    }
                }
            }
        }
        done.sort_unstable_by_key(|row| row.revision);
        for row in done.iter().filter(|row| row.volatile) {
            self.stats.volatile_writes += 1;
            self.touch(row.key.clone());
        }
        let change = |row: Row| Change {
            key: row.key,
            created: row.created,
            revision: row.revision,
            value: row.value,
        };
        Outcome { verdicts, changes: done.into_iter().map(change).collect() }
    }

    fn wake_at(&self) -> Option<Instant> {
        [self.due, self.medium.wake_at()].into_iter().flatten().min()
    }

    fn tend(&mut self, now: Instant, ground: &dyn Ground) {
        if self.due.is_some_and(|due| due <= now)
            && let Err(error) = self.checkpoint(ground)
        {
            tracing::warn!(error = base::chain(&error), "checkpoint volatile objects");
        }
        self.medium.tend(now);
    }

    fn flush(&mut self, ground: &dyn Ground) -> Result<(), DriverError> {
        self.checkpoint(ground)
    }

    fn copy(&mut self) -> Result<(), DriverError> {
        self.medium.copy()
    }

    fn close(&mut self, ground: &dyn Ground) -> Result<(), DriverError> {
        let checkpointed = self.checkpoint(ground);
        checkpointed.and(self.medium.close(self.last))
    }

    fn stats(&self) -> Stats {
        let mut stats = self.stats;
        self.medium.count(&mut stats);
        stats
    }
}
