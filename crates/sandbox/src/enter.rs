//! Running programs on a board.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns};

use crate::error::{Doing, Error, Result};
use crate::process::Identity;

/// Starts a program in all the namespaces of a board. Its end belongs to the board's init, like
/// that of any other process there.
pub(crate) fn spawn(init: &Identity, command: Command) -> Result<Child> {
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    spawn_in(init, all, command)
}

/// Starts a program that sees the files of this machine and the network of the switch, and ends
/// with the switch.
pub(crate) fn spawn_in_network(init: &Identity, command: Command) -> Result<Child> {
    spawn_in(init, CloneFlags::CLONE_NEWNET, command)
}

fn spawn_in(init: &Identity, namespaces: CloneFlags, mut command: Command) -> Result<Child> {
    let gone = || Error::new("the board has been switched off meanwhile");
    let handle = init.open().ok_or_else(gone)?;
    let (fd, flags) = (handle.as_fd().as_raw_fd(), namespaces.bits());
    // SAFETY: setns is a plain system call, and the descriptor is open until the spawn returns.
    unsafe {
        command.pre_exec(move || match libc::setns(fd, flags) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let name = command.get_program().to_string_lossy().into_owned();
    // A PID namespace is entered by the children of a thread, so this takes one of its own.
    std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            setns(&handle, CloneFlags::CLONE_NEWPID)
                .doing(|| "entering the board's processes".into())?;
            command.spawn().doing(|| format!("starting {name} on the board"))
        });
        starter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
