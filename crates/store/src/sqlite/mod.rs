//! The default medium: one SQLite database in a folder of its own.
//!
//! ```text
//! store.db, -wal         the database (WAL, synchronous=FULL)
//! revision               the reserved revision a second time
//! lock                   held while a process uses the folder
//! copies/store-<ms>.db   verified copies, newest of which replaces a damaged database
//! damaged/               the damaged database, after that has happened
//! ```

mod copies;
mod database;
mod folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::driver::Change;
use crate::local::{Found, Local, Medium, Row};
use crate::{DriverError, Options, Recovery, Revision, Stats, Waker};

use copies::Copies;
use database::{Database, Meta, Trouble};
use folder::Folder;

/// How far the revision leaps when a copy takes over and nothing readable says how far it
/// had come: more than a board can write between two copies (a day at 10,000 a second).
pub const FALL_BACK_LEAP: Revision = 1_000_000_000;

/// What a caller may choose of the SQLite driver.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// How many verified copies are kept.
    pub copies_kept: usize,
    /// Least time from one copy to the next; large databases are copied less often.
    pub copy_interval: Duration,
    /// Bytes that copies may write an hour on average: the default of 256 KiB keeps to a
    /// quarter of what an idle cluster may write. A changing database is copied daily
    /// however large it is.
    pub copies_max_bytes_per_hour: u64,
    /// Where the copies go; by default a folder beside the database. Another disk is better.
    pub copies: Option<PathBuf>,
    /// Pages of 4 KiB in the log after which they are brought over into the database.
    pub log_max_pages: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            copies_kept: 3,
            copy_interval: Duration::from_secs(3600),
            copies_max_bytes_per_hour: 256 << 10,
            copies: None,
            log_max_pages: 1000,
        }
    }
}

/// A SQLite database and what belongs to it, in a folder no other process may use meanwhile.
pub struct Sqlite {
    path: PathBuf,
    options: SqliteOptions,
    open: Option<Open>,
    stats: Stats,
    copied: Arc<Copied>,
}

struct Open {
    // Before the folder, whose drop lets others in.
    database: Database,
    copies: Copies,
    last_copy: Option<SystemTime>,
    /// When the next copy is due; `None` while nothing has changed since the last.
    copy_due: Option<Instant>,
    copier: Option<JoinHandle<()>>,
    /// Tells the writer thread that a copy is finished.
    wake: Waker,
    folder: Folder,
}

/// What the copying thread has done.
#[derive(Default)]
struct Copied {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Sqlite {
    /// A driver for the database in this folder, which is made if it is not there.
    /// Nothing is touched before the store opens.
    pub fn driver(folder: impl Into<PathBuf>) -> Local<Sqlite> {
        Self::with(folder, SqliteOptions::default())
    }

    /// The same with options.
    pub fn with(folder: impl Into<PathBuf>, options: SqliteOptions) -> Local<Sqlite> {
        let (path, stats, copied) = (folder.into(), Stats::default(), Arc::default());
        Local::new(Sqlite { path, options, open: None, stats, copied })
    }
}

/// Replaces a damaged database by its newest sound copy, and adds what of the damaged one is
/// newer and sound: a bad sector then costs the objects in it, not a day's changes. Objects
/// deleted since the copy come back; whoever deleted them can do so again.
fn fall_back(
    folder: &Folder,
    copies: &Copies,
    reason: String,
) -> Result<(Database, Recovery), DriverError> {
    let path = folder.database();
    let sound = copies.list().into_iter().find(|c| Database::check_copy(&c.path).is_ok());
    let Some(copy) = sound else { return Err(DriverError::Damaged { path, reason }) };
    let noted = folder.high_water().max(Database::peek(&path).map(|m| m.reserved));
    let damaged = folder.put_aside()?;
    folder.restore(&copy.path)?;
    let mut database = Database::open(&path, true).map_err(|t| refuse(&path, t))?;
    let copied = database.meta()?.reserved;
    let reserved = copied.max(noted.unwrap_or(copied.saturating_add(FALL_BACK_LEAP)));
    folder.set_high_water(reserved)?;
    database.commit(&[], Some(Meta { reserved, clean: false }))?;
    let salvaged = database.salvage(&damaged.join("store.db"))?;
    let (copy, taken) = (copy.path, copy.taken);
    let recovery = Recovery::Restored { reason, copy, taken, salvaged, damaged };
    Ok((database, recovery))
}

fn refuse(path: &std::path::Path, trouble: Trouble) -> DriverError {
    match trouble {
        Trouble::Damaged(reason) => DriverError::Damaged { path: path.into(), reason },
        Trouble::Other(error) => error,
    }
}

impl Medium for Sqlite {
    fn name(&self) -> String {
        format!("the SQLite database in {}", self.path.display())
    }

