//! What can go wrong, each with what was being done.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Entry, Revision};

/// The history asked for is no longer in the window (HTTP 410 Gone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} has left the watch window, which reaches back to {oldest}")]
pub struct Compacted {
    /// The revision asked for.
    pub asked: Revision,
    /// The oldest revision from which one can still go on.
    pub oldest: Revision,
}

/// Why a list cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The page's revision has left the window or is compacted; the caller must start over.
    #[error("list at revision {asked}: history reaches back to {oldest} only")]
    Expired {
        /// The revision asked for.
        asked: Revision,
        /// The oldest revision that can still be shown.
        oldest: Revision,
    },
    /// The revision is yet to come.
    #[error("list at revision {asked}: the newest is {newest}")]
    Ahead {
        /// The revision asked for.
        asked: Revision,
        /// The newest revision.
        newest: Revision,
    },
}

/// Why a read cannot be made linearizable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BarrierError {
    /// The datastore did not answer.
    #[error("ask the datastore for its newest revision")]
    Datastore(#[source] Arc<DriverError>),
    /// The answer, or the changes up to it, did not come in time.
    #[error(
        "what the datastore holds did not arrive within {} s; the newest revision here is {newest}",
        .patience.as_secs()
    )]
    Late {
        /// How long was waited.
        patience: Duration,
        /// The newest revision that has arrived.
        newest: Revision,
    },
    /// The store was closed.
    #[error("read from a closed store")]
    Closed,
}

/// Why a write was not acknowledged. But for `Unresolved`, the object is as it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The object is not at the expected revision, or exists, or is gone (`None`).
    #[error("write to an object that has changed")]
    Conflict {
        /// What is there now.
        current: Option<Arc<Entry>>,
    },
    /// There is nothing to delete.
    #[error("delete of an object that is not there")]
    NotFound,
    /// The value is larger than [`VALUE_MAX_BYTES`](crate::VALUE_MAX_BYTES).
    #[error("value of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The value's size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The driver could not make it durable. Reads go on.
    #[error("make a write durable")]
    Storage(#[source] Arc<DriverError>),
    /// The datastore went away over the write, and whether it is done could not be found
    /// out in time. Who wants to know must read the object.
    #[error("write with an outcome that is not known")]
    Unresolved(#[source] Arc<DriverError>),
    /// The store was closed before the write was taken up.
    #[error("write to a closed store")]
    Closed,
}

/// Why a driver failed.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No space, or over quota.
    #[error("disk full while writing {path}")]
    Full {
        /// The file or folder.
        path: PathBuf,
    },
    /// SQLite refused.
    #[error("{doing} {path}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system refused.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the data folder.
    #[error(
        "{path} is in use by another process{}",
        .holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who has it, where that is known.
        holder: Option<u32>,
    },
    /// The folder, or a file in it, cannot be written to.
    #[error("{path} is not writable")]
    Unwritable {
        /// The folder or file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database is damaged and no verified copy can take its place.
    #[error("{path} is damaged ({reason}) and there is no verified copy of it")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What the check found.
        reason: String,
    },
    /// A copy does not read back as it was written; the ones before it are kept.
    #[error("the copy {path} does not read back ({reason})")]
    BadCopy {
        /// The copy.
        path: PathBuf,
        /// What the check found.
        reason: String,
    },
    /// A datastore elsewhere did not answer, or refused.
    #[error("{doing} {datastore}")]
    Remote {
        /// What was being done.
        doing: &'static str,
        /// What and where it is, without secrets.
        datastore: String,
        /// What a person can do about it, where that is known.
        hint: Option<&'static str>,
        /// Its reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A datastore elsewhere said no, and would say so again.
    #[error("{doing} {datastore}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What and where it is, without secrets.
        datastore: String,
        /// What a person can do about it, where that is known.
        hint: Option<&'static str>,
        /// Its reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A datastore that must be empty is not.
    #[error("{datastore} is not empty: it holds {holds}")]
    NotEmpty {
        /// What and where it is.
        datastore: String,
        /// What it holds, in words.
        holds: String,
    },
    /// Somebody began to fill the datastore and did not come to an end.
    #[error("{datastore} was filled in part only")]
    HalfFilled {
        /// What and where it is.
        datastore: String,
    },
    /// The database was written by a newer version.
    #[error("{path} has layout {found}, this version knows up to {known}")]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The newest layout this version knows.
        known: i64,
    },
}

impl DriverError {
    /// What a person can do about it: the line that follows the error.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Full { .. } => Some("free some space; a running store then carries on by itself"),
            Self::InUse { .. } => Some("stop the other process, or use another --data-dir"),
            Self::Unwritable { .. } => {
                Some("give this user the right to write there, or use another --data-dir")
            }
            Self::Damaged { .. } => {
                Some("restore the folder from a backup, or move it away to start empty")
            }
            Self::BadCopy { .. } => {
                Some("the disk may be failing; replace it while it can be read")
            }
            Self::TooNew { .. } => Some("install the newer version again"),
            Self::NotEmpty { .. } => {
                Some("name an empty datastore; nothing was changed in this one")
            }
            Self::HalfFilled { .. } => Some("run the move or the restore again: it starts over"),
            Self::Remote { hint, .. } | Self::Refused { hint, .. } => *hint,
            Self::Sqlite { .. } | Self::Io { .. } => None,
        }
    }
}

impl OpenError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Driver(error) => error.hint(),
            Self::Thread(_) => Some("raise the limit of threads of this user or cgroup"),
            Self::Gone => None,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The driver could not load.
    #[error("open the store")]
    Driver(#[from] DriverError),
    /// The writer thread could not be started.
    #[error("start the store's writer thread")]
    Thread(#[source] std::io::Error),
    /// The writer thread ended while loading.
    #[error("the store's writer thread ended while loading")]
    Gone,
}
