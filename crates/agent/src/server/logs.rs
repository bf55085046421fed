//! `/containerLogs/{namespace}/{pod}/{container}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming as RequestBody};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use runtime::{ContainerId, Event};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::request::Call;
use super::websocket::{self, Message, Opcode, frame};
use super::{Body, command, full, text};
use crate::context::Context;
use crate::logs::line::Show;
use crate::logs::read::{Request, read};
use crate::manager::Manager;
use crate::pod::view::Run;

/// Pieces of a log that wait for a slow reader at most.
const MAX_WAITING_PIECES: usize = 8;
/// A log as text messages in base64.
const BASE64_PROTOCOL: &str = "base64.binary.k8s.io";
/// How a log is carried over a WebSocket; as bytes where the client does not say.
const PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64_PROTOCOL];

/// Sends a log, for as long as the reader wants it.
pub async fn answer(
    manager: &Manager,
    namespace: &str,
    pod: &str,
    container: &str,
    call: &Call,
    mut asked: http::Request<RequestBody>,
) -> Response<Body> {
    let request = match parse(call) {
        Ok(request) => request,
        Err(message) => return text(StatusCode::BAD_REQUEST, &message),
    };
    let previous = call.on(&["previous"]);
    let found = manager.with(namespace, pod, |handle, object| {
        choose(object, container, previous, |p| handle.run(container, p))
    });
    let run = match found {
        None => return text(StatusCode::NOT_FOUND, &format!("pod {pod:?} not found")),
        Some(Err((status, message))) => return text(status, &message),
        Some(Ok(run)) => run,
    };
    let ctx = manager.context();
    let id = ContainerId(run.id);
    // Subscribed before the state is asked for, so that an end in between is not missed.
    let events = ctx.runtime.events();
    let status = match ctx.runtime.container_status(&id).await {
        Ok(status) => status,
        Err(error) => {
            return text(StatusCode::INTERNAL_SERVER_ERROR, &base::chain(&error).to_string());
        }
    };
    let Some(path) = status.log_path else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the container has no log");
    };
    let ended = CancellationToken::new();
    let running =
        matches!(status.state, runtime::ContainerState::Running | runtime::ContainerState::Created);
    let (sender, receiver) = mpsc::channel::<Bytes>(MAX_WAITING_PIECES);
    if running && request.follow {
        let (ctx, ended, sender) = (ctx.clone(), ended.clone(), sender.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = wait_for_end(&ctx, &id, events) => ended.cancel(),
                () = sender.closed() => {}
            }
        });
    } else {
        ended.cancel();
    }
    tokio::spawn(async move {
        if let Err(error) = read(&path, request, ended, sender).await {
            tracing::debug!(path = %path.display(), %error, "log not read to its end");
        }
    });
    if websocket::wanted(asked.headers()) {
        let upgrade = hyper::upgrade::on(&mut asked);
        let protocol = websocket::choose(asked.headers(), &PROTOCOLS, None);
        let base64 = protocol == Some(BASE64_PROTOCOL);
        command::spawn(upgrade, move |io| over_websocket(io, base64, receiver));
        return websocket::accept(asked.headers(), protocol).map(|()| full(""));
    }
    let frames = ReceiverStream::new(receiver).map(|bytes| Ok(Frame::data(bytes)));
    let mut response = text(StatusCode::OK, "");
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    response
}

/// Sends the pieces of a log as messages until it ends or the client leaves.
async fn over_websocket(
    io: impl AsyncRead + AsyncWrite,
    base64: bool,
    mut pieces: mpsc::Receiver<Bytes>,
) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(io);
    let mut client = websocket::Reader::new(Box::pin(read));
    loop {
        tokio::select! {
            piece = pieces.recv() => match piece {
                Some(piece) if base64 => {
                    let text = STANDARD.encode(piece);
                    write.write_all(&frame(Opcode::Text, text.as_bytes())).await?;
                }
                Some(piece) => write.write_all(&frame(Opcode::Binary, &piece)).await?,
                None => return websocket::close(&mut write).await,
            },
            message = client.next() => match message? {
                Some(Message::Ping(data)) => write.write_all(&frame(Opcode::Pong, &data)).await?,
                Some(Message::Data(_)) => {}
                Some(Message::Close) | None => return Ok(()),
            },
        }
    }
}

/// Waits until a container has ended.
async fn wait_for_end(ctx: &Context, id: &ContainerId, mut events: broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Exited { container, .. }) if container == *id => return,
            Ok(Event::SandboxGone { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => {
                let status = ctx.runtime.container_status(id).await;
                if !status.is_ok_and(|s| s.state == runtime::ContainerState::Running) {
                    return;
                }
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn parse(call: &Call) -> Result<Request, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        let value = call.get(name).filter(|v| !v.is_empty());
        value.map(|v| v.parse().map_err(|_| format!("{name}: invalid value {v:?}"))).transpose()
    };
    let since = match (number("sinceSeconds")?, call.get("sinceTime").filter(|t| !t.is_empty())) {
        (Some(seconds), _) => {
            let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Timestamp::now().checked_sub(back).ok()
        }
        (None, Some(time)) => {
            Some(time.parse().map_err(|_| format!("sinceTime: invalid value {time:?}"))?)
        }
        (None, None) => None,
    };
    let stream = match call.get("stream") {
        Some("Stdout") => Some("stdout".to_owned()),
        Some("Stderr") => Some("stderr".to_owned()),
        _ => None,
    };
    Ok(Request {
        show: Show {
            since,
            timestamps: call.on(&["timestamps"]),
            stream,
            limit_bytes: number("limitBytes")?,
        },
        tail: number("tailLines")?,
        follow: call.on(&["follow"]),
    })
}

/// The run whose log is wanted, or why there is none, in upstream's words.
fn choose(
    pod: &Pod,
    container: &str,
    previous: bool,
    run: impl Fn(bool) -> Option<Run>,
) -> Result<Run, (StatusCode, String)> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|s| {
        [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses]
    });
    let known: Option<&ContainerStatus> = all.flatten().flatten().find(|s| s.name == container);
    let Some(known) = known else {
        let message = format!("container {container:?} not found in pod {name:?}");
        return Err((StatusCode::NOT_FOUND, message));
    };
    if previous {
        let current = run(false);
        let ended = current.as_ref().is_some_and(|r| !r.alive());
        let waiting = known.state.as_ref().is_some_and(|s| s.waiting.is_some());
        // While it waits for its restart, the run that has ended is the previous one.
        let wanted = if ended && waiting { current } else { run(true) };
        return wanted.ok_or_else(|| {
            let message =
                format!("previous terminated container {container:?} in pod {name:?} not found");
            (StatusCode::BAD_REQUEST, message)
        });
    }
    run(false).ok_or_else(|| {
        let waiting = known.state.as_ref().and_then(|s| s.waiting.as_ref());
        let why = match waiting.and_then(|w| w.reason.as_deref()) {
            Some("ErrImagePull" | "ImagePullBackOff") => "trying and failing to pull image",
            Some("InvalidImageName") => "image can't be pulled",
            Some(reason) => reason,
            None => "ContainerCreating",
        };
        let message = format!("container {container:?} in pod {name:?} is waiting to start: {why}");
        (StatusCode::BAD_REQUEST, message)
    })
}
