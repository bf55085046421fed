//! Messages with descriptors over a Unix socket: four bytes of length, then JSON. A stream, because
//! all names of a cluster do not fit into a packet.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// The longest message: the names of some 200,000 services.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Descriptors that come with a message at most: two for each of a few addresses.
const DESCRIPTORS_MAX: usize = 16;
/// What is read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// A side that does not take what it is told for so long is stuck.
const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the length before each message.
const LENGTH_BYTES: usize = 4;

/// One side of a connection.
pub(super) struct Wire {
    sender: Sender,
    read: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { sender: Sender(Arc::new(stream)), read: Vec::new(), descriptors: Vec::new() }
    }

    /// What sends, for others to send too.
    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// From a descriptor that somebody else has made.
    pub(super) fn from_descriptor(fd: OwnedFd) -> io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok(Self::new(UnixStream::from_std(stream)?))
    }

    /// Connects to whoever listens there.
    pub(super) async fn connect(path: &Path) -> io::Result<Self> {
        let (_folder, short) = within_reach(path)?;
        Ok(Self::new(UnixStream::connect(short).await?))
    }

    /// Both ends of a new connection: one to talk by, one to give to a process.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::from_descriptor(ours.into())?, theirs.into()))
    }

    /// The process that was connected to. Of a connection made by [`Wire::pair`] the kernel says
    /// who made it, which is this process.
    pub(super) fn listener(&self) -> Option<i32> {
        self.sender.0.peer_cred().ok()?.pid()
    }

    /// As [`Sender::send`].
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.sender.send(message, descriptors).await
    }

    /// The next message, with the descriptors that have come by then; none at the end.
    /// Cancel-safe.
    pub(super) async fn receive<T: DeserializeOwned>(
        &mut self,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some((message, std::mem::take(&mut self.descriptors))));
            }
            let (bytes, descriptors) = match self.read_some().await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                other => other?,
            };
            if bytes.is_empty() {
                return Ok(None);
            }
            self.read.extend_from_slice(&bytes);
            self.descriptors.extend(descriptors);
        }
    }

    /// A whole message out of what was read.
    fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(prefix) = self.read.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MESSAGE_BYTES_MAX {
            let what = format!("a message of {length} bytes, of at most {MESSAGE_BYTES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let end = LENGTH_BYTES + length;
        if self.read.len() < end {
            return Ok(None);
        }
        let message = serde_json::from_slice(&self.read[LENGTH_BYTES..end])?;
        // A new buffer: one that has held all names would keep their room for ever.
        self.read = self.read.split_off(end);
        Ok(Some(message))
    }

    async fn read_some(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let receive = || {
            let mut bytes = vec![0; CHUNK_BYTES];
            let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let socket = self.sender.0.as_raw_fd();
            let received = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
            let mut descriptors = Vec::new();
            for part in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = part {
                    // SAFETY: the kernel has just put these descriptors into this process for
                    // this message; nobody else knows of them.
                    descriptors
                        .extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            let length = received.bytes;
            bytes.truncate(length);
            Ok((bytes, descriptors))
        };
        self.sender.0.async_io(Interest::READABLE, receive).await
    }
}

/// The half of a connection that sends.
#[derive(Clone)]
pub(super) struct Sender(Arc<UnixStream>);

impl Sender {
    /// Whether it is this connection's.
    pub(super) fn is_of(&self, wire: &Wire) -> bool {
        Arc::ptr_eq(&self.0, &wire.sender.0)
    }

    /// Sends a message. The connection is of no use after a failure.
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut bytes = vec![0; LENGTH_BYTES];
        serde_json::to_writer(&mut bytes, message)?;
        let length = bytes.len() - LENGTH_BYTES;
        if length > MESSAGE_BYTES_MAX {
            let what = format!("a message of {length} bytes, of at most {MESSAGE_BYTES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let prefix = u32::try_from(length).map_err(io::Error::other)?.to_be_bytes();
        bytes[..LENGTH_BYTES].copy_from_slice(&prefix);
        timeout(SEND_PATIENCE, self.send_all(&bytes, descriptors)).await?
    }

    async fn send_all(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = 0;
        while sent < bytes.len() {
            // Descriptors go with the first byte.
            let rights = [ControlMessage::ScmRights(&raw)];
            let control = if sent == 0 && !raw.is_empty() { &rights[..] } else { &[] };
            let rest = [IoSlice::new(&bytes[sent..])];
            let send = || {
                let flags = MsgFlags::MSG_NOSIGNAL;
                let socket = self.0.as_raw_fd();
                Ok(sendmsg::<()>(socket, &rest, control, flags, None)?)
            };
            sent += self.0.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }
}

/// Listens at `path`, in the place of whoever did before, for this user alone.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let (_folder, short) = within_reach(&new)?;
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

/// A short name for a path, good as long as its folder is kept open: the path of a socket is
/// limited to 107 bytes.
fn within_reach(path: &Path) -> io::Result<(File, std::path::PathBuf)> {
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = Path::new(path.file_name().unwrap_or_default());
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, short))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    async fn both() -> (Wire, Wire) {
        let (ours, theirs) = Wire::pair().unwrap();
        (ours, Wire::from_descriptor(theirs).unwrap())
    }

    #[tokio::test]
    async fn messages_come_whole_and_in_order() {
        let (one, mut other) = both().await;
        let long = "x".repeat(3 * CHUNK_BYTES);
        let sending = async {
            one.send(&"short", &[]).await.unwrap();
            one.send(&long, &[]).await.unwrap();
            drop(one);
        };
        let receiving = async {
            let mut words = Vec::new();
            while let Some((word, _)) = other.receive::<String>().await.unwrap() {
                words.push(word.len());
            }
            words
        };
        let ((), words) = tokio::join!(sending, receiving);
        assert_eq!(words, [5, long.len()]);
    }

    #[tokio::test]
    async fn descriptors_come_along() {
        let (one, mut other) = both().await;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        one.send(&7, &[socket.as_fd()]).await.unwrap();
        let (number, mut descriptors) = other.receive::<u8>().await.unwrap().unwrap();
        let copy = std::net::UdpSocket::from(descriptors.remove(0));
        assert_eq!(number, 7);
        assert_eq!(copy.local_addr().unwrap(), socket.local_addr().unwrap());
    }

    #[tokio::test]
    async fn what_is_too_long_is_neither_sent_nor_read() {
        let (one, mut other) = both().await;
        let error = one.send(&"x".repeat(MESSAGE_BYTES_MAX), &[]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        one.sender.send_all(&[0xff; LENGTH_BYTES], &[]).await.unwrap();
        let error = other.receive::<String>().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn the_newest_listener_has_the_name() {
        use std::os::unix::fs::PermissionsExt;
        // Longer than the kernel takes in one piece.
        let folder = tempfile::Builder::new().prefix(&"long".repeat(30)).tempdir().unwrap();
        let path = folder.path().join("dns.sock");
        let _old = listen(&path).unwrap();
        let new = listen(&path).unwrap();
        let (accepted, connected) = tokio::join!(new.accept(), Wire::connect(&path));
        assert!(accepted.is_ok() && connected.is_ok());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
