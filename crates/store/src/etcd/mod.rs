//! The driver for etcd v3: etcd decides, its watch feeds the index.

mod compact;
mod discover;
mod follow;
mod layout;
mod lead;
mod ledger;
mod load;
mod members;
mod options;
mod write;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use crate::driver::{Change, Driver, Ground, Loaded, Outcome, Proposal, Shared, Verdict};
use crate::remote::{Engine, LOAD_PATIENCE, READ_PATIENCE, WRITE_PATIENCE};
use crate::{DriverError, Dump, Feed, Key, Options, Recovery, Revision, Stats};

use layout::Layout;
use ledger::Ledger;
use members::{Members, RETRY_PAUSE, Trouble};
pub use options::{DEFAULT_PREFIX, EtcdOptions};
use write::{Known, Written};

/// Most transactions under way at once.
const PIPELINE_MAX_WRITES: usize = 256;
/// How long the watch may lag before it is helped by a write of our own: it says nothing of
/// revisions that another tenant of the etcd has used.
const NUDGE_AFTER: Duration = Duration::from_millis(30);

/// Objects kept in etcd.
pub struct Etcd {
    core: Arc<Core>,
    engine: Option<Engine>,
    loaded: i64,
    stats: Stats,
}

/// What the driver's threads and tasks share.
pub(crate) struct Core {
    options: EtcdOptions,
    layout: Layout,
    members: Members,
    ledger: Ledger,
    feed: OnceLock<Feed>,
    /// What is added to etcd's revisions.
    base: AtomicU64,
    /// The revision of the fence, as far as it is known; every write compares it.
    fence: AtomicI64,
    fencing: tokio::sync::Mutex<()>,
    /// Up to where the watch has come.
    watched: watch::Sender<i64>,
    /// Counts the gaps in the watch.
    epoch: AtomicU64,
}

impl Etcd {
    /// A driver for it. Nobody is asked before the store opens.
    pub fn driver(options: EtcdOptions) -> Self {
        let core = Core {
            layout: Layout::below(&options.prefix),
            members: Members::new(options.clone()),
            ledger: Ledger::new(crate::remote::unique()),
            feed: OnceLock::new(),
            base: AtomicU64::new(0),
            fence: AtomicI64::new(0),
            fencing: tokio::sync::Mutex::default(),
            watched: watch::Sender::new(0),
            epoch: AtomicU64::new(0),
            options,
        };
        Self { core: Arc::new(core), engine: None, loaded: 0, stats: Stats::default() }
    }
}

impl Core {
    fn name(&self) -> String {
        self.options.to_string()
    }

    /// The feed; there is one as soon as the store has begun to load.
    fn feed(&self) -> &Feed {
        self.feed.get().expect("writes, reads and watches begin when the store has loaded")
    }

    fn base(&self) -> Revision {
        self.base.load(Ordering::Relaxed)
    }

    fn set_base(&self, base: Revision) {
        self.base.store(base, Ordering::Relaxed);
    }

    fn to_revision(&self, etcd: i64) -> Revision {
        etcd.unsigned_abs() + self.base()
    }

    /// Etcd's revision for one of ours; one that no key has for what is no revision of its.
    fn to_etcd(&self, revision: Revision) -> i64 {
        let above = revision.checked_sub(self.base()).filter(|&r| r > 0);
        above.and_then(|r| r.try_into().ok()).unwrap_or(i64::MAX)
    }

    fn fence(&self) -> i64 {
        self.fence.load(Ordering::Acquire)
    }

