//! The data folder: who may use it, and what its files are called.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::DriverError;

/// A folder that is ours until this is dropped. The kernel releases the lock also when the
/// process is killed.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where needed and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, DriverError> {
        let unwritable = |source| DriverError::Unwritable { path: path.into(), source };
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
                return Err(DriverError::Io { doing: "lock", path: path.join("lock"), source });
            }
        }
        let noted = lock.set_len(0).and_then(|()| lock.rewind());
        noted.and_then(|()| write!(lock, "{}", std::process::id())).map_err(unwritable)?;
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// The database file.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("store.db")
    }
}
