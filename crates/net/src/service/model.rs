//! What the service proxy is told: all services of the cluster as seen from one board.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Cidr;

/// Everything the proxy has to serve. Always the whole picture; the proxy finds the difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceModel {
    /// The services. A service answered by this machine itself at its own address (cluster DNS
    /// on a [`crate::ServiceAddress`]) must be left out, or its traffic would be translated.
    pub services: Vec<Service>,
    /// Ports of this board that lead straight to a pod on it.
    pub host_ports: Vec<HostPort>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace, used in names and messages only.
    pub namespace: String,
    /// Name, used in names and messages only.
    pub name: String,
    /// Addresses inside the cluster.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses that somebody else routes to this board.
    pub external_ips: Vec<IpAddr>,
    /// Addresses given by a load balancer that keeps the destination address.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load-balancer addresses; empty means everybody.
    pub load_balancer_source_ranges: Vec<Cidr>,
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// `Some(timeout)`: a client keeps its endpoint until it was silent for that long.
    pub affinity: Option<Duration>,
    /// Which endpoints clients inside the cluster reach.
    pub internal_policy: TrafficPolicy,
    /// Which endpoints clients outside reach, by node port, external or load-balancer address.
    pub external_policy: TrafficPolicy,
}

impl Service {
    /// A service with nothing but its name; fill in the rest.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            load_balancer_source_ranges: Vec::new(),
            ports: Vec::new(),
            affinity: None,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
        }
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name, empty for a lone unnamed port.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the service's addresses.
    pub port: u16,
    /// The port on every board, if it has one.
    pub node_port: Option<u16>,
    /// Where the traffic goes.
    pub endpoints: Vec<Endpoint>,
}

/// One place where a service port is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address and target port.
    pub address: SocketAddr,
    /// Whether it runs on this board.
    pub local: bool,
    /// Whether it takes traffic.
    pub state: EndpointState,
}

/// Whether an endpoint takes traffic. Endpoints that take none are left out of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// Ready: takes traffic.
    Ready,
    /// Still serving while it goes away: takes traffic only while nobody is ready.
    ServingTerminating,
}

/// Which endpoints serve a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All of them.
    #[default]
    Cluster,
    /// Those on the board that the traffic arrives at; none there means it is dropped.
    Local,
}

/// A transport protocol that services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol's number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of this board that leads to one pod on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Only on this address of the board; `None` means all of them.
    pub host_ip: Option<IpAddr>,
    /// The port on the board.
    pub host_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The pod's address and port.
    pub target: SocketAddr,
}
