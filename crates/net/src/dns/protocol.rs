//! What the process that answers and the one that knows the names say to each other.
//!
//! A holder outlives the release that started it, so whoever comes later must be understood by
//! it, and it by them. Hence two parts: [`Request::Hello`], [`Request::Sockets`] and
//! [`Request::Leave`] with their replies never change, and are all that is asked of a holder that
//! is not exactly what one would start oneself. Everything else is said only where both
//! fingerprints are equal, which they are for the same release, binary and configuration alone.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::DnsConfig;
use super::wire::Wire;
pub(super) use super::zone::Names;

/// To be raised where a part of the protocol changes that both sides must agree on.
pub(super) const PROTOCOL: u32 = 1;

/// A holder answers at once; one that takes longer is stuck, or the board is.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// What a holder is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Who are you? Answered with [`Reply::Me`].
    Hello {},
    /// Answered with [`Reply::Sockets`] and copies of the sockets; both can read from then on.
    Sockets {},
    /// Read no more and end. Answered with [`Reply::Left`] when nothing is read any more.
    Leave {},
    /// The first word to a new holder. Answered with [`Reply::Ready`] or [`Reply::Failed`].
    Begin(Box<Begin>),
    /// All names of the cluster from now on. Answered with [`Reply::Serving`].
    Names(Arc<Names>),
}

/// What a holder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// What it is, compared and never taken apart.
    Me { fingerprint: String },
    /// Copies of its sockets come along.
    Sockets {},
    /// It reads no more.
    Left {},
    /// It has its sockets and waits for names before it answers.
    Ready {},
    /// It cannot work, for this reason.
    Failed { reason: String },
    /// It answers from the names that were told last.
    Serving {},
    /// A line for the log.
    Report(Report),
}

/// What a new holder is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    pub fingerprint: String,
    pub config: DnsConfig,
    /// Where it is to be found.
    pub socket: PathBuf,
}

/// How loud a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the levels that everybody knows")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// A line of a holder's log. It has no place of its own to write to: whoever started it may be
/// gone, and a pipe that nobody reads would have it stand still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How loud.
    pub level: Level,
    /// What.
    pub text: String,
}

/// What makes two holders the same.
pub(super) fn fingerprint(release: &str, config: &DnsConfig) -> String {
    serde_json::json!({"protocol": PROTOCOL, "release": release, "config": config}).to_string()
}

/// Asks, and waits for the answer.
///
/// # Errors
/// `TimedOut` where a holder is stuck; anything else means that it is gone.
pub(super) async fn ask(wire: &mut Wire, request: &Request) -> io::Result<(Reply, Vec<OwnedFd>)> {
    wire.send(request, &[]).await?;
    let received = timeout(ANSWER_PATIENCE, wire.receive()).await??;
    received.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Kills the process that listens at the other end and is stuck.
pub(super) fn kill_peer(wire: &Wire) {
    let own = i32::try_from(std::process::id()).ok();
    if let Some(pid @ 2..) = wire.listener().filter(|pid| Some(*pid) != own) {
        // SAFETY: a plain system call; the process has this connection open.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
