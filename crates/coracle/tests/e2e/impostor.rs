//! Somebody between the boards who poses as the cluster: hands out its authority, but has
//! another's key.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::Board;

/// What the impostor was told, of all connections together.
pub type Heard = Arc<Mutex<Vec<u8>>>;

/// Serves `bundle` as `/cacerts` on an address of the board, until the test's process ends.
pub fn pose(board: &Board, address: SocketAddr, bundle: String) -> Heard {
    let heard = Heard::default();
    let (telling, netns) = (heard.clone(), board.netns.name.clone());
    let listener = board.netns.run(|| std::net::TcpListener::bind(address).expect("a free port"));
    listener.set_nonblocking(true).expect("a listener");
    std::thread::Builder::new()
        .name(format!("impostor in {netns}"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(listener, bundle, telling));
        })
        .expect("a thread");
    heard
}

async fn serve(listener: std::net::TcpListener, bundle: String, heard: Heard) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let tls = TlsAcceptor::from(Arc::new(tls()));
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(mut stream) = tls.accept(stream).await else { continue };
        let mut request = vec![0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut request).await {
            heard.lock().expect("no panic while locked").extend(&request[..length]);
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{bundle}", bundle.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

fn tls() -> ServerConfig {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec![crate::harness::BOARD_ADDRESS.to_owned()];
    let params = rcgen::CertificateParams::new(names).expect("names");
    let cert = params.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate of its own")
}
