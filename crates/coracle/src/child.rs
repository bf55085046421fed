//! Small processes of their own that are this binary too, entered with a first argument. What has
//! to go on while the server is busy, stuck or dead is done by them.

use std::ffi::CStr;
use std::process::ExitCode;

use tokio::process::Command;

use crate::failure::{Outcome, While};
use crate::memory;

/// How urgent it is, as `nice` counts: what such a process does late, others miss.
const NICE: libc::c_int = -10;

/// A command that runs this very binary, also where the file has been replaced meanwhile.
pub fn command(argument: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    if let Ok(path) = std::env::current_exe() {
        command.arg0(path);
    }
    command.arg(argument);
    command
}

/// Asks the kernel not to keep us waiting and not to kill us for want of memory, and takes a name
/// for `ps`. What it refuses is not needed.
pub fn be_spared(name: &CStr) {
    // SAFETY: plain system calls; the name ends in NUL and is copied.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
}

/// Runs what the process is there for, on one thread.
pub fn run(work: impl Future<Output = Outcome>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.doing(|| "starting the async runtime".into()).and_then(|runtime| {
        let done = runtime.block_on(async {
            tokio::spawn(memory::once_started());
            work.await
        });
        // A read of standard input may be under way on a thread of its own.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
