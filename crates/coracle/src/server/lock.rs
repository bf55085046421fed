//! One server, or one command that changes its data, at a time in a data folder.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::failure::{Failure, Outcome, While};
use crate::files;

/// Held while a server runs in a data folder. The kernel gives it back however the process ends.
pub struct Lock(#[allow(dead_code, reason = "held, not looked at")] Flock<File>);

impl Lock {
    /// Takes the lock of a data folder, or refuses to do `what`.
    pub fn take(data_dir: &Path, what: &str) -> Outcome<Lock> {
        let folder = data_dir.join("server");
        let path = folder.join("lock");
        let doing = || format!("locking {}", path.display());
        files::make_folder(&folder, true).doing(doing)?;
        let file = File::options().create(true).append(true).open(&path).doing(doing)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock(lock)),
            Err((_, Errno::EWOULDBLOCK)) => {
                Err(Failure::new(format!("{what}: a server is running in {}", data_dir.display()))
                    .hint("`systemctl stop coracle`, or end that process, first"))
            }
            Err((_, error)) => Err(error).doing(doing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let first = Lock::take(folder.path(), "starting").expect("free");
        let refused = Lock::take(folder.path(), "moving").err().expect("taken");
        assert!(refused.to_string().starts_with("moving: a server is running in "), "{refused}");
        drop(first);
        assert!(Lock::take(folder.path(), "moving").is_ok());
    }
}
