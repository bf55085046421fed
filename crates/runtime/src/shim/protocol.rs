//! What a shim is asked and what it answers: one JSON value per packet on a `SOCK_SEQPACKET`
//! socket, file descriptors beside it. Packets keep their borders, so neither side needs
//! framing, and a half-sent request cannot exist.
//!
//! A shim outlives the release it was started by, so both sides keep to what the other may know: a
//! field that is added has a default, one that is there keeps its name and meaning, a request that
//! is added is asked only of shims whose [`ShimConfig::protocol`] has it, and a shim answers one it
//! does not know with an error instead of hanging up. The tests hold the packets of each version.
//!
//! A connection carries one request. `Exec`, `Attach` and `Subscribe` keep it open: what happens
//! later comes as further packets, and its end tells the shim that the client is gone.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::socket::{self, ControlMessage, ControlMessageOwned, MsgFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What this release speaks. Shims of the releases before it was counted say 0 and speak the same.
pub const PROTOCOL: u32 = 1;
/// Largest packet; a request is small because specifications travel as files.
pub const PACKET_LIMIT_BYTES: usize = 16 << 10;
/// Longest message for people; even escaped it fits into a packet.
pub const MESSAGE_LIMIT_BYTES: usize = 2 << 10;
/// Most descriptors in one packet: standard input, output and error.
pub const PACKET_LIMIT_FDS: usize = 3;

/// What a shim reads once, at its start, from [`SHIM_FILE`] in the sandbox's folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShimConfig {
    /// What the shim speaks: it is of the release that has written this.
    pub protocol: u32,
    /// Name inside; empty keeps the machine's, and its UTS namespace.
    pub hostname: String,
    /// Make no network namespace.
    pub host_network: bool,
    /// Make no IPC namespace.
    pub host_ipc: bool,
    /// Make one PID namespace for all containers.
    pub shared_pid: bool,
    /// Kernel settings, dotted names.
    pub sysctls: Vec<(String, String)>,
    /// Cgroup folders the shim joins, one per hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// Size of the shared `/dev/shm`; 0 makes none (the machine's IPC is used).
    pub shm_bytes: u64,
    /// A log file is rotated when it grows past this.
    pub log_limit_bytes: u64,
    /// Log files kept per container, the current one included.
    pub log_files: u32,
    /// Folder of libcontainer's own state.
    pub oci_root: PathBuf,
    /// Folder that overlay layers are relative to.
    pub layers: PathBuf,
}

/// The shim's configuration in its sandbox's folder.
pub const SHIM_FILE: &str = "shim.json";
/// The shim's socket in its sandbox's folder.
pub const SOCKET_FILE: &str = "shim.sock";
/// Where the network namespace is bound, in the sandbox's folder.
pub const NETNS_FILE: &str = "netns";
/// Where a shared PID namespace is bound, in the sandbox's folder.
pub const PIDNS_FILE: &str = "pidns";
/// The shared `/dev/shm`, in the sandbox's folder.
pub const SHM_FOLDER: &str = "shm";
/// What became of a container, in the container's folder.
pub const STATE_FILE: &str = "state.json";

/// How a container's root file system is put together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Layer folders relative to [`ShimConfig::layers`], uppermost first.
    pub lower: Vec<String>,
    /// Where changes go.
    pub upper: PathBuf,
    /// Overlayfs's own folder, on the same file system.
    pub work: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Mounts made inside shall reach the machine.
    pub shared: bool,
    /// Working directory inside, made if missing.
    pub cwd: PathBuf,
}

