use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::Finding;
use crate::config::{Addressing, Cluster, DEFAULT_PODS, DEFAULT_SERVICES};

/// Networks and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPlan {
    /// The boards' network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<IpNet>,
    /// The way out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// What the API is reached at: the virtual address, or the first server's.
    pub api: String,
    /// Whether that address moves with the servers.
    pub moves: bool,
    /// Addresses for pods.
    pub pods: IpNet,
    /// How many boards' blocks of pod addresses there are.
    pub pod_blocks: u64,
    /// Addresses for services.
    pub services: IpNet,
    /// What the boards' network is used for, by address.
    pub addresses: Vec<Address>,
    /// What a router board gives to hosts without a reservation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<(IpAddr, IpAddr)>,
}

/// One address that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub name: String,
    /// How it is given.
    pub how: &'static str,
}

/// Each board gets a /24 of the pods' addresses.
const POD_BLOCK_BITS: u8 = 24;
/// Where the API is.
const API_PORT: u16 = 6443;

impl NetworkPlan {
    pub(super) fn of(cluster: &Cluster, findings: &mut Vec<Finding>) -> NetworkPlan {
        let network = &cluster.network;
        let first = cluster.servers().next().map(|board| board.address);
        let api = network.vip.or(first).map(|address| match address {
            IpAddr::V4(v4) => format!("https://{v4}:{API_PORT}"),
            IpAddr::V6(v6) => format!("https://[{v6}]:{API_PORT}"),
        });
        let pods = network.pods.unwrap_or_else(|| default(DEFAULT_PODS));
        let pod_blocks =
            POD_BLOCK_BITS.checked_sub(pods.prefix_len()).map_or(0, |bits| 1u64 << bits);
        let plan = NetworkPlan {
            subnet: network.subnet,
            gateway: gateway(cluster),
            api: api.unwrap_or_default(),
            moves: network.vip.is_some(),
            pods,
            pod_blocks,
            services: network.services.unwrap_or_else(|| default(DEFAULT_SERVICES)),
            addresses: addresses(cluster),
            dynamic: network.router.as_ref().and_then(|router| router.dynamic),
        };
        plan.judge(cluster, findings);
        plan
    }

    fn judge(&self, cluster: &Cluster, findings: &mut Vec<Finding>) {
        let runners =
            cluster.boards.iter().filter(|board| board.is_server() || board.is_agent()).count();
        if (runners as u64) > self.pod_blocks {
            let reason = format!(
                "{} has {} blocks of 256 pod addresses, and {runners} boards need one each",
                self.pods, self.pod_blocks
            );
            findings.push(Finding::error(
                "network",
                reason,
                "give `network.pods` a larger network",
            ));
        }
        if self.moves && cluster.servers().count() == 1 {
            let reason = "a virtual address of one server goes nowhere when that is down";
            let advice = "leave it out, or keep it for servers that come later";
            findings.push(Finding::warning("network", reason, advice));
        }
        let foreign_dhcp = cluster.router().is_none();
        if foreign_dhcp && cluster.network.addressing == Addressing::Dhcp {
            let reason = "the boards' addresses come from a DHCP server that Coracle does not \
                          know; a cluster whose addresses change does not come up again";
            let advice = "reserve each board's address there, or write `addressing: static`, which \
                          `coracle image prepare` puts on the cards";
            findings.push(Finding::warning("network", reason, advice));
        }
        if self.subnet.is_none() {
            let reason = "without `network.subnet` nothing can be said about the addresses";
            let advice = "write it as `subnet: 192.168.1.0/24`";
            findings.push(Finding::warning("network", reason, advice));
        }
    }
}

fn default(text: &str) -> IpNet {
    text.parse().expect("a network")
}

/// The router board's address, where there is one and nothing else is said.
fn gateway(cluster: &Cluster) -> Option<IpAddr> {
    cluster.network.gateway.or_else(|| cluster.router().map(|board| board.address))
}

fn addresses(cluster: &Cluster) -> Vec<Address> {
    let network = &cluster.network;
    let mut list: Vec<Address> = Vec::new();
    if let Some(address) = network.gateway.filter(|_| cluster.router().is_none()) {
        list.push(Address { address, name: "gateway".into(), how: "yours" });
    }
    for board in &cluster.boards {
        let how = match (network.addressing, cluster.router().is_some()) {
            (Addressing::Static, _) => "fixed",
            (_, true) if board.is_router() => "fixed",
            (_, true) => "reserved at the router board",
            (_, false) => "to be reserved at your router",
        };
        list.push(Address { address: board.address, name: board.name.clone(), how });
    }
    if let Some(address) = network.vip {
        list.push(Address {
            address,
            name: "virtual address".into(),
            how: "moves with the servers",
        });
    }
    list.sort_by_key(|entry| entry.address);
    list
}
