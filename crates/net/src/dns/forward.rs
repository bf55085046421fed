//! Asking somebody else: UDP first, TCP when the answer does not fit, the next server when one
//! keeps silent. Answers are passed on as they are. hickory's resolver was turned down here: it
//! follows aliases and retries on its own account, and what a client gets to see differs from
//! what the upstream said.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Upstreams;
use super::cache::{Cache, Key};

/// Questions under way at the same time; more are refused at once, so that a loop of forwarders
/// ends and an outage costs bounded memory.
const IN_FLIGHT_MAX: usize = 1000;
/// Upstreams asked at most, as resolvers have it (`MAXNS`).
const UPSTREAMS_MAX: usize = 3;
/// The UDP answer that we say we take: no fragments on any usual link (DNS flag day 2020).
pub(super) const UDP_PAYLOAD_BYTES: u16 = 1232;
/// How often the file of upstreams may be looked at.
const RECHECK: Duration = Duration::from_secs(5);

/// Forwards questions.
pub(super) struct Forwarder {
    upstreams: Upstreams,
    own: Vec<SocketAddr>,
    patience: Duration,
    cache: Cache,
    in_flight: Semaphore,
    /// Where the search starts: the server that answered last.
    favourite: AtomicUsize,
    file: Mutex<FileState>,
}

#[derive(Default)]
struct FileState {
    checked: Option<Instant>,
    modified: Option<SystemTime>,
    servers: Vec<SocketAddr>,
}

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("no upstream DNS server is configured")]
    NoUpstream,
    #[error("{IN_FLIGHT_MAX} questions are under way already")]
    Busy,
    #[error("no upstream DNS server answered")]
    Silent,
}

impl Forwarder {
    /// Forwards to `upstreams`, never to the addresses in `own`.
    pub(super) fn new(
        upstreams: Upstreams,
        own: Vec<SocketAddr>,
        patience: Duration,
        cache_entries: usize,
    ) -> Self {
        Self {
            upstreams,
            own,
            patience,
            cache: Cache::new(cache_entries),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            favourite: AtomicUsize::new(0),
            file: Mutex::default(),
        }
    }

    /// What upstream says about `query`, from the cache if it may be.
    pub(super) async fn ask(&self, query: &Query, signed: bool) -> Result<Message, ForwardError> {
        let servers = self.servers();
        let key = Key { name: query.name().to_lowercase(), kind: query.query_type(), signed };
        if let Some(kept) = self.cache.get(&key, Instant::now()) {
            return Ok(kept);
        }
        if servers.is_empty() {
            return Err(ForwardError::NoUpstream);
        }
        let _permit = self.in_flight.try_acquire().map_err(|_| ForwardError::Busy)?;
        let answer = self.ask_in_turn(&servers, query, signed).await?;
        self.cache.put(key, &answer, Instant::now());
        Ok(answer)
    }

    /// The favourite first. A server that fails (SERVFAIL, REFUSED) is believed only when all do.
    async fn ask_in_turn(
        &self,
        servers: &[SocketAddr],
        query: &Query,
        signed: bool,
    ) -> Result<Message, ForwardError> {
        let start = self.favourite.load(Ordering::Relaxed);
        let mut failed = None;
        for turn in 0..servers.len() {
            let index = (start + turn) % servers.len();
            let server = servers[index];
            match self.ask_one(server, query, signed).await {
                Ok(answer) if is_failure(&answer) => {
                    failed.get_or_insert(answer);
                }
                Ok(answer) => {
                    self.favourite.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => {
                    tracing::debug!(%server, %error, "upstream DNS server did not answer");
                }
            }
        }
        failed.ok_or(ForwardError::Silent)
    }

    async fn ask_one(
        &self,
        server: SocketAddr,
        query: &Query,
        signed: bool,
    ) -> io::Result<Message> {
        let request = request(query, signed);
        let bytes = request.to_vec().map_err(io::Error::other)?;
        let answer = timeout(self.patience, over_udp(server, &request, &bytes)).await??;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        match timeout(self.patience, over_tcp(server, &request, &bytes)).await {
            Ok(Ok(whole)) => Ok(whole),
            // A part of the answer, marked as such, is better than none.
            _ => Ok(answer),
        }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let servers = match &self.upstreams {
            Upstreams::Servers(servers) => servers.clone(),
            Upstreams::ResolvConf(path) => self.configured(path),
        };
        let others = servers.into_iter().filter(|server| !self.own.contains(server));
        others.take(UPSTREAMS_MAX).collect()
    }

    /// The file's servers; it is read again when it has changed.
    fn configured(&self, path: &Path) -> Vec<SocketAddr> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.checked.is_some_and(|checked| checked.elapsed() < RECHECK) {
            return file.servers.clone();
        }
        file.checked = Some(Instant::now());
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || modified != file.modified {
            let servers = fs::read_to_string(path).map(|text| nameservers(&text));
            let servers = servers.unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot read upstream DNS servers");
                Vec::new()
            });
            if servers != file.servers {
                self.cache.clear();
            }
            file.servers = servers;
            file.modified = modified;
        }
        file.servers.clone()
    }
}

fn is_failure(answer: &Message) -> bool {
    matches!(answer.metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused)
}

/// The `nameserver` lines of a resolv.conf(5).
fn nameservers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
            // A zone index names a link, which a socket address cannot carry by name.
            let address = address.split('%').next()?;
            Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, 53))
        })
        .collect()
}

fn request(query: &Query, signed: bool) -> Message {
    let mut request = Message::query();
    request.metadata.op_code = OpCode::Query;
    request.metadata.recursion_desired = true;
    request.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES).set_version(0).set_dnssec_ok(signed);
    request.set_edns(edns);
    request
}

/// A socket per question: its random port is half of what protects against forged answers.
async fn over_udp(server: SocketAddr, request: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(UDP_PAYLOAD_BYTES).max(4096)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Whatever is not the answer is noise, and waiting goes on.
        if let Ok(answer) = Message::from_vec(&buffer[..length])
            && answers(&answer, request)
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, request: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if answers(&answer, request) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn answers(answer: &Message, request: &Message) -> bool {
    let same_question = match (answer.queries.as_slice(), request.queries.as_slice()) {
        ([theirs], [ours]) => {
            theirs.name().to_lowercase() == ours.name().to_lowercase()
                && theirs.query_type() == ours.query_type()
        }
        _ => false,
    };
    answer.metadata.id == request.metadata.id && same_question
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf() {
        let text = "# a comment\nsearch lan\nnameserver 192.168.1.1\n  nameserver\tfe80::1%eth0 \n\
                    nameserver not-an-address\nnameserver\n; nameserver 9.9.9.9\noptions ndots:1\n";
        let servers: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.168.1.1:53", "[fe80::1]:53"]);
    }

    #[test]
    fn never_asks_itself() {
        let own: SocketAddr = "10.43.0.10:53".parse().unwrap();
        let other: SocketAddr = "192.168.1.1:53".parse().unwrap();
        let upstreams = Upstreams::Servers(vec![own, other]);
        let forwarder = Forwarder::new(upstreams, vec![own], Duration::from_secs(1), 1);
        assert_eq!(forwarder.servers(), [other]);
    }
}
