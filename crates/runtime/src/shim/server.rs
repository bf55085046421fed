//! The shim's one loop: requests, children, output.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket, socketpair,
};

use super::container::{Container, Stream, decode, kill_cgroup, nonblocking};
use super::helper::{self, Given, Work};
use super::log::Source;
use super::protocol::{self, Reply, Request, SOCKET_FILE, ShimConfig, State};

/// Ended children nobody has claimed yet: a command may end before its helper has said its id.
const UNCLAIMED_LIMIT: usize = 64;
/// Connections at once; more are refused.
const CONNECTION_LIMIT: usize = 512;

/// A connection and what it is for.
pub(super) struct Connection {
    pub fd: OwnedFd,
    pub role: Role,
}

/// What a connection waits for.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Its request.
    New,
    /// The end of a helper or of a start.
    Busy,
    /// The end of a command.
    Exec { pid: i32 },
    /// The end of a container; `stdin` if it writes its input.
    Attach { id: String, stdin: bool },
    /// News.
    Subscriber,
}

/// A helper at work.
struct Job {
    result: OwnedFd,
    failure: OwnedFd,
    connection: usize,
    /// Children that ended before this number cannot be of this job.
    since: u64,
    /// The container to be, or none for a command.
    container: Option<Box<Container>>,
}

/// What a descriptor in the poll set belongs to.
enum Waker {
    Signals,
    Listener,
    Connection(usize),
    Job(usize),
    Stream(usize, usize),
    Client(usize, usize),
    Failure(usize),
}

/// The shim of one sandbox.
pub struct Server {
    pub(super) config: ShimConfig,
    signals: OwnedFd,
    listener: OwnedFd,
    pid_namespace: Option<libc::pid_t>,
    pub(super) connections: Vec<Option<Connection>>,
    pub(super) containers: Vec<Option<Container>>,
    jobs: Vec<Option<Job>>,
    unclaimed: VecDeque<(u64, libc::pid_t, i32)>,
    reaped: u64,
    pub(super) leaving: bool,
}

impl Server {
    /// Opens the socket in the sandbox's folder.
    pub fn listen(
        folder: &Path,
        config: ShimConfig,
        signals: OwnedFd,
        pid_namespace: Option<libc::pid_t>,
    ) -> io::Result<Self> {
        // Relative, because a socket's path is limited to 107 bytes.
        std::env::set_current_dir(folder)?;
        let _ = fs::remove_file(SOCKET_FILE);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(listener.as_raw_fd(), &UnixAddr::new(SOCKET_FILE)?)?;
        listen(&listener, Backlog::new(64)?)?;
        std::env::set_current_dir("/")?;
        Ok(Self {
            config,
            signals,
            listener,
            pid_namespace,
            connections: Vec::new(),
            containers: Vec::new(),
            jobs: Vec::new(),
            unclaimed: VecDeque::new(),
            reaped: 0,
            leaving: false,
        })
    }