    fn load(
        &mut self,
        options: &Options,
        wake: Waker,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Found, DriverError> {
        let folder = Folder::lock(&self.path)?;
        let copies = Copies {
            folder: self.options.copies.clone().unwrap_or_else(|| folder.copies()),
            kept: self.options.copies_kept,
            interval: self.options.copy_interval,
            max_bytes_per_hour: self.options.copies_max_bytes_per_hour,
        };
        let path = folder.database();
        let used = folder.is_used() || !copies.list().is_empty();
        let (mut database, recovery) = match Database::open(&path, used) {
            Ok(database) => {
                let Meta { reserved, clean } = database.meta()?;
                let kind = if clean { Recovery::Clean } else { Recovery::Unclean };
                (database, if reserved == 0 { Recovery::Fresh } else { kind })
            }
            Err(Trouble::Damaged(reason)) => fall_back(&folder, &copies, reason)?,
            Err(Trouble::Other(error)) => return Err(error),
        };
        database.sort(options)?;
        database.load(sink)?;
        let reserved = database.meta()?.reserved;
        let last_copy = copies.list().first().map(|c| c.taken);
        let (copy_due, copier) = (None, None);
        self.open = Some(Open { database, copies, last_copy, copy_due, copier, wake, folder });
        Ok(Found { reserved, recovery })
    }

    fn commit(&mut self, rows: &[Row], reserved: Option<Revision>) -> Result<(), DriverError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Some(reserved) = reserved {
            open.folder.set_high_water(reserved)?;
            self.stats.fsyncs += 2;
        }
        open.database.commit(rows, reserved.map(|reserved| Meta { reserved, clean: false }))?;
        self.stats.commits += 1;
        if open.copy_due.is_none() && rows.iter().any(|row| !row.volatile) {
            open.copy_due = Some(open.next_copy());
        }
        Ok(())
    }

    fn wake_at(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        if open.database.is_log_full(self.options.log_max_pages) {
            Some(Instant::now())
        } else {
            open.copy_due
        }
    }

    fn tend(&mut self, now: Instant) {
        let Some(open) = &mut self.open else { return };
        if open.database.is_log_full(self.options.log_max_pages)
            && let Err(error) = open.database.shorten_log()
        {
            tracing::warn!(error = base::chain(&error), "shorten the log");
        }
        if open.copy_due.is_some_and(|due| due <= now) {
            open.start_copy(self.copied.clone());
        }
    }

    fn copy(&mut self) -> Result<(), DriverError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.finish_copy();
        open.copy_due = None;
        open.last_copy = Some(SystemTime::now());
        let bytes = open.copies.make(&open.folder.database())?;
        self.copied.add(bytes);
        Ok(())
    }

    fn close(&mut self, revision: Revision) -> Result<(), DriverError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.finish_copy();
        let meta = open.database.meta()?;
        if meta.reserved != revision || !meta.clean {
            open.database.commit(&[], Some(Meta { reserved: revision, clean: true }))?;
        }
        self.stats.fsyncs += open.database.fsyncs;
        self.stats.bytes_written += open.database.bytes_written;
        open.database.close()
    }

    fn count(&self, stats: &mut Stats) {
        let database = self.open.as_ref().map(|open| &open.database);
        let (fsyncs, bytes) = database.map_or((0, 0), |d| (d.fsyncs, d.bytes_written));
        let copied = self.copied.bytes.load(Ordering::Relaxed);
        stats.commits = self.stats.commits;
        stats.fsyncs = self.stats.fsyncs + fsyncs;
        stats.bytes_written = self.stats.bytes_written + bytes + copied;
        stats.copies = self.copied.count.load(Ordering::Relaxed);
    }
}

impl Copied {
    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Open {
    /// When a copy may be made that takes in a change of now.
    fn next_copy(&self) -> Instant {
        let size = std::fs::metadata(self.folder.database()).map_or(0, |m| m.len());
        let spacing = self.copies.spacing(size);
        let age = self.last_copy.map_or(spacing, |at| at.elapsed().unwrap_or_default());
        Instant::now() + spacing.saturating_sub(age).max(self.copies.settle())
    }

    /// Starts a copy on a thread of its own, or puts it off while one is under way.
    fn start_copy(&mut self, copied: Arc<Copied>) {
        if self.copier.as_ref().is_some_and(|c| !c.is_finished()) {
            self.copy_due = Some(Instant::now() + self.copies.settle());
            return;
        }
        self.finish_copy();
        self.copy_due = None;
        self.last_copy = Some(SystemTime::now());
        let (copies, path) = (self.copies.clone(), self.folder.database());
        let wake = self.wake.clone();
        let copy = move || {
            match copies.make(&path) {
                Ok(bytes) => copied.add(bytes),
                Err(error) => {
                    tracing::warn!(error = base::chain(&error), "copy the database");
                }
            }
            wake.wake();
        };
        match std::thread::Builder::new().name("store-copy".into()).spawn(copy) {
            Ok(copier) => self.copier = Some(copier),
            Err(error) => tracing::warn!(%error, "start a copy of the database"),
        }
    }

    fn finish_copy(&mut self) {
        if let Some(copier) = self.copier.take() {
            // A copy that panicked has no name yet and is cleared away by the next one.
            let _ = copier.join();
        }
    }
}
