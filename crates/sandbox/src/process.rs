//! Processes by an identity that a number alone is not: numbers are used again.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Doing, Error, Result};

/// How long processes may take to die of SIGKILL: the kernel takes mounts and links down first.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// How long an orderly stop may take before the plug is pulled; systemd's own patience.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// How a board's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Everything on it ends at once.
    PowerCut,
    /// The server is asked to stop and waited for.
    Orderly,
}

/// A process: its number and the time it started, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    started: u64,
}

impl Identity {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Identity {
            pid,
            started: started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?,
        })
    }

    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Identity { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, format!("{} {}\n", self.pid, self.started))
    }

    pub(crate) fn is_alive(&self) -> bool {
        Identity::of(self.pid) == Some(*self)
    }

    /// A handle that stays with this very process; `None` where it has ended.
    pub(crate) fn open(&self) -> Option<Handle> {
        // SAFETY: pidfd_open takes a number and flags and gives a new descriptor or an error.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just given us this descriptor and nobody else has it.
        let handle = Handle(unsafe { OwnedFd::from_raw_fd(fd) });
        // The number may have been given away just before it was opened.
        self.is_alive().then_some(handle)
    }

    /// Ends the process and waits until it is gone, with all that lived in its namespaces.
    pub(crate) fn end(&self, how: Stop) -> Result {
        let Some(handle) = self.open() else { return Ok(()) };
        let doing = || format!("ending process {}", self.pid);
        if how == Stop::Orderly {
            handle.signal(libc::SIGTERM).doing(doing)?;
            if handle.wait(STOP_PATIENCE).doing(doing)? {
                return Ok(());
            }
        }
        handle.signal(libc::SIGKILL).doing(doing)?;
        match handle.wait(KILL_PATIENCE).doing(doing)? {
            true => Ok(()),
            false => Err(Error::new(format!("process {} does not end", self.pid))
                .with_hint("see what it waits for in /proc, and try again")),
        }
    }
}

/// An open process.
pub(crate) struct Handle(OwnedFd);

impl Handle {
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let null = std::ptr::null::<libc::siginfo_t>();
        let fd = self.0.as_raw_fd();
        // SAFETY: an open pidfd, and no information beside the signal.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, null, 0) };
        let error = io::Error::last_os_error();
        match sent == 0 || error.raw_os_error() == Some(libc::ESRCH) {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// Waits for the end; false where it does not come in time.
    pub(crate) fn wait(&self, patience: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, timeout)? > 0)
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Field 22 of proc_pid_stat(5). The name before it may hold anything, brackets too. A process
/// that has ended but was not waited for has a state of `Z` or `X` and does not count.
fn started(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = Identity::of(std::process::id().cast_signed()).expect("myself");
        assert!(me.is_alive() && me.open().is_some());
        let other = Identity { started: me.started + 1, ..me };
        assert!(!other.is_alive() && other.open().is_none());
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("init");
        me.write(&path).expect("written");
        assert_eq!(Identity::read(&path), Some(me));
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let tail = "1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(started(&format!("7 (a) b) S {tail}")), Some(4711));
        assert_eq!(started(&format!("7 (gone) Z {tail}")), None);
        assert_eq!(started("7 (cut"), None);
    }

    #[test]
    fn a_process_is_ended_and_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        let identity = Identity::of(child.id().cast_signed()).expect("child");
        identity.end(Stop::PowerCut).expect("ended");
        assert!(!identity.is_alive());
        child.wait().expect("waited");
    }
}
