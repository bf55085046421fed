//! The sockets and the zone that is swapped under them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::rr::Name;
use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};

use super::Zone;
use super::answer::Origin;
use super::forward::Forwarder;
use super::handler::Handler;

/// The port of DNS.
const DNS_PORT: u16 = 53;
/// A TCP client that is silent for this long is hung up on.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers waiting for a TCP client that does not read.
const TCP_RESPONSES_QUEUED_MAX: usize = 32;

/// How cluster DNS is set up.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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

/// A running DNS server.
pub struct Dns {
    zone: Arc<ArcSwap<Zone>>,
    local: Vec<SocketAddr>,
    server: Server<Handler>,
}

impl Dns {
    /// Listens on every address and answers until [`Dns::shutdown`] or drop.
    pub async fn serve(config: DnsConfig) -> Result<Self, DnsError> {
        let mut domain = Name::from_ascii(&config.cluster_domain)
            .ok()
            .filter(|name| !name.is_root())
            .ok_or_else(|| DnsError::Domain(config.cluster_domain.clone()))?
            .to_lowercase();
        domain.set_fqdn(true);
        let mut sockets = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            sockets.push(listen(*address).await?);
        }
        let local: Vec<SocketAddr> = sockets.iter().map(|(local, ..)| *local).collect();
        let service = config.service_ips.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT));
        let own = local.iter().copied().chain(service).collect();
        let zone: Arc<ArcSwap<Zone>> = Arc::default();
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
        let mut server = Server::new(handler);
        for (_, udp, tcp) in sockets {
            server.register_socket(udp);
            server.register_listener(tcp, TCP_IDLE, TCP_RESPONSES_QUEUED_MAX);
        }
        Ok(Self { zone, local, server })
    }

    /// Answers from `zone` from now on.
    pub fn update(&self, zone: Arc<Zone>) {
        self.zone.store(zone);
    }

    /// The addresses listened on, in the order of the configuration.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local
    }

    /// Stops answering; queries in progress are given up.
    pub async fn shutdown(mut self) {
        if let Err(error) = self.server.shutdown_gracefully().await {
            tracing::debug!(%error, "cluster DNS did not stop cleanly");
        }
    }
}

/// Both sockets of an address. For port 0 the port that UDP was given is tried for TCP, and both
/// anew if another program has it.
async fn listen(address: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), DnsError> {
    const ATTEMPTS: usize = 16;
    let failed = |protocol| move |source| DnsError::Listen { address, protocol, source };
    let mut attempt = 1;
    loop {
        let udp = UdpSocket::bind(address).await.map_err(failed("udp"))?;
        let local = udp.local_addr().map_err(failed("udp"))?;
        match TcpListener::bind(local).await {
            Ok(tcp) => return Ok((local, udp, tcp)),
            Err(_) if address.port() == 0 && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(failed("tcp")(error)),
        }
    }
}
