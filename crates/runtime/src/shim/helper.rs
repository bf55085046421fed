//! The short-lived children that make processes with libcontainer.
//!
//! libcontainer builds its whole picture of a container on the heap; a forked child does that
//! and leaves, so the shim never grows. Forking without exec is sound because the shim has one
//! thread. The container's process is made as the child's *sibling* (`CLONE_PARENT`): its
//! parent is the shim from the start.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket;

use super::protocol::{self, Reply, RootFs};
use crate::images::unpack;
use crate::seccomp::Filter;

/// Descriptors handed to a helper, by role. The result socket gets the final [`Reply`].
pub struct Given {
    /// Where the result goes.
    pub result: OwnedFd,
    /// Ends when the program runs, or carries why it does not.
    pub failure: OwnedFd,
    /// Standard input, output and error of the new process; `/dev/null` where none.
    pub stdio: [Option<OwnedFd>; 3],
}

/// What a helper shall make.
pub enum Work<'a> {
    /// A container.
    Create { id: &'a str, bundle: &'a Path, rootfs: &'a Path, layers: &'a Path, tty: bool },
    /// A command in a container.
    Exec { id: &'a str, bundle: &'a Path, process: &'a Path, tty: bool },
}

/// Forks a helper. The parent's copies of what was given close with `given`.
///
/// # Errors
/// When the system refuses another process.
pub fn spawn(oci_root: &Path, work: &Work<'_>, given: Given) -> io::Result<libc::pid_t> {
    // SAFETY: this process has a single thread, so the child may do anything after the fork.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = match child(oci_root, work, given) {
                Ok(()) => 0,
                Err(_) => 1,
            };
            // SAFETY: ends this process at once, without the shim's destructors.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid),
    }
}

fn child(oci_root: &Path, work: &Work<'_>, given: Given) -> io::Result<()> {
    let Given { result, failure, stdio } = isolate(given)?;
    let whisper = super::whisper::listen()?;
    match make(oci_root, work, failure, stdio) {
        Ok((pid, terminal)) => {
            let fds: Vec<RawFd> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
            protocol::send(result.as_raw_fd(), &Reply::Pid { pid }, &fds)
        }
        Err(message) => {
            let message = match whisper.first() {
                Some(cause) => format!("{message}: {cause}"),
                None => message,
            };
            let message = protocol::shorten(message);
            let reply = Reply::Error { message, not_found: false };
            protocol::send(result.as_raw_fd(), &reply, &[])
        }
    }
}

/// Closes everything but what was given: a container that waits for its start would otherwise
/// hold other containers' pipes open. Signals go back to normal.
fn isolate(mut given: Given) -> io::Result<Given> {
    for slot in &mut given.stdio {
        if slot.is_none() {
            *slot = Some(fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into());
        }
    }
    let mut keep = vec![given.result.as_raw_fd(), given.failure.as_raw_fd()];
    keep.extend(given.stdio.iter().flatten().map(AsRawFd::as_raw_fd));
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if from < fd {
            // SAFETY: closes descriptors of the shim that this process does not use; their owners
            // in the copied memory are never dropped because this process leaves by _exit.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
    super::reset_signals();
    Ok(given)
}

fn make(
    oci_root: &Path,
    work: &Work<'_>,
    failure: OwnedFd,
    stdio: [Option<OwnedFd>; 3],
) -> Result<(i32, Option<OwnedFd>), String> {
    let [stdin, stdout, stderr] = stdio;
    let (id, bundle, tty) = match work {
        Work::Create { id, bundle, tty, .. } | Work::Exec { id, bundle, tty, .. } => {
            (*id, *bundle, *tty)
        }
    };
    let console =
        if tty { Some(Console::listen(bundle).map_err(text("console socket"))?) } else { None };
    let failure = failure.as_raw_fd();
    let filter = Filter::find(bundle).map_err(text("reading the filter of system calls"))?;
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(oci_root)
        .map_err(|e| chain(&e))?
        .with_executor(Program { failure, filter })
        .with_console_socket(console.as_ref().map(|c| c.path.clone()));
    if !tty {
        builder.stdin = stdin;
        builder.stdout = stdout;
        builder.stderr = stderr;
    }
    let pid = match work {
        Work::Create { rootfs, layers, .. } => {
            mount_rootfs(rootfs, layers)?;
            let mut container = builder
                .as_init(bundle.to_owned())
                .with_systemd(false)
                .as_sibling(true)
                .build()
                .map_err(|e| chain(&e))?;
            // Commands are let in by what libcontainer's state says; the shim knows better.
            container.set_status(libcontainer::container::ContainerStatus::Running);
            container.save().map_err(|e| chain(&e))?;
            container.pid().map(|p| p.as_raw()).ok_or("the container has no process")?
        }
        Work::Exec { process, .. } => {
            let built = builder
                .as_tenant()
                .with_detach(true)
                .as_sibling(true)
                .with_process(Some(process.to_owned()))
                .build();
            built.map_err(|e| chain(&e))?.as_raw()
        }
    };
    let terminal = match console {
        Some(console) => Some(console.terminal().map_err(text("receiving the terminal"))?),
        None => None,
    };
    Ok((pid, terminal))
}

fn text(what: &'static str) -> impl FnOnce(io::Error) -> String {
    move |e| format!("{what}: {e}")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    // libcontainer hands an executable's error through a pipe in pieces padded with zeros.
    text.retain(|c| c != '\0');
    text
}

/// Puts the overlay together in a mount namespace of the helper's own, which only the container
/// inherits: when its last process ends, the kernel unmounts it, whoever was killed meanwhile.
fn mount_rootfs(description: &Path, layers: &Path) -> Result<(), String> {
    let body = fs::read(description).map_err(text("reading the root file system's layers"))?;
    let rootfs: RootFs =
        serde_json::from_slice(&body).map_err(|e| format!("{}: {e}", description.display()))?;
    if !rootfs.shared {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("new mount namespace: {e}"))?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
            .map_err(|e| format!("making / a slave mount: {e}"))?;
    }
    // Layers are named relative to their folder: options are limited to one page.
    std::env::set_current_dir(layers).map_err(text("entering the layers' folder"))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.lower.join(":"),
        rootfs.upper.display(),
        rootfs.work.display()
    );
    mount(
        Some("overlay"),
        &rootfs.target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(|e| format!("mounting the overlay on {}: {e}", rootfs.target.display()))?;
    std::env::set_current_dir("/").map_err(text("leaving the layers' folder"))?;
    let inside = rootfs.cwd.strip_prefix("/").unwrap_or(&rootfs.cwd);
    unpack::Root::open(&rootfs.target)
        .and_then(|root| root.folder(inside))
        .map_err(|e| format!("making the working directory {}: {e}", rootfs.cwd.display()))?;
    Ok(())
}

