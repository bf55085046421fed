//! What libcontainer says on the way to an error.
//!
//! Its errors name the step that failed and drop the cause ("failed to prepare rootfs"); the
//! cause is only logged, in a process that may be inside the container by then. A helper
//! listens to those log events over a socket, so that people see which path or device it was.

use std::fmt::{Debug, Write as _};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Longest event kept.
const LINE_LIMIT_BYTES: usize = 1024;

/// The listening end.
pub struct Listener(OwnedFd);

/// Begins to listen in this process and those it forks.
///
/// # Errors
/// When the system has no more descriptors.
pub fn listen() -> io::Result<Listener> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
    // A helper does this once; if somebody else listens already, details are lost and no more.
    let _ = tracing::subscriber::set_global_default(Whisper(theirs));
    Ok(Listener(ours))
}

impl Listener {
    /// The first thing that was said, which is nearest to the cause.
    pub fn first(&self) -> Option<String> {
        let mut buffer = [0u8; LINE_LIMIT_BYTES];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned()).filter(|t| !t.is_empty())
    }
}

/// Sends error events, drops all others.
struct Whisper(OwnedFd);

impl Subscriber for Whisper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = format!("{}{}", line.message, line.fields);
        let mut cut = text.len().min(LINE_LIMIT_BYTES);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        text.truncate(cut);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // With nobody listening any more there is nobody to tell.
        let _ = send(self.0.as_raw_fd(), text.as_bytes(), flags);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event as text: its message, then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a string cannot fail.
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}
