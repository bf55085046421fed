//! Calls to webhooks: HTTPS to a Service or a URL, as `clientConfig` of admission webhooks and
//! of conversions names it. Who asks what is the callers' business; here are finding the other
//! side, trusting it, and limits.

pub(crate) mod authorization;
pub(crate) mod remembered;
pub(crate) mod remote;
pub(crate) mod token;
pub(crate) mod trust;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use store::Store;
use tokio::net::TcpStream;

use crate::endpoints;
use crate::request::BoxError;

/// Clients that are kept with their open connections; the one that rested longest makes way.
const CLIENTS_MAX: usize = 64;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Unused connections kept to one webhook.
const IDLE_MAX: usize = 8;
/// Largest answer in bytes.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Port of a Service where none is named.
const PORT: u64 = 443;

/// Why a webhook could not be asked or gave no answer; says it as upstream does.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CallError(pub String);

type HookClient = Client<HttpsConnector<Dial>, Full<Bytes>>;

/// What a client is kept by: the Service where there is one, and the trust.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    /// Namespace and name.
    service: Option<(String, String)>,
    bundle: String,
}

/// Clients of webhooks, kept so that connections are used again.
pub(crate) struct Webhooks {
    store: Store,
    clients: Mutex<HashMap<Place, (HookClient, Instant)>>,
}

impl Webhooks {
    /// Without connections yet; Services are looked up in the store at each new connection.
    pub(crate) fn new(store: Store) -> Self {
        Webhooks { store, clients: Mutex::default() }
    }

    /// POSTs `body` to the place that `config` names, a `clientConfig` (`url`, or `service` with
    /// `namespace`, `name`, `path`, `port`; `caBundle`), and gives the JSON that comes back. The
    /// timeout is told to the other side, too, as `?timeout=10s`.
    pub(crate) async fn call(
        &self,
        config: &Value,
        body: &Value,
        timeout: Duration,
    ) -> Result<Value, CallError> {
        let url = url_of(config, timeout)?;
        let failed = |why: String| CallError(format!("Post {:?}: {why}", url.to_string()));
        let client = self.client(config)?;
        let body = serde_json::to_vec(body).map_err(|error| failed(error.to_string()))?;
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(timeout, exchange(&client, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Trouble { why, is_road: true, .. })) => Err(failed(why)),
            Ok(Err(Trouble { why, .. })) => Err(CallError(why)),
            Err(_) => Err(failed("context deadline exceeded".to_owned())),
        }
    }

    fn client(&self, config: &Value) -> Result<HookClient, CallError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = &config["service"];
        let place = Place {
            service: service
                .is_object()
                .then(|| (text(&service["namespace"]), text(&service["name"]))),
            bundle: text(&config["caBundle"]),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((client, used)) = clients.get_mut(&place) {
            *used = Instant::now();
            return Ok(client.clone());
        }
        let tls = trust::client(&place.bundle).map_err(CallError)?;
        let dial = Dial { store: self.store.clone(), service: place.service.clone() };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector.wrap_connector(dial));
        if clients.len() >= CLIENTS_MAX {
            let oldest = clients.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(place, _)| place.clone()) {
                clients.remove(&oldest);
            }
        }
        clients.insert(place, (client.clone(), Instant::now()));
        Ok(client)
    }
}

/// The URL that is asked, `https://NAME.NAMESPACE.svc:PORT/PATH` for a Service.
fn url_of(config: &Value, timeout: Duration) -> Result<Uri, CallError> {
    let service = &config["service"];
    let text = |field: &str| service[field].as_str().unwrap_or_default();
    let mut url = match config["url"].as_str() {
        Some(url) => url.to_owned(),
        None if service.is_object() => {
            let port = service["port"].as_u64().unwrap_or(PORT);
            let path = text("path").trim_start_matches('/');
            format!("https://{}.{}.svc:{port}/{path}", text("name"), text("namespace"))
        }
        None => {
            return Err(CallError("webhook configuration must have either service or URL".into()));
        }
    };
    url.push(if url.contains('?') { '&' } else { '?' });
    url += &format!("timeout={}s", timeout.as_secs());
    url.parse().map_err(|error| CallError(format!("parse {url:?}: {error}")))
}

