//! The file of given addresses: written whole, next to the old one, then renamed over it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::addresses::Addresses;

/// The file's name in the state folder.
const FILE: &str = "pod-addresses.json";

/// Where the addresses are kept.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// Makes the folder if it is missing.
    pub(super) fn make_folder(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), fs::create_dir_all)
    }

    /// Its path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds; nothing when there is none. A file that is no JSON (it was written by
    /// something else: ours is never torn) is put aside under another name: no address is worth
    /// a board that does not start.
    pub(super) fn load(&self) -> io::Result<Addresses> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Addresses::default());
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&bytes) {
            Ok(addresses) => Ok(addresses),
            Err(error) => {
                let aside = self.path.with_extension("json.unreadable");
                tracing::warn!(
                    path = %self.path.display(),
                    aside = %aside.display(),
                    %error,
                    "the file of pod addresses cannot be read and is put aside; \
                     running pods may be given other addresses"
                );
                fs::rename(&self.path, aside)?;
                Ok(Addresses::default())
            }
        }
    }

    /// Replaces the file; it is on disk when this returns.
    pub(super) fn save(&self, addresses: &Addresses) -> io::Result<()> {
        let new = self.path.with_extension("json.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(addresses)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Removes the file, if there is one.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
