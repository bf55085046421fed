//! `/exec`, `/attach` and `/portForward`: requests that become streams, over WebSocket or SPDY.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming as RequestBody;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use runtime::{ContainerId, ExecRequest, Session, SessionControl};
use tokio::sync::mpsc;

use super::remote::{
    self, ERROR, Incoming, MAX_WAITING_MESSAGES, Outgoing, RESIZE, STDERR, STDIN, STDOUT,
};
use super::request::Call;
use super::spdy::{Command, Event};
use super::{Body, channels, full, portforward, spdy, text, websocket};
use crate::manager::Manager;
use crate::pod::view::RunState;

/// How long a client may take to open its streams.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// The version of the remote command protocol over SPDY that we speak.
const SPDY_COMMAND: &str = "v4.channel.k8s.io";
/// Port forwarding over SPDY.
const SPDY_FORWARD: &str = "portforward.k8s.io";
/// The same in a WebSocket.
const TUNNEL_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";
/// Port forwarding over plain WebSocket channels, as client libraries without SPDY do it.
const CHANNEL_FORWARD: &str = "v4.channel.k8s.io";

/// Which streams a client wants.
#[derive(Clone, Copy)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Streams {
    /// The API's names and the kubelet's own are understood alike.
    fn of(call: &Call) -> Self {
        let tty = call.on(&["tty"]);
        Streams {
            stdin: call.on(&["input", "stdin"]),
            stdout: call.on(&["output", "stdout"]),
            stderr: call.on(&["error", "stderr"]) && !tty,
            tty,
        }
    }
}

/// Runs a command in a container.
pub async fn exec(
    manager: &Manager,
    namespace: &str,
    pod: &str,
    container: &str,
    call: &Call,
    request: Request<RequestBody>,
) -> Response<Body> {
    let id = match running(manager, namespace, pod, container) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let streams = Streams::of(call);
    let wanted = ExecRequest {
        argv: call.all("command"),
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    if wanted.argv.is_empty() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command");
    }
    let runtime = manager.context().runtime.clone();
    remote(request, streams, async move { runtime.exec(&id, wanted).await })
}

/// Joins the streams of a container's first process.
pub async fn attach(
    manager: &Manager,
    namespace: &str,
    pod: &str,
    container: &str,
    call: &Call,
    request: Request<RequestBody>,
) -> Response<Body> {
    let id = match running(manager, namespace, pod, container) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let streams = Streams::of(call);
    let runtime = manager.context().runtime.clone();
    remote(request, streams, async move {
        let session = runtime.attach(&id).await?;
        Ok(Session {
            stdin: session.stdin.filter(|_| streams.stdin),
            stdout: session.stdout.filter(|_| streams.stdout),
            stderr: session.stderr.filter(|_| streams.stderr),
            control: Arc::new(Attached(session.control)),
        })
    })
}

/// What controls an attachment. How the process ended is the container's status, not the
/// client's: `kubectl run` would take it for an attachment that failed.
struct Attached(Arc<dyn SessionControl>);

#[async_trait::async_trait]
impl SessionControl for Attached {
    async fn resize(&self, columns: u16, rows: u16) -> runtime::Result<()> {
        self.0.resize(columns, rows).await
    }

    async fn wait(&self) -> runtime::Result<i32> {
        self.0.wait().await.map(|_| 0)
    }

    fn ends_with_input(&self) -> bool {
        self.0.ends_with_input()
    }
}

/// The running container, or what to say to the client.
fn running(
    manager: &Manager,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<ContainerId, Box<Response<Body>>> {
    let run = manager.with(namespace, pod, |handle, _| handle.run(container, false));
    match run {
        None => Err(Box::new(text(StatusCode::NOT_FOUND, "pod does not exist"))),
        Some(run) => match run.filter(|r| r.state == RunState::Running) {
            Some(run) => Ok(ContainerId(run.id)),
            None => {
                let message = format!("container not found ({container:?})");
                Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, &message)))
            }
        },
    }
}

