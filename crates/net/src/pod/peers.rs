//! How the pods of each other board are reached. Pure.
//!
//! A board on our own segment is the gateway of its pods: a plain route, no byte is added. One
//! beyond a router is reached through a VXLAN device, whose neighbours are entered by hand: the
//! hardware address of a board's end follows from its pod addresses, so nobody has to ask or to
//! publish it. Flannel's numbers (VNI 1, UDP port 8472) are kept, its way of announcing hardware
//! addresses in annotations is not needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Peer, PodNetworkConfig, plan};
use crate::Cidr;
use crate::linux::links::RoutePlan;
use crate::linux::tunnel::{Neighbour, TunnelPlan};

/// What VXLAN adds to a packet over IPv4, in bytes: Ethernet, VXLAN, UDP and IP headers.
const OVERHEAD_V4_BYTES: u32 = 14 + 8 + 8 + 20;
/// The same over IPv6.
const OVERHEAD_V6_BYTES: u32 = 14 + 8 + 8 + 40;

/// How boards carry each other's pod traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Plain routes to boards on our segment, VXLAN to the others.
    #[default]
    Auto,
    /// Plain routes only; a board that is not on our segment is not reached.
    HostGw,
    /// VXLAN to all boards.
    Vxlan,
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "host-gw" => Ok(Self::HostGw),
            "vxlan" => Ok(Self::Vxlan),
            _ => Err(format!("{text:?} is none of auto, host-gw and vxlan")),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::HostGw => "host-gw",
            Self::Vxlan => "vxlan",
        })
    }
}

/// The VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanConfig {
    /// Its name (at most 15 bytes). Default `coracle-vxlan`.
    pub device: String,
    /// The network's number; all boards have the same. Default 1.
    pub vni: u32,
    /// The UDP port that all boards listen on. Default 8472.
    pub port: u16,
}

impl Default for VxlanConfig {
    fn default() -> Self {
        Self { device: "coracle-vxlan".to_owned(), vni: 1, port: 8472 }
    }
}

/// A route of this machine that is not ours, as far as it tells who is near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ground {
    /// Where it leads.
    pub destination: Cidr,
    /// Whether what takes it arrives without passing a router, on a link whose neighbours have
    /// hardware addresses. A point-to-point link (WireGuard) forwards only what it was told of.
    pub segment: bool,
    /// Lower wins among equals.
    pub metric: u32,
}

/// What is to be done about the peers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// A route for every block, with the name of its board.
    pub routes: BTreeMap<Cidr, (RoutePlan, String)>,
    /// The tunnel, if any board needs it.
    pub tunnel: Option<TunnelPlan>,
    /// Boards that cannot be reached, and why.
    pub unreachable: Vec<String>,
}

/// How much room VXLAN takes in a packet, given our own address.
pub(super) fn overhead(config: &PodNetworkConfig) -> u32 {
    match local(config) {
        Some(IpAddr::V6(_)) => OVERHEAD_V6_BYTES,
        _ => OVERHEAD_V4_BYTES,
    }
}

/// The address that our tunnel packets leave from.
fn local(config: &PodNetworkConfig) -> Option<IpAddr> {
    let v4 = config.node_ips.iter().find(|ip| ip.is_ipv4());
    v4.or(config.node_ips.first()).copied()
}

/// The hardware address of the tunnel's end at the board that has these blocks of pod addresses.
pub(super) fn tunnel_mac(pod_cidrs: &[Cidr]) -> Option<[u8; 6]> {
    let block = pod_cidrs.iter().find(|block| block.is_ipv4()).or(pod_cidrs.first())?;
    let [a, b, c, d] = match block.network() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [_, _, _, _, a, b, c, d, ..] = v6.octets();
            [a, b, c, d]
        }
    };
    // Locally administered, and another one than the bridge's.
    Some([0x0e, 0x58, a, b, c, d])
}

/// Whether `address` is on one of our segments: the longest prefix decides, as in the kernel.
fn on_segment(ground: &[Ground], address: IpAddr) -> bool {
    ground
        .iter()
        .filter(|route| route.destination.contains(address))
        .max_by_key(|route| (route.destination.prefix(), std::cmp::Reverse(route.metric)))
        .is_some_and(|route| route.segment)
}

