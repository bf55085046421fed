//! Boards on the network: every address of the subnet is asked for SSH, which makes the kernel learn
//! who is there, and then the hosts for their names by multicast DNS. ARP packets of one's own were
//! turned down: they take root, and the kernel's neighbour table says the same.

mod ground;
mod mdns;
mod sweep;
mod vendor;
mod write;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::Trouble;
use crate::init::NewBoard;

pub use ground::Ground;
pub use write::boards;

/// Widest network that is looked through: 4,096 addresses.
const WIDEST_PREFIX: u8 = 20;
/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_millis(700);
/// Port that boards are reached at.
const SSH_PORT: u16 = 22;
/// Where multicast DNS is asked.
const MDNS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);

/// A host that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its name, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// It is a Raspberry Pi, by its hardware address.
    pub raspberry_pi: bool,
    /// What its SSH server says first, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
}

/// Looks for hosts on a network. This machine is left out.
pub fn look(ground: &Ground) -> Result<Vec<Host>, Trouble> {
    if ground.subnet.prefix_len() < WIDEST_PREFIX {
        return Err(Trouble::new(
            format!("{} has more addresses than are asked one by one", ground.subnet),
            format!("name a part of it with --subnet, of /{WIDEST_PREFIX} or smaller"),
        ));
    }
    let candidates: Vec<Ipv4Addr> =
        ground.subnet.hosts().filter(|address| *address != ground.own).collect();
    let banners = sweep::sweep(&candidates, SSH_PORT, ANSWER);
    let neighbours = ground::neighbours(&read("/proc/net/arp"));
    let mut hosts = join(ground.subnet, banners, &neighbours);
    let addresses: Vec<Ipv4Addr> = hosts.iter().map(|host| host.address).collect();
    // Without names the rest is still worth having.
    let names = mdns::names(MDNS, ground.own, &addresses, ANSWER).unwrap_or_default();
    for host in &mut hosts {
        host.name = names.get(&host.address).cloned();
    }
    Ok(hosts)
}

/// The hosts that speak SSH, as boards of a new cluster.
pub fn new_boards(hosts: &[Host]) -> Vec<NewBoard> {
    let boards: Vec<&Host> = hosts.iter().filter(|host| host.ssh.is_some()).collect();
    let named = write::names(&boards).into_iter().zip(&boards);
    named
        .map(|(name, host)| NewBoard { name, address: host.address.into(), mac: host.mac.clone() })
        .collect()
}

/// What was heard by SSH and what the kernel knows of neighbours, together.
fn join(
    subnet: Ipv4Net,
    banners: Vec<(Ipv4Addr, String)>,
    neighbours: &[(Ipv4Addr, String)],
) -> Vec<Host> {
    let near = neighbours.iter().map(|(address, _)| *address).filter(|a| subnet.contains(a));
    let mut addresses: Vec<Ipv4Addr> =
        banners.iter().map(|(address, _)| *address).chain(near).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let host = |address: Ipv4Addr| {
        let mac = neighbours.iter().find(|(of, _)| *of == address).map(|(_, mac)| mac.clone());
        Host {
            address,
            name: None,
            raspberry_pi: mac.as_deref().is_some_and(vendor::is_raspberry_pi),
            mac,
            ssh: banners.iter().find(|(of, _)| *of == address).map(|(_, text)| text.clone()),
        }
    };
    addresses.into_iter().map(host).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_that_speak_ssh_and_those_that_the_kernel_knows() {
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        let banners = vec![(address(7), "SSH-2.0-OpenSSH_9.2p1".to_owned())];
        let near = [
            (address(7), "dc:a6:32:00:00:07".to_owned()),
            (address(9), "02:00:00:00:00:09".to_owned()),
            (Ipv4Addr::new(10, 1, 0, 1), "02:00:00:00:00:01".to_owned()),
        ];
        let hosts = join("10.0.0.0/24".parse().expect("a network"), banners, &near);
        let told: Vec<_> =
            hosts.iter().map(|h| (h.address, h.raspberry_pi, h.ssh.is_some())).collect();
        assert_eq!(told, [(address(7), true, true), (address(9), false, false)]);
    }

    #[test]
    fn a_network_that_is_too_wide_is_refused() {
        let subnet = "10.0.0.0/16".parse().expect("a network");
        let ground =
            Ground { device: "eth0".into(), own: Ipv4Addr::LOCALHOST, subnet, gateway: None };
        assert!(look(&ground).expect_err("refused").hint().contains("--subnet"));
    }
}
