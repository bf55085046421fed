//! Streams and ends of commands and attachments.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::wire::Connection;
use crate::shim::protocol::{Reply, Request};
use crate::{ContainerConfig, Error, Input, Output, Result, Session, SessionControl};

/// How a watched process ended; none while it runs.
type End = Option<Result<i32, ()>>;

/// A terminal's controlling side, read and written by whoever holds a clone.
#[derive(Clone)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// Takes over the descriptor.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        crate::shim::nonblocking(&fd)?;
        // SAFETY: the descriptor is owned by the watcher from here on and closed only with it.
        Ok(Self(Arc::new(unsafe { AsyncFd::register(fd)? })))
    }

    fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open and the structure outlives the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ as _, &size) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let space = out.initialize_unfilled();
            match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), space)?)) {
                Ok(Ok(length)) => {
                    out.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // All programs have closed the other side.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), data)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The writing side of an attached container's input: its end is told to the shim, which may
/// have to close its own copy.
struct AttachedInput {
    pipe: pipe::Sender,
    connection: Arc<Connection>,
}

impl AsyncWrite for AttachedInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl Drop for AttachedInput {
    fn drop(&mut self) {
        // A shim that is gone has closed it anyway.
        let _ = self.connection.send(&Request::CloseStdin {}, &[]);
    }
}

/// Control of a command or an attachment.
pub struct Control {
    connection: Arc<Connection>,
    end: watch::Receiver<End>,
    terminal: Option<Terminal>,
    ends_with_input: bool,
    waiting: JoinHandle<()>,
    /// What it is about, for errors.
    what: String,
}

impl Control {
    fn new(connection: Arc<Connection>, terminal: Option<Terminal>, what: String) -> Self {
        let (sender, end) = watch::channel(None);
        let socket = connection.clone();
        let waiting = tokio::spawn(async move {
            let end = loop {
                match socket.receive().await {
                    Ok(Some((Reply::Exited { code }, _))) => break Ok(code),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break Err(()),
                }
            };
            sender.send_replace(Some(end));
        });
        Self { connection, end, terminal, ends_with_input: false, waiting, what }
    }

    /// Kills the command.
    pub fn kill(&self) {
        // If the shim is gone, so is the command.
        let _ = self.connection.send(&Request::KillExec {}, &[]);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

#[async_trait]
impl SessionControl for Control {
    async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        match &self.terminal {
            Some(terminal) => terminal
                .resize(columns, rows)
                .map_err(Error::io(format!("resizing the terminal of {}", self.what))),
            None => Ok(()),
        }
    }

    async fn wait(&self) -> Result<i32> {
        let mut end = self.end.clone();
        let seen = end.wait_for(Option::is_some).await.ok().and_then(|e| *e);
        seen.and_then(Result::ok).ok_or_else(|| Error::Shim {
            id: self.what.clone(),
            reason: "it was lost before the end".to_owned(),
        })
    }

    fn ends_with_input(&self) -> bool {
        self.ends_with_input
    }
}

/// Pipes for a process's streams, by which are wanted.
pub struct Pipes {
    /// The process's ends, in the order input, output, error.
    pub theirs: Vec<OwnedFd>,
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Pipes {
    /// Makes the pipes.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn new(stdin: bool, stdout: bool, stderr: bool) -> io::Result<Self> {
        let mut pipes = Self { theirs: Vec::new(), stdin: None, stdout: None, stderr: None };
        if stdin {
            let (sender, receiver) = pipe::pipe()?;
            pipes.theirs.push(receiver.into_blocking_fd()?);
            pipes.stdin = Some(sender);
        }
        for (wanted, slot) in [(stdout, &mut pipes.stdout), (stderr, &mut pipes.stderr)] {
            if wanted {
                let (sender, receiver) = pipe::pipe()?;
                pipes.theirs.push(sender.into_blocking_fd()?);
                *slot = Some(receiver);
            }
        }
        Ok(pipes)
    }

    /// The process's ends by number.
    pub fn raw(&self) -> Vec<i32> {
        self.theirs.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

fn input(stream: impl AsyncWrite + Send + 'static) -> Input {
    Box::pin(stream)
}

fn output(stream: impl AsyncRead + Send + 'static) -> Output {
    Box::pin(stream)
}

/// Joins a command's pipes or terminal with its connection.
///
/// # Errors
/// When the terminal cannot be watched.
pub fn command(
    connection: Connection,
    pipes: Pipes,
    terminal: Option<OwnedFd>,
    stdin: bool,
    what: String,
) -> io::Result<(Session, Arc<Control>)> {
    let terminal = terminal.map(Terminal::new).transpose()?;
    let control = Arc::new(Control::new(Arc::new(connection), terminal.clone(), what));
    let session = Session {
        stdin: match &terminal {
            Some(terminal) => stdin.then(|| input(terminal.clone())),
            None => pipes.stdin.map(input),
        },
        stdout: match terminal {
            Some(terminal) => Some(output(terminal)),
            None => pipes.stdout.map(output),
        },
        stderr: pipes.stderr.map(output),
        control: control.clone(),
    };
    Ok((session, control))
}

/// Joins an attachment's pipes with its connection. `given` is what the shim sent: the terminal,
/// or a descriptor that writes standard input; it is for one client alone if `config` says so.
///
/// # Errors
/// When a descriptor cannot be watched.
pub fn attachment(
    connection: Connection,
    pipes: Pipes,
    given: Option<OwnedFd>,
    config: &ContainerConfig,
    what: String,
) -> io::Result<Session> {
    let connection = Arc::new(connection);
    let (terminal, stdin) = match given {
        Some(fd) if config.tty => {
            let terminal = Terminal::new(fd)?;
            let writer = config.stdin.then(|| input(terminal.clone()));
            (Some(terminal), writer)
        }
        Some(fd) => {
            // The flag belongs to the open pipe, which the shim never writes itself.
            crate::shim::nonblocking(&fd)?;
            let pipe = pipe::Sender::from_owned_fd(fd)?;
            (None, Some(input(AttachedInput { pipe, connection: connection.clone() })))
        }
        None => (None, None),
    };
    let mut control = Control::new(connection, terminal, what);
    control.ends_with_input = stdin.is_some() && (config.tty || !config.stdin_once);
    Ok(Session {
        stdin,
        stdout: pipes.stdout.map(output),
        stderr: pipes.stderr.map(output),
        control: Arc::new(control),
    })
}
