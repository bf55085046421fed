//! A container as its shim sees it: a process, its streams, its log and its state file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::log::{Log, Source};
use super::protocol::{Phase, STATE_FILE, State};

/// Read from a stream at once.
const CHUNK_BYTES: usize = 16 << 10;

/// A container.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its folder.
    pub bundle: PathBuf,
    /// Its cgroup folders.
    pub cgroups: Vec<PathBuf>,
    /// What stands in its state file.
    pub state: State,
    /// Where its output goes.
    pub log: Option<Log>,
    /// Standard output (or the terminal) and standard error.
    pub streams: Vec<Stream>,
    /// Writes its standard input; the terminal if it has one.
    pub stdin: Option<OwnedFd>,
    /// It has a terminal.
    pub tty: bool,
    /// Standard input ends with the first client.
    pub stdin_once: bool,
    /// Ends when its program runs, or says why it does not.
    pub failure: Option<OwnedFd>,
    /// Connection that waits for the start.
    pub starter: Option<usize>,
}

/// One output of a container.
pub struct Stream {
    /// Its reading end.
    pub fd: OwnedFd,
    /// Which one it is.
    pub source: Source,
    /// The unfinished line.
    pub pending: Vec<u8>,
    /// Who else gets it.
    pub clients: Vec<Client>,
    /// It has ended.
    pub ended: bool,
}

/// An attached client's end of a stream.
pub struct Client {
    /// Where to write; non-blocking.
    pub fd: OwnedFd,
    /// The connection it belongs to.
    pub connection: usize,
    /// What it has not taken yet. While there is some, the stream is not read on: a client that
    /// is slow slows the container down, as upstream, and costs no memory.
    pub backlog: Vec<u8>,
    /// It went away.
    pub gone: bool,
}

impl Stream {
    /// A stream to be read.
    pub fn new(fd: OwnedFd, source: Source) -> io::Result<Self> {
        nonblocking(&fd)?;
        Ok(Self { fd, source, pending: Vec::new(), clients: Vec::new(), ended: false })
    }

    /// Whether a client has to take something before more can be read.
    pub fn blocked(&self) -> bool {
        self.clients.iter().any(|c| !c.backlog.is_empty())
    }

    /// Reads what is there, until it would block, ends, or a client is full.
    pub fn drain(&mut self, log: &mut Option<Log>) {
        let mut buffer = [0u8; CHUNK_BYTES];
        while !self.ended && !self.blocked() {
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(0) => self.end(log),
                Ok(length) => {
                    if let Some(log) = log {
                        log.write(self.source, &mut self.pending, &buffer[..length]);
                    }
                    for client in &mut self.clients {
                        client.offer(&buffer[..length]);
                    }
                    self.clients.retain(|c| !c.gone);
                }
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(nix::errno::Errno::EINTR) => {}
                // A terminal whose other side is closed by all gives EIO.
                Err(_) => self.end(log),
            }
        }
    }

    fn end(&mut self, log: &mut Option<Log>) {
        self.ended = true;
        if let Some(log) = log {
            log.finish(self.source, &mut self.pending);
        }
        self.clients.clear();
    }
}

impl Client {
    fn offer(&mut self, data: &[u8]) {
        self.backlog.extend_from_slice(data);
        self.flush();
    }

    /// Writes as much of the backlog as the client takes.
    pub fn flush(&mut self) {
        while !self.backlog.is_empty() {
            match nix::unistd::write(&self.fd, &self.backlog) {
                Ok(length) => {
                    self.backlog.drain(..length);
                }
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => {
                    self.gone = true;
                    self.backlog.clear();
                }
            }
        }
        self.backlog = Vec::new();
    }
}

impl Container {
    /// Whether its first process lives.
    pub fn alive(&self) -> bool {
        matches!(self.state.phase, Phase::Created | Phase::Running)
    }

    /// Notes that its program runs.
    pub fn started(&mut self) {
        self.state.phase = Phase::Running;
        self.state.started = now();
        self.save();
    }

    /// Notes its first process's end, after taking what is left of its output.
    pub fn exited(&mut self, status: i32) {
        let (code, signal) = decode(status);
        kill_cgroup(&self.cgroups);
        for stream in &mut self.streams {
            stream.drain(&mut self.log);
        }
        self.stdin = None;
        self.failure = None;
        self.state.pid = 0;
        if self.alive() {
            self.state.phase = Phase::Exited;
            self.state.finished = now();
            if self.state.error.is_empty() {
                self.state.code = code;
                self.state.signal = signal;
                self.state.oom = oom_killed(&self.cgroups);
            } else {
                self.state.code = START_ERROR_CODE;
            }
        }
        self.save();
    }

    /// Writes the state file. A failure cannot be told to anyone; the next event tries again, and
    /// subscribers have the state itself.
    pub fn save(&self) {
        let _ = write_atomic(&self.bundle.join(STATE_FILE), &self.state);
    }
}

/// The exit code reported for a program that could not be run; containerd's.
const START_ERROR_CODE: i32 = 128;

/// A `wait` status as exit code (128 + signal) and signal.
pub fn decode(status: i32) -> (i32, i32) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        (128 + signal, signal)
    } else {
        (libc::WEXITSTATUS(status), 0)
    }
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Replaces a file by a value's JSON such that a reader, or a crash, sees the old or the new.
pub fn write_atomic(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_data()?;
    fs::rename(temporary, path)
}

/// Kills whatever is left in a cgroup, given by its folder in each hierarchy.
pub fn kill_cgroup(folders: &[PathBuf]) {
    for folder in folders {
        if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
            continue;
        }
        let mut text = String::new();
        let read =
            File::open(folder.join("cgroup.procs")).and_then(|mut f| f.read_to_string(&mut text));
        if read.is_err() {
            continue;
        }
        for pid in text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 1) {
            // SAFETY: plain system call; the pid was in a cgroup of ours a moment ago.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

/// Whether the kernel killed something in the cgroup: `oom_kill` in `memory.events` (v2) or
/// `memory.oom_control` (v1).
fn oom_killed(folders: &[PathBuf]) -> bool {
    folders.iter().any(|folder| {
        ["memory.events", "memory.oom_control"].iter().any(|file| {
            fs::read_to_string(folder.join(file)).is_ok_and(|text| {
                text.lines().any(|l| l.strip_prefix("oom_kill ").is_some_and(|n| n.trim() != "0"))
            })
        })
    })
}

/// Makes a descriptor's reads and writes return instead of waiting.
pub fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    // SAFETY: borrowed for this call only.
    let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses() {
        assert_eq!(decode(0), (0, 0));
        assert_eq!(decode(3 << 8), (3, 0));
        assert_eq!(decode(libc::SIGKILL), (137, 9));
    }
}
