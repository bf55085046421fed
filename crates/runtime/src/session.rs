//! Commands run in containers, and conversations with them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Result;

/// A writer into a process; dropping it closes the process's standard input.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;
/// A reader of a process's output; ends when the process's side is closed.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;

/// A command to run in a running container, with the container's own user, environment,
/// limits and rights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecRequest {
    /// Program and arguments; not a shell line.
    pub argv: Vec<String>,
    /// Give it a terminal; standard error is then part of standard output.
    pub tty: bool,
    /// Open standard input.
    pub stdin: bool,
    /// Open standard output.
    pub stdout: bool,
    /// Open standard error; ignored with a terminal.
    pub stderr: bool,
}

/// What a finished command left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, cut at [`ExecOutput::LIMIT_BYTES`].
    pub stdout: Vec<u8>,
    /// Standard error, cut alike.
    pub stderr: Vec<u8>,
    /// Exit code, 128 + signal for a death by signal.
    pub code: i32,
}

impl ExecOutput {
    /// Most that is kept of either stream.
    pub const LIMIT_BYTES: usize = 16 << 20;
}

/// A running command (exec) or a view on a container's first process (attach).
pub struct Session {
    /// Standard input, if asked for.
    pub stdin: Option<Input>,
    /// Standard output (with a terminal: all output), if asked for.
    pub stdout: Option<Output>,
    /// Standard error, if asked for and without a terminal.
    pub stderr: Option<Output>,
    /// Size of the terminal and the end.
    pub control: Arc<dyn SessionControl>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .finish()
    }
}

/// The side of a session that is not a stream. Dropping all of them and the streams leaves the
/// command running, as it does upstream, but a terminal is hung up.
#[async_trait]
pub trait SessionControl: Send + Sync {
    /// Sets the terminal's size; nothing happens without a terminal.
    async fn resize(&self, columns: u16, rows: u16) -> Result<()>;
    /// Waits for the process's end: exit code, 128 + signal for a death by signal. Attach waits
    /// for the container. May be called again and gives the same answer.
    async fn wait(&self) -> Result<i32>;
    /// Whether the session is over once its input is: so it is attached to a container whose own
    /// input stays open for the next client.
    fn ends_with_input(&self) -> bool {
        false
    }
}
