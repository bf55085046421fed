//! The driver for SQL servers: whoever holds the counter's lock knows everything, decides on
//! the index and commits a batch at once. Since revisions are committed in their order, a
//! reader that finds a number missing knows that it was pruned, never that it is yet to come.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::link::{Link, Unwritten, Writes, remote};
use super::server::Server;
use crate::decide::decide;
use crate::driver::{Change, Driver, Ground, Loaded, Outcome, Proposal, Shared, Verdict};
use crate::dump::Holdings;
use crate::remote::{Engine, LOAD_PATIENCE, READ_PATIENCE, WRITE_PATIENCE, unique};
use crate::{DriverError, Dump, Feed, Options, Recovery, Revision, Stats};

/// How long one step with the server may take.
const STEP_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a connection is made anew.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Silence after which the server is asked whether it is still there.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Most rows read at once.
const PAGE_MAX_ROWS: i64 = 500;
/// Most rows written with one statement, and bytes after which it takes no more.
const FILL_MAX_ROWS: usize = 500;
const FILL_MAX_BYTES: usize = 4 << 20;
/// Changes that are kept for servers which were away for a while; who was away for longer
/// reads everything anew.
const KEPT_CHANGES: Revision = 10_000;
/// After how many changes the log is pruned.
const PRUNE_AFTER_CHANGES: Revision = 2_000;

/// Objects kept by a SQL server.
pub struct Sql<L: Link> {
    core: Arc<Core<L>>,
    engine: Option<Engine>,
    writer: Option<(L, Instant)>,
    /// Tells this process's transactions from all others, with the number of each.
    process: i64,
    batches: i64,
    stats: Stats,
}

/// What the driver's threads and tasks share.
struct Core<L> {
    server: Server,
    feed: OnceLock<Feed>,
    /// Rings when there may be something to read.
    news: Arc<Notify>,
    asker: tokio::sync::Mutex<Option<(L, Instant)>>,
}

impl<L: Link> Sql<L> {
    /// A driver for it. Nobody is asked before the store opens.
    pub fn driver(server: Server) -> Self {
        let core = Core {
            server,
            feed: OnceLock::new(),
            news: Arc::new(Notify::new()),
            asker: tokio::sync::Mutex::new(None),
        };
        Self {
            core: Arc::new(core),
            engine: None,
            writer: None,
            process: unique().cast_signed() & !0xffff_ffff,
            batches: 0,
            stats: Stats::default(),
        }
    }