/// Switches to whatever the client speaks and carries the session that `start` gives.
fn remote<F>(mut request: Request<RequestBody>, streams: Streams, start: F) -> Response<Body>
where
    F: Future<Output = runtime::Result<Session>> + Send + 'static,
{
    let upgrade = hyper::upgrade::on(&mut request);
    let headers = request.headers();
    if websocket::wanted(headers) {
        let chosen = websocket::choose(headers, &channels::PROTOCOLS, Some(channels::FIRST));
        let Some(protocol) = chosen else {
            let known = channels::PROTOCOLS.join(", ");
            return text(
                StatusCode::BAD_REQUEST,
                &format!("unsupported protocol, the server knows {known}"),
            );
        };
        let response = websocket::accept(headers, Some(protocol));
        spawn(upgrade, move |io| over_websocket(io, protocol, start));
        return response.map(|()| full(""));
    }
    match switch_to_spdy(headers, SPDY_COMMAND) {
        Ok(response) => {
            spawn(upgrade, move |io| over_spdy(io, streams, start));
            response
        }
        Err(response) => *response,
    }
}

/// Runs `carry` on the connection once it has switched.
pub(super) fn spawn<F, Fut>(upgrade: OnUpgrade, carry: F)
where
    F: FnOnce(TokioIo<Upgraded>) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send,
{
    tokio::spawn(async move {
        let result = match upgrade.await {
            Ok(upgraded) => carry(TokioIo::new(upgraded)).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = result {
            tracing::debug!(%error, "stream to a client broke");
        }
    });
}

/// The answer that switches to SPDY, or why not.
fn switch_to_spdy(
    headers: &HeaderMap,
    protocol: &'static str,
) -> Result<Response<Body>, Box<Response<Body>>> {
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !upgrade.to_ascii_lowercase().starts_with("spdy/3.1") {
        let message = "unable to upgrade: missing upgrade headers in request";
        return Err(Box::new(text(StatusCode::BAD_REQUEST, message)));
    }
    let offered = headers.get_all("x-stream-protocol-version");
    let offered: Vec<&str> = offered
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(str::trim))
        .collect();
    if !offered.is_empty() && !offered.contains(&protocol) {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts [{protocol}]"
        );
        return Err(Box::new(text(StatusCode::FORBIDDEN, &message)));
    }
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    out.insert("x-stream-protocol-version", HeaderValue::from_static(protocol));
    Ok(response)
}

/// Starts the session and carries it; a failure to start is the session's status.
async fn session<F>(start: F, incoming: mpsc::Receiver<Incoming>, outgoing: mpsc::Sender<Outgoing>)
where
    F: Future<Output = runtime::Result<Session>>,
{
    match start.await {
        Ok(session) => remote::carry(session, incoming, outgoing).await,
        Err(error) => {
            let status = remote::failure(&base::chain(&error).to_string());
            let _ = outgoing.send(Outgoing::Data(ERROR, status.to_string().into())).await;
            let _ = outgoing.send(Outgoing::End(ERROR)).await;
        }
    }
}

async fn over_websocket<F>(io: TokioIo<Upgraded>, protocol: &str, start: F) -> io::Result<()>
where
    F: Future<Output = runtime::Result<Session>>,
{
    let (to_session, incoming) = mpsc::channel(MAX_WAITING_MESSAGES);
    let (outgoing, from_session) = mpsc::channel(MAX_WAITING_MESSAGES);
    let carried = channels::carry(io, protocol, to_session, from_session);
    let ((), result) = tokio::join!(session(start, incoming, outgoing), carried);
    result
}

async fn over_spdy<F>(io: TokioIo<Upgraded>, streams: Streams, start: F) -> io::Result<()>
where
    F: Future<Output = runtime::Result<Session>>,
{
    let (events, mut seen) = mpsc::channel(MAX_WAITING_MESSAGES);
    let (commands, receiver) = mpsc::channel(MAX_WAITING_MESSAGES);
    let frames = spdy::carry(io, events, receiver);
    let (to_session, incoming) = mpsc::channel(MAX_WAITING_MESSAGES);
    let (outgoing, from_session) = mpsc::channel(MAX_WAITING_MESSAGES);
    let work = async {
        let opened = tokio::time::timeout(STREAMS_TIMEOUT, open_streams(&mut seen, streams)).await;
        let Ok(Some(ids)) = opened else { return };
        let ids = Arc::new(ids);
        let upwards = upwards(seen, ids.clone(), to_session);
        let downwards = downwards(from_session, ids, commands);
        tokio::join!(session(start, incoming, outgoing), downwards, async {
            upwards.await;
        });
    };
    let (result, ()) = tokio::join!(frames, work);
    result
}

