//! The balancer against servers that end, fall silent, or are not ready.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::Balancer;
use futures::stream;
use http::uri::Authority;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::client::Body;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// A server that says its name, and streams without end at `/watch`.
struct Server {
    address: Authority,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
}

struct Keys {
    server: rustls::ServerConfig,
    client: rustls::ClientConfig,
}

fn keys() -> Keys {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Keys { server, client }
}

async fn serve(name: &'static str, keys: &Keys) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (ready, stop) = (Arc::new(AtomicBool::new(true)), CancellationToken::new());
    let tls = TlsAcceptor::from(Arc::new(keys.server.clone()));
    let (is_ready, until) = (ready.clone(), stop.clone());
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = until.cancelled() => return,
            };
            let (tls, is_ready, until) = (tls.clone(), is_ready.clone(), until.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let answer = service_fn(move |request: Request<Incoming>| {
                    let ready = is_ready.load(Ordering::Relaxed);
                    async move { Ok::<_, Infallible>(answer(name, ready, request.uri().path())) }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection(TokioIo::new(stream), answer);
                tokio::select! {
                    _ = connection => {}
                    () = until.cancelled() => {}
                }
            });
        }
    });
    Server { address, ready, stop }
}

fn answer(name: &str, ready: bool, path: &str) -> Response<BoxBody<Bytes, Infallible>> {
    let first = Full::new(Bytes::from(name.to_owned()));
    match path {
        "/readyz" if !ready => {
            let mut answer = Response::new(first.boxed());
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
        "/watch" => Response::new(BoxBody::new(StreamBody::new(stream::pending::<
            Result<Frame<Bytes>, Infallible>,
        >()))),
        _ => Response::new(first.boxed()),
    }
}

async fn ask(balancer: &Balancer, path: &str) -> Response<Incoming> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    balancer.clone().call(request).await.expect("an answer")
}

async fn who(balancer: &Balancer) -> String {
    let body = ask(balancer, "/name").await.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// Sooner than this no ping can tell that a server is gone.
const UNANSWERED_PING: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_server_that_ends_is_left_at_once() {
    let keys = keys();
    let (a, b) = (serve("a", &keys).await, serve("b", &keys).await);
    let servers = vec![a.address.clone(), b.address.clone()];
    let balancer = Balancer::new(keys.client.clone(), servers);
    assert_eq!(who(&balancer).await, "a");
    let watch = ask(&balancer, "/watch").await;
    a.stop.cancel();
    let ended = Instant::now();
    assert!(watch.into_body().collect().await.is_err(), "the watch ends with its server");
    assert_eq!(who(&balancer).await, "b");
    assert!(ended.elapsed() < UNANSWERED_PING, "{:?}", ended.elapsed());
    assert_eq!(balancer.servers(), [b.address, a.address], "what failed is tried last");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_noticed_by_a_ping() {
    let keys = keys();
    let (a, b) = (serve("a", &keys).await, serve("b", &keys).await);
    let cable = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front: Authority = cable.local_addr().unwrap().to_string().parse().unwrap();
    let cut = CancellationToken::new();
    let (until, behind) = (cut.clone(), a.address.to_string());
    tokio::spawn(async move {
        let (mut near, _) = cable.accept().await.unwrap();
        let mut far = TcpStream::connect(behind).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => {}
            // Held open, and nothing passes any more: a cable that was pulled.
            () = until.cancelled() => std::future::pending::<()>().await,
        }
    });
    let balancer = Balancer::new(keys.client.clone(), vec![front, b.address.clone()]);
    assert_eq!(who(&balancer).await, "a");
    let watch = ask(&balancer, "/watch").await;
    cut.cancel();
    let silent = Instant::now();
    assert!(watch.into_body().collect().await.is_err(), "the watch ends without a word");
    let noticed = silent.elapsed();
    assert!(noticed < Duration::from_secs(5), "{noticed:?}");
    println!("a silent server is noticed after {noticed:?}");
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_left_for_one_that_is() {
    let keys = keys();
    let (a, b) = (serve("a", &keys).await, serve("b", &keys).await);
    a.ready.store(false, Ordering::Relaxed);
    let servers = vec![a.address.clone(), b.address.clone()];
    let balancer = Balancer::new(keys.client.clone(), servers);
    assert_eq!(who(&balancer).await, "b");
    b.ready.store(false, Ordering::Relaxed);
    assert_eq!(who(&balancer).await, "b", "one that is not ready is better than none");
    a.ready.store(true, Ordering::Relaxed);
    let stop = CancellationToken::new();
    let watching = tokio::spawn({
        let (balancer, stop) = (balancer.clone(), stop.clone());
        async move { balancer.watch_over(stop).await }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while who(&balancer).await != "a" {
        assert!(Instant::now() < deadline, "not within 30 s");
        tokio::task::yield_now().await;
    }
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn without_any_server_the_reasons_are_told() {
    let keys = keys();
    let a = serve("a", &keys).await;
    a.stop.cancel();
    let nowhere: Authority = "127.0.0.1:1".parse().unwrap();
    let balancer = Balancer::new(keys.client.clone(), vec![nowhere]);
    let request = Request::get("/name").body(Body::empty()).unwrap();
    let error = balancer.clone().call(request).await.expect_err("no answer");
    assert!(error.to_string().contains("127.0.0.1:1: Connection refused"), "{error}");
}
