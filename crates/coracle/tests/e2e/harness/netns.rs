//! Network namespaces.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A network namespace that goes with the value.
pub struct Netns {
    /// As `ip netns` lists it; unique on the machine.
    pub name: String,
}

impl Netns {
    pub fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cor-e2e-{}-{count}-{role}", std::process::id());
        ip(&format!("netns add {name}"));
        let netns = Self { name };
        netns.ip("link set lo up");
        netns
    }

    /// The way into one that belongs to somebody else, and stays when the value goes.
    pub fn named(name: &str) -> std::mem::ManuallyDrop<Self> {
        std::mem::ManuallyDrop::new(Self { name: name.into() })
    }

    /// `ip` inside the namespace.
    pub fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name));
    }

    /// Takes a link away, unless it has gone with its other end.
    pub fn forget(&self, link: &str) {
        let mut line = Command::new("ip");
        line.args(["-n", &self.name, "link", "del", link]).stderr(Stdio::null());
        let _ = line.status();
    }

    fn open(&self) -> OwnedFd {
        let path = PathBuf::from("/run/netns").join(&self.name);
        File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
    }

    /// A command that will run in this namespace. Unlike `ip netns exec` this leaves the mount
    /// namespace alone: what a board mounts must outlast the process that mounted it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let namespace = self.open();
        let mut command = Command::new(program);
        // SAFETY: setns is async-signal-safe, and the descriptor lives in the closure.
        unsafe {
            command.pre_exec(move || {
                match libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        command
    }

    /// Runs `work` in the namespace, on a thread of its own: a namespace belongs to a thread.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.open();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // SAFETY: plain system call on a descriptor that is open.
                let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "setns: {}", std::io::Error::last_os_error());
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As `run`, for async work.
    pub fn block_on<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(work())
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(arguments: &str) {
    let out = Command::new("ip").args(arguments.split(' ')).output().expect("ip");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "ip {arguments}: {told} (making namespaces takes root)");
}
