//! Where a sandbox is on disk. The folder is the whole record: what is not in it is a process
//! whose identity is in it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Doing, Error, Hinted, Result};
use crate::plan::check_name;
use crate::process::Identity;

/// Where sandboxes are kept unless another folder is named.
pub const BASE_FOLDER: &str = "/var/lib/coracle-sandbox";

/// The folder of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(base: &Path, name: &str) -> Result<Self> {
        check_name(name)?;
        Ok(Folder(base.join(name)))
    }

    /// As a process of the sandbox was given it.
    pub(crate) fn at(path: &Path) -> Self {
        Folder(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The name of its control group: sandboxes of one name may be in several folders.
    pub(crate) fn group(&self) -> String {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let bytes = self.0.as_os_str().as_encoded_bytes();
        // FNV-1a, 32 bits: short, and the same in every process.
        let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        format!("{name}-{hash:08x}")
    }

    pub(crate) fn exists(&self) -> bool {
        self.0.is_dir()
    }

    pub(crate) fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    pub(crate) fn faults(&self) -> PathBuf {
        self.0.join("faults.json")
    }

    /// The folder with the binary, which the boards find in their path.
    pub(crate) fn programs(&self) -> PathBuf {
        self.0.join("bin")
    }

    pub(crate) fn board(&self, name: &str) -> BoardFolder {
        BoardFolder(self.0.join("boards").join(name))
    }

    /// The names of everything that was ever started.
    pub(crate) fn boards(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("boards")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Waits until no other command changes this sandbox, and keeps others waiting. The lock is
    /// beside the folder, which `down` removes.
    pub(crate) fn lock(&self) -> Result<Flock<File>> {
        let path = self.0.with_extension("lock");
        let doing = || format!("locking {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
            .doing(doing)
            .hinted("use sudo: a sandbox is made of namespaces and mounts")?;
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file =
                file.doing(doing).hinted("use sudo: a sandbox is made of namespaces and mounts")?;
            let lock = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| io::Error::from(errno))
                .doing(doing)?;
            // Whoever took the sandbox down has removed the file that we waited for.
            if same_file(&lock, &path) {
                return Ok(lock);
            }
        }
    }

    /// Removes the lock's file; the lock itself is held until it is dropped.
    pub(crate) fn forget_lock(&self) {
        let _ = fs::remove_file(self.0.with_extension("lock"));
    }
}

fn same_file(open: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ids = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    open.metadata().ok().map(ids) == fs::metadata(path).ok().map(ids)
}

/// The folder of one board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoardFolder(PathBuf);

impl BoardFolder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What the board's process logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What the board finds as its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config.yaml")
    }

    /// The disk, or where it is mounted.
    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }

    /// The disk of a board that has one of its own.
    pub(crate) fn disk_image(&self) -> PathBuf {
        self.0.join("disk.img")
    }

    /// Where the board's root is put together, in its own mount namespace.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// The init's identity.
    pub(crate) fn identity(&self) -> PathBuf {
        self.0.join("init")
    }

    /// The relay's identity, where the cable is bad.
    pub(crate) fn relay(&self) -> PathBuf {
        self.0.join("relay")
    }

    /// The board's init, if it runs.
    pub(crate) fn init(&self) -> Option<Identity> {
        Identity::read(&self.identity()).filter(Identity::is_alive)
    }
}

/// The names of the sandboxes in a folder.
pub fn list(base: &Path) -> Vec<String> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> =
        folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Writes JSON so that a command that is killed leaves the old content or the new.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result {
    let doing = || format!("writing {}", path.display());
    let text = serde_json::to_vec_pretty(value).doing(doing)?;
    let temporary = path.with_extension("new");
    let written = File::create(&temporary).and_then(|mut file| file.write_all(&text));
    written.and_then(|()| fs::rename(&temporary, path)).doing(doing)
}

/// Reads JSON; `None` where the file is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let doing = || format!("reading {}", path.display());
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.doing(doing)?,
    };
    serde_json::from_slice(&text).doing(doing).map(Some).map_err(|error| {
        Error::with_hint(error, "`coracle sandbox down` takes such a sandbox away")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_survives_that_its_file_is_removed() {
        let base = tempfile::tempdir().expect("folder");
        let folder = Folder::new(base.path(), "lab").expect("name");
        let first = folder.lock().expect("lock");
        let other = folder.clone();
        let waiting = std::thread::spawn(move || other.lock().map(drop).is_ok());
        folder.forget_lock();
        drop(first);
        assert!(waiting.join().expect("thread"));
    }

    #[test]
    fn json_comes_back_and_rubbish_is_named() {
        let base = tempfile::tempdir().expect("folder");
        let path = base.path().join("plan.json");
        assert_eq!(read_json::<Vec<u8>>(&path).expect("nothing"), None);
        write_json(&path, &[1, 2]).expect("written");
        assert_eq!(read_json::<Vec<u8>>(&path).expect("read"), Some(vec![1, 2]));
        fs::write(&path, "{").expect("written");
        assert!(read_json::<Vec<u8>>(&path).expect_err("rubbish").hint().is_some());
    }
}