/// The way to the pods of all peers. A block that overlaps ours is left out: it is ourselves, or a
/// mistake that must not cut our own pods off. So is one that is no part of the cluster's: a board
/// says itself which are its pods, and must not draw other traffic to it.
pub(super) fn reach(
    config: &PodNetworkConfig,
    mtu: u32,
    peers: &[Peer],
    ground: &[Ground],
) -> Reach {
    let mut reach = Reach::default();
    let mut neighbours = BTreeSet::new();
    for peer in peers {
        for block in peer.pod_cidrs.iter().filter(|block| !overlaps(config, block)) {
            if !is_of_cluster(config, block) {
                let node = &peer.node;
                reach
                    .unreachable
                    .push(format!("{node} claims {block}, where the cluster has no pods"));
                continue;
            }
            if reach.routes.contains_key(block) {
                let other = &reach.routes[block].1;
                reach.unreachable.push(format!("{} claims {block} of {other}", peer.node));
                continue;
            }
            let via = match way(config, peer, block, ground) {
                Ok(Way::Direct(via)) => (via, None),
                Ok(Way::Tunnel(neighbour)) => {
                    let via = neighbour.gateway;
                    neighbours.insert(neighbour);
                    (via, Some(config.vxlan.device.clone()))
                }
                Err(reason) => {
                    reach.unreachable.push(reason);
                    continue;
                }
            };
            let route = RoutePlan { destination: *block, via: via.0, device: via.1 };
            reach.routes.insert(*block, (route, peer.node.clone()));
        }
    }
    if let (false, Some(local), Some(mac)) =
        (neighbours.is_empty(), local(config), tunnel_mac(&config.pod_cidrs))
    {
        let VxlanConfig { device, vni, port } = config.vxlan.clone();
        let mtu = mtu.saturating_sub(overhead(config));
        let blocks = plan::blocks(config);
        let gateways = blocks.iter().filter_map(plan::gateway);
        let addresses = gateways.map(|ip| (ip, plan::whole(&ip))).collect();
        reach.tunnel =
            Some(TunnelPlan { name: device, vni, port, local, mac, mtu, addresses, neighbours });
    }
    reach
}

fn overlaps(config: &PodNetworkConfig, block: &Cidr) -> bool {
    let ours = config.pod_cidrs.iter();
    ours.into_iter().any(|own| own.contains(block.network()) || block.contains(own.network()))
}

/// Whether a block lies in one of the cluster's, as far as those are known.
fn is_of_cluster(config: &PodNetworkConfig, block: &Cidr) -> bool {
    let all = &config.cluster_cidrs;
    let within = |c: &Cidr| c.contains(block.network()) && c.prefix() <= block.prefix();
    all.is_empty() || all.iter().any(within)
}

enum Way {
    Direct(IpAddr),
    Tunnel(Neighbour),
}

fn way(
    config: &PodNetworkConfig,
    peer: &Peer,
    block: &Cidr,
    ground: &[Ground],
) -> Result<Way, String> {
    let of_family = |v4: bool| peer.node_ips.iter().copied().filter(move |ip| ip.is_ipv4() == v4);
    let direct = match config.backend {
        // A tunnel has two ends: who asks for it gets it.
        _ if peer.tunnel => None,
        Backend::Vxlan => None,
        Backend::Auto => of_family(block.is_ipv4()).find(|ip| on_segment(ground, *ip)),
        // The kernel is the judge then, and its refusal is reported.
        Backend::HostGw => of_family(block.is_ipv4()).next(),
    };
    if let Some(via) = direct {
        return Ok(Way::Direct(via));
    }
    let node = &peer.node;
    if config.backend == Backend::HostGw && !peer.tunnel {
        return Err(format!("{node} has no address of the family of {block}"));
    }
    let Some(local) = local(config) else {
        return Err(format!("{node} needs a tunnel, and this board has no address for it"));
    };
    let Some(remote) = of_family(local.is_ipv4()).next() else {
        return Err(format!("{node} has no address that {local} can send to"));
    };
    let (Some(gateway), Some(mac)) = (plan::gateway(block), tunnel_mac(&peer.pod_cidrs)) else {
        return Err(format!("{block} of {node} is too small to be routed"));
    };
    Ok(Way::Tunnel(Neighbour { gateway, mac, remote }))
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
