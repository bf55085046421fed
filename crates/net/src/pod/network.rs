//! Attaching and detaching.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::addresses::{Addresses, Exhausted};
use super::peers::{self, Backend, VxlanConfig};
use super::plan;
use super::state::StateFile;
use crate::Cidr;
use crate::firewall::{Family, replace};
use crate::linux::disturbances::Disturbances;
use crate::linux::firewall::{self, Firewall};
use crate::linux::links::{self, Links, RoutePlan};
use crate::linux::traffic::{self, Traffic};

/// Ethernet's, when there is no interface to take it from.
const DEFAULT_MTU_BYTES: u32 = 1500;

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
    /// The address blocks of services. The board itself gets a route to them, so that its own
    /// programs reach services also while the board has no default route; may be empty.
    pub service_cidrs: Vec<Cidr>,
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
    /// This board's own addresses, as the other boards know them.
    pub node_ips: Vec<IpAddr>,
    /// How other boards are reached. Default [`Backend::Auto`].
    pub backend: Backend,
    /// The tunnel to boards that no plain route reaches.
    pub vxlan: VxlanConfig,
}

impl Default for PodNetworkConfig {
    fn default() -> Self {
        Self {
            bridge: "coracle0".to_owned(),
            pod_cidrs: Vec::new(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            mtu: None,
            state_dir: PathBuf::from("/var/lib/coracle/agent/net"),
            masquerade: true,
            table: "coracle-pods".to_owned(),
            veth_prefix: "cor".to_owned(),
            hairpin: true,
            node_ips: Vec::new(),
            backend: Backend::default(),
            vxlan: VxlanConfig::default(),
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
    /// Its own addresses; the first one that can be used is.
    pub node_ips: Vec<IpAddr>,
    /// Whether it sends its pods' packets through the tunnel to everybody, and expects the same.
    pub tunnel: bool,
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
    /// Some boards' pods cannot be reached; everything else was done.
    #[error("pods out of reach: {}", .0.join("; "))]
    Unreachable(Vec<String>),
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
pub struct PodNetwork {
    config: PodNetworkConfig,
    mtu: u32,
    /// Whether packets to other boards need room for the tunnel.
    tunnelled: AtomicBool,
    links: Box<dyn Links>,
    firewall: Box<dyn Firewall>,
    file: StateFile,
    addresses: Mutex<Addresses>,
    /// Chains that were last complained about.
    closed: Mutex<Vec<String>>,
    /// One change of links at a time, so that two attachments of one sandbox cannot meet.
    turn: tokio::sync::Mutex<()>,
}

impl PodNetwork {
    /// Makes the bridge and its rules, or adopts what an earlier process left.
    pub async fn open(config: PodNetworkConfig) -> Result<Self, PodNetworkError> {
        Self::with(config, Box::new(links::Kernel), Box::new(firewall::Kernel)).await
    }

    async fn with(
        config: PodNetworkConfig,
        links: Box<dyn Links>,
        firewall: Box<dyn Firewall>,
    ) -> Result<Self, PodNetworkError> {
        if let Some(complaint) = plan::complaint(&config) {
            return Err(PodNetworkError::Config(complaint));
        }
        let mut network = Self::adopt(config, links, firewall)?;
        let file = &network.file;
        file.make_folder().map_err(|e| state_error("making the folder of the", file.path(), e))?;
        if network.config.mtu.is_none() {
            let uplink = network.links.uplink_mtu().await;
            let uplink = uplink.map_err(|e| kernel_error("finding the MTU of", "the uplink", e))?;
            network.mtu = uplink.unwrap_or(DEFAULT_MTU_BYTES);
        }
        network.set_up().await?;
        network.warn_of_closed_forwards().await?;
        Ok(network)
    }

    /// What an earlier process left, without touching the kernel.
    fn adopt(
        config: PodNetworkConfig,
        links: Box<dyn Links>,
        firewall: Box<dyn Firewall>,
    ) -> Result<Self, PodNetworkError> {
        let file = StateFile::new(&config.state_dir);
        let addresses = file.load().map_err(|e| state_error("reading", file.path(), e))?;
        Ok(Self {
            mtu: config.mtu.unwrap_or(DEFAULT_MTU_BYTES),
            tunnelled: AtomicBool::new(config.backend == Backend::Vxlan),
            config,
            links,
            firewall,
            file,
            addresses: Mutex::new(addresses),
            closed: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    async fn set_up(&self) -> Result<(), PodNetworkError> {
        let bridge = plan::bridge(&self.config, self.mtu);
        let made = self.links.bridge(&bridge).await;
        made.map_err(|e| kernel_error("setting up bridge", &bridge.name, e))?;
        for (key, value) in plan::parameters(&self.config) {
            let set = self.links.set_parameter(&key, value);
            set.map_err(|e| kernel_error("setting kernel parameter", &key, e))?;
        }
        for family in self.families() {
            let table = &self.config.table;
            let done = if self.config.masquerade {
                let rules = replace(&plan::masquerade(&self.config, family));
                self.firewall.commit(table, family, &rules).await
            } else {
                self.firewall.remove(table, family).await
            };
            done.map_err(|e| kernel_error("loading nftables table", table, e))?;
        }
        Ok(())
    }

    /// Chains of other programs (a container engine's, as a rule) whose policy drops forwarded
    /// IPv4 packets, as nft names them: `ip filter FORWARD`. Accepting a packet in our own table
    /// does not keep theirs from dropping it, and their tables are not ours to change.
    pub async fn closed_forwards(&self) -> Result<Vec<String>, PodNetworkError> {
        let chains = self.firewall.closed_forwards().await;
        chains.map_err(|e| kernel_error("listing chains of", "nftables", e))
    }

    /// Names the chains that have closed the way since the last call.
    async fn warn_of_closed_forwards(&self) -> Result<(), PodNetworkError> {
        let now = self.closed_forwards().await?;
        let mut before = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        for chain in now.iter().filter(|chain| !before.contains(chain)) {
            tracing::warn!(
                chain,
                "another program's firewall drops forwarded packets, pods' among them; hint: \
                 nft insert rule {chain} iifname {bridge} accept, and the same with oifname",
                bridge = self.config.bridge,
            );
        }
        *before = now;
        Ok(())
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        let v6 = self.config.pod_cidrs.iter().any(|block| !block.is_ipv4());
        [Some(Family::V4), v6.then_some(Family::V6)].into_iter().flatten()
    }

    /// Gives the namespace at `netns` an interface and addresses. Repeating it is harmless: the
    /// same `sandbox` always has the same addresses until it is detached.
    pub async fn attach(&self, sandbox: &str, netns: &Path) -> Result<Attachment, PodNetworkError> {
        let _turn = self.turn.lock().await;
        self.change_addresses(|addresses| {
            let assigned = addresses.assign(sandbox, &plan::blocks(&self.config));
            assigned.map_err(|Exhausted(block)| PodNetworkError::Exhausted(block))
        })?;
        let attachment = self.attachment(sandbox).ok_or_else(|| {
            PodNetworkError::Config(format!("no block of addresses for {sandbox}"))
        })?;
        let pod = plan::pod(&self.config, self.pod_mtu(), sandbox, &attachment.addresses);
        let attached = self.links.pod(&pod, netns).await;
        attached.map_err(|e| {
            kernel_error("attaching to the pod network", &netns.display().to_string(), e)
        })?;
        Ok(attachment)
    }

    /// What `sandbox` was given, if it is attached.
    pub fn attachment(&self, sandbox: &str) -> Option<Attachment> {
        let addresses = self.lock().get(sandbox)?.to_vec();
        let pod = plan::pod(&self.config, self.pod_mtu(), sandbox, &addresses);
        Some(Attachment {
            addresses,
            mac: pod.mac,
            interface: pod.interface,
            host_interface: pod.host_interface,
            gateways: pod.gateways,
            mtu: pod.mtu,
        })
    }

    /// What each attached sandbox has received and sent, as it counts it itself.
    pub fn traffic(&self) -> BTreeMap<String, Traffic> {
        let interfaces = traffic::of_interfaces();
        let of = |sandbox: &str| {
            let ours = interfaces.get(&plan::host_interface(&self.config.veth_prefix, sandbox))?;
            Some((sandbox.to_owned(), ours.turned()))
        };
        self.lock().sandboxes().filter_map(of).collect()
    }

    /// Takes the interface away and frees the addresses. Harmless when there is nothing.
    pub async fn detach(&self, sandbox: &str) -> Result<(), PodNetworkError> {
        let _turn = self.turn.lock().await;
        self.detach_in_turn(sandbox).await
    }

    async fn detach_in_turn(&self, sandbox: &str) -> Result<(), PodNetworkError> {
        // The interface first: an address that is free must not be in use anywhere.
        let name = plan::host_interface(&self.config.veth_prefix, sandbox);
        let removed = self.links.remove(&name).await;
        removed.map_err(|e| kernel_error("removing interface", &name, e))?;
        self.change_addresses(|addresses| {
            addresses.release(sandbox);
            Ok(())
        })
    }

    /// For the start, before anything is attached: detaches every sandbox that is not in `live`, removes interfaces of ours that belong to
    /// nobody, and returns the names of the sandboxes that went.
    pub async fn retain(&self, live: &HashSet<String>) -> Result<Vec<String>, PodNetworkError> {
        let _turn = self.turn.lock().await;
        let known: Vec<String> = self.lock().sandboxes().map(str::to_owned).collect();
        let (kept, gone): (Vec<String>, Vec<String>) =
            known.into_iter().partition(|sandbox| live.contains(sandbox));
        for sandbox in &gone {
            self.detach_in_turn(sandbox).await?;
        }
        let interface = |sandbox: &String| plan::host_interface(&self.config.veth_prefix, sandbox);
        let kept: HashSet<String> = kept.iter().map(interface).collect();
        let ports = self.links.ports(&self.config.bridge).await;
        for port in ports.map_err(|e| kernel_error("listing ports of", &self.config.bridge, e))? {
            if port.starts_with(&self.config.veth_prefix) && !kept.contains(&port) {
                let removed = self.links.remove(&port).await;
                removed.map_err(|e| kernel_error("removing interface", &port, e))?;
            }
        }
        Ok(gone)
    }

    /// Makes the ways to other boards exactly these, and changes nothing where they are. A board
    /// that cannot be reached does not keep the others from being; it is the error afterwards.
    pub async fn set_peers(&self, peers: &[Peer]) -> Result<(), PodNetworkError> {
        let _turn = self.turn.lock().await;
        let ground = self.links.ground().await;
        let ground = ground.map_err(|e| kernel_error("listing routes of", "this machine", e))?;
        let reach = peers::reach(&self.config, self.mtu, peers, &ground);
        let tunnelled = reach.tunnel.is_some();
        self.tunnelled.store(tunnelled || self.config.backend == Backend::Vxlan, Ordering::Relaxed);
        let mut failure = None;
        if let Some(tunnel) = &reach.tunnel
            && let Err(error) = self.links.tunnel(tunnel).await
        {
            failure = Some(kernel_error("setting up tunnel", &tunnel.name, error));
        }
        let present = self.routes().await?;
        for (route, node) in reach.routes.values().filter(|(route, _)| !present.contains(route)) {
            if let Err(error) = self.links.add_route(route).await {
                let object = format!("{} of {node} by {}", route.destination, route.via);
                failure.get_or_insert(kernel_error("routing", &object, error));
            }
        }
        for route in present.iter().filter(|route| !reach.routes.contains_key(&route.destination)) {
            self.remove_route(route).await?;
        }
        if !tunnelled {
            self.remove_tunnel().await?;
        }
        // It may have started after us.
        self.warn_of_closed_forwards().await?;
        match failure {
            Some(failure) => Err(failure),
            None if reach.unreachable.is_empty() => Ok(()),
            None => Err(PodNetworkError::Unreachable(reach.unreachable)),
        }
    }

    /// News of changes that may have taken routes away, after which [`PodNetwork::set_peers`]
    /// should be called again.
    pub async fn disturbances(&self) -> Result<Disturbances, PodNetworkError> {
        let opened = Disturbances::open(&self.config.veth_prefix).await;
        opened.map_err(|e| kernel_error("listening to changes of", "network interfaces", e))
    }

    /// Pods that start while a tunnel is in use leave room for its headers. Those that run already
    /// learn it per path: the board tells them, as any router does (ICMP, "fragmentation needed").
    fn pod_mtu(&self) -> u32 {
        let overhead = peers::overhead(&self.config);
        let room = if self.tunnelled.load(Ordering::Relaxed) { overhead } else { 0 };
        self.mtu.saturating_sub(room)
    }

    async fn remove_tunnel(&self) -> Result<(), PodNetworkError> {
        let device = &self.config.vxlan.device;
        self.links.remove(device).await.map_err(|e| kernel_error("removing tunnel", device, e))
    }

    async fn routes(&self) -> Result<Vec<RoutePlan>, PodNetworkError> {
        let routes = self.links.routes(&self.config.vxlan.device).await;
        routes.map_err(|e| kernel_error("listing routes of", &self.config.bridge, e))
    }

    async fn remove_route(&self, route: &RoutePlan) -> Result<(), PodNetworkError> {
        let removed = self.links.remove_route(route).await;
        removed
            .map_err(|e| kernel_error("removing the route to", &route.destination.to_string(), e))
    }

    /// As [`PodNetwork::uninstall`], for a network that no process has open; harmless when there
    /// is nothing.
    pub async fn purge(config: PodNetworkConfig) -> Result<(), PodNetworkError> {
        let kernel = (Box::new(links::Kernel), Box::new(firewall::Kernel));
        Self::adopt(config, kernel.0, kernel.1)?.uninstall().await
    }

    /// Removes bridge, pairs, routes, rules and the address file. Kernel parameters stay: nobody
    /// knows who else relies on forwarding.
    pub async fn uninstall(self) -> Result<(), PodNetworkError> {
        self.retain(&HashSet::new()).await?;
        for route in self.routes().await? {
            self.remove_route(&route).await?;
        }
        self.remove_tunnel().await?;
        let bridge = &self.config.bridge;
        let removed = self.links.remove(bridge).await;
        removed.map_err(|e| kernel_error("removing bridge", bridge, e))?;
        for family in [Family::V4, Family::V6] {
            let removed = self.firewall.remove(&self.config.table, family).await;
            removed.map_err(|e| kernel_error("removing table", &self.config.table, e))?;
        }
        self.file.remove().map_err(|e| state_error("removing", self.file.path(), e))
    }

    /// Changes the addresses and has them on disk before anything relies on them.
    fn change_addresses<T>(
        &self,
        change: impl FnOnce(&mut Addresses) -> Result<T, PodNetworkError>,
    ) -> Result<T, PodNetworkError> {
        let mut addresses = self.lock();
        let mut changed = addresses.clone();
        let result = change(&mut changed)?;
        if changed != *addresses {
            self.file.save(&changed).map_err(|e| state_error("writing", self.file.path(), e))?;
            *addresses = changed;
        }
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        // Whoever panicked while holding it had not yet put the changed copy in place.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for PodNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodNetwork").field("config", &self.config).finish_non_exhaustive()
    }
}

fn kernel_error(action: &'static str, object: &str, source: std::io::Error) -> PodNetworkError {
    PodNetworkError::Kernel { action, object: object.to_owned(), source }
}

fn state_error(action: &'static str, path: &Path, source: std::io::Error) -> PodNetworkError {
    PodNetworkError::State { action, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
