//! One HTTP/2 connection to one of several API servers, and another one as soon as that fails.
//!
//! Everything an agent asks goes over the one connection, so that it costs one TLS session and
//! one socket on either side. A server that ends its connections is left at once; one that is
//! silent, after a ping without an answer; one that answers but is not ready (cut off from the
//! datastore), as soon as another is. A TCP proxy in front, as k3s has it, was turned down: it
//! sees neither pings nor answers, and its traffic passes the kernel twice.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Time to reach a server's port. On a home's network that takes a few milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the TLS and HTTP/2 handshakes, which a busy board takes longer for.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection over which nothing has come for so long is asked for a sign of life,
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// and is given up after this long without one.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the server in use is asked whether it is ready,
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// how long it may take to say so,
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// and how often in a row it may fail to.
const PROBE_FAILURES_MAX: u32 = 2;
/// For this long after all servers have failed, nobody tries again.
const GIVE_UP_FOR: Duration = Duration::from_millis(250);
/// Servers that are remembered; a cluster has three, seldom five.
const SERVERS_MAX: usize = 16;
/// What may be under way of one answer, and of all answers together, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// Why a request got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BalanceError {
    /// None of the servers can be used; what was wrong with each.
    #[error("no server can be reached: {0}")]
    NoServer(String),
    /// The connection broke while the request was under way.
    #[error("{server}: {reason}")]
    Broken {
        /// The server that was asked.
        server: Authority,
        /// What happened.
        reason: String,
    },
}

