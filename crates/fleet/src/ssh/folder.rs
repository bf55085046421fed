use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What the folders are called by.
const PREFIX: &str = "coracle-ssh-";
/// The file that is locked as long as the folder's process lives.
const LOCK: &str = "lock";

/// A folder for the sockets of connections, which goes with the value. One that was left by a process
/// that was killed goes when the next is made.
#[derive(Debug)]
pub struct Folder {
    /// Held open for its lock, which the kernel lets go when the process ends in any way: a number of a
    /// process in the folder's name could be another's by then.
    _lock: File,
    folder: TempDir,
}

impl Folder {
    /// A new folder in the one for temporary files. `close` ends the connection of a socket that
    /// nobody is left for.
    pub fn new(close: impl Fn(&Path)) -> io::Result<Self> {
        Self::within(&std::env::temp_dir(), close)
    }

    fn within(parent: &Path, close: impl Fn(&Path)) -> io::Result<Self> {
        forsaken(parent).for_each(|folder| {
            sockets(&folder).iter().for_each(|socket| close(socket));
            // What is somebody else's cannot be removed, and is no concern of ours.
            let _ = fs::remove_dir_all(&folder);
        });
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // Locked before it has its name: others find either no lock or one that is held.
        let new = folder.path().join("lock.new");
        let lock = File::create(&new)?;
        lock.lock()?;
        fs::rename(&new, folder.path().join(LOCK))?;
        Ok(Self { _lock: lock, folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The sockets in it.
    pub fn sockets(&self) -> Vec<PathBuf> {
        sockets(self.path())
    }
}

/// Folders whose processes are gone.
fn forsaken(parent: &Path) -> impl Iterator<Item = PathBuf> {
    let all = fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = all.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    ours.map(|entry| entry.path())
        .filter(|folder| File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()))
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| path.file_name().is_none_or(|name| name != LOCK)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_a_killed_process_left_goes_and_what_lives_stays() {
        let parent = tempfile::tempdir().expect("a folder");
        let none = |_: &Path| panic!("there is no connection");
        let lives = Folder::within(parent.path(), none).expect("a folder");
        let killed = Folder::within(parent.path(), none).expect("a folder");
        let left = killed.path().to_owned();
        fs::write(left.join("socket"), "").expect("written");
        // As after a kill: the lock is let go, and nobody removes the folder.
        let Folder { _lock: lock, folder } = killed;
        drop(lock);
        let _ = folder.keep();
        let closed = Mutex::new(Vec::new());
        let close = |socket: &Path| closed.lock().expect("no panic").push(socket.to_owned());
        let next = Folder::within(parent.path(), close).expect("a folder");
        assert_eq!(closed.into_inner().expect("no panic"), [left.join("socket")]);
        assert!(!left.exists() && lives.path().exists() && next.path().exists());
    }
}
