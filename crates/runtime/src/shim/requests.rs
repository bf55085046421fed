//! What the shim does when asked.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::container::{Client, Container, Stream, nonblocking};
use super::helper::Work;
use super::log::{Log, Source};
use super::protocol::{Phase, Reply, Request, State};
use super::server::{Connection, Role, Server, pipe};

impl Server {
    pub(super) fn on_request(&mut self, n: usize, request: Request, fds: Vec<OwnedFd>) {
        let outcome = match request {
            Request::Create { .. } => self.create(n, request),
            Request::Exec { .. } => self.exec(n, request, fds),
            Request::Attach { .. } => self.attach(n, request, fds),
            Request::Start { id } => self.start(n, &id),
            Request::Kill { id, signal } => self.kill(n, &id, signal),
            Request::KillExec {} => {
                self.kill_exec(n);
                Ok(())
            }
            Request::CloseStdin {} => {
                self.close_stdin(n);
                Ok(())
            }
            Request::Remove { id } => self.remove(n, &id),
            Request::ReopenLog { id } => {
                if let Some(c) = self.find(n, &id) {
                    if let Some(log) = self.containers[c].as_mut().and_then(|c| c.log.as_mut()) {
                        log.reopen();
                    }
                    self.answer(n, &Reply::Done {}, &[]);
                }
                Ok(())
            }
            Request::Subscribe {} => {
                self.set_role(n, Role::Subscriber);
                self.answer(n, &Reply::Done {}, &[]);
                Ok(())
            }
            Request::Shutdown {} => {
                self.set_role(n, Role::Busy);
                self.shut_down();
                Ok(())
            }
        };
        if let Err(e) = outcome {
            self.refuse(n, e.to_string());
        }
    }

    fn create(&mut self, n: usize, request: Request) -> io::Result<()> {
        let Request::Create { id, bundle, rootfs, log, tty, stdin, stdin_once, cgroups } = request
        else {
            return Ok(());
        };
        if self.leaving {
            return Err(io::Error::other("the sandbox is stopping"));
        }
        let log =
            log.map(|path| Log::open(path, self.config.log_limit_bytes, self.config.log_files));
        let mut container = Container {
            id,
            bundle,
            cgroups,
            state: State::default(),
            log,
            streams: Vec::new(),
            stdin: None,
            tty,
            stdin_once,
            failure: None,
            starter: None,
        };
        let mut stdio = [None, None, None];
        if !tty {
            for (slot, source) in [(1, Source::Stdout), (2, Source::Stderr)] {
                let (reader, writer) = pipe()?;
                container.streams.push(Stream::new(reader, source)?);
                stdio[slot] = Some(writer);
            }
            if stdin {
                let (reader, writer) = pipe()?;
                container.stdin = Some(writer);
                stdio[0] = Some(reader);
            }
        }
        let layers = self.config.layers.clone();
        let (id, bundle) = (container.id.clone(), container.bundle.clone());
        let work = Work::Create { id: &id, bundle: &bundle, rootfs: &rootfs, layers: &layers, tty };
        self.spawn(n, &work, stdio, Some(Box::new(container)))
    }

    fn exec(&mut self, n: usize, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        let Request::Exec { id, process, tty, stdin, stdout, stderr } = request else {
            return Ok(());
        };
        let Some(c) = self.find(n, &id) else { return Ok(()) };
        let Some(container) = self.containers[c].as_ref() else { return Ok(()) };
        if container.state.phase != Phase::Running {
            return Err(io::Error::other(format!("container {id} is not running")));
        }
        let mut fds = fds.into_iter();
        let stdio = [stdin, stdout, stderr].map(|given| if given { fds.next() } else { None });
        let bundle = container.bundle.clone();
        self.spawn(n, &Work::Exec { id: &id, bundle: &bundle, process: &process, tty }, stdio, None)
    }

    fn kill_exec(&mut self, n: usize) {
        if let Some(Some(Connection { role: Role::Exec { pid }, .. })) = self.connections.get(n) {
            // SAFETY: a child of ours that has not been reaped: its connection would be closed.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
    }

    fn attach(&mut self, n: usize, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        let Request::Attach { id, stdin, stdout, stderr } = request else { return Ok(()) };
        let Some(c) = self.find(n, &id) else { return Ok(()) };
        let Some(container) = self.containers[c].as_mut() else { return Ok(()) };
        if container.state.phase != Phase::Running {
            return Err(io::Error::other(format!("container {id} is not running")));
        }
        let mut fds = fds.into_iter();
        for (wanted, source) in [(stdout, Source::Stdout), (stderr, Source::Stderr)] {
            let Some(fd) = (if wanted { fds.next() } else { None }) else { continue };
            nonblocking(&fd)?;
            let client = Client { fd, connection: n, backlog: Vec::new(), gone: false };
            if let Some(s) = container.streams.iter_mut().find(|s| s.source == source && !s.ended) {
                s.clients.push(client);
            }
        }
        // With a terminal its descriptor goes along anyway, for its size.
        let input = if stdin || container.tty {
            container.stdin.as_ref().map(OwnedFd::try_clone).transpose()?
        } else {
            None
        };
        self.set_role(n, Role::Attach { id, stdin });
        let raw: Vec<i32> = input.iter().map(AsRawFd::as_raw_fd).collect();
        self.answer(n, &Reply::Done {}, &raw);
        Ok(())
    }

    /// Lets the made process run its program; the answer comes when it does.
    fn start(&mut self, n: usize, id: &str) -> io::Result<()> {
        let Some(c) = self.find(n, id) else { return Ok(()) };
        let folder = self.config.oci_root.join(id);
        let Some(container) = self.containers[c].as_mut() else { return Ok(()) };
        if container.state.phase != Phase::Created || container.starter.is_some() {
            return Err(io::Error::other(format!("container {id} was started before")));
        }
        std::env::set_current_dir(folder)?;
        let sent = UnixStream::connect("notify.sock").and_then(|mut s| s.write_all(b"start"));
        std::env::set_current_dir("/")?;
        sent?;
        container.starter = Some(n);
        self.set_role(n, Role::Busy);
        Ok(())
    }

    fn kill(&mut self, n: usize, id: &str, signal: i32) -> io::Result<()> {
        let Some(c) = self.find(n, id) else { return Ok(()) };
        let pid = self.containers[c].as_ref().map_or(0, |c| c.state.pid);
        // SAFETY: a child of ours that has not been reaped, so the id cannot be another's.
        if pid > 0 && unsafe { libc::kill(pid, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
        self.answer(n, &Reply::Done {}, &[]);
        Ok(())
    }

    /// Forgets a container that has ended. The agent kills first; here only a rest is caught.
    fn remove(&mut self, n: usize, id: &str) -> io::Result<()> {
        let Some(c) = self.find(n, id) else { return Ok(()) };
        if self.containers[c].as_ref().is_some_and(|c| c.state.pid > 0) {
            return Err(io::Error::other(format!("container {id} has not ended")));
        }
        self.containers[c] = None;
        self.answer(n, &Reply::Done {}, &[]);
        Ok(())
    }

    pub(super) fn close_stdin(&mut self, n: usize) {
        let Some(Some(Connection { role: Role::Attach { id, stdin: true }, .. })) =
            self.connections.get(n)
        else {
            return;
        };
        for container in self.containers.iter_mut().flatten().filter(|c| c.id == *id) {
            if container.stdin_once && !container.tty {
                container.stdin = None;
            }
        }
    }
}
