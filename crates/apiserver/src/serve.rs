//! The listener: TLS, HTTP/1.1 and HTTP/2 on one port, limits, and an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::{Peer, certificate_user};
use crate::config::Limits;
use crate::request::{Body, Request, Response};
use crate::server::ApiServer;
use crate::waiting::{Reason, Waiting};

/// Idle time after which the kernel probes a connection's other end, how often it does, and
/// how many probes without an answer end the connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(180);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;
/// Time for a request's head on an HTTP/1.1 connection, the idle time before it included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// Streams that one HTTP/2 connection may have open at once.
const STREAMS_PER_CONNECTION: u32 = 250;
/// Largest head of an HTTP/1.1 request in bytes.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The port of the API, served from the first moment: until the server behind it is there,
/// callers are told what is waited for. A connection that was opened before goes on after it.
pub struct Front {
    limits: Limits,
    reason: Reason,
    waiting: Waiting,
    server: OnceLock<Arc<ApiServer>>,
    /// Cancelled when the port closes.
    stopping: CancellationToken,
}

impl ApiServer {
    /// Serves HTTPS on a listener, as [`Front::serve`] does.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: rustls::ServerConfig,
        shutdown: CancellationToken,
    ) {
        let front = Front::new(self.context.config.limits.clone());
        front.open(self);
        front.serve(listener, tls, shutdown).await;
    }
}

impl Front {
    /// A front without a server behind it.
    pub fn new(limits: Limits) -> Arc<Front> {
        let reason = Reason::default();
        reason.set("it opens its datastore");
        Arc::new(Front {
            limits,
            waiting: Waiting::new(reason.clone()),
            reason,
            server: OnceLock::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// What callers are told to wait for.
    pub fn waits_for(&self, why: &str) {
        self.reason.set(why);
    }

    /// Puts the server behind it. There is only one, and it stays.
    pub fn open(&self, server: Arc<ApiServer>) {
        if self.server.set(server).is_err() {
            tracing::error!("the port has a server already");
        }
    }

    /// Serves HTTPS on a listener until `shutdown` is cancelled, then ends watches, waits
    /// for requests under way (at most `limits.drain`) and returns.
    ///
    /// `tls` should ask for, but not demand, a client certificate of the client authority.
    /// ALPN is set here where it is empty.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut tls: rustls::ServerConfig,
        shutdown: CancellationToken,
    ) {
        if tls.alpn_protocols.is_empty() {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let connections = TaskTracker::new();
        loop {
            // A place first: beyond the limit clients wait in the kernel's queue.
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let front = Arc::clone(&self);
                    let acceptor = acceptor.clone();
                    connections.spawn(async move {
                        front.connection(stream, address, acceptor).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
        self.stopping.cancel();
        if let Some(server) = self.server.get() {
            server.context.stopping.cancel();
        }
        connections.close();
        if tokio::time::timeout(self.limits.drain, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "connections were still open at the end");
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, tls: TlsAcceptor) {
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        // Both are improvements only; a connection without them works.
        let _ = socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive);
        let _ = tcp.set_nodelay(true);
        let stream = match tokio::time::timeout(self.limits.handshake, tls.accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "TLS handshake");
                return;
            }
            Err(_) => return,
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer =
            Peer { address, user: certificate.and_then(|der| certificate_user(der)).map(Arc::new) };

        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .max_header_list_size(HEAD_BYTES_MAX as u32);
        let front = Arc::clone(&self);
        let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
            let front = Arc::clone(&front);
            let mut request: Request = request.map(|body: hyper::body::Incoming| -> Body {
                body.map_err(Into::into).boxed_unsync()
            });
            request.extensions_mut().insert(peer.clone());
            async move { Ok::<_, Infallible>(front.answer(request).await) }
        });
        let mut connection =
            pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%address, %error, "connection ended");
        }
    }

    async fn answer(&self, request: Request) -> Response {
        match self.server.get() {
            Some(server) => Arc::clone(server).answer(request, None).await,
            None => {
                let uri = request.uri();
                self.waiting.answer(uri.path(), uri.query().unwrap_or(""))
            }
        }
    }
}
