//! Exec and attach: a session of the runtime on one side, numbered channels of a client on the
//! other, whatever carries them (WebSocket or SPDY).

use bytes::{Bytes, BytesMut};
use runtime::{Output, Session};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Channel of standard input.
pub const STDIN: u8 = 0;
/// Channel of standard output.
pub const STDOUT: u8 = 1;
/// Channel of standard error.
pub const STDERR: u8 = 2;
/// Channel of the final status.
pub const ERROR: u8 = 3;
/// Channel of terminal sizes.
pub const RESIZE: u8 = 4;
/// How much output is read at once, in bytes.
const CHUNK_BYTES: usize = 32 << 10;
/// How many messages wait in either direction at most.
pub const MAX_WAITING_MESSAGES: usize = 16;

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// For standard input.
    Stdin(Bytes),
    /// Standard input has ended.
    StdinClosed,
    /// The terminal's size: columns, rows.
    Resize(u16, u16),
}

/// What a client gets.
#[derive(Debug)]
pub enum Outgoing {
    /// Data on a channel.
    Data(u8, Bytes),
    /// A channel has ended.
    End(u8),
}

/// Reads a size as clients write it.
pub fn parse_size(text: &[u8]) -> Option<Incoming> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let part = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some(Incoming::Resize(part("Width")?, part("Height")?))
}

/// Carries a session until its process ends, or its input where that ends it; the last thing sent
/// is the status.
pub async fn carry(
    session: Session,
    mut incoming: mpsc::Receiver<Incoming>,
    outgoing: mpsc::Sender<Outgoing>,
) {
    let Session { mut stdin, stdout, stderr, control } = session;
    let resizer = control.clone();
    let ends_with_input = stdin.is_some() && control.ends_with_input();
    let outputs = [stdout.as_ref().map(|_| STDOUT), stderr.as_ref().map(|_| STDERR)];
    let input = async {
        while let Some(message) = incoming.recv().await {
            match message {
                Incoming::Stdin(data) => {
                    let Some(writer) = stdin.as_mut() else { continue };
                    let written = async {
                        writer.write_all(&data).await?;
                        writer.flush().await
                    };
                    if written.await.is_err() {
                        stdin = None;
                    }
                }
                Incoming::StdinClosed => {
                    stdin = None;
                    if ends_with_input {
                        return;
                    }
                }
                Incoming::Resize(columns, rows) => {
                    if let Err(error) = resizer.resize(columns, rows).await {
                        tracing::debug!(error = %base::chain(&error), "terminal not resized");
                    }
                }
            }
        }
        std::future::pending().await
    };
    let output = async {
        tokio::join!(pump(stdout, STDOUT, &outgoing), pump(stderr, STDERR, &outgoing));
        control.wait().await
    };
    // A client that is gone ends the session: nobody would read the rest.
    let result = tokio::select! {
        result = output => result,
        () = input => {
            for channel in outputs.into_iter().flatten() {
                let _ = outgoing.send(Outgoing::End(channel)).await;
            }
            Ok(0)
        }
        () = outgoing.closed() => return,
    };
    let status = match result {
        Ok(code) => status(code),
        Err(error) => failure(&base::chain(&error).to_string()),
    };
    let _ = outgoing.send(Outgoing::Data(ERROR, status.to_string().into())).await;
    let _ = outgoing.send(Outgoing::End(ERROR)).await;
}

/// Sends what comes out of a process until it ends.
async fn pump(from: Option<Output>, channel: u8, to: &mpsc::Sender<Outgoing>) {
    let Some(mut from) = from else { return };
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    loop {
        buffer.reserve(CHUNK_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(n) if n > 0 => {
                if to.send(Outgoing::Data(channel, buffer.split().freeze())).await.is_err() {
                    return;
                }
            }
            _ => break,
        }
    }
    let _ = to.send(Outgoing::End(channel)).await;
}

/// The status of a command that has ended.
fn status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The status of a command that could not be run.
pub fn failure(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {message}"),
        "details": {"causes": [{"message": message}]},
    })
}

/// What a status says of a failure, for clients that know no statuses; none where all went well.
pub fn failure_text(status: &[u8]) -> Option<String> {
    let status: Value = serde_json::from_slice(status).ok()?;
    let failed = status["status"] != "Success";
    failed.then(|| status["message"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_failure_can_be_said_in_plain_words() {
        let text = |status: Value| failure_text(status.to_string().as_bytes());
        assert_eq!(text(status(0)), None);
        let said = "command terminated with non-zero exit code: exit status 3";
        assert_eq!(text(status(3)).as_deref(), Some(said));
    }

    struct Ended(i32);

    #[async_trait::async_trait]
    impl runtime::SessionControl for Ended {
        async fn resize(&self, _: u16, _: u16) -> runtime::Result<()> {
            Ok(())
        }
        async fn wait(&self) -> runtime::Result<i32> {
            Ok(self.0)
        }
    }

    #[tokio::test]
    async fn output_then_status() {
        let (stdin, mut echoed) = tokio::io::duplex(64);
        let session = Session {
            stdin: Some(Box::pin(stdin)),
            stdout: Some(Box::pin(&b"out"[..])),
            stderr: Some(Box::pin(&b""[..])),
            control: Arc::new(Ended(3)),
        };
        let (input, incoming) = mpsc::channel(4);
        let (outgoing, mut output) = mpsc::channel(16);
        input.send(Incoming::StdinClosed).await.unwrap();
        carry(session, incoming, outgoing).await;
        let mut seen = Vec::new();
        while let Some(message) = output.recv().await {
            seen.push(match message {
                Outgoing::Data(ERROR, data) => {
                    let status: Value = serde_json::from_slice(&data).unwrap();
                    status["details"]["causes"][0]["message"].to_string()
                }
                Outgoing::Data(channel, data) => {
                    format!("{channel}:{}", String::from_utf8_lossy(&data))
                }
                Outgoing::End(channel) => format!("end {channel}"),
            });
        }
        assert!(seen.contains(&"1:out".to_owned()), "{seen:?}");
        assert_eq!(seen.last().unwrap(), "end 3");
        assert_eq!(seen[seen.len() - 2], "\"3\"");
        let mut rest = Vec::new();
        echoed.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }

    /// Attached to a container that goes on after its client.
    struct Lasting;

    #[async_trait::async_trait]
    impl runtime::SessionControl for Lasting {
        async fn resize(&self, _: u16, _: u16) -> runtime::Result<()> {
            Ok(())
        }
        async fn wait(&self) -> runtime::Result<i32> {
            std::future::pending().await
        }
        fn ends_with_input(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn an_attachment_ends_with_its_input_where_the_container_keeps_its_own() {
        let (stdin, _container) = tokio::io::duplex(64);
        let (stdout, _open) = tokio::io::duplex(64);
        let session = Session {
            stdin: Some(Box::pin(stdin)),
            stdout: Some(Box::pin(stdout)),
            stderr: None,
            control: Arc::new(Lasting),
        };
        let (input, incoming) = mpsc::channel(4);
        let (outgoing, mut output) = mpsc::channel(16);
        input.send(Incoming::StdinClosed).await.unwrap();
        carry(session, incoming, outgoing).await;
        assert!(matches!(output.recv().await, Some(Outgoing::End(STDOUT))));
        let Some(Outgoing::Data(ERROR, said)) = output.recv().await else { panic!("no status") };
        assert_eq!(failure_text(&said), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size(br#"{"Width":80,"Height":24}"#), Some(Incoming::Resize(80, 24)));
        assert_eq!(parse_size(b"{}"), None);
    }
}
