//! Attaching and detaching.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::Cidr;

/// How the pod network is set up.
#[derive(Clone, Debug)]
pub struct PodNetworkConfig {
    /// The bridge's name (at most 15 bytes). Default `coracle0`.
    pub bridge: String,
    /// This board's blocks of pod addresses, at most one per family. Today only IPv4 is served.
    pub pod_cidrs: Vec<Cidr>,
    /// The address blocks of all pods of the cluster; traffic from a pod to anywhere else is
    /// masqueraded.
    pub cluster_cidrs: Vec<Cidr>,
    /// MTU in bytes; `None` takes that of the interface with the default route, or 1500.
    pub mtu: Option<u32>,
    /// Folder for the file of given addresses; made if it is missing.
    pub state_dir: PathBuf,
    /// Whether pods reach the outside masqueraded as this board. Default true.
    pub masquerade: bool,
    /// The nftables table for masquerading. Default `coracle-pods`.
    pub table: String,
    /// How names of the board's ends of veth pairs begin (at most 4 bytes). Default `cor`.
    pub veth_prefix: String,
    /// Whether a pod can reach itself through a service. Default true.
    pub hairpin: bool,
}

impl Default for PodNetworkConfig {
    fn default() -> Self {
        Self {
            bridge: "coracle0".to_owned(),
            pod_cidrs: Vec::new(),
            cluster_cidrs: Vec::new(),
            mtu: None,
            state_dir: PathBuf::from("/var/lib/coracle/agent/net"),
            masquerade: true,
            table: "coracle-pods".to_owned(),
            veth_prefix: "cor".to_owned(),
            hairpin: true,
        }
    }
}

/// What a namespace has been given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The pod's addresses, one per family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The hardware address of the pod's interface.
    pub mac: [u8; 6],
    /// The interface's name inside the namespace (`eth0`).
    pub interface: String,
    /// The name of the board's end of the pair.
    pub host_interface: String,
    /// The board's address on the bridge, the pod's default gateway.
    pub gateways: Vec<IpAddr>,
    /// MTU in bytes.
    pub mtu: u32,
}

/// Another board of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for messages.
    pub node: String,
    /// Its blocks of pod addresses.
    pub pod_cidrs: Vec<Cidr>,
    /// Its own address on the network we share.
    pub node_ip: IpAddr,
}

/// Why the pod network could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    /// The configuration cannot work.
    #[error("pod network configuration: {0}")]
    Config(String),
    /// A netlink request or a sysctl failed.
    #[error("{action} {object}")]
    Kernel {
        /// What was being done.
        action: &'static str,
        /// To which link, address or route.
        object: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// No address is left.
    #[error("all addresses of {0} are in use")]
    Exhausted(Cidr),
    /// The file of given addresses could not be read or written.
    #[error("{action} address file {}", path.display())]
    State {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The pod network of one board.
#[derive(Debug)]
pub struct PodNetwork {
    config: PodNetworkConfig,
}

impl PodNetwork {
    /// Makes the bridge and its rules, or adopts what an earlier process left.
    pub async fn open(config: PodNetworkConfig) -> Result<Self, PodNetworkError> {
        Ok(Self { config })
    }

    /// Gives the namespace at `netns` an interface and addresses. Repeating it is harmless: the
    /// same `sandbox` always has the same addresses until it is detached.
    pub async fn attach(&self, sandbox: &str, netns: &Path) -> Result<Attachment, PodNetworkError> {
        let _ = (netns, &self.config);
        Err(PodNetworkError::Config(format!("cannot attach {sandbox} yet")))
    }

    /// What `sandbox` was given, if it is attached.
    pub fn attachment(&self, sandbox: &str) -> Option<Attachment> {
        let _ = sandbox;
        None
    }

    /// Takes the interface away and frees the addresses. Harmless when there is nothing.
    pub async fn detach(&self, sandbox: &str) -> Result<(), PodNetworkError> {
        let _ = sandbox;
        Ok(())
    }

    /// Detaches every sandbox that is not in `live`, and returns their names.
    pub async fn retain(&self, live: &HashSet<String>) -> Result<Vec<String>, PodNetworkError> {
        let _ = live;
        Ok(Vec::new())
    }

    /// Makes the routes to other boards exactly these.
    pub async fn set_peers(&self, peers: &[Peer]) -> Result<(), PodNetworkError> {
        let _ = peers;
        Ok(())
    }

    /// Removes bridge, pairs, routes, rules and the address file.
    pub async fn uninstall(self) -> Result<(), PodNetworkError> {
        Ok(())
    }
}