/// Channels by stream id, once all expected streams are open; `None` when the client has left.
async fn open_streams(
    seen: &mut mpsc::Receiver<Event>,
    streams: Streams,
) -> Option<HashMap<u32, u8>> {
    let expected = 1 + [streams.stdin, streams.stdout, streams.stderr, streams.tty]
        .into_iter()
        .filter(|wanted| *wanted)
        .count();
    let mut ids = HashMap::new();
    while ids.len() < expected {
        let Event::Open(id, headers) = seen.recv().await? else { continue };
        let kind = headers.iter().find(|(name, _)| name == "streamtype").map(|(_, v)| v.as_str());
        let channel = match kind {
            Some("stdin") => STDIN,
            Some("stdout") => STDOUT,
            Some("stderr") => STDERR,
            Some("error") => ERROR,
            Some("resize") => RESIZE,
            _ => continue,
        };
        ids.insert(id, channel);
    }
    Some(ids)
}

async fn upwards(
    mut seen: mpsc::Receiver<Event>,
    ids: Arc<HashMap<u32, u8>>,
    to: mpsc::Sender<Incoming>,
) {
    while let Some(event) = seen.recv().await {
        let message = match event {
            Event::Data(id, data) => match ids.get(&id) {
                Some(&STDIN) => Some(Incoming::Stdin(data)),
                Some(&RESIZE) => remote::parse_size(&data),
                _ => None,
            },
            Event::End(id) => (ids.get(&id) == Some(&STDIN)).then_some(Incoming::StdinClosed),
            Event::Open(..) => None,
        };
        if let Some(message) = message
            && to.send(message).await.is_err()
        {
            return;
        }
    }
}

async fn downwards(
    mut from: mpsc::Receiver<Outgoing>,
    ids: Arc<HashMap<u32, u8>>,
    to: mpsc::Sender<Command>,
) {
    let by_channel: HashMap<u8, u32> = ids.iter().map(|(id, channel)| (*channel, *id)).collect();
    while let Some(message) = from.recv().await {
        let command = match message {
            Outgoing::Data(channel, data) => {
                by_channel.get(&channel).map(|id| Command::Data(*id, data))
            }
            Outgoing::End(channel) => by_channel.get(&channel).map(|id| Command::End(*id)),
        };
        if let Some(command) = command
            && to.send(command).await.is_err()
        {
            return;
        }
    }
}

/// Forwards ports of a pod.
pub async fn port_forward(
    manager: &Manager,
    namespace: &str,
    pod: &str,
    call: &Call,
    mut request: Request<RequestBody>,
) -> Response<Body> {
    let sandbox = manager.with(namespace, pod, |handle, _| handle.sandbox());
    let Some(sandbox) = sandbox else { return text(StatusCode::NOT_FOUND, "pod does not exist") };
    let Some(sandbox) = sandbox else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the pod has no running sandbox");
    };
    let id = runtime::SandboxId(sandbox.id);
    let netns = match manager.context().runtime.sandbox_status(&id).await {
        Ok(status) => status.netns,
        Err(error) => {
            return text(StatusCode::INTERNAL_SERVER_ERROR, &base::chain(&error).to_string());
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let headers = request.headers();
    if websocket::wanted(headers) {
        let known = [TUNNEL_FORWARD, CHANNEL_FORWARD];
        let Some(protocol) = websocket::choose(headers, &known, Some(CHANNEL_FORWARD)) else {
            let message = format!("unsupported protocol, the server knows {}", known.join(", "));
            return text(StatusCode::BAD_REQUEST, &message);
        };
        let ports = call.all("port");
        let ports = ports.iter().flat_map(|list| list.split(',')).map(str::parse::<u16>);
        let Ok(ports) = ports.collect::<Result<Vec<_>, _>>() else {
            return text(StatusCode::BAD_REQUEST, "port is not a number from 1 to 65535");
        };
        let response = websocket::accept(headers, Some(protocol));
        match protocol {
            TUNNEL_FORWARD => {
                spawn(upgrade, move |io| portforward::carry(portforward::tunnel(io), netns));
            }
            _ => spawn(upgrade, move |io| portforward::channels(io, ports, netns)),
        }
        return response.map(|()| full(""));
    }
    match switch_to_spdy(headers, SPDY_FORWARD) {
        Ok(response) => {
            spawn(upgrade, move |io| portforward::carry(io, netns));
            response
        }
        Err(response) => *response,
    }
}