    /// Serves until it is asked to leave and nothing lives any more.
    pub fn run(mut self) {
        while !self.done() {
            let (ready, failed) = self.wait();
            if failed {
                return;
            }
            for source in ready {
                match source {
                    Waker::Signals => self.on_signals(),
                    Waker::Listener => self.on_listener(),
                    Waker::Connection(n) => self.on_connection(n),
                    Waker::Job(n) => self.on_job(n),
                    Waker::Failure(n) => self.on_started(n),
                    Waker::Stream(n, s) => self.on_stream(n, s),
                    Waker::Client(n, s) => self.on_client(n, s),
                }
            }
        }
        if let Some(pid) = self.pid_namespace {
            // SAFETY: our own child, not yet reaped as the loop has ended.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    fn done(&self) -> bool {
        self.leaving
            && self.jobs.iter().all(Option::is_none)
            && !self.containers.iter().flatten().any(|c| c.state.pid != 0)
    }

    fn wait(&self) -> (Vec<Waker>, bool) {
        let mut sources = vec![Waker::Signals, Waker::Listener];
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let mut add = |source, fd: BorrowedFd<'_>, flags| {
            sources.push(source);
            // SAFETY: every descriptor is owned by `self`, which is borrowed until poll is over.
            let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
            polled.push(PollFd::new(fd, flags));
        };
        for (n, c) in self.connections.iter().enumerate() {
            if let Some(c) = c {
                add(Waker::Connection(n), c.fd.as_fd(), PollFlags::POLLIN);
            }
        }
        for (n, j) in self.jobs.iter().enumerate() {
            if let Some(j) = j {
                add(Waker::Job(n), j.result.as_fd(), PollFlags::POLLIN);
            }
        }
        for (n, c) in self.containers.iter().enumerate() {
            let Some(c) = c else { continue };
            if let (Some(fd), Some(_)) = (&c.failure, c.starter) {
                add(Waker::Failure(n), fd.as_fd(), PollFlags::POLLIN);
            }
            for (s, stream) in c.streams.iter().enumerate().filter(|(_, s)| !s.ended) {
                if stream.blocked() {
                    for client in stream.clients.iter().filter(|c| !c.backlog.is_empty()) {
                        add(Waker::Client(n, s), client.fd.as_fd(), PollFlags::POLLOUT);
                    }
                } else {
                    add(Waker::Stream(n, s), stream.fd.as_fd(), PollFlags::POLLIN);
                }
            }
        }
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return (Vec::new(), true),
        }
        let fired = polled.iter().map(|p| p.any().unwrap_or(false)).collect::<Vec<_>>();
        let ready = sources.into_iter().zip(fired).filter(|(_, f)| *f).map(|(s, _)| s).collect();
        (ready, false)
    }

    fn on_signals(&mut self) {
        let mut info = [0u8; std::mem::size_of::<libc::signalfd_siginfo>()];
        while nix::unistd::read(&self.signals, &mut info).is_ok_and(|n| n == info.len()) {
            let signal = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as i32;
            if signal == libc::SIGTERM || signal == libc::SIGINT {
                self.shut_down();
            }
        }
        loop {
            let mut status = 0;
            // SAFETY: plain system call; `status` outlives it.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            self.reaped += 1;
            self.on_child(pid, status);
        }
    }

    fn on_child(&mut self, pid: libc::pid_t, status: i32) {
        if self.pid_namespace == Some(pid) {
            // The kernel has killed every process of the namespace with its first one.
            self.pid_namespace = None;
            self.shut_down();
            return;
        }
        if let Some(n) =
            self.containers.iter().position(|c| c.as_ref().is_some_and(|c| c.state.pid == pid))
        {
            self.on_container_end(n, status);
            return;
        }
        let role = Role::Exec { pid };
        if let Some(n) =
            self.connections.iter().position(|c| c.as_ref().is_some_and(|c| c.role == role))
        {
            self.answer(n, &Reply::Exited { code: decode(status).0 }, &[]);
            self.connections[n] = None;
            return;
        }
        if self.unclaimed.len() == UNCLAIMED_LIMIT {
            self.unclaimed.pop_front();
        }
        self.unclaimed.push_back((self.reaped, pid, status));
    }

    fn on_container_end(&mut self, n: usize, status: i32) {
        // A start in progress is decided by the failure pipe, which has ended by now too.
        if self.containers[n].as_ref().is_some_and(|c| c.starter.is_some()) {
            self.on_started(n);
        }
        let Some(container) = &mut self.containers[n] else { return };
        container.exited(status);
        let (id, state) = (container.id.clone(), container.state.clone());
        let code = state.code;
        if let Some(starter) = container.starter.take() {
            self.refuse(starter, state.error.clone());
            self.set_role(starter, Role::New);
        }
        for c in 0..self.connections.len() {
            let attached = self.connections[c]
                .as_ref()
                .is_some_and(|c| matches!(&c.role, Role::Attach { id: of, .. } if *of == id));
            if attached {
                self.answer(c, &Reply::Exited { code }, &[]);
            }
        }
        self.publish(&id, &state);
    }

    fn publish(&mut self, id: &str, state: &State) {
        let reply = Reply::Changed { id: id.to_owned(), state: state.clone() };
        for n in 0..self.connections.len() {
            if self.connections[n].as_ref().is_some_and(|c| c.role == Role::Subscriber) {
                self.answer(n, &reply, &[]);
            }
        }
    }

    fn on_listener(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(raw) = accept4(self.listener.as_raw_fd(), flags) {
            // SAFETY: just made by accept4 for us.
            let fd = unsafe { OwnedFd::from_raw_fd(raw) };
            if self.connections.iter().flatten().count() < CONNECTION_LIMIT {
                put(&mut self.connections, Connection { fd, role: Role::New });
            }
        }
    }

    fn on_connection(&mut self, n: usize) {
        let Some(connection) = &self.connections[n] else { return };
        match protocol::receive::<Request>(&connection.fd) {
            Ok(Some((request, fds))) => self.on_request(n, request, fds),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                let message = "this pod's shim is of an older release and cannot do that; delete \
                               the pod, and the next one can";
                let reply = Reply::Error { message: message.to_owned(), not_found: false };
                self.answer(n, &reply, &[]);
            }
            Ok(None) | Err(_) => self.close(n),
        }
    }

    fn close(&mut self, n: usize) {
        self.close_stdin(n);
        if self.connections[n].take().is_none() {
            return;
        }
        for container in self.containers.iter_mut().flatten() {
            if container.starter == Some(n) {
                container.starter = None;
            }
            for stream in &mut container.streams {
                stream.clients.retain(|c| c.connection != n);
            }
        }
        for job in self.jobs.iter_mut().flatten().filter(|j| j.connection == n) {
            job.connection = usize::MAX;
        }
    }

    pub(super) fn answer(&mut self, n: usize, reply: &Reply, fds: &[i32]) {
        if let Some(Some(connection)) = self.connections.get(n)
            && protocol::send(connection.fd.as_raw_fd(), reply, fds).is_err()
        {
            // A client that does not read its answers is cut off rather than waited for.
            self.close(n);
        }
    }

    pub(super) fn refuse(&mut self, n: usize, message: impl Into<String>) {
        self.answer(n, &Reply::Error { message: message.into(), not_found: false }, &[]);
    }

    pub(super) fn find(&mut self, n: usize, id: &str) -> Option<usize> {
        let found = self.containers.iter().position(|c| c.as_ref().is_some_and(|c| c.id == id));
        if found.is_none() {
            let message = format!("container {id:?} not found");
            self.answer(n, &Reply::Error { message, not_found: true }, &[]);
        }
        found
    }

    pub(super) fn set_role(&mut self, n: usize, role: Role) {
        if let Some(Some(connection)) = self.connections.get_mut(n) {
            connection.role = role;
        }
    }

    pub(super) fn spawn(
        &mut self,
        n: usize,
        work: &Work<'_>,
        stdio: [Option<OwnedFd>; 3],
        container: Option<Box<Container>>,
    ) -> io::Result<()> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let (failure, writer) = pipe()?;
        nonblocking(&failure)?;
        let since = self.reaped;
        let given = Given { result: theirs, failure: writer, stdio };
        helper::spawn(&self.config.oci_root.clone(), work, given)?;
        self.set_role(n, Role::Busy);
        put(&mut self.jobs, Job { result: ours, failure, connection: n, since, container });
        Ok(())
    }

    /// A helper has said what it made, or died.
    fn on_job(&mut self, j: usize) {
        let Some(job) = self.jobs[j].take() else { return };
        let reply = protocol::receive::<Reply>(&job.result);
        let (pid, fds) = match reply {
            Ok(Some((Reply::Pid { pid }, fds))) => (pid, fds),
            Ok(Some((Reply::Error { message, .. }, _))) => {
                let said = read_text(&job.failure);
                self.refuse(job.connection, if said.is_empty() { message } else { said });
                return;
            }
            other => {
                let why = other.err().map_or_else(|| "it died".to_owned(), |e| e.to_string());
                self.refuse(job.connection, format!("the helper gave no answer: {why}"));
                return;
            }
        };
        let ended = self
            .unclaimed
            .iter()
            .find(|(number, ended, _)| *ended == pid && *number > job.since)
            .map(|(_, _, status)| *status);
        let terminal = fds.into_iter().next();
        let reply = Reply::Pid { pid };
        match job.container {
            Some(mut container) => {
                container.state.pid = pid;
                container.failure = Some(job.failure);
                if let Some(fd) = terminal
                    && let Ok(copy) = fd.try_clone()
                    && let Ok(stream) = Stream::new(fd, Source::Stdout)
                {
                    container.streams.push(stream);
                    container.stdin = Some(copy);
                }
                container.save();
                let n = put(&mut self.containers, *container);
                self.answer(job.connection, &reply, &[]);
                self.set_role(job.connection, Role::New);
                if let Some(status) = ended {
                    self.on_container_end(n, status);
                }
                if self.leaving {
                    self.shut_down();
                }
            }
            None => {
                self.set_role(job.connection, Role::Exec { pid });
                let fds: Vec<i32> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
                self.answer(job.connection, &reply, &fds);
                if let Some(status) = ended {
                    let code = decode(status).0;
                    self.answer(job.connection, &Reply::Exited { code }, &[]);
                }
            }
        }
    }

    /// The program runs, or the failure pipe says why not. In the second case the answer waits
    /// for the process's end, which is near: whoever gets it may remove the container at once.
    fn on_started(&mut self, c: usize) {
        let Some(container) = self.containers[c].as_mut() else { return };
        let Some(failure) = container.failure.take() else { return };
        let message = read_text(&failure);
        if !message.is_empty() {
            container.state.error = message;
            return;
        }
        container.started();
        let starter = container.starter.take();
        let (id, state) = (container.id.clone(), container.state.clone());
        if let Some(n) = starter {
            self.answer(n, &Reply::Done {}, &[]);
            self.set_role(n, Role::New);
        }
        self.publish(&id, &state);
        // What comes now, if anything, is output and an end.
        crate::memory::give_back();
    }

    pub(super) fn shut_down(&mut self) {
        self.leaving = true;
        for container in self.containers.iter().flatten().filter(|c| c.state.pid > 0) {
            // SAFETY: a child of ours that has not been reaped.
            unsafe { libc::kill(container.state.pid, libc::SIGKILL) };
            kill_cgroup(&container.cgroups);
        }
    }

    fn on_stream(&mut self, c: usize, s: usize) {
        if let Some(Some(container)) = self.containers.get_mut(c) {
            let log = &mut container.log;
            if let Some(stream) = container.streams.get_mut(s) {
                stream.drain(log);
            }
        }
    }

    fn on_client(&mut self, c: usize, s: usize) {
        if let Some(Some(container)) = self.containers.get_mut(c)
            && let Some(stream) = container.streams.get_mut(s)
        {
            for client in &mut stream.clients {
                client.flush();
            }
            stream.clients.retain(|c| !c.gone);
        }
    }
}

/// Puts a value into the first free place of a table, so that indices stay valid.
fn put<T>(table: &mut Vec<Option<T>>, value: T) -> usize {
    match table.iter().position(Option::is_none) {
        Some(n) => {
            table[n] = Some(value);
            n
        }
        None => {
            table.push(Some(value));
            table.len() - 1
        }
    }
}

/// A pipe: reading end, writing end.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// What was written into the failure pipe so far; empty means the program runs.
fn read_text(fd: &OwnedFd) -> String {
    let mut bytes = Vec::new();
    if let Ok(copy) = fd.try_clone() {
        // Stops at the end or, as the descriptor does not block, at what is there.
        let _ =
            fs::File::from(copy).take(protocol::MESSAGE_LIMIT_BYTES as u64).read_to_end(&mut bytes);
    }
    protocol::shorten(String::from_utf8_lossy(&bytes).into_owned())
}
