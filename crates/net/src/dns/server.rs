//! The sockets and the zone that is swapped under them.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::rr::Name;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Zone;
use super::answer::Origin;
use super::forward::Forwarder;
use super::handler::Handler;
use super::serve::Loop;
use super::sockets::{self, Pair};

/// The port of DNS.
const DNS_PORT: u16 = 53;
/// How long what is being answered may take after the last question was read: upstreams may be
/// asked in turn, and a TCP client may have more to ask.
const FINISH_PATIENCE: Duration = Duration::from_secs(15);

/// How cluster DNS is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Where to listen, UDP and TCP alike. Port 0 takes a free one (the same for both). Give
    /// addresses, not 0.0.0.0: an answer must come from the address that was asked.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain. Default `cluster.local`.
    pub cluster_domain: String,
    /// Addresses under which the cluster knows this server (the DNS service's address): what
    /// `ns.dns.<domain>` says, and never forwarded to.
    pub service_ips: Vec<IpAddr>,
    /// Who answers for other names.
    pub upstreams: Upstreams,
    /// Answers of upstreams kept at most, about 1 KiB each.
    pub cache_entries: usize,
    /// How long one upstream may take to answer.
    pub upstream_timeout: Duration,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            service_ips: Vec::new(),
            upstreams: Upstreams::ResolvConf(PathBuf::from("/etc/resolv.conf")),
            cache_entries: 1024,
            upstream_timeout: Duration::from_secs(2),
        }
    }
}

/// Who answers for names outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upstreams {
    /// The `nameserver` lines of this file, looked at again when it changes.
    ResolvConf(PathBuf),
    /// These servers, in this order.
    Servers(Vec<SocketAddr>),
}

/// Why cluster DNS could not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// An address could not be listened on.
    #[error("listening for DNS on {address} ({protocol})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The cluster domain is not a domain name.
    #[error("{0:?} is not a domain name")]
    Domain(String),
}

impl DnsError {
    /// Whether somebody else has the address.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self, DnsError::Listen { source, .. }
            if source.kind() == std::io::ErrorKind::AddrInUse)
    }
}

/// A running DNS server.
pub struct Dns {
    zone: Arc<ArcSwap<Zone>>,
    sockets: Vec<Pair>,
    stop: watch::Sender<bool>,
    loops: JoinSet<()>,
    /// Ends when nothing is being answered any more.
    work: mpsc::Receiver<Infallible>,
}

impl Dns {
    /// Listens on every address and answers until [`Dns::shutdown`] or drop.
    pub async fn serve(config: DnsConfig) -> Result<Self, DnsError> {
        let sockets = sockets::open(&config.listen, &[])?;
        Self::start(config, sockets, Zone::default())
    }

    /// Answers what comes out of these sockets, from `zone` to begin with.
    pub(super) fn start(
        config: DnsConfig,
        sockets: Vec<Pair>,
        zone: Zone,
    ) -> Result<Self, DnsError> {
        let domain = domain(&config.cluster_domain)?;
        let service = config.service_ips.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT));
        let own = sockets.iter().map(|pair| pair.local).chain(service).collect();
        let zone = Arc::new(ArcSwap::from_pointee(zone));
        let handler = Handler {
            origin: Origin { domain, service_ips: config.service_ips },
            zone: zone.clone(),
            forwarder: Forwarder::new(
                config.upstreams,
                own,
                config.upstream_timeout,
                config.cache_entries,
            ),
        };
        let (stop, stopped) = watch::channel(false);
        let (busy, work) = mpsc::channel(1);
        let each = Loop { handler: Arc::new(handler), stop: stopped, busy };
        let mut loops = JoinSet::new();
        for pair in &sockets {
            loops.spawn(each.clone().datagrams(pair.udp.clone()));
            loops.spawn(each.clone().clients(pair.tcp.clone()));
        }
        Ok(Self { zone, sockets, stop, loops, work })
    }

    /// Answers from `zone` from now on.
    pub fn update(&self, zone: Arc<Zone>) {
        self.zone.store(zone);
    }

    /// The addresses listened on, in the order of the configuration.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|pair| pair.local).collect()
    }

    /// The sockets, for somebody else to go on with.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        sockets::descriptors(&self.sockets)
    }

    /// Reads no more questions: what comes from now on waits for whoever has the sockets too.
    pub(super) async fn leave(&mut self) {
        self.stop.send_replace(true);
        while self.loops.join_next().await.is_some() {}
    }

    /// Answers what was read before [`Dns::leave`].
    pub(super) async fn finish(&mut self) {
        let _ = timeout(FINISH_PATIENCE, self.work.recv()).await;
    }

    /// Stops reading questions; those read before are answered as long as the runtime lives.
    pub async fn shutdown(mut self) {
        self.leave().await;
    }
}

/// The domain as a name.
pub(super) fn domain(text: &str) -> Result<Name, DnsError> {
    let name = Name::from_ascii(text).ok().filter(|name| !name.is_root());
    let mut name = name.ok_or_else(|| DnsError::Domain(text.to_owned()))?.to_lowercase();
    name.set_fqdn(true);
    Ok(name)
}
