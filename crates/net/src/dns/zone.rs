//! What cluster DNS is told: all names of the cluster.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Protocol;

/// All names of the cluster, as they are told from one process to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The namespaces that exist, also without services.
    pub namespaces: Vec<String>,
    /// The services.
    pub services: Vec<ZoneService>,
}

impl From<Names> for Zone {
    fn from(names: Names) -> Self {
        Zone::new(names.namespaces, names.services)
    }
}

/// All names of the cluster, indexed for answering.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    namespaces: HashSet<String>,
    services: HashMap<(String, String), ZoneService>,
    /// The name, below the cluster's domain, of each address.
    reverse: HashMap<IpAddr, Vec<Vec<String>>>,
}

/// One service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneService {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What the name leads to.
    pub target: ZoneTarget,
}

/// What a service's name leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonePort {
    /// The port's name; unnamed ports have no SRV name of their own.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// An endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneEndpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its host name under the service; the dashed address when it has none.
    pub hostname: Option<String>,
    /// Its ports.
    pub ports: Vec<ZonePort>,
}

impl ZoneEndpoint {
    /// Its label under the service.
    pub(super) fn label(&self) -> String {
        match &self.hostname {
            Some(hostname) if !hostname.is_empty() => hostname.to_ascii_lowercase(),
            _ => self.ip.to_string().replace(['.', ':'], "-"),
        }
    }
}

impl Zone {
    /// Indexes the names. `namespaces` are those that exist, also without services.
    pub fn new(
        namespaces: impl IntoIterator<Item = String>,
        services: impl IntoIterator<Item = ZoneService>,
    ) -> Self {
        let mut zone = Self { namespaces: namespaces.into_iter().collect(), ..Self::default() };
        for service in services {
            zone.namespaces.insert(service.namespace.clone());
            zone.index_addresses(&service);
            let key = (service.namespace.clone(), service.name.to_ascii_lowercase());
            zone.services.insert(key, service);
        }
        zone
    }

    fn index_addresses(&mut self, service: &ZoneService) {
        let below =
            [service.name.to_ascii_lowercase(), service.namespace.clone(), "svc".to_owned()];
        match &service.target {
            ZoneTarget::Cluster { ips, .. } => {
                for ip in ips {
                    // A service's own address goes before the endpoints of others.
                    self.reverse.entry(*ip).or_default().insert(0, below.to_vec());
                }
            }
            ZoneTarget::Headless(endpoints) => {
                for endpoint in endpoints {
                    let mut name = vec![endpoint.label()];
                    name.extend(below.clone());
                    let names = self.reverse.entry(endpoint.ip).or_default();
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
            ZoneTarget::External(_) => {}
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

    /// Whether there is such a namespace.
    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The service, by its lower-case names.
    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&ZoneService> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The names of an address, each as labels below the cluster's domain.
    pub(super) fn names_of(&self, ip: &IpAddr) -> &[Vec<String>] {
        self.reverse.get(ip).map_or(&[], Vec::as_slice)
    }
}
