//! What the board's network should look like. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Peer, PodNetworkConfig};
use crate::Cidr;
use crate::firewall::{Chain, Family, Field, Hook, HookKind, HookPoint, Ruleset, Statement, rule};
use crate::linux::links::{BridgePlan, PodPlan, RoutePlan};

/// The longest name of an interface (`IFNAMSIZ` less the closing zero).
pub(super) const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// Room that a sandbox's hash takes in the name of its interface.
const HASH_DIGITS: usize = 11;
/// The pod's end of the pair, the name every CNI plugin gives it.
const POD_INTERFACE: &str = "eth0";

/// The bridge's address in a block: the first one after the network's own.
pub(super) fn gateway(block: &Cidr) -> Option<IpAddr> {
    block.nth(1)
}

/// A hardware address made from an IP address, so that whoever gets an IP address again also has
/// the hardware address that neighbours remember. The second-lowest bit of the first byte says
/// "locally administered".
pub(super) fn mac(address: &IpAddr) -> [u8; 6] {
    let last: [u8; 4] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    let [a, b, c, d] = last;
    [0x0a, 0x58, a, b, c, d]
}

/// The name of the board's end of a sandbox's pair: the same in every process (FNV-1a, whose
/// 44 bits make a clash between the few hundred sandboxes of a board a matter of 10^-8).
pub(super) fn host_interface(prefix: &str, sandbox: &str) -> String {
    let hash = sandbox.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let digits = format!("{hash:016x}");
    format!("{prefix}{}", &digits[..HASH_DIGITS])
}

/// What is wrong with the configuration, if anything.
pub(super) fn complaint(config: &PodNetworkConfig) -> Option<String> {
    if config.bridge.is_empty() || config.bridge.len() > INTERFACE_NAME_BYTES_MAX {
        return Some(format!(
            "the bridge's name {:?} must have 1 to {INTERFACE_NAME_BYTES_MAX} bytes",
            config.bridge
        ));
    }
    if config.veth_prefix.len() + HASH_DIGITS > INTERFACE_NAME_BYTES_MAX {
        return Some(format!(
            "the interface prefix {:?} must have at most {} bytes",
            config.veth_prefix,
            INTERFACE_NAME_BYTES_MAX - HASH_DIGITS
        ));
    }
    let v4 = config.pod_cidrs.iter().filter(|block| block.is_ipv4()).count();
    if v4 != 1 || config.pod_cidrs.len() > 2 {
        return Some(
            "exactly one IPv4 block of pod addresses is needed, and at most one of IPv6".to_owned(),
        );
    }
    let small = config.pod_cidrs.iter().find(|block| block.size() < 4);
    small.map(|block| format!("{block} is too small for a bridge and a pod"))
}

/// The blocks, IPv4 first.
pub(super) fn blocks(config: &PodNetworkConfig) -> Vec<Cidr> {
    let mut blocks = config.pod_cidrs.clone();
    blocks.sort_by_key(|block| !block.is_ipv4());
    blocks
}

/// The bridge.
pub(super) fn bridge(config: &PodNetworkConfig, mtu: u32) -> BridgePlan {
    let addresses: Vec<(IpAddr, u8)> =
        blocks(config).iter().filter_map(|block| Some((gateway(block)?, block.prefix()))).collect();
    let mac = addresses.first().map_or([0x0a, 0x58, 0, 0, 0, 1], |(address, _)| mac(address));
    BridgePlan { name: config.bridge.clone(), mac, mtu, addresses }
}

/// A pod's pair.
pub(super) fn pod(
    config: &PodNetworkConfig,
    mtu: u32,
    sandbox: &str,
    addresses: &[IpAddr],
) -> PodPlan {
    let blocks = blocks(config);
    PodPlan {
        bridge: config.bridge.clone(),
        host_interface: host_interface(&config.veth_prefix, sandbox),
        interface: POD_INTERFACE.to_owned(),
        mac: addresses.first().map_or([0x0a, 0x58, 0, 0, 0, 2], mac),
        mtu,
        addresses: addresses.iter().copied().zip(blocks.iter().map(Cidr::prefix)).collect(),
        gateways: blocks.iter().filter_map(gateway).collect(),
        hairpin: config.hairpin,
    }
}

/// The routes to other boards. A peer's block that overlaps ours is none: it is ourselves, or a
/// mistake that must not cut our own pods off.
pub(super) fn routes(config: &PodNetworkConfig, peers: &[Peer]) -> BTreeMap<RoutePlan, String> {
    let ours = |block: &Cidr| {
        config
            .pod_cidrs
            .iter()
            .any(|own| own.contains(block.network()) || block.contains(own.network()))
    };
    peers
        .iter()
        .flat_map(|peer| peer.pod_cidrs.iter().map(move |block| (peer, *block)))
        .filter(|(peer, block)| block.is_ipv4() == peer.node_ip.is_ipv4() && !ours(block))
        .map(|(peer, destination)| {
            (RoutePlan { destination, via: peer.node_ip }, peer.node.clone())
        })
        .collect()
}

/// The table that masquerades pods on their way out of the cluster.
pub(super) fn masquerade(config: &PodNetworkConfig, family: Family) -> Ruleset {
    let of = |block: &&Cidr| family.has(&block.network());
    let multicast: Cidr = match family {
        Family::V4 => "224.0.0.0/4",
        Family::V6 => "ff00::/8",
    }
    .parse()
    .expect("both are blocks");
    let stays = config
        .cluster_cidrs
        .iter()
        .filter(of)
        .chain([&multicast])
        .map(|block| Statement::InBlock { field: Field::Destination, block: *block, inside: false })
        .collect::<Vec<_>>();
    let rules = config
        .pod_cidrs
        .iter()
        .filter(of)
        .map(|block| {
            let from = Statement::InBlock { field: Field::Source, block: *block, inside: true };
            let own =
                Statement::InBlock { field: Field::Destination, block: *block, inside: false };
            rule([from, own].into_iter().chain(stays.clone()).chain([Statement::Masquerade]))
        })
        .collect();
    // NF_IP_PRI_NAT_SRC of the kernel's netfilter_ipv4.h.
    let hook = Hook { kind: HookKind::Nat, point: HookPoint::Postrouting, priority: 100 };
    let chain = Chain { hook: Some(hook), rules };
    Ruleset {
        family,
        sets: BTreeMap::new(),
        chains: BTreeMap::from([("postrouting".to_owned(), chain)]),
    }
}
