//! Over TLS on loopback: client certificates, both HTTP versions, proxies to a kubelet
//! that the test plays itself, and the orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::testing::{config, create, empty, request};
use crate::user::User;
use crate::{ApiServer, Front, KubeletClient, Response};

type Issuer = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;
type Leaf = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn authority() -> Issuer {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test-ca");
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Issuer, name: &str, group: &str, hosts: &[&str]) -> Leaf {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    (vec![certificate.der().clone()], key.into())
}

fn roots(ca: &Issuer) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_tls(ca: &Issuer) -> rustls::ServerConfig {
    let (chain, key) = leaf(ca, "server", "", &["127.0.0.1"]);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca), provider())
        .allow_unauthenticated()
        .build()
        .unwrap();
    rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap()
}

fn client_tls(ca: &Issuer, own: Option<Leaf>, alpn: &str) -> Arc<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca));
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    }
    Arc::new(config)
}

struct Served {
    server: Arc<ApiServer>,
    address: SocketAddr,
    ca: Issuer,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

async fn serve() -> Served {
    let ca = authority();
    let mut config = config();
    let own = leaf(&ca, "kube-apiserver", "system:masters", &[]);
    config.kubelet = Some(KubeletClient { tls: client_tls(&ca, Some(own), "") });
    let server = empty(config).await;
    server.bootstrap().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let done = tokio::spawn(Arc::clone(&server).serve(listener, server_tls(&ca), stop.clone()));
    Served { server, address, ca, stop, done }
}

impl Served {
    async fn connect(&self, own: Option<Leaf>, alpn: &str) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(client_tls(&self.ca, own, alpn));
        connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap()
    }

    async fn ask(&self, own: Option<Leaf>, request: crate::Request) -> Response {
        let io = TokioIo::new(self.connect(own, "http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request).await.unwrap();
        answer.map(|body| body.map_err(Into::into).boxed_unsync())
    }

    fn admin(&self) -> Option<Leaf> {
        Some(leaf(&self.ca, "admin", "system:masters", &[]))
    }
}

#[tokio::test]
async fn a_client_certificate_is_an_identity_and_none_is_anonymous() {
    let served = serve().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ann = Some(leaf(&served.ca, "ann", "devs", &[]));
    let answer = served.ask(ann, request(Method::POST, path, &json!({}))).await;
    let (code, review) = crate::testing::read(answer).await;
    assert_eq!(code, StatusCode::CREATED);
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "ann");
    assert_eq!(user["groups"], json!(["devs", "system:authenticated"]));
    let id = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(id.starts_with("X509SHA256=") && id.len() == 11 + 64, "{id}");
    let plain = || request(Method::GET, "/version", &json!(null));
    assert_eq!(served.ask(None, plain()).await.status(), StatusCode::OK);
    let metrics = request(Method::GET, "/metrics", &json!(null));
    assert_eq!(served.ask(None, metrics).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn http2_is_spoken_and_a_stop_ends_watches() {
    let served = serve().await;
    let io = TokioIo::new(served.connect(served.admin(), "h2").await);
    let executor = TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://{}/api/v1/namespaces?watch=1", served.address);
    let watch = request(Method::GET, &uri, &json!(null));
    let mut answer = sender.send_request(watch).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, http::Version::HTTP_2));
    assert!(answer.frame().await.unwrap().is_ok(), "the namespaces that are there");
    drop(sender);
    served.stop.cancel();
    let rest = tokio::time::timeout(Duration::from_secs(5), answer.collect()).await;
    assert!(rest.is_ok(), "the watch ends");
    tokio::time::timeout(Duration::from_secs(5), served.done).await.unwrap().unwrap();
}

/// Plays a kubelet: answers one connection, gives the head of the request that came.
async fn kubelet(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    answer: &'static str,
) -> (String, tokio_rustls::server::TlsStream<TcpStream>) {
    let (tcp, _) = listener.accept().await.unwrap();
    let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(tls)).accept(tcp).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    (String::from_utf8(head).unwrap(), stream)
}

/// A node whose kubelet is at a port of this host, and a pod on it.
async fn node_and_pod(server: &Arc<ApiServer>, port: u16) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "pi-1"}});
    create(server, "/api/v1/nodes", node).await;
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let uri = "/api/v1/nodes/pi-1/status";
    let (code, answer) =
        crate::testing::send(server, &User::admin(), Method::PATCH, uri, status).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let account = json!({"metadata": {"name": "default"}});
    create(server, "/api/v1/namespaces/default/serviceaccounts", account).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "pi-1", "containers": [{"name": "c", "image": "i"}]}});
    create(server, "/api/v1/namespaces/default/pods", pod).await;
}

