//! The agent's end of a shim's socket.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::shim::protocol::{self, Reply, Request, SOCKET_FILE};
use crate::{Error, Result};

/// A shim answers at once, except where it makes a process.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A connection to a shim.
pub struct Connection {
    fd: AsyncFd<OwnedFd>,
    sandbox: String,
}

impl Connection {
    /// Connects to the shim of a sandbox by the sandbox's folder.
    ///
    /// # Errors
    /// `ConnectionRefused` or `NotFound` when there is no shim.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        // Through the descriptor, because a socket's path is limited to 107 bytes.
        let at = File::open(folder)?;
        let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", at.as_raw_fd());
        connect(fd.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
        let sandbox = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // SAFETY: the descriptor is owned by the watcher from here on and closed only with it.
        Ok(Self { fd: unsafe { AsyncFd::register(fd)? }, sandbox })
    }

    /// The shim's process.
    pub fn peer(&self) -> Option<u32> {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        getsockopt(self.fd.get_ref(), PeerCredentials).ok().and_then(|c| c.pid().try_into().ok())
    }

    /// Sends without waiting; a packet fits or the shim is stuck.
    pub fn send(&self, request: &Request, fds: &[RawFd]) -> io::Result<()> {
        protocol::send(self.fd.get_ref().as_raw_fd(), request, fds)
    }

    /// The next packet; none at the end.
    pub async fn receive(&self) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        let received = self.fd.async_io(Interest::READABLE, protocol::receive).await;
        match received {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            other => other,
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Shim`] if the shim is gone or stuck, [`Error::NotFound`], or [`Error::Start`] with
    /// the shim's message.
    pub async fn call(&self, request: &Request, fds: &[RawFd]) -> Result<(Reply, Vec<OwnedFd>)> {
        let bad = |reason: String| Error::Shim { id: self.sandbox.clone(), reason };
        self.send(request, fds).map_err(|e| bad(format!("sending a request: {e}")))?;
        let received = tokio::time::timeout(ANSWER_LIMIT, self.receive())
            .await
            .map_err(|_| bad(format!("no answer within {} s", ANSWER_LIMIT.as_secs())))?;
        match received.map_err(|e| bad(format!("receiving an answer: {e}")))? {
            None => Err(bad("it is gone".to_owned())),
            Some((Reply::Error { message, not_found: true }, _)) => {
                Err(Error::NotFound { kind: "container", id: message })
            }
            Some((Reply::Error { message, .. }, _)) => Err(Error::Start { message }),
            Some(other) => Ok(other),
        }
    }
}