/// What a shim can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make a container from `bundle/config.json`; answered with [`Reply::Pid`].
    Create {
        /// Its id.
        id: String,
        /// Folder with `config.json`; the state file goes there too.
        bundle: PathBuf,
        /// File that describes its [`RootFs`].
        rootfs: PathBuf,
        /// Log file.
        log: Option<PathBuf>,
        /// Give it a terminal.
        tty: bool,
        /// Keep standard input.
        stdin: bool,
        /// Close standard input after the first client.
        stdin_once: bool,
        /// Cgroup folders of the container, one per hierarchy.
        cgroups: Vec<PathBuf>,
    },
    /// Start a made container; answered when its program runs.
    Start {
        /// Which one.
        id: String,
    },
    /// Send a signal to a container's first process.
    Kill {
        /// Which one.
        id: String,
        /// Signal number.
        signal: i32,
    },
    /// Kill a container if it runs and forget it.
    Remove {
        /// Which one.
        id: String,
    },
    /// Run a command; descriptors beside it in the order of the flags. Answered with
    /// [`Reply::Pid`] (with the terminal's descriptor), later [`Reply::Exited`].
    Exec {
        /// In which container.
        id: String,
        /// File that holds the OCI process.
        process: PathBuf,
        /// Give it a terminal.
        tty: bool,
        /// A descriptor for standard input is beside it.
        stdin: bool,
        /// One for standard output.
        stdout: bool,
        /// One for standard error.
        stderr: bool,
    },
    /// Kill the command of this connection.
    KillExec {},
    /// Copy output to the descriptors beside it. Answered with [`Reply::Done`] (with a descriptor
    /// that writes standard input, or the terminal's), later [`Reply::Exited`].
    Attach {
        /// To which container.
        id: String,
        /// Whether standard input is wanted.
        stdin: bool,
        /// A descriptor for standard output is beside it.
        stdout: bool,
        /// One for standard error.
        stderr: bool,
    },
    /// Close the standard input this connection is attached to, if it shall end with its first
    /// client. Not answered.
    CloseStdin {},
    /// Open the log file anew.
    ReopenLog {
        /// Of which container.
        id: String,
    },
    /// Tell about containers that end ([`Reply::Changed`]).
    Subscribe {},
    /// Kill everything and leave; answered by the connection's end.
    Shutdown {},
}

/// What a shim says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done, nothing more to say.
    Done {},
    /// The process that was made.
    Pid {
        /// Its id on the machine.
        pid: i32,
    },
    /// It did not work.
    Error {
        /// Why, for people.
        message: String,
        /// There is no such container.
        not_found: bool,
    },
    /// The command or container of this connection ended.
    Exited {
        /// Exit code, 128 + signal for a death by signal.
        code: i32,
    },
    /// A container's state file was written anew.
    Changed {
        /// Which one.
        id: String,
        /// What stands in the file now.
        state: State,
    },
}

/// Life of a container as its shim records it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Made, waits for its start.
    #[default]
    Created,
    /// Runs.
    Running,
    /// Ended or failed to start.
    Exited,
    /// Its shim was lost (written by the agent).
    Lost,
}

/// The state file of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where in its life it is.
    pub phase: Phase,
    /// Its first process.
    pub pid: i32,
    /// Nanoseconds since 1970; 0 means never.
    pub started: i64,
    /// Nanoseconds since 1970; 0 means not yet.
    pub finished: i64,
    /// Exit code, 128 + signal for a death by signal.
    pub code: i32,
    /// Signal that ended it, or 0.
    pub signal: i32,
    /// The kernel killed a process of it for lack of memory.
    pub oom: bool,
    /// Why it did not start; empty if it did.
    pub error: String,
}

/// Sends one packet.
///
/// # Errors
/// The system's; `InvalidInput` if the value is too large for a packet.
pub fn send(socket: RawFd, value: &impl Serialize, fds: &[RawFd]) -> io::Result<()> {
    let body = serde_json::to_vec(value)?;
    if body.len() > PACKET_LIMIT_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large for a packet"));
    }
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    socket::sendmsg::<()>(socket, &[IoSlice::new(&body)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Cuts a message to what fits into a packet.
pub fn shorten(mut message: String) -> String {
    let mut cut = message.len().min(MESSAGE_LIMIT_BYTES);
    while !message.is_char_boundary(cut) {
        cut -= 1;
    }
    message.truncate(cut);
    message
}

/// Receives one packet; none at the connection's end.
///
/// # Errors
/// The system's (`WouldBlock` on a non-blocking socket); `InvalidData` if it is no such value.
pub fn receive<T: DeserializeOwned>(
    socket: &impl AsRawFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut body = [0u8; PACKET_LIMIT_BYTES];
    let mut control = nix::cmsg_space!([RawFd; PACKET_LIMIT_FDS]);
    let mut parts = [IoSliceMut::new(&mut body)];
    let message = socket::recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just put these descriptors into this process for this
            // message; nobody else knows of them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    if length == 0 {
        return Ok(None);
    }
    let value = serde_json::from_slice(&body[..length])
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some((value, fds)))
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
