//! One shim per sandbox: it holds the sandbox's namespaces and its containers' pipes, writes
//! their logs, and records how they end.
//!
//! It is the same executable as the agent, entered without threads or an async runtime, and it
//! outlives the agent. A process of its own per sandbox (and not per machine) keeps the damage
//! small when one is killed; that it is bound to stay below 1 MiB makes it affordable.
//!
//! Life: the agent writes `shim.json` into the sandbox's folder and runs `<exe> shim <folder>`;
//! that process forks and leaves; the child makes the namespaces, listens on `shim.sock`, says
//! so on its standard output, and serves until it is asked to shut down.

mod container;
mod helper;
mod log;
mod namespaces;
pub(crate) mod protocol;
pub(crate) use container::{kill_cgroup, nonblocking, now, write_atomic};
mod requests;
mod server;
mod whisper;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use protocol::{SHIM_FILE, ShimConfig};

/// The first argument that makes the executable a shim.
pub const ARGUMENT: &str = "shim";

/// What a shim says on its standard output when it is ready, or why it is not.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ready {
    Pid(i32),
    Failed(String),
}

/// Signals the server waits for instead of being interrupted by them.
const SIGNALS: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Runs a shim; `args` are the arguments after [`ARGUMENT`]. To be called before any thread is
/// started. Returns at once in the process that was started; the shim itself goes on in a child.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(folder) = args.next().map(PathBuf::from) else {
        eprintln!("usage: shim <folder of the sandbox>");
        return ExitCode::from(2);
    };
    // SAFETY: nothing has started a thread yet, so the child may do anything after the fork.
    match unsafe { libc::fork() } {
        -1 => say(&Ready::Failed(format!("fork: {}", std::io::Error::last_os_error()))),
        0 => match prepare(&folder) {
            Ok(server) => {
                // SAFETY: plain system call.
                say(&Ready::Pid(unsafe { libc::getpid() }));
                detach_stdio();
                server.run();
            }
            Err(message) => {
                say(&Ready::Failed(message));
                return ExitCode::FAILURE;
            }
        },
        _ => {}
    }
    ExitCode::SUCCESS
}

fn say(ready: &Ready) {
    if let Ok(text) = serde_json::to_vec(ready) {
        let mut out = std::io::stdout();
        // Nobody may be listening any more; the agent then finds the socket.
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }
}

fn prepare(folder: &Path) -> Result<server::Server, String> {
    let file = folder.join(SHIM_FILE);
    let body = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let config: ShimConfig =
        serde_json::from_slice(&body).map_err(|e| format!("{}: {e}", file.display()))?;
    // SAFETY: plain system calls without pointers to anything that moves.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::prctl(libc::PR_SET_NAME, c"coracle-shim".as_ptr());
    }
    // Best effort: without the right to do so it can still work.
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
    for cgroup in &config.cgroups {
        let _ = fs::write(cgroup.join("cgroup.procs"), "0");
    }
    let signals = block_signals().map_err(|e| format!("signals: {e}"))?;
    let pid_namespace = namespaces::make(folder, &config)?;
    server::Server::listen(folder, config, signals, pid_namespace)
        .map_err(|e| format!("{}: {e}", folder.join(protocol::SOCKET_FILE).display()))
}

fn block_signals() -> std::io::Result<std::os::fd::OwnedFd> {
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    let mut set = SigSet::empty();
    for signal in SIGNALS {
        set.add(Signal::try_from(signal)?);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?.into())
}

/// Gives a child every signal's usual effect and an empty mask: a container's program inherits
/// both what is blocked and what is ignored, be it by Rust's start-up, by [`block_signals`], or by
/// whoever started the agent.
fn reset_signals() {
    /// The kernel's `struct sigaction` in zeros, `SIG_DFL`; larger than on any architecture.
    const DEFAULT: [u64; 8] = [0; 8];
    const SIGNALS: i32 = 64;
    // SAFETY: plain system calls on memory that lives. The raw call, because C libraries refuse
    // to touch the signals they use themselves.
    unsafe {
        for signal in 1..=SIGNALS {
            let size = std::mem::size_of::<u64>();
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), old, size);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

fn detach_stdio() {
    if let Ok(null) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        for fd in 0..3 {
            // SAFETY: replaces a standard descriptor by /dev/null; Rust's own handles refer to it
            // by number only.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
    }
}
