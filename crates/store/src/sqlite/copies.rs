//! Rolling verified copies of the database: what to fall back on.
//!
//! A copy costs as many bytes as the database has, and SD cards wear. So copies are made
//! only after something durable has changed, and so far apart that they stay within a
//! budget of bytes an hour.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::Error::SqliteFailure;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::database::{Database, connect, failure};
use super::folder::{io, rename, sync_file};
use crate::DriverError;

/// However large the database, a copy of it is at most this old if it changes.
const COPIES_MAX_SPACING: Duration = Duration::from_secs(24 * 3600);
/// How long a copy waits after a change for more changes to take along.
const COPIES_SETTLE: Duration = Duration::from_secs(300);

/// The folder of copies.
#[derive(Clone)]
pub(super) struct Copies {
    pub(super) folder: PathBuf,
    pub(super) kept: usize,
    pub(super) interval: Duration,
    pub(super) max_bytes_per_hour: u64,
}

/// A finished copy.
pub(super) struct Copy {
    pub(super) path: PathBuf,
    pub(super) taken: SystemTime,
}

impl Copies {
    /// Finished copies, newest first.
    pub(super) fn list(&self) -> Vec<Copy> {
        let Ok(folder) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let copy = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            let millis = name.strip_prefix("store-")?.strip_suffix(".db")?.parse().ok()?;
            let taken = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
            Some(Copy { path, taken })
        };
        let mut copies: Vec<Copy> = folder.flatten().filter_map(|f| copy(f.path())).collect();
        copies.sort_by_key(|copy| std::cmp::Reverse(copy.taken));
        copies
    }

    /// How long to wait at least from a change to its copy.
    pub(super) fn settle(&self) -> Duration {
        COPIES_SETTLE.min(self.interval)
    }

    /// How long to wait from one copy of so many bytes to the next.
    pub(super) fn spacing(&self, bytes: u64) -> Duration {
        let budget =
            Duration::from_secs(bytes.saturating_mul(3600) / self.max_bytes_per_hour.max(1));
        budget.min(COPIES_MAX_SPACING).max(self.interval)
    }

    /// Copies the database as it stands, reads the copy back, and only then gives it its
    /// name and drops the oldest ones. Gives the bytes written.
    pub(super) fn make(&self, database: &Path) -> Result<u64, DriverError> {
        std::fs::create_dir_all(&self.folder).map_err(|e| io("make", &self.folder, e))?;
        let new = self.folder.join("new.db");
        let made = self.make_at(database, &new);
        if made.is_err() {
            // Half a copy is of no use, and on a full disk it is in the way.
            let _ = std::fs::remove_file(&new);
        }
        made
    }

    fn make_at(&self, database: &Path, new: &Path) -> Result<u64, DriverError> {
        // One that a crash has left behind; if it cannot be removed, writing will say so.
        let _ = std::fs::remove_file(new);
        duplicate(database, new)?;
        sync_file(new)?;
        Database::check_copy(new)?;
        let bytes = std::fs::metadata(new).map_err(|e| io("look at", new, e))?.len();
        let mut stamp = millis(SystemTime::now());
        if let Some(newest) = self.list().first() {
            // Boards without a clock of their own may have gone back in time.
            stamp = stamp.max(millis(newest.taken) + 1);
        }
        rename(new, &self.folder.join(format!("store-{stamp}.db")))?;
        for old in self.list().iter().skip(self.kept.max(1)) {
            // One copy too many does no harm; the next round tries again.
            let _ = std::fs::remove_file(&old.path);
        }
        Ok(bytes)
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Copies page by page over a connection of its own: the whole is one read transaction, so
/// writers go on meanwhile.
fn duplicate(database: &Path, new: &Path) -> Result<(), DriverError> {
    let copy = || {
        let from = connect(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut to = Connection::open(new)?;
        // The caller syncs once, at the end.
        to.pragma_update(None, "synchronous", "off")?;
        if Backup::new(&from, &mut to)?.step(-1)? != StepResult::Done {
            // The log was just being started anew: the next round does it.
            return Err(SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None));
        }
        // A copy has no log beside it.
        to.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
        to.close().map_err(|(_, e)| e)
    };
    copy().map_err(|e| failure("copy the database to", new, e))
}
