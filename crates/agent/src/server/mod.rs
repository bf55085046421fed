//! The kubelet's HTTPS API, for the API server alone: logs, exec, attach, port forwarding,
//! statistics.

mod auth;
mod cadvisor;
mod channels;
mod command;
mod drill;
mod files;
mod logs;
pub(crate) mod metrics;
mod portforward;
mod remote;
mod request;
mod spdy;
pub(crate) mod stats;
mod websocket;

use std::convert::Infallible;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::agent::AgentError;
use crate::config::Config;
use crate::manager::Manager;
use request::Call;

/// Where boards keep their logs.
const SYSTEM_LOGS: &str = "/var/log";
/// A body of any kind.
type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;
/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at once; the API server needs one per stream.
const MAX_CONNECTIONS: usize = 1024;
/// Pause after the kernel had no descriptor left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Opens the port.
pub fn bind(config: &Config) -> Result<TcpListener, AgentError> {
    let failed = |source| AgentError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, manager: Manager, stop: CancellationToken) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the kubelet API cannot be served");
            return;
        }
    };
    let acceptor = TlsAcceptor::from(manager.context().config.tls.clone());
    let config = &manager.context().config;
    let access = Arc::new(auth::Access::new(
        manager.context().client.clone(),
        config.node_name.clone(),
        config.api_clients.clone(),
    ));
    let slots = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (acceptor, manager, stop) = (acceptor.clone(), manager.clone(), stop.clone());
        let access = access.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let _ = stream.set_nodelay(true);
            let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
                return;
            };
            let client = auth::client(tls.get_ref().1);
            let service = hyper::service::service_fn(move |request| {
                let (manager, access, client) = (manager.clone(), access.clone(), client.clone());
                async move { Ok::<_, Infallible>(answer(&manager, &access, &client, request).await) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
            tokio::select! {
                result = connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection to the kubelet API broke");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn answer(
    manager: &Manager,
    access: &auth::Access,
    client: &auth::Client,
    request: http::Request<Incoming>,
) -> Response<Body> {
    if request.uri().path() == "/healthz" {
        return text(StatusCode::OK, "ok");
    }
    let allowed = access.check(client, request.method(), request.uri().path(), request.headers());
    if let Err(refused) = allowed.await {
        return text(refused.status, &refused.message);
    }
    let call = match Call::parse(request.uri()) {
        Ok(call) => call,
        Err(message) => return text(StatusCode::BAD_REQUEST, &message),
    };
    let parts: Vec<&str> = call.parts.iter().map(String::as_str).collect();
    match parts[..] {
        ["pods"] => pods(manager),
        ["logs", ref path @ ..] => {
            let slash = if request.uri().path().ends_with('/') { "/" } else { "" };
            let below = path.join("/");
            let slash = if below.is_empty() { "" } else { slash };
            files::answer(Path::new(SYSTEM_LOGS), &format!("{below}{slash}"))
        }
        ["v1-coracle", "drill"] => {
            drill::answer(&manager.context().config, request.method(), &call).await
        }
        ["stats", "summary"] => json(&stats::summary(manager).await),
        ["metrics"] => metrics::plain(manager),
        ["metrics", "cadvisor"] => cadvisor::answer(manager).await,
        ["metrics", "resource"] => metrics::resource(manager).await,
        ["containerLogs", namespace, pod, container] => {
            logs::answer(manager, namespace, pod, container, &call, request).await
        }
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            command::exec(manager, namespace, pod, container, &call, request).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            command::attach(manager, namespace, pod, container, &call, request).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            command::port_forward(manager, namespace, pod, &call, request).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn pods(manager: &Manager) -> Response<Body> {
    json(&serde_json::json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": manager.pods(),
    }))
}

/// A plain text.
fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(text.to_owned()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(full(bytes));
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
