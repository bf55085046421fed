//! The data folder: who may use it, what its files are called, and the high-water file.
//!
//! The high-water file holds the reserved revision a second time, outside the database, so
//! that the counter does not go back when a damaged database is replaced by an older copy.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::{DriverError, Revision};

/// A folder that is ours until this is dropped. The kernel releases the lock also when the
/// process is killed.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where needed and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, DriverError> {
        let unwritable = |source: std::io::Error| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                DriverError::Full { path: path.into() }
            }
            _ => DriverError::Unwritable { path: path.into(), source: Box::new(source) },
        };
        std::fs::create_dir_all(path).map_err(unwritable)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options.open(path.join("lock")).map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let holder = lock.read_to_string(&mut text).ok().and(text.trim().parse().ok());
                return Err(DriverError::InUse { path: path.into(), holder });
            }
            Err(TryLockError::Error(source)) => {
                return Err(io("lock", &path.join("lock"), source));
            }
        }
        let noted = lock.set_len(0).and_then(|()| lock.rewind());
        // Who holds the lock is only told in a message: a full disk must not stop the start.
        let _ = noted.and_then(|()| write!(lock, "{}", std::process::id()));
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// The database file.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("store.db")
    }

    /// Where the rolling copies are, unless the caller chose another place.
    pub(super) fn copies(&self) -> PathBuf {
        self.path.join("copies")
    }

    /// The reserved revision as last noted; `None` if there is none or it cannot be read.
    pub(super) fn high_water(&self) -> Option<Revision> {
        let text = std::fs::read_to_string(self.path.join("revision")).ok()?;
        // A line that was cut short lacks its end and is not believed.
        text.strip_suffix('\n')?.parse().ok()
    }

    /// Whether a store was ever used here.
    pub(super) fn is_used(&self) -> bool {
        self.path.join("revision").exists()
    }

    /// Notes a reserved revision; on the disk when this returns.
    pub(super) fn set_high_water(&self, reserved: Revision) -> Result<(), DriverError> {
        let path = self.path.join("revision.new");
        let write = || {
            let mut file = File::create(&path)?;
            writeln!(file, "{reserved}")?;
            file.sync_all()
        };
        write().map_err(|e| io("write", &path, e))?;
        rename(&path, &self.path.join("revision"))
    }

    /// Puts a damaged database and its log aside, in place of one put aside before. One that
    /// is missing was put aside by a fall-back that was cut short, and stays.
    pub(super) fn put_aside(&self) -> Result<PathBuf, DriverError> {
        let aside = self.path.join("damaged");
        if self.database().exists() {
            match std::fs::remove_dir_all(&aside) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(io("clear", &aside, e)),
                _ => {}
            }
        }
        std::fs::create_dir_all(&aside).map_err(|e| io("make", &aside, e))?;
        // The log goes first: without its database it can do no harm, but an old log beside
        // a restored database would.
        for name in ["store.db-wal", "store.db-shm", "store.db"] {
            match std::fs::rename(self.path.join(name), aside.join(name)) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(io("put aside", &self.path.join(name), e));
                }
                _ => {}
            }
        }
        sync_folder(&self.path)?;
        Ok(aside)
    }

    /// Puts a copy in the place of the database.
    pub(super) fn restore(&self, copy: &Path) -> Result<(), DriverError> {
        let new = self.path.join("store.db.new");
        std::fs::copy(copy, &new).map_err(|e| io("restore a copy to", &new, e))?;
        sync_file(&new)?;
        rename(&new, &self.database())
    }
}

/// Renames a file whose contents are on the disk already; the new name is on the disk when
/// this returns.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), DriverError> {
    std::fs::rename(from, to).map_err(|e| io("rename", from, e))?;
    sync_folder(to.parent().unwrap_or(Path::new("/")))
}

/// Waits until a file's contents are on the disk.
pub(super) fn sync_file(path: &Path) -> Result<(), DriverError> {
    File::open(path).and_then(|f| f.sync_all()).map_err(|e| io("sync", path, e))
}

fn sync_folder(path: &Path) -> Result<(), DriverError> {
    sync_file(path)
}

/// Names the failure of the file system that a person can do something about.
pub(super) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> DriverError {
    let path = path.into();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DriverError::Full { path },
        _ => DriverError::Io { doing, path, source },
    }
}
