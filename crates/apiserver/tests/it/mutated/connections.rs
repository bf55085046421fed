//! Connections that break: a server over TLS on loopback, and clients that stop halfway.

use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::ApiServer;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What clients send before they go; the server answers some of it.
const HALVES: [&[u8]; 9] = [
    b"",
    b"GET /api/v1/namespaces/ns/pods HTT",
    b"GET /api/v1/namespaces/ns/pods?watch=true HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /api/v1/\xc3\x28 HTTP/1.1\r\nhost: \xff\r\n\r\n",
    b"POST /api/v1/namespaces/ns/pods HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{\"metadata\":{",
    b"POST /api/v1/namespaces/ns/pods HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}",
    b"PATCH /api/v1/namespaces/ns/pods/kept HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
    b"GET /api/v1/namespaces/ns/pods/kept/exec?command=a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: SPDY/3.1\r\n\r\n",
];

/// A server that listens.
pub struct Listening {
    address: SocketAddr,
    client: Arc<rustls::ClientConfig>,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

type Leaf = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn leaf(issuer: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, host: &str) -> Leaf {
    let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).expect("a certificate");
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    (vec![certificate.der().clone()], key.into())
}

impl Listening {
    pub async fn start(api: &Arc<ApiServer>) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("an authority");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(issuer.der().clone()).expect("a root");
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let (chain, key) = leaf(&issuer, "127.0.0.1");
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain, key)
            .expect("a certificate");
        let (chain, key) = leaf(&issuer, "client");
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let done = tokio::spawn(Arc::clone(api).serve(listener, server, stop.clone()));
        Self { address, client: Arc::new(client), stop, done }
    }

    /// A client that goes after half a request; every other one says goodbye.
    pub async fn half(&self, number: usize) {
        let mut tcp = TcpStream::connect(self.address).await.expect("a connection");
        let part = HALVES[number % HALVES.len()];
        if number.is_multiple_of(3) {
            // Not even TLS. The server may have hung up by now.
            let _ = tcp.write_all(part).await;
            return;
        }
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.client));
        let name = "127.0.0.1".try_into().expect("a name");
        let mut tls = connector.connect(name, tcp).await.expect("TLS");
        tls.write_all(part).await.expect("an open connection");
        if number.is_multiple_of(2) {
            let _ = tls.shutdown().await;
            let _ = tls.read(&mut [0; 64]).await;
        }
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.done.await.expect("an orderly end");
    }
}