/// What went wrong.
struct Trouble {
    why: String,
    /// Whether it was on the way, and not with what came back.
    is_road: bool,
    /// Whether it may be gone when somebody asks again.
    passes: bool,
}

impl Trouble {
    fn road(error: &(dyn std::error::Error + 'static)) -> Self {
        Trouble { why: reason(error), is_road: true, passes: is_reset(error) }
    }

    fn answer(why: String) -> Self {
        Trouble { why, is_road: false, passes: false }
    }
}

/// Whether the other side has ended the connection.
fn is_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |cause| cause.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

async fn exchange(
    client: &HookClient,
    request: http::Request<Full<Bytes>>,
) -> Result<Value, Trouble> {
    let bytes = send(client, request).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Trouble::answer(format!("couldn't get version/kind; json parse error: {error}"))
    })
}

/// Sends a request and gives what comes back where it is no failure.
async fn send(client: &HookClient, request: http::Request<Full<Bytes>>) -> Result<Bytes, Trouble> {
    let answer = client.request(request).await.map_err(|error| Trouble::road(&error))?;
    let (parts, body) = answer.into_parts();
    let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let bytes = bytes.map_err(|error| Trouble::road(error.as_ref()))?.to_bytes();
    if !parts.status.is_success() {
        // What is overloaded says so, or when to come again.
        let passes = matches!(parts.status.as_u16(), 429 | 500 | 504)
            || parts.headers.contains_key(header::RETRY_AFTER);
        return Err(Trouble { passes, ..Trouble::answer(refusal(parts.status, &bytes)) });
    }
    Ok(bytes)
}

/// The last cause, which alone says something to people.
fn reason(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// Upstream's texts for answers that are failures.
fn refusal(status: http::StatusCode, body: &[u8]) -> String {
    const SHOWN_BYTES: usize = 2048;
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
    match status.as_u16() {
        404 => "the server could not find the requested resource".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => text.trim().to_owned(),
        400 => "the server rejected our request for an unknown reason".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later"
            .to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        code if code >= 500 => {
            format!(
                "an error on the server ({:?}) has prevented the request from succeeding",
                text.trim()
            )
        }
        code => format!(
            "the server responded with the status code {code} but did not return more information"
        ),
    }
}

/// Makes connections: to an endpoint of the Service, else to the URL's host.
#[derive(Clone)]
struct Dial {
    store: Store,
    service: Option<(String, String)>,
}

impl Dial {
    fn addresses(&self, uri: &Uri) -> Result<Vec<endpoints::Address>, BoxError> {
        let port = uri.port_u16().unwrap_or(443);
        match &self.service {
            Some((namespace, name)) => {
                let mut all = endpoints::resolve(&self.store, namespace, name, &port.to_string())?;
                fastrand::shuffle(&mut all);
                Ok(all)
            }
            None => {
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                Ok(vec![(host.to_owned(), port)])
            }
        }
    }
}

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let addresses = self.addresses(&uri);
        Box::pin(async move {
            let mut failure: BoxError = "no address".into();
            for (host, port) in addresses? {
                match TcpStream::connect((host.as_str(), port)).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(TokioIo::new(stream));
                    }
                    Err(error) => failure = format!("dial tcp {host}:{port}: {error}").into(),
                }
            }
            Err(failure)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn urls_are_built_as_upstream_does() {
        let url = |config: Value| match url_of(&config, Duration::from_secs(10)) {
            Ok(url) => url.to_string(),
            Err(error) => error.to_string(),
        };
        for (config, expected) in [
            (json!({"url": "https://h/p?x=1"}), "https://h/p?x=1&timeout=10s"),
            (
                json!({"service": {"namespace": "n", "name": "s", "path": "/p"}}),
                "https://s.n.svc:443/p?timeout=10s",
            ),
            (
                json!({"service": {"namespace": "n", "name": "s", "port": 8443}}),
                "https://s.n.svc:8443/?timeout=10s",
            ),
            (json!({}), "webhook configuration must have either service or URL"),
        ] {
            assert_eq!(url(config), expected);
        }
    }
}
