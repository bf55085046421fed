//! What cluster DNS is told: all names of the cluster.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::Protocol;

/// All names of the cluster, indexed for answering.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    namespaces: HashSet<String>,
    services: Vec<ZoneService>,
}

/// One service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneService {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What the name leads to.
    pub target: ZoneTarget,
}

/// What a service's name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneTarget {
    /// The service's own addresses, with its ports.
    Cluster {
        /// The addresses.
        ips: Vec<IpAddr>,
        /// The ports.
        ports: Vec<ZonePort>,
    },
    /// Headless: the addresses of the endpoints themselves. Give those only that should be
    /// published (ready ones, or all with publishNotReadyAddresses).
    Headless(Vec<ZoneEndpoint>),
    /// Another name altogether.
    External(String),
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZonePort {
    /// The port's name; unnamed ports have no SRV name of their own.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// An endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneEndpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its host name under the service; the dashed address when it has none.
    pub hostname: Option<String>,
    /// Its ports.
    pub ports: Vec<ZonePort>,
}

impl Zone {
    /// Indexes the names. `namespaces` are those that exist, also without services.
    pub fn new(
        namespaces: impl IntoIterator<Item = String>,
        services: impl IntoIterator<Item = ZoneService>,
    ) -> Self {
        Self {
            namespaces: namespaces.into_iter().collect(),
            services: services.into_iter().collect(),
        }
    }

    /// How many services it knows.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether it knows neither services nor namespaces.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.namespaces.is_empty()
    }
}