    /// Carries out a batch, over and over until it is known what became of it.
    async fn transact(&mut self, batch: Vec<Proposal>, ground: &dyn Ground) -> Vec<Verdict> {
        let until = Instant::now() + WRITE_PATIENCE;
        let mut pending = None;
        loop {
            let error = match self.attempt(&batch, ground, &mut pending).await {
                Ok(verdicts) => return verdicts,
                Err(error) => error,
            };
            self.core.feed().failing(&error);
            if !can_pass(&error) || Instant::now() + RETRY_PAUSE >= until {
                let error = Arc::new(error);
                return match pending {
                    Some(Pending { verdicts, .. }) => unresolved(verdicts, &error),
                    None => batch.iter().map(|_| Verdict::Failed(error.clone())).collect(),
                };
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// One transaction. After an error nothing was done, unless something is pending.
    async fn attempt(
        &mut self,
        batch: &[Proposal],
        ground: &dyn Ground,
        pending: &mut Option<Pending>,
    ) -> Result<Vec<Verdict>, DriverError> {
        let server = &self.core.server;
        let mut link = match self.writer.take() {
            Some((link, used)) if used.elapsed() < L::IDLE_MAX => link,
            _ => step(server, L::connect(server, None)).await?,
        };
        // Whoever has the lock knows that no other transaction is under way, also not the
        // one whose answer was lost.
        let counter = step(server, link.lock()).await?;
        if let Some(lost) = pending {
            let last = lost.changes.last().map_or(0, |change| change.revision);
            let done = step(server, link.writer_of(last)).await? == Some(lost.writer);
            let lost = pending.take().filter(|_| done);
            if let Some(Pending { verdicts, .. }) = lost {
                self.core.read_on(&mut link, counter).await?;
                self.give_back(link).await;
                return Ok(verdicts);
            }
        }
        if !self.core.read_on(&mut link, counter).await? {
            self.core.news.notify_one();
            return Err(self.core.behind());
        }
        let mut last = counter;
        let (changes, verdicts) = decide(batch.to_vec(), ground, &mut last);
        if changes.is_empty() {
            self.give_back(link).await;
            return Ok(verdicts);
        }
        self.batches += 1;
        let writer = self.process | self.batches;
        let writes = Writes { batch: writer, changes: &changes, counter: last, commit: true };
        let written = match tokio::time::timeout(STEP_PATIENCE, link.write(&writes)).await {
            Ok(written) => written,
            Err(_) => Err(Unwritten { open: true, error: late(server) }),
        };
        match written {
            Ok(()) => {
                self.core.feed().follow(changes);
                self.writer = Some((link, Instant::now()));
                Ok(verdicts)
            }
            Err(Unwritten { open, error }) => {
                *pending = open.then_some(Pending { writer, changes, verdicts });
                Err(error)
            }
        }
    }

    /// Ends a transaction without writing, and keeps the connection if that goes well.
    async fn give_back(&mut self, mut link: L) {
        if step(&self.core.server, link.roll_back()).await.is_ok() {
            self.writer = Some((link, Instant::now()));
        }
    }

    /// Connects as soon as the server can be reached.
    async fn connect(core: &Core<L>) -> Result<L, DriverError> {
        let until = Instant::now() + LOAD_PATIENCE;
        let mut told = false;
        loop {
            match step(&core.server, L::connect(&core.server, None)).await {
                Err(error) if can_pass(&error) && Instant::now() + RETRY_PAUSE < until => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(error = base::chain(&error), "trying again");
                    }
                }
                other => return other,
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes a dump in one transaction. Its objects get revisions of their own above it, for
    /// in some engines several stand at one.
    async fn write_all(core: &Core<L>, dump: &Dump, writer: i64) -> Result<(), DriverError> {
        let mut link = Self::connect(core).await?;
        let counter = link.lock().await?.max(dump.revision);
        let mut holdings = Holdings::default();
        for (collection, count) in link.holdings().await? {
            holdings.add_many(&collection.into(), usize::try_from(count).unwrap_or(usize::MAX));
        }
        holdings.must_be_empty(core.server.to_string())?;
        let change = |(entry, revision): (&Arc<crate::Entry>, Revision)| Change {
            key: entry.key.clone(),
            created: revision,
            revision,
            value: Some(entry.value.clone()),
        };
        let changes: Vec<Change> = dump.entries.iter().zip(counter + 1..).map(change).collect();
        let last = counter + changes.len() as Revision;
        let mut chunks = chunks(&changes).peekable();
        if chunks.peek().is_none() {
            let none = Writes { batch: writer, changes: &[], counter: last, commit: true };
            return link.write(&none).await.map_err(|unwritten| unwritten.error);
        }
        while let Some(changes) = chunks.next() {
            let commit = chunks.peek().is_none();
            let writes = Writes { batch: writer, changes, counter: last, commit };
            link.write(&writes).await.map_err(|unwritten| unwritten.error)?;
        }
        Ok(())
    }
}

/// A commit whose answer was lost.
struct Pending {
    writer: i64,
    changes: Vec<Change>,
    verdicts: Vec<Verdict>,
}

/// The verdicts of a batch of which nobody can say whether it was written.
fn unresolved(verdicts: Vec<Verdict>, error: &Arc<DriverError>) -> Vec<Verdict> {
    let open = |verdict| match verdict {
        Verdict::Applied(_) => Verdict::Unresolved(error.clone()),
        // Said upon states that may not have come about.
        _ => Verdict::Failed(error.clone()),
    };
    verdicts.into_iter().map(open).collect()
}

/// Changes in parts that a server takes at once.
fn chunks(mut changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = changes.iter().take(FILL_MAX_ROWS).take_while(|change| {
            let first = bytes == 0;
            bytes += change.value.as_ref().map_or(0, |value| value.len());
            first || bytes <= FILL_MAX_BYTES
        });
        let (now, later) = changes.split_at(fits.count());
        changes = later;
        (!now.is_empty()).then_some(now)
    })
}

/// One step with the server, which may hang.
async fn step<T>(
    server: &Server,
    work: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    tokio::time::timeout(STEP_PATIENCE, work).await.unwrap_or_else(|_| Err(late(server)))
}

fn late(server: &Server) -> DriverError {
    let hint = "check that the database runs and is not locked by somebody else";
    let reason = format!("no answer within {} s", STEP_PATIENCE.as_secs());
    remote(server, "wait for", Some(hint), reason)
}

/// Whether waiting may help.
fn can_pass(error: &DriverError) -> bool {
    !matches!(error, DriverError::TooNew { .. } | DriverError::Refused { .. })
}

impl<L: Link> Core<L> {
    /// The feed; there is one as soon as the store has begun to load.
    fn feed(&self) -> &Feed {
        self.feed.get().expect("writes and reads begin when the store has loaded")
    }

    fn behind(&self) -> DriverError {
        let reason = "this server was away for long and reads everything anew";
        remote(&self.server, "write to", None, reason)
    }

    /// Reads the changes up to a revision; `false` if some of them are gone.
    async fn read_on(&self, link: &mut L, upto: Revision) -> Result<bool, DriverError> {
        loop {
            let after = self.feed().revision();
            if after >= upto {
                return Ok(true);
            }
            let changes = step(&self.server, link.changes(after, PAGE_MAX_ROWS)).await?;
            let gapless = changes.iter().zip(after + 1..).all(|(c, next)| c.revision == next);
            match changes.last() {
                Some(last) if gapless => {
                    let last = last.revision;
                    self.feed().publish(changes, last);
                }
                _ => return Ok(false),
            }
        }
    }

    /// Reads all objects; gives the revision they stand at.
    async fn read_all(
        &self,
        link: &mut L,
        sink: &mut impl FnMut(Change),
    ) -> Result<Revision, DriverError> {
        let counter = step(&self.server, link.begin_reading()).await?;
        let mut after = 0;
        loop {
            let page = step(&self.server, link.objects(after, PAGE_MAX_ROWS)).await?;
            let Some(last) = page.last() else { break };
            after = last.revision;
            page.into_iter().for_each(&mut *sink);
        }
        step(&self.server, link.roll_back()).await?;
        Ok(counter)
    }

    /// Feeds the index with what others write, for ever.
    async fn keep_up(self: Arc<Self>) {
        let (mut link, mut pruned) = (None, 0);
        let (least, most) = L::POLL.unwrap_or((SILENCE_MAX, SILENCE_MAX));
        let mut pause = least;
        loop {
            let before = self.feed().revision();
            match self.look(&mut link, &mut pruned).await {
                Ok(()) => self.feed().alive(),
                Err(error) => {
                    self.feed().failing(&error);
                    link = None;
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            }
            let news = self.feed().revision() > before;
            pause = if news { least } else { (pause * 2).min(most) };
            // Woken or not, what is there is read.
            let _ = tokio::time::timeout(pause, self.news.notified()).await;
        }
    }

    async fn look(&self, link: &mut Option<L>, pruned: &mut Revision) -> Result<(), DriverError> {
        let link = match link {
            Some(link) => link,
            None => {
                let news = Some(self.news.clone());
                link.insert(step(&self.server, L::connect(&self.server, news)).await?)
            }
        };
        let counter = step(&self.server, link.counter()).await?;
        if !self.read_on(link, counter).await? {
            let mut state = Vec::new();
            let at = self.read_all(link, &mut |change| state.push(change)).await?;
            tracing::warn!(
                "{} has pruned changes that this server had not read; everything was read anew \
                 and all watches begin again",
                self.server
            );
            self.feed().reset(state, at);
        }
        if counter >= *pruned + PRUNE_AFTER_CHANGES {
            *pruned = counter;
            step(&self.server, link.prune(counter.saturating_sub(KEPT_CHANGES))).await?;
        }
        Ok(())
    }
}

impl<L: Link> Shared for Core<L> {
    fn newest(&self) -> BoxFuture<'_, Result<Revision, DriverError>> {
        Box::pin(async {
            let until = Instant::now() + READ_PATIENCE;
            let mut asker = self.asker.lock().await;
            loop {
                let kept = asker.take().filter(|(_, used)| used.elapsed() < L::IDLE_MAX);
                let asked = async {
                    let mut link = match kept {
                        Some((link, _)) => link,
                        None => step(&self.server, L::connect(&self.server, None)).await?,
                    };
                    Ok((step(&self.server, link.counter()).await?, link))
                };
                match asked.await {
                    Ok((counter, link)) => {
                        *asker = Some((link, Instant::now()));
                        if self.feed().revision() < counter {
                            self.news.notify_one();
                        }
                        return Ok(counter);
                    }
                    Err(error) if Instant::now() + RETRY_PAUSE >= until => return Err(error),
                    Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
                }
            }
        })
    }
}

impl<L: Link> Driver for Sql<L> {
    fn name(&self) -> String {
        self.core.server.to_string()
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
        let mut objects = 0;
        let (revision, link) = engine.wait(async {
            let mut link = Self::connect(&self.core).await?;
            let count = &mut |change| {
                objects += 1;
                sink(change);
            };
            let revision = self.core.read_all(&mut link, count).await?;
            Ok::<_, DriverError>((revision, link))
        })?;
        self.writer = Some((link, Instant::now()));
        let recovery = match objects {
            0 => Recovery::Fresh,
            objects => Recovery::Joined { datastore: self.name(), objects },
        };
        Ok(Loaded { revision, recovery, shared: Some(self.core.clone()) })
    }

    fn begin(&mut self) {
        if let Some(engine) = &self.engine {
            engine.spawn(self.core.clone().keep_up());
        }
    }

    fn fill(&mut self, _options: &Options, dump: &Dump) -> Result<(), DriverError> {
        let engine = Engine::start()?;
        engine.wait(Self::write_all(&self.core, dump, self.process))
    }

    fn commit(&mut self, batch: Vec<Proposal>, ground: &dyn Ground) -> Outcome {
        let Some(engine) = self.engine.take() else { return Outcome::default() };
        let verdicts = engine.wait(self.transact(batch, ground));
        self.engine = Some(engine);
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
        self.writer = None;
        self.engine = None;
        Ok(())
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}
