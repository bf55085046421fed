//! Sending a request to another host, and its answer back: HTTP/1.1, a connection a request where
//! none is kept for more, upgrades tunnelled byte for byte.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::pool::Pool;
use super::target::Target;
use crate::authn::Peer;
use crate::request::{Body, Request, Response};
use crate::response;

/// Time for TCP and TLS to another host of the cluster.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that belong to one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// What a request is for: decides how a failure is worded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Log,
    Stream,
    Proxy,
}

impl Purpose {
    fn failure(self, target: &Target, error: &dyn std::fmt::Display) -> Status {
        let why = format!("dial tcp {}: {error}", target.authority());
        match self {
            Purpose::Log => Status::internal_error(&format!("Get {:?}: {why}", target.url())),
            Purpose::Stream => Status::internal_error(&format!("error dialing backend: {why}")),
            Purpose::Proxy => Status::unavailable(format!("error trying to reach service: {why}")),
        }
    }
}

/// Whether a request asks for another protocol on its connection.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers.get_all(header::CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
            })
        })
}

/// Sends the request to its target and gives the answer as it comes.
pub(crate) async fn send(
    target: Target,
    request: Request,
    purpose: Purpose,
) -> Result<Response, Status> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(&target)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(purpose.failure(&target, &error)),
        Err(_) => return Err(purpose.failure(&target, &"i/o timeout")),
    };
    exchange(target, request, purpose, stream).await
}

/// The same over a connection of the pool, which is opened where there is none.
pub(crate) async fn send_pooled(
    pool: &Arc<Pool>,
    target: Target,
    request: Request,
    purpose: Purpose,
) -> Result<Response, Status> {
    if is_upgrade(request.headers()) {
        return send(target, request, purpose).await;
    }
    let mut request =
        outgoing(request, &target, false).map_err(|why| Status::internal_error(&why))?;
    let failed = |error: hyper::Error| purpose.failure(&target, &error);
    while let Some(mut sender) = pool.take(&target) {
        match sender.try_send_request(request).await {
            Ok(answer) => {
                pool.keep(&target, sender);
                return Ok(shown(answer));
            }
            // The other side had closed it: the request has not been sent.
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(failed(error.into_error())),
            },
        }
    }
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(&target)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(purpose.failure(&target, &error)),
        Err(_) => return Err(purpose.failure(&target, &"i/o timeout")),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        // What went wrong is told to whoever waits for the answer.
        let _ = connection.await;
    });
    let answer = sender.send_request(request).await.map_err(failed)?;
    pool.keep(&target, sender);
    Ok(shown(answer))
}

/// An answer without what was about its connection alone.
fn shown(answer: http::Response<hyper::body::Incoming>) -> Response {
    let (mut parts, body) = answer.into_parts();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    parts.version = Version::default();
    let body: Body = body.map_err(Into::into).boxed_unsync();
    Response::from_parts(parts, body)
}

/// A connection with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(target: &Target) -> std::io::Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = &target.tls else { return Ok(Box::new(tcp)) };
    let name = target.server_name.as_ref().unwrap_or(&target.host).clone();
    let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
    Ok(Box::new(connector.connect(name, tcp).await?))
}

async fn exchange(
    target: Target,
    mut request: Request,
    purpose: Purpose,
    stream: Box<dyn Stream>,
) -> Result<Response, Status> {
    let failed = |error: hyper::Error| purpose.failure(&target, &error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        // What went wrong is told to whoever waits for the answer.
        let _ = connection.with_upgrades().await;
    });
    let upgrade = is_upgrade(request.headers());
    let client = upgrade.then(|| hyper::upgrade::on(&mut request));
    let request =
        outgoing(request, &target, upgrade).map_err(|why| Status::internal_error(&why))?;
    let mut answer = sender.send_request(request).await.map_err(failed)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(purpose.failure(&target, &"the other side switched protocols unasked"));
        };
        let backend = hyper::upgrade::on(&mut answer);
        tokio::spawn(tunnel(client, backend));
        let (parts, _) = answer.into_parts();
        return Ok(Response::from_parts(parts, response::full("")));
    }
    Ok(shown(answer))
}

/// The request as it is sent on: origin-form, the target's host, end-to-end headers only.
fn outgoing(request: Request, target: &Target, upgrade: bool) -> Result<Request, String> {
    let (mut parts, body) = request.into_parts();
    parts.uri = target.path.parse().map_err(|error| format!("building the path: {error}"))?;
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    if upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        parts.headers.remove(header::UPGRADE);
    }
    let host = HeaderValue::from_str(&target.authority()).map_err(|error| error.to_string())?;
    parts.headers.insert(header::HOST, host);
    Ok(Request::from_parts(parts, body))
}

/// Copies bytes both ways until either side is done.
async fn tunnel(client: hyper::upgrade::OnUpgrade, backend: hyper::upgrade::OnUpgrade) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "an upgrade did not come about");
            return;
        }
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!(%error, "a tunnel ended");
    }
}

/// Says on whose behalf a request is passed on.
pub(crate) fn add_forwarded_headers(request: &mut Request) {
    let path = request.uri().path().to_owned();
    let host = request.headers().get(header::HOST).cloned();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip().to_string());
    let headers = request.headers_mut();
    let mut add = |name: &'static str, value: HeaderValue| {
        headers.insert(HeaderName::from_static(name), value);
    };
    add("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Ok(path) = HeaderValue::from_str(&path) {
        add("x-forwarded-uri", path);
    }
    if let Some(host) = host {
        add("x-forwarded-host", host);
    }
    if let Some(Ok(peer)) = peer.map(|peer| HeaderValue::from_str(&peer)) {
        add("x-forwarded-for", peer);
    }
}

/// Makes a redirect within the target one within the proxied path.
pub(super) fn rewrite_location(answer: &mut Response, target: &Target, prefix: &str) {
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location else { return };
    let Ok(uri) = location.parse::<http::Uri>() else { return };
    let own = uri.authority().is_none_or(|authority| {
        *authority.as_str() == target.authority() || authority.as_str() == target.host
    });
    if !own || !uri.path().starts_with('/') {
        return;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let to = format!("{prefix}{}{query}", uri.path());
    if let Ok(to) = HeaderValue::from_str(&to) {
        answer.headers_mut().insert(header::LOCATION, to);
    }
}

/// TLS to pods and services, whose certificates nobody here can vouch for: upstream does
/// not verify them either. Kubelets are reached with a client that does.
pub(super) fn trusting_client() -> Arc<rustls::ClientConfig> {
    static CLIENT: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    let made = CLIENT.get_or_init(|| {
        let config =
            ::trust::client_of_anyone().expect("ring supports the default protocol versions");
        Arc::new(config.with_no_client_auth())
    });
    Arc::clone(made)
}