#[tokio::test]
async fn logs_come_as_the_kubelet_writes_them() {
    let served = serve().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    node_and_pod(&served.server, listener.local_addr().unwrap().port()).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n6\r\nfirst\n\r\n";
    let kubelet = tokio::spawn(kubelet(listener, server_tls(&served.ca), answer));
    let uri = "/api/v1/namespaces/default/pods/p/log?follow=true&tailLines=1";
    let mut answer = served.ask(served.admin(), request(Method::GET, uri, &json!(null))).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&first[..], b"first\n", "before the kubelet is done");
    let (head, mut stream) = kubelet.await.unwrap();
    assert!(head.starts_with("GET /containerLogs/default/p/c?follow=true&tailLines=1 HTTP/1.1"));
    stream.write_all(b"7\r\nsecond\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let second = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&second[..], b"second\n");
    served.stop.cancel();
    let rest = tokio::time::timeout(Duration::from_secs(5), answer.collect()).await;
    assert_eq!(rest.expect("a stop ends the log").unwrap().to_bytes(), "");
    tokio::time::timeout(Duration::from_secs(5), served.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn exec_is_a_tunnel_once_the_kubelet_agrees() {
    let served = serve().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    node_and_pod(&served.server, listener.local_addr().unwrap().port()).await;
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n\r\nhello from the node";
    let kubelet = tokio::spawn(kubelet(listener, server_tls(&served.ca), answer));
    let uri = "/api/v1/namespaces/default/pods/p/exec?command=sh&command=-c&command=a%20b&stdin=true&stdout=1&tty=False";
    let mut ask = request(Method::POST, uri, &json!(null));
    ask.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
    ask.headers_mut().insert(header::UPGRADE, "SPDY/3.1".parse().unwrap());
    ask.headers_mut().insert("x-stream-protocol-version", "v4.channel.k8s.io".parse().unwrap());
    let mut answer = served.ask(served.admin(), ask).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    let mut client = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    let mut hello = [0; 19];
    client.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello from the node");
    let (head, mut node) = kubelet.await.unwrap();
    assert!(
        head.starts_with(
            "POST /exec/default/p/c?input=1&output=1&command=sh&command=-c&command=a+b HTTP/1.1"
        ),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("authorization"), "{head}");
    client.write_all(b"and back").await.unwrap();
    client.flush().await.unwrap();
    let mut back = [0; 8];
    node.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"and back");
}

#[tokio::test]
async fn what_cannot_be_reached_is_said() {
    let served = serve().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    node_and_pod(&served.server, port).await;
    let message = async |method: Method, uri: &str| {
        let answer = served.ask(served.admin(), request(method, uri, &json!(null))).await;
        let (code, status) = crate::testing::read(answer).await;
        format!("{} {}", code.as_u16(), status["message"].as_str().unwrap_or_default())
    };
    let base = "/api/v1/namespaces/default/pods/p";
    let said = message(Method::GET, &format!("{base}/log")).await;
    assert!(
        said.starts_with(&format!("500 Internal error occurred: Get \"https://127.0.0.1:{port}/containerLogs/default/p/c\": dial tcp 127.0.0.1:{port}: ")),
        "{said}"
    );
    assert_eq!(
        message(Method::GET, &format!("{base}/log?container=x")).await,
        "400 container x is not valid for pod p"
    );
    assert_eq!(
        message(Method::POST, &format!("{base}/exec?command=sh")).await,
        "400 Upgrade request required"
    );
    assert_eq!(message(Method::GET, &format!("{base}/proxy/")).await, "400 address not allowed");
    assert_eq!(
        message(Method::GET, "/api/v1/namespaces/default/services/nothing/proxy/").await,
        "404 services \"nothing\" not found"
    );
    let refused = message(Method::GET, "/api/v1/nodes/pi-1/proxy/healthz").await;
    assert!(refused.starts_with("503 error trying to reach service: dial tcp"), "{refused}");
}

#[tokio::test]
async fn a_nodes_own_pages_keep_their_links() {
    let served = serve().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    node_and_pod(&served.server, port).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 17\r\n\r\n<a href=\"/logs/\">";
    let kubelet = tokio::spawn(kubelet(listener, server_tls(&served.ca), answer));
    let base = "/api/v1/nodes/pi-1/proxy";
    let mut ask = request(Method::GET, &format!("{base}/stats/?a=b%20c"), &json!(null));
    ask.headers_mut().insert("impersonate-user", "ann".parse().unwrap());
    ask.headers_mut().insert("impersonate-group", "system:masters".parse().unwrap());
    let (code, page) = crate::testing::read(served.ask(served.admin(), ask).await).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(page, format!("<a href=\"{base}/logs/\">"));
    let (head, _) = kubelet.await.unwrap();
    assert!(head.starts_with("GET /stats/?a=b%20c HTTP/1.1"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains(&format!("host: 127.0.0.1:{port}")), "{head}");
    assert!(head.contains("x-forwarded-for: 127.0.0.1") && !head.contains("impersonate"), "{head}");
    let ask = request(Method::GET, &format!("{base}?a=b"), &json!(null));
    let moved = served.ask(served.admin(), ask).await;
    assert_eq!(moved.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.headers()[header::LOCATION], format!("{base}/?a=b"));
}

#[tokio::test]
async fn the_port_says_what_is_waited_for_until_the_server_is_there() {
    let ca = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let front = Front::new(config().limits);
    let done = tokio::spawn(Arc::clone(&front).serve(listener, server_tls(&ca), stop.clone()));
    let server = empty(config()).await;
    let served = Served { server, address, ca, stop, done };
    let io = TokioIo::new(served.connect(served.admin(), "http/1.1").await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut ask = async |path: &str| {
        let answer = sender.send_request(request(Method::GET, path, &json!(null))).await.unwrap();
        let answer = answer.map(|body| body.map_err(Into::into).boxed_unsync());
        let retry = answer.headers().get(header::RETRY_AFTER).is_some();
        let (code, body) = crate::testing::read(answer).await;
        (code.as_u16(), retry, body)
    };

    front.waits_for("2 of 3 servers are needed");
    let (code, retry, status) = ask("/api/v1/nodes").await;
    assert_eq!((code, retry, &status["kind"]), (503, true, &json!("Status")));
    assert_eq!(status["reason"], "ServiceUnavailable");
    assert_eq!(status["message"], "this server is starting: 2 of 3 servers are needed");
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    assert_eq!(ask("/livez").await, (200, false, "ok".into()));
    let checks = "[+]ping ok\n[-]datastore failed: reason withheld\nreadyz check failed\n";
    assert_eq!(ask("/readyz").await, (503, true, checks.into()));

    front.open(Arc::clone(&served.server));
    assert_eq!(ask("/api/v1/nodes").await.0, 200, "over the same connection");
    served.stop.cancel();
    served.done.await.unwrap();
}