    fn set_fence(&self, revision: i64) {
        self.fence.fetch_max(revision, Ordering::AcqRel);
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn set_watched(&self, revision: i64) {
        self.watched.send_replace(revision);
    }

    fn newest_watched(&self) -> i64 {
        *self.watched.borrow()
    }

    /// Waits until the watch has come so far.
    async fn watched(&self, revision: i64, until: Instant) -> Result<(), DriverError> {
        let mut watched = self.watched.subscribe();
        let reached = watched.wait_for(|&at| at >= revision);
        match tokio::time::timeout_at(until.into(), reached).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.lost("the watch did not come up to the last writes in time")),
        }
    }

    fn lost(&self, reason: &str) -> DriverError {
        members::remote(&self.options, "watch", None, reason.to_owned())
    }

    fn history_lost(&self) -> DriverError {
        self.lost("the history that tells what was done has been compacted away")
    }

    fn overtaken(&self) -> DriverError {
        let reason = "others kept changing the object".to_owned();
        members::remote(&self.options, "write to", None, reason)
    }

    fn not_ours(&self) -> DriverError {
        let (hint, reason) = ("use an etcd of its own, or remove these keys", &self.layout.root);
        let reason = format!("the keys below {reason} are not a cluster's");
        members::remote(&self.options, "load from", Some(hint), reason)
    }

    /// The newest revision of the etcd.
    async fn ask(&self, until: Instant) -> Result<i64, DriverError> {
        let keys_only = etcd_client::GetOptions::new().with_count_only();
        let get = |m: members::Member| {
            let keys_only = keys_only.clone();
            async move { m.kv().get(&*self.layout.base, Some(keys_only)).await }
        };
        match self.members.repeat("ask", until, get).await {
            Ok(answer) => {
                self.feed().alive();
                Ok(answer.header().map_or(0, |h| h.revision()))
            }
            Err(error) => {
                self.feed().failing(&error);
                Err(error)
            }
        }
    }

    /// Waits until the index shows what etcd has at a revision.
    async fn catch_up(&self, etcd: i64, until: Instant) {
        let reached = self.feed().reached(self.to_revision(etcd));
        tokio::pin!(reached);
        if tokio::time::timeout(NUDGE_AFTER, &mut reached).await.is_ok() {
            return;
        }
        let nudge =
            |m: members::Member| async move { m.kv().put(&*self.layout.nudge, "", None).await };
        let nudged = async {
            // Should it fail, the watch is on its way to another member all the same.
            if let Err(Trouble::Open(_) | Trouble::NotTaken(_)) =
                self.members.request("write to", nudge).await
            {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = &mut reached => {}
            () = nudged => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }

    /// Carries out the proposals on one key, one after the other.
    async fn chain(
        &self,
        proposals: Vec<(usize, Proposal)>,
        until: Instant,
    ) -> Vec<(usize, Written)> {
        let key = &proposals[0].1.key;
        let mut known = self.feed().entry(key).map(|entry| Known {
            created: self.to_etcd(entry.created),
            modified: self.to_etcd(entry.revision),
            value: entry.value.clone(),
        });
        let mut written = Vec::with_capacity(proposals.len());
        for (place, proposal) in &proposals {
            written.push((*place, self.write(proposal, &mut known, until).await));
        }
        written
    }

    /// Carries out a batch: different keys at once, one key in order.
    async fn commit(&self, batch: Vec<Proposal>) -> Vec<Verdict> {
        let until = Instant::now() + WRITE_PATIENCE;
        let mut chains: HashMap<Key, Vec<(usize, Proposal)>> = HashMap::new();
        let count = batch.len();
        for (place, proposal) in batch.into_iter().enumerate() {
            chains.entry(proposal.key.clone()).or_default().push((place, proposal));
        }
        let chains = stream::iter(chains.into_values().map(|chain| self.chain(chain, until)));
        let mut written: Vec<(usize, Written)> =
            chains.buffer_unordered(PIPELINE_MAX_WRITES).concat().await;
        debug_assert_eq!(written.len(), count);
        let newest = written.iter().map(|(_, w)| w.seen).max().unwrap_or(0);
        self.feed().follow(own_changes(&written));
        self.catch_up(newest, until).await;
        written.sort_unstable_by_key(|(place, _)| *place);
        written.into_iter().map(|(_, written)| written.verdict).collect()
    }
}

impl Shared for Core {
    fn newest(&self) -> BoxFuture<'_, Result<Revision, DriverError>> {
        Box::pin(async {
            let until = Instant::now() + READ_PATIENCE;
            let newest = self.ask(until).await?;
            self.catch_up(newest, until).await;
            Ok(self.to_revision(newest))
        })
    }
}

impl Driver for Etcd {
    fn name(&self) -> String {
        self.core.name()
    }

    fn load(
        &mut self,
        _options: &Options,
        feed: Feed,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Loaded, DriverError> {
        let engine = self.engine.insert(Engine::start()?);
        // The driver loads once.
        let _ = self.core.feed.set(feed);
        let core = self.core.clone();
        let mut objects = 0;
        let at = engine.wait(async {
            let until = Instant::now() + LOAD_PATIENCE;
            core.found(until).await?;
            let count = &mut |change| {
                objects += 1;
                sink(change);
            };
            core.read_all(until, count).await
        })?;
        self.loaded = at;
        self.core.set_watched(at);
        let recovery = match objects {
            0 => Recovery::Fresh,
            objects => Recovery::Joined { datastore: self.name(), objects },
        };
        let revision = self.core.to_revision(at);
        Ok(Loaded { revision, recovery, shared: Some(self.core.clone()) })
    }

    fn begin(&mut self) {
        let Some(engine) = &self.engine else { return };
        engine.spawn(self.core.clone().follow(self.loaded));
        engine.spawn(self.core.clone().probe());
        engine.spawn(self.core.clone().discover());
        engine.spawn(self.core.clone().compact(self.core.options.compact_interval));
    }

    fn fill(&mut self, _options: &Options, dump: &Dump) -> Result<(), DriverError> {
        let engine = Engine::start()?;
        engine.wait(self.core.write_all(dump, Instant::now() + LOAD_PATIENCE))
    }

    fn commit(&mut self, batch: Vec<Proposal>, _ground: &dyn Ground) -> Outcome {
        let Some(engine) = &self.engine else { return Outcome::default() };
        let verdicts = engine.wait(self.core.commit(batch));
        self.stats.remote_batch(&verdicts);
        Outcome { verdicts, changes: Vec::new() }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn tend(&mut self, _now: Instant, _ground: &dyn Ground) {}

    fn flush(&mut self, _ground: &dyn Ground) -> Result<(), DriverError> {
        Ok(())
    }

    fn copy(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn close(&mut self, _ground: &dyn Ground) -> Result<(), DriverError> {
        self.engine = None;
        Ok(())
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}

/// What a batch has changed, in order.
fn own_changes(written: &[(usize, Written)]) -> Vec<Change> {
    let made = |(_, written): &(usize, Written)| match &written.verdict {
        Verdict::Applied(change) => {
            let value = change.value.clone().filter(|_| !written.deleted);
            Some(Change { value, ..change.clone() })
        }
        _ => None,
    };
    let mut changes: Vec<Change> = written.iter().filter_map(made).collect();
    changes.sort_unstable_by_key(|change| change.revision);
    changes
}
