//! Commands in a container, and clients at its own streams.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::container::Container;
use super::session::{self, Control, Pipes};
use super::{Native, new_id};
use crate::shim::protocol::{Phase, Request};
use crate::shim::write_atomic;
use crate::{Error, ExecOutput, ExecRequest, Result, Session, SessionControl as _};

/// A command's streams may stay open (in a child of it) so long after its end.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

impl Native {
    pub(super) async fn begin_exec(
        &self,
        container: &Container,
        request: ExecRequest,
    ) -> Result<(Session, Arc<Control>)> {
        if container.state().phase != Phase::Running {
            return Err(self.refuse(container, "run a command in it"));
        }
        if request.argv.is_empty() {
            return Err(Error::Invalid("no command given to run".to_owned()));
        }
        let mut process = container.record().process;
        process["args"] = serde_json::json!(request.argv);
        process["terminal"] = request.tty.into();
        if request.tty
            && let Some(env) = process["env"].as_array_mut()
            && !env.iter().any(|e| e.as_str().is_some_and(|e| e.starts_with("TERM=")))
        {
            env.push("TERM=xterm".into());
        }
        let file = self.container_folder(&container.id).join(format!("exec-{}.json", new_id()));
        write_atomic(&file, &process).map_err(Error::io(format!("writing {}", file.display())))?;
        let piped = !request.tty;
        let (stdin, stdout, stderr) =
            (piped && request.stdin, piped && request.stdout, piped && request.stderr);
        let pipes = Pipes::new(stdin, stdout, stderr).map_err(Error::io("making pipes"))?;
        let connection = self.connect(container)?;
        let asked = Request::Exec {
            id: container.id.clone(),
            process: file.clone(),
            tty: request.tty,
            stdin,
            stdout,
            stderr,
        };
        let called = connection.call(&asked, &pipes.raw()).await;
        // Read by now, or never to be.
        let _ = fs::remove_file(&file);
        let (_, fds) = called?;
        let what = format!("a command in container {}", container.id);
        session::command(connection, pipes, fds.into_iter().next(), request.stdin, what)
            .map_err(Error::io("watching a command"))
    }

    pub(super) async fn collect_exec(
        &self,
        container: &Container,
        argv: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput> {
        let name = argv.join(" ");
        let request = ExecRequest { argv, stdout: true, stderr: true, ..ExecRequest::default() };
        let (session, control) = self.begin_exec(container, request).await?;
        let out = tokio::spawn(collect(session.stdout));
        let err = tokio::spawn(collect(session.stderr));
        let code = if timeout.is_zero() {
            control.wait().await?
        } else {
            match tokio::time::timeout(timeout, control.wait()).await {
                Ok(code) => code?,
                Err(_) => {
                    control.kill();
                    let what = format!("command {name:?}");
                    return Err(Error::Timeout { what, seconds: timeout.as_secs() });
                }
            }
        };
        let mut output = ExecOutput { code, ..ExecOutput::default() };
        for (task, into) in [(out, &mut output.stdout), (err, &mut output.stderr)] {
            if let Ok(Ok(bytes)) = tokio::time::timeout(DRAIN_LIMIT, task).await {
                *into = bytes;
            }
        }
        Ok(output)
    }

    pub(super) async fn begin_attach(&self, container: &Container) -> Result<Session> {
        if container.state().phase != Phase::Running {
            return Err(self.refuse(container, "attach to it"));
        }
        let config = container.record().config;
        let pipes = Pipes::new(false, true, !config.tty).map_err(Error::io("making pipes"))?;
        let connection = self.connect(container)?;
        let asked = Request::Attach {
            id: container.id.clone(),
            stdin: config.stdin,
            stdout: true,
            stderr: !config.tty,
        };
        let (_, fds) = connection.call(&asked, &pipes.raw()).await?;
        let given = fds.into_iter().next();
        let what = format!("container {}", container.id);
        session::attachment(connection, pipes, given, &config, what)
            .map_err(Error::io("watching an attachment"))
    }
}

/// Reads a stream to its end; past the limit it is still read, so that nobody blocks, but not
/// kept.
async fn collect(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(mut stream) = stream else { return bytes };
    let mut chunk = [0u8; 8192];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        let room = ExecOutput::LIMIT_BYTES - bytes.len();
        bytes.extend_from_slice(&chunk[..length.min(room)]);
    }
    bytes
}
