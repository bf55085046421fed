//! The process that answers: this binary, entered with [`ARGUMENT`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::sync::mpsc;

use super::report::Reporter;
use crate::child;
use crate::failure::While;

/// The first argument that makes the executable a holder. Its socket, the log filter and the
/// folders of its control group follow.
pub const ARGUMENT: &str = "dns-holder";
/// Lines for the log that wait for somebody to read them; more are lost.
const REPORTS_MAX: usize = 64;

/// Answers until another takes over. Standard input is the connection to who started it.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.skip(1);
    let log = arguments.next().unwrap_or_default();
    child::be_spared(c"coracle-dns");
    leave_the_starter(arguments.map(PathBuf::from));
    let (report, reports) = mpsc::channel(REPORTS_MAX);
    let said = crate::start_logging_to(&log.to_string_lossy(), Reporter(report));
    // Nobody sees standard error.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    child::run(async move {
        said?;
        let control = take_standard_input().doing(|| "taking the connection".into())?;
        net::dns::hold(control, reports).await.doing(|| "answering for cluster DNS".into())
    })
}

/// A session and a control group of its own, so that nothing that ends the starter ends this too.
fn leave_the_starter(groups: impl Iterator<Item = PathBuf>) {
    // SAFETY: plain system calls without pointers.
    unsafe {
        libc::setsid();
        libc::umask(0o077);
    }
    // No folder is held on to.
    let _ = std::env::set_current_dir("/");
    for group in groups {
        // Best effort, as for shims: in the starter's group it can still work.
        let _ = fs::write(group.join("cgroup.procs"), "0");
    }
}

/// Standard input as a descriptor of its own, so that it is closed when the connection ends.
fn take_standard_input() -> io::Result<OwnedFd> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(control)
}
