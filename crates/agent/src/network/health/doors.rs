//! The ports themselves.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Door, Health};

/// Connections to one port at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(30);
/// Pause before a port is tried again that another program has.
const RETRY: Duration = Duration::from_secs(5);
/// Pause after the kernel had no descriptor left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Ports that are open, until this is dropped.
pub struct Doors {
    health: Arc<Health>,
    open: HashMap<Door, (SocketAddr, DropGuard)>,
}

impl Doors {
    /// None yet.
    pub fn new(health: Arc<Health>) -> Self {
        Self { health, open: HashMap::new() }
    }

    /// What they tell.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Has a port open from now on. One that another program has is waited for: it is no reason
    /// to leave the services themselves alone.
    pub fn open(&mut self, door: Door, address: SocketAddr) {
        if self.open.get(&door).is_some_and(|(old, _)| *old == address) {
            return;
        }
        let stop = CancellationToken::new();
        let (health, stopped) = (self.health.clone(), stop.clone());
        self.open.insert(door, (address, stop.drop_guard()));
        tokio::spawn(async move {
            stopped.run_until_cancelled(keep_open(door, address, health)).await;
        });
    }

    /// Has these ports of services open, and no others of services.
    pub fn open_services(&mut self, ports: impl IntoIterator<Item = u16>) {
        let wanted: Vec<Door> = ports.into_iter().map(Door::Service).collect();
        self.open.retain(|door, _| !matches!(door, Door::Service(_)) || wanted.contains(door));
        for door in wanted {
            let Door::Service(port) = door else { continue };
            self.open(door, (Ipv4Addr::UNSPECIFIED, port).into());
        }
    }
}

async fn keep_open(door: Door, address: SocketAddr, health: Arc<Health>) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                if !told {
                    tracing::warn!(%address, %error, "the service proxy's port for {door:?} is not open yet");
                }
                told = true;
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let health = health.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = answer(&health, door, request.uri().path());
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION, connection).await;
        });
    }
}

fn answer(health: &Health, door: Door, path: &str) -> Response<Full<Bytes>> {
    let page = health.page(door, path, Instant::now());
    let mut response = Response::new(Full::from(page.body));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::super::LocalService;

    async fn ask(port: u16) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// A port that was free a moment ago.
    fn port() -> u16 {
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn ports_of_services_come_and_go() {
        let health = Health::new(|| None);
        let (one, other) = (port(), port());
        let service = LocalService { namespace: "ns".into(), name: "web".into(), endpoints: 1 };
        health.set_services(BTreeMap::from([(one, service)]));
        let mut doors = Doors::new(health);
        doors.open_services([one, other]);
        let answered = async |port: u16| {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                tokio::task::yield_now().await;
            }
            ask(port).await
        };
        let text = answered(one).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("x-content-type-options: nosniff\r\n"), "{text}");
        assert!(answered(other).await.starts_with("HTTP/1.1 404 "));
        doors.open_services([other]);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, one)).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(answered(other).await.starts_with("HTTP/1.1 404 "));
    }
}