/// The socket on which libcontainer hands over a terminal.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    fn listen(bundle: &Path) -> io::Result<Self> {
        let path = bundle.join(format!("tty-{}.sock", std::process::id()));
        std::env::set_current_dir(bundle)?;
        let listener = UnixListener::bind(path.file_name().unwrap_or_default())?;
        std::env::set_current_dir("/")?;
        Ok(Self { path, listener })
    }

    fn terminal(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let _ = fs::remove_file(&self.path);
        receive_fd(&stream)
    }
}

fn receive_fd(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut body = [0u8; 64];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [io::IoSliceMut::new(&mut body)];
    let message = socket::recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        socket::MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for part in message.cmsgs()? {
        if let socket::ControlMessageOwned::ScmRights(fds) = part
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for this process.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no terminal came"))
}

/// The last step inside the container. Unlike libcontainer's own it says on a descriptor why a
/// program could not be run, ties the process to the shim's life and loads the filter of system
/// calls, so late that the filter has to allow nothing but the program itself.
#[derive(Clone)]
struct Program {
    failure: RawFd,
    filter: Option<Filter>,
}

impl Program {
    /// Says why the program does not run.
    fn fail(&self, message: String) -> Result<(), ExecutorError> {
        // SAFETY: the descriptor is this process's copy of the failure pipe, open until exec.
        let pipe = unsafe { BorrowedFd::borrow_raw(self.failure) };
        let _ = nix::unistd::write(pipe, message.as_bytes());
        let _ = io::stderr().flush();
        Err(ExecutorError::Other(message))
    }
}

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        // SAFETY: plain system call. The parent is the shim (CLONE_PARENT); a container must not
        // outlive the one process that can record its end.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // SAFETY: plain system call. Our own processes do without huge pages; a container is to
        // have what the machine gives.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) };
        let args = spec
            .process()
            .as_ref()
            .and_then(|p| p.args().as_deref())
            .filter(|a| !a.is_empty())
            .ok_or(ExecutorError::InvalidArg)?;
        let c = |s: &String| {
            std::ffi::CString::new(s.as_bytes()).map_err(|_| ExecutorError::InvalidArg)
        };
        let argv = args.iter().map(c).collect::<Result<Vec<_>, _>>()?;
        if let Some(Err(e)) = self.filter.as_ref().map(Filter::load) {
            return self.fail(format!("loading the filter of system calls: {e}"));
        }
        let Err(errno) = nix::unistd::execvp(&argv[0], &argv);
        self.fail(describe(&args[0], errno))
    }

    /// Nothing is looked up ahead: the attempt itself is the only honest answer.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }
}

/// The words people know from other runtimes.
fn describe(program: &str, errno: nix::errno::Errno) -> String {
    use nix::errno::Errno;
    match errno {
        Errno::ENOENT if !program.contains('/') => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        Errno::ENOENT => format!("exec: {program:?}: stat {program}: no such file or directory"),
        Errno::EACCES => format!("exec: {program:?}: permission denied"),
        Errno::ENOEXEC => format!("exec {program}: exec format error"),
        other => format!("exec: {program:?}: {}", other.desc()),
    }
}
