//! The VXLAN device and its neighbours.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nlink::netlink::Connection;
use nlink::netlink::fdb::FdbEntryBuilder;
use nlink::netlink::link::VxlanLink;
use nlink::netlink::messages::LinkMessage;
use nlink::netlink::neigh::Neighbor;
use nlink::netlink::{Route as RouteProto, sysctl};

use super::links::{Assigned, assign, require};
use super::os_error;

/// Another board's end of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Neighbour {
    /// The gateway to its pods.
    pub gateway: IpAddr,
    /// The hardware address of its end.
    pub mac: [u8; 6],
    /// Where packets for it are sent.
    pub remote: IpAddr,
}

/// A VXLAN device as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TunnelPlan {
    pub name: String,
    pub vni: u32,
    pub port: u16,
    /// Where its packets leave from.
    pub local: IpAddr,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub addresses: Vec<Assigned>,
    pub neighbours: BTreeSet<Neighbour>,
}

type Netlink = Connection<RouteProto>;

/// Makes the device what the plan says. What cannot be changed in place is made anew.
pub(super) async fn set_up(netlink: &Netlink, plan: &TunnelPlan) -> io::Result<()> {
    let link = netlink.get_link_by_name(plan.name.as_str()).await.map_err(os_error)?;
    let fits = link.as_ref().is_some_and(|link| is_as_planned(link, plan));
    if !fits {
        netlink.del_link_if_exists(&plan.name).await.map_err(os_error)?;
        let device = VxlanLink::new(&plan.name, plan.vni)
            .port(plan.port)
            .learning(false)
            .address(plan.mac)
            .mtu(plan.mtu);
        let device = match plan.local {
            IpAddr::V4(v4) => device.local(v4),
            IpAddr::V6(v6) => device.local6(v6),
        };
        netlink.add_link(device).await.map_err(os_error)?;
    }
    let index = require(netlink, &plan.name).await?;
    // Loose: answers may come by a plain route where the board at the other end sees us near.
    let filter = format!("net/ipv4/conf/{}/rp_filter", plan.name);
    sysctl::set(&filter, "2").map_err(os_error)?;
    if link.and_then(|link| link.mtu()) != Some(plan.mtu) {
        netlink.set_link_mtu_by_index(index, plan.mtu).await.map_err(os_error)?;
    }
    assign(netlink, index, &plan.addresses).await?;
    netlink.set_link_up_by_index(index).await.map_err(os_error)?;
    set_neighbours(netlink, index, &plan.neighbours).await
}

fn is_as_planned(link: &LinkMessage, plan: &TunnelPlan) -> bool {
    // `IFLA_VXLAN_*` of linux/if_link.h.
    const ID: u16 = 1;
    const LOCAL: u16 = 4;
    const PORT: u16 = 15;
    const LOCAL6: u16 = 17;
    let Some(data) = link.link_info().and_then(|info| info.data()) else { return false };
    let (local, bytes) = match plan.local {
        IpAddr::V4(v4) => (LOCAL, v4.octets().to_vec()),
        IpAddr::V6(v6) => (LOCAL6, v6.octets().to_vec()),
    };
    link.kind() == Some("vxlan")
        && link.address() == Some(&plan.mac)
        && attribute(data, ID) == Some(&plan.vni.to_ne_bytes())
        && attribute(data, PORT) == Some(&plan.port.to_be_bytes())
        && attribute(data, local) == Some(&bytes)
}

/// The payload of a netlink attribute in a list of them.
fn attribute(mut list: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *list {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let payload = list.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == wanted {
            return Some(payload);
        }
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// Makes the entries of the device exactly these, new ones first.
async fn set_neighbours(
    netlink: &Netlink,
    index: u32,
    wanted: &BTreeSet<Neighbour>,
) -> io::Result<()> {
    let forwards = netlink.get_fdb_by_index(index).await.map_err(os_error)?;
    let forwards: BTreeSet<([u8; 6], Option<IpAddr>)> =
        forwards.iter().map(|entry| (entry.mac(), entry.dst())).collect();
    let known = netlink.get_neighbors_by_index(index).await.map_err(os_error)?;
    let known: BTreeSet<(IpAddr, Vec<u8>)> = known
        .iter()
        .filter(|entry| entry.is_permanent())
        .filter_map(|entry| Some((*entry.destination()?, entry.lladdr()?.to_vec())))
        .collect();
    for Neighbour { gateway, mac, remote } in wanted {
        if !forwards.contains(&(*mac, Some(*remote))) {
            let entry = forward(index, *mac).dst(*remote);
            netlink.replace_fdb(entry).await.map_err(os_error)?;
        }
        if !known.contains(&(*gateway, mac.to_vec())) {
            let entry = Neighbor::with_index(index, *gateway).lladdr(*mac).permanent();
            netlink.replace_neighbor(entry).await.map_err(os_error)?;
        }
    }
    for (gateway, _) in known.iter().filter(|(ip, _)| !wanted.iter().any(|w| w.gateway == *ip)) {
        let gone = netlink.del_neighbor_if_exists(Neighbor::with_index(index, *gateway)).await;
        gone.map_err(os_error)?;
    }
    for (mac, _) in forwards.iter().filter(|(mac, _)| !wanted.iter().any(|w| w.mac == *mac)) {
        match netlink.del_fdb_entry(forward(index, *mac)).await {
            Err(error) if !error.is_not_found() => return Err(os_error(error)),
            _ => {}
        }
    }
    Ok(())
}

fn forward(index: u32, mac: [u8; 6]) -> FdbEntryBuilder {
    FdbEntryBuilder::new(mac).ifindex(index).self_().permanent()
}

#[cfg(test)]
mod tests {
    use super::attribute;

    #[test]
    fn attributes_are_found_and_torn_lists_end() {
        let list = [5, 0, 7, 0, 9, 0, 0, 0, 8, 0, 1, 0, 1, 0, 0, 0];
        assert_eq!(attribute(&list, 7), Some(&[9][..]));
        assert_eq!(attribute(&list, 1), Some(&1u32.to_ne_bytes()[..]));
        assert_eq!(attribute(&list, 2), None);
        for torn in [&list[..7], &list[..3], &[0, 0, 1, 0], &[255, 255, 1, 0]] {
            assert_eq!(attribute(torn, 1), None);
        }
    }
}
