//! The default medium: one SQLite database in a folder of its own.

mod database;
mod folder;

use std::path::PathBuf;
use std::time::Instant;

use crate::driver::Change;
use crate::local::{Found, Local, Medium, Row};
use crate::{DriverError, Options, Recovery, Revision, Stats};

use database::Database;
use folder::Folder;

/// A SQLite database and what belongs to it, in a folder no other process may use meanwhile.
pub struct Sqlite {
    path: PathBuf,
    open: Option<Open>,
    stats: Stats,
}

struct Open {
    database: Database,
    _folder: Folder,
}

impl Sqlite {
    /// A driver for the database in this folder, which is made if it is not there.
    /// Nothing is touched before the store opens.
    pub fn driver(folder: impl Into<PathBuf>) -> Local<Sqlite> {
        Local::new(Sqlite { path: folder.into(), open: None, stats: Stats::default() })
    }
}

impl Medium for Sqlite {
    fn load(
        &mut self,
        options: &Options,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Found, DriverError> {
        let folder = Folder::lock(&self.path)?;
        let mut database = Database::open(&folder.database())?;
        let meta = database.meta()?;
        database.load(sink)?;
        let recovery = match (meta.reserved, meta.clean) {
            (0, _) => Recovery::Fresh,
            (_, true) => Recovery::Clean,
            (_, false) => Recovery::Unclean,
        };
        let _ = options;
        self.open = Some(Open { database, _folder: folder });
        Ok(Found { reserved: meta.reserved, recovery })
    }

    fn commit(&mut self, rows: &[Row], reserved: Option<Revision>) -> Result<(), DriverError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.database.commit(rows, reserved, false)?;
        self.stats.commits += 1;
        self.stats.fsyncs += 1;
        Ok(())
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn tend(&mut self, _now: Instant) {}

    fn copy(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn close(&mut self, revision: Revision) -> Result<(), DriverError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.database.commit(&[], Some(revision), true)
    }

    fn count(&self, stats: &mut Stats) {
        stats.commits = self.stats.commits;
        stats.fsyncs = self.stats.fsyncs;
    }
}