/// Why one server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Nobody answers at its address.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// Its port cannot be opened.
    #[error("{0}")]
    Tcp(#[source] std::io::Error),
    /// The TLS handshake failed.
    #[error("{0}")]
    Tls(#[source] std::io::Error),
    /// It does not speak HTTP/2.
    #[error("{0}")]
    Http(#[source] hyper::Error),
    /// Its name cannot be in a certificate.
    #[error("{0:?} is no host")]
    Name(String),
}

/// A way to whichever of several servers can be used. Clones share the connection.
#[derive(Clone)]
pub struct Balancer(Arc<Shared>);

struct Shared {
    tls: TlsConnector,
    /// The next one to be tried first.
    servers: Mutex<Vec<Authority>>,
    line: tokio::sync::Mutex<Line>,
}

#[derive(Default)]
struct Line {
    open: Option<Connection>,
    failed: Option<(Instant, BalanceError)>,
}

#[derive(Clone)]
struct Connection {
    server: Authority,
    sender: SendRequest<Body>,
    /// Ends the connection, and with it the watches on it, when the last clone goes.
    _guard: Arc<DropGuard>,
    ended: CancellationToken,
}

impl Balancer {
    /// A balancer over servers (host and port), of which at least one should be known. `tls`
    /// decides whom to trust and what to show.
    pub fn new(mut tls: rustls::ClientConfig, servers: Vec<Authority>) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let balancer = Balancer(Arc::new(Shared {
            tls: TlsConnector::from(Arc::new(tls)),
            servers: Mutex::default(),
            line: tokio::sync::Mutex::default(),
        }));
        balancer.set_servers(servers);
        balancer
    }

    /// A client over it.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// The servers, the one to be tried first in front.
    pub fn servers(&self) -> Vec<Authority> {
        self.lock().clone()
    }

    /// Says which servers there are. The one in use stays in use while it can be.
    pub fn set_servers(&self, mut servers: Vec<Authority>) {
        let mut present = self.lock();
        // Those known already keep their order: what failed last is tried last.
        let place = |server: &Authority| present.iter().position(|known| known == server);
        servers.sort_by_key(|server| place(server).unwrap_or(usize::MAX));
        servers.dedup();
        servers.truncate(SERVERS_MAX);
        *present = servers;
    }

    /// Watches over the connection until `stop`: leaves a server that is not ready for one that
    /// is.
    pub async fn watch_over(&self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
            let open = self.0.line.lock().await.open.clone();
            let Some(open) = open.filter(|open| !open.ended.is_cancelled()) else { continue };
            failures = if open.is_ready().await { 0 } else { failures + 1 };
            if failures >= PROBE_FAILURES_MAX {
                self.leave(&open.server).await;
                failures = 0;
            }
        }
    }

    /// Moves to another server, if one is ready.
    async fn leave(&self, server: &Authority) {
        for other in self.servers().into_iter().filter(|other| other != server) {
            let Ok(connection) = self.reach(&other).await else { continue };
            if connection.is_ready().await {
                tracing::warn!(%server, %other, "the server is not ready: going to another");
                self.put_last(server);
                self.0.line.lock().await.open = Some(connection);
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Authority>> {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_last(&self, server: &Authority) {
        let mut servers = self.lock();
        servers.sort_by_key(|known| known == server);
    }

    /// The open connection, or a new one to the first server that can be used.
    async fn connection(&self) -> Result<Connection, BalanceError> {
        let mut line = self.0.line.lock().await;
        if let Some(open) = line.open.as_ref().filter(|open| open.is_open()) {
            return Ok(open.clone());
        }
        if let Some((_, error)) = line.failed.as_ref().filter(|(at, _)| at.elapsed() < GIVE_UP_FOR)
        {
            return Err(error.clone());
        }
        line.open = None;
        let (mut reasons, mut unready) = (Vec::new(), None);
        for server in self.servers() {
            match self.reach(&server).await {
                Ok(connection) if connection.is_ready().await => {
                    tracing::info!(%server, "connected");
                    line.open = Some(connection.clone());
                    return Ok(connection);
                }
                Ok(connection) => unready = unready.or(Some(connection)),
                Err(error) => {
                    self.put_last(&server);
                    reasons.push(format!("{server}: {}", base::chain(&error)));
                }
            }
        }
        // Better one that is not ready than none: it says itself what it cannot do.
        if let Some(connection) = unready {
            line.open = Some(connection.clone());
            return Ok(connection);
        }
        let error = BalanceError::NoServer(reasons.join("; "));
        line.failed = Some((Instant::now(), error.clone()));
        Err(error)
    }

    async fn reach(&self, server: &Authority) -> Result<Connection, ReachError> {
        let host = server.host().trim_matches(['[', ']']);
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| ReachError::Name(host.to_owned()))?;
        let address = (host, server.port_u16().unwrap_or(443));
        let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| ReachError::Silent(CONNECT_TIMEOUT))?
            .map_err(ReachError::Tcp)?;
        // An improvement only; a connection without it works.
        let _ = tcp.set_nodelay(true);
        timeout(HANDSHAKE_TIMEOUT, async {
            let tls = self.0.tls.connect(name, tcp).await.map_err(ReachError::Tls)?;
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(tls))
                .await
                .map_err(ReachError::Http)
        })
        .await
        .map_err(|_| ReachError::Silent(HANDSHAKE_TIMEOUT))?
        .map(|(sender, connection)| {
            let (wanted, ended) = (CancellationToken::new(), CancellationToken::new());
            let (until, over) = (wanted.clone(), ended.clone().drop_guard());
            let peer = server.clone();
            tokio::spawn(async move {
                let _over = over;
                tokio::select! {
                    result = connection => if let Err(error) = result {
                        tracing::info!(server = %peer, error = %base::chain(&error), "connection lost");
                    },
                    () = until.cancelled() => {}
                }
            });
            let _guard = Arc::new(wanted.drop_guard());
            Connection { server: server.clone(), sender, _guard, ended }
        })
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, BalanceError> {
        // A request that no server has seen yet may be sent to the next one.
        for _ in 0..=SERVERS_MAX {
            let mut connection = self.connection().await?;
            address(&mut request, &connection.server);
            match connection.sender.try_send_request(request).await {
                Ok(answer) => return Ok(answer),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        connection.ended.cancel();
                        request = unsent;
                    }
                    None => {
                        let reason = base::chain(error.error());
                        return Err(BalanceError::Broken { server: connection.server, reason });
                    }
                },
            }
        }
        Err(BalanceError::NoServer("every connection ended at once".to_owned()))
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.ended.is_cancelled() && !self.sender.is_closed()
    }

    async fn is_ready(&self) -> bool {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/readyz");
        address(&mut request, &self.server);
        let answer = timeout(PROBE_TIMEOUT, self.sender.clone().send_request(request)).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status().is_success()))
    }
}

/// HTTP/2 names the server in the request's address.
fn address(request: &mut Request<Body>, server: &Authority) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(server.clone());
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request.headers_mut().remove(header::HOST);
}

impl tower::Service<Request<Body>> for Balancer {
    type Response = Response<Incoming>;
    type Error = BalanceError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let balancer = self.clone();
        Box::pin(async move { balancer.send(request).await })
    }
}
