//! The folder that everything is built in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::Outcome;

/// Names another cache folder.
const FOLDER_VARIABLE: &str = "CORACLE_CONFORMANCE_DIR";

/// The cache folder; each thing in it has a stamp that says what it was made from.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens it, and makes it where it is missing.
    pub fn open() -> Outcome<Self> {
        let folder = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from).or_else(|| {
            let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home)?;
            Some(base.join("coracle/conformance"))
        });
        let folder =
            folder.ok_or_else(|| format!("no HOME: name a folder by {FOLDER_VARIABLE}"))?;
        make_folder(&folder)?;
        let folder = fs::canonicalize(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self { folder })
    }

    /// A path in the cache.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// Runs `make` unless `name` was already made from `recipe`. What a failed or killed attempt
    /// left is for `make` to clear away.
    pub fn once(&self, name: &str, recipe: &str, make: impl FnOnce() -> Outcome) -> Outcome {
        let stamp = self.path("stamps").join(name);
        if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
            return Ok(());
        }
        eprintln!("==> {name}");
        let _ = fs::remove_file(&stamp);
        make()?;
        make_folder(&self.path("stamps"))?;
        write(&stamp, recipe)
    }
}

/// Makes a folder and those above it.
pub fn make_folder(folder: &Path) -> Outcome {
    fs::create_dir_all(folder).map_err(|e| format!("making {}: {e}", folder.display()))
}

/// An empty folder, whatever was there.
pub fn fresh_folder(folder: &Path) -> Outcome {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| format!("removing {}: {e}", folder.display()))?;
    }
    make_folder(folder)
}

/// Writes a file.
pub fn write(path: &Path, text: impl AsRef<[u8]>) -> Outcome {
    fs::write(path, text).map_err(|e| format!("writing {}: {e}", path.display()))
}

/// What a folder holds, sorted by name.
pub fn entries(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let read = fs::read_dir(folder).and_then(|found| {
        found.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut found = read.map_err(|e| format!("reading {}: {e}", folder.display()))?;
    found.sort();
    Ok(found)
}
