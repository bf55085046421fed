//! A network between a store and its datastore that can be held up or cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the network does at present.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Network {
    Flows,
    /// Takes everything and passes it on later: what was sent long ago still arrives.
    Holds,
    /// Breaks every connection and refuses new ones.
    Cut,
}

/// Passes connections on to one port.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    network: Arc<watch::Sender<Network>>,
    passed: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let network = Arc::new(watch::Sender::new(Network::Flows));
        let (shared, passed) = (network.clone(), Arc::new(AtomicUsize::new(0)));
        let counter = passed.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *shared.borrow() != Network::Cut {
                    tokio::spawn(pass(near, target, shared.subscribe(), counter.clone()));
                }
            }
        });
        Self { port, network, passed }
    }

    /// How many connections came about.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }

    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn pass(
    near: TcpStream,
    target: u16,
    mut network: watch::Receiver<Network>,
    passed: Arc<AtomicUsize>,
) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    passed.fetch_add(1, Ordering::Relaxed);
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    let (there, back) = (network.clone(), network.clone());
    tokio::select! {
        () = copy(from_near, to_far, there) => {}
        () = copy(from_far, to_near, back) => {}
        _ = network.wait_for(|network| *network == Network::Cut) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let flows = network.wait_for(|network| *network == Network::Flows).await.is_ok();
        if !flows || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
