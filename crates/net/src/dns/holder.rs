//! The process that answers. It holds the sockets and the names that it was told last, and goes
//! on with both while whoever told it is away: killed, restarted, or waiting for a quorum.
//!
//! A new holder takes over from the one before without a question lost: it is given copies of the
//! sockets, so that both can read what waits in them; it answers first, and only then asks the
//! other to leave, which ends what it has begun. Turned down: `SO_REUSEPORT`, where questions are
//! lost that wait in the socket that is closed; and a process that executes the new binary in its
//! own place, which forgets what is under way and leaves nobody where the new one cannot start.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::protocol::{Begin, Names, Reply, Report, Request, ask, kill_peer};
use super::server::domain;
use super::sockets::{self, Pair};
use super::wire::{self, Sender, Wire};
use super::{Dns, DnsError};

/// How long an address may be in use that a holder had which was killed a moment ago.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two tries to bind.
const BIND_PAUSE: Duration = Duration::from_millis(10);
/// Connections at the same time; one is usual.
const CONNECTIONS_MAX: usize = 16;

/// Answers until somebody takes over. `control` is the first connection, by which it is told what
/// to do; `reports` are lines for the log of whoever is connected.
///
/// # Errors
/// When the connection breaks before it has begun to answer.
pub async fn hold(control: OwnedFd, reports: mpsc::Receiver<Report>) -> io::Result<()> {
    let mut feeder = Wire::from_descriptor(control)?;
    let Some((Request::Begin(begin), _)) = feeder.receive().await? else { return Ok(()) };
    let mut predecessor = Wire::connect(&begin.socket).await.ok();
    let given = match &mut predecessor {
        Some(predecessor) => sockets_of(predecessor).await,
        None => Vec::new(),
    };
    let opened = match domain(&begin.config.cluster_domain) {
        Ok(_) => open(&begin.config.listen, &given).await,
        Err(error) => Err(error),
    };
    drop(given);
    let sockets = match opened {
        Ok(sockets) => sockets,
        Err(error) => {
            let reason = base::chain(&error).to_string();
            return feeder.send(&Reply::Failed { reason }, &[]).await;
        }
    };
    feeder.send(&Reply::Ready {}, &[]).await?;
    // To know no names is worse than to be silent: clients ask the silent again.
    let Some(names) = first_names(&mut feeder).await? else { return Ok(()) };
    let Begin { fingerprint, config, socket } = *begin;
    // Whoever looks for a holder finds one at any moment: this one, before the other leaves.
    let listener = wire::listen(&socket)?;
    let dns = Dns::start(config, sockets, Arc::unwrap_or_clone(names).into());
    let dns = dns.map_err(io::Error::other)?;
    if let Some(predecessor) = predecessor {
        dismiss(predecessor).await;
    }
    feeder.send(&Reply::Serving {}, &[]).await.ok();
    tracing::info!("answering for cluster DNS");
    Holder { fingerprint, dns, feeder: Some(feeder.sender()) }.run(listener, feeder, reports).await;
    Ok(())
}

async fn sockets_of(predecessor: &mut Wire) -> Vec<OwnedFd> {
    match ask(predecessor, &Request::Sockets {}).await {
        Ok((Reply::Sockets {}, given)) => given,
        // Whatever it is, its sockets cannot be had; the address may be another.
        _ => Vec::new(),
    }
}

async fn open(listen: &[SocketAddr], given: &[OwnedFd]) -> Result<Vec<Pair>, DnsError> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match sockets::open(listen, given) {
            Err(error) if error.is_in_use() && Instant::now() < deadline => sleep(BIND_PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// The first names, if they come: whoever is to tell them may be gone before it knows them.
async fn first_names(feeder: &mut Wire) -> io::Result<Option<Arc<Names>>> {
    while let Some((request, _)) = feeder.receive().await? {
        if let Request::Names(names) = request {
            return Ok(Some(names));
        }
    }
    Ok(None)
}

/// Has the predecessor read no more. It stays until it has answered what it read.
async fn dismiss(mut predecessor: Wire) {
    match ask(&mut predecessor, &Request::Leave {}).await {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            tracing::warn!("the process before this one does not leave and is killed");
            kill_peer(&predecessor);
        }
        // It has left in its own way.
        Ok(_) | Err(_) => {}
    }
}

struct Holder {
    fingerprint: String,
    dns: Dns,
    /// Who told the names, and hears the log.
    feeder: Option<Sender>,
}

impl Holder {
    async fn run(
        mut self,
        listener: UnixListener,
        first: Wire,
        mut reports: mpsc::Receiver<Report>,
    ) {
        let mut connections = FuturesUnordered::new();
        connections.push(next(first));
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    if connections.len() < CONNECTIONS_MAX {
                        connections.push(next(Wire::new(stream)));
                    }
                }
                Some((wire, request)) = connections.next() => match request {
                    Ok(Some((Request::Leave {}, _))) => {
                        drop(listener);
                        return self.leave(wire).await;
                    }
                    Ok(Some((request, _))) => {
                        if self.answer(&wire, request).await.is_ok() {
                            connections.push(next(wire));
                        }
                    }
                    // It is gone, or says what this release does not know.
                    Ok(None) | Err(_) => self.feeder = self.feeder.take().filter(|f| !f.is_of(&wire)),
                },
                Some(report) = reports.recv() => {
                    if let Some(feeder) = &self.feeder
                        && feeder.send(&Reply::Report(report), &[]).await.is_err()
                    {
                        self.feeder = None;
                    }
                }
            }
        }
    }

    async fn answer(&mut self, wire: &Wire, request: Request) -> io::Result<()> {
        match request {
            Request::Hello {} => {
                let fingerprint = self.fingerprint.clone();
                wire.send(&Reply::Me { fingerprint }, &[]).await
            }
            Request::Sockets {} => wire.send(&Reply::Sockets {}, &self.dns.descriptors()).await,
            Request::Names(names) => {
                self.dns.update(Arc::new(Arc::unwrap_or_clone(names).into()));
                self.feeder = Some(wire.sender());
                wire.send(&Reply::Serving {}, &[]).await
            }
            Request::Begin(_) | Request::Leave {} => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn leave(mut self, wire: Wire) {
        self.dns.leave().await;
        // Who asked may be gone; what it asked for is done all the same.
        let _ = wire.send(&Reply::Left {}, &[]).await;
        self.dns.finish().await;
    }
}

async fn next(mut wire: Wire) -> (Wire, io::Result<Option<(Request, Vec<OwnedFd>)>>) {
    let request = wire.receive().await;
    (wire, request)
}
