//! What the board's network should look like. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{PodNetworkConfig, VxlanConfig};
use crate::Cidr;
use crate::firewall::{Chain, Family, Field, Hook, HookKind, HookPoint, Ruleset, Statement, rule};
use crate::linux::links::{BridgePlan, PodPlan};

/// The longest name of an interface (`IFNAMSIZ` less the closing zero).
pub(super) const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// A VXLAN's number has 24 bits.
const VNI_MAX: u32 = (1 << 24) - 1;
/// Room that a sandbox's hash takes in the name of its interface.
const HASH_DIGITS: usize = 11;
/// The pod's end of the pair, the name every CNI plugin gives it.
pub const POD_INTERFACE: &str = "eth0";

/// The bridge's address in a block: the first one after the network's own.
pub(super) fn gateway(block: &Cidr) -> Option<IpAddr> {
    block.nth(1)
}

/// The prefix that covers one address.
pub(super) fn whole(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
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

/// The name of the board's end of a sandbox's pair: the same in every process. Its 44 bits make
/// a clash between the few hundred sandboxes of a board a matter of 10^-8.
pub(super) fn host_interface(prefix: &str, sandbox: &str) -> String {
    // FNV-1a, then MurmurHash3's last step, which spreads the last bytes over all digits.
    let hash = sandbox.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let digits = format!("{:016x}", hash ^ (hash >> 33));
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
    let VxlanConfig { device, vni, .. } = &config.vxlan;
    if device.is_empty() || device.len() > INTERFACE_NAME_BYTES_MAX || *device == config.bridge {
        return Some(format!("the tunnel's name {device:?} is too long, or taken by the bridge"));
    }
    if *vni == 0 || *vni > VNI_MAX {
        return Some(format!("the VXLAN number {vni} is not in 1 to {VNI_MAX}"));
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

/// The kernel parameters that the pod network needs, in order.
pub(super) fn parameters(config: &PodNetworkConfig) -> Vec<(String, &'static str)> {
    let bridge = &config.bridge;
    let mut parameters = vec![
        ("net/ipv4/ip_forward".to_owned(), "1"),
        // Loose: a packet that was translated on its way may come back by another interface.
        (format!("net/ipv4/conf/{bridge}/rp_filter"), "2"),
        // Pods must not be told that they share a link: they would stop passing the board. The
        // kernel goes by either of the two.
        ("net/ipv4/conf/all/send_redirects".to_owned(), "0"),
        (format!("net/ipv4/conf/{bridge}/send_redirects"), "0"),
    ];
    if config.pod_cidrs.iter().any(|block| !block.is_ipv4()) {
        parameters.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    parameters
}

/// The bridge.
pub(super) fn bridge(config: &PodNetworkConfig, mtu: u32) -> BridgePlan {
    let addresses: Vec<(IpAddr, u8)> =
        blocks(config).iter().filter_map(|block| Some((gateway(block)?, block.prefix()))).collect();
    let mac = addresses.first().map_or([0x0a, 0x58, 0, 0, 0, 1], |(address, _)| mac(address));
    let routes = config.service_cidrs.clone();
    BridgePlan { name: config.bridge.clone(), mac, mtu, addresses, routes }
}

/// A pod's pair. The pod's address has the whole length as its prefix, so that all it sends goes
/// to the board, also to its neighbours on the bridge: what was translated on the way there is
/// translated back on the way home, without the kernel module `br_netfilter`.
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
        addresses: addresses.iter().map(|address| (*address, whole(address))).collect(),
        gateways: blocks.iter().filter_map(gateway).collect(),
        hairpin: config.hairpin,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PodNetworkConfig {
        PodNetworkConfig {
            pod_cidrs: vec!["fd00:42::/64".parse().unwrap(), "10.42.3.0/24".parse().unwrap()],
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/48".parse().unwrap()],
            ..PodNetworkConfig::default()
        }
    }

    #[test]
    fn names_of_interfaces_are_short_steady_and_differ() {
        assert_eq!(host_interface("cor", "sandbox-0"), host_interface("cor", "sandbox-0"));
        let names: std::collections::HashSet<String> =
            (0..10_000).map(|number| host_interface("cor", &format!("{number:064}"))).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() <= INTERFACE_NAME_BYTES_MAX));
    }

    #[test]
    fn a_pod_sends_everything_to_the_board() {
        let addresses = ["10.42.3.7".parse().unwrap(), "fd00:42::7".parse().unwrap()];
        let pod = pod(&config(), 1400, "a", &addresses);
        assert_eq!(pod.addresses, [(addresses[0], 32), (addresses[1], 128)]);
        let gateways: Vec<String> = pod.gateways.iter().map(ToString::to_string).collect();
        assert_eq!(gateways, ["10.42.3.1", "fd00:42::1"]);
        assert_eq!((pod.mac, pod.mtu), ([0x0a, 0x58, 10, 42, 3, 7], 1400));
        let bridge = bridge(&config(), 1400);
        assert_eq!(bridge.addresses[0], ("10.42.3.1".parse().unwrap(), 24));
    }

    #[test]
    fn only_what_leaves_the_cluster_is_masqueraded() {
        assert_eq!(
            masquerade(&config(), Family::V4).to_string(),
            "\
chain postrouting { Nat hook Postrouting priority 100
  ip saddr 10.42.3.0/24 ip daddr != 10.42.3.0/24 ip daddr != 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
}
"
        );
    }
}
