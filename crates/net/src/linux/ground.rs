//! The routes that the machine has without us.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nlink::netlink::types::route::{RouteProtocol, RouteType};
use nlink::netlink::{Connection, Route as RouteProto};

use super::os_error;
use crate::Cidr;
use crate::pod::Ground;

/// `RT_TABLE_MAIN` of linux/rtnetlink.h.
const MAIN_TABLE: u32 = 254;
/// `IFF_UP`, `IFF_LOOPBACK`, `IFF_POINTOPOINT` and `IFF_NOARP` of linux/if.h.
const UP: u32 = 1;
const NO_SEGMENT: u32 = (1 << 3) | (1 << 4) | (1 << 7);

/// The unicast routes of the main table that are not `ours`.
pub(super) async fn read(
    netlink: &Connection<RouteProto>,
    ours: RouteProtocol,
) -> io::Result<Vec<Ground>> {
    let links = netlink.get_links().await.map_err(os_error)?;
    let segments: HashSet<u32> = links
        .iter()
        .filter(|link| link.flags() & UP != 0 && link.flags() & NO_SEGMENT == 0)
        .map(|link| link.ifindex())
        .collect();
    let routes = netlink.get_routes().await.map_err(os_error)?;
    let others = routes.iter().filter(|route| {
        route.protocol() != ours
            && route.table_id() == MAIN_TABLE
            && route.route_type() == RouteType::Unicast
    });
    Ok(others
        .filter_map(|route| {
            let anywhere: IpAddr = match route.is_ipv4() {
                true => Ipv4Addr::UNSPECIFIED.into(),
                false => Ipv6Addr::UNSPECIFIED.into(),
            };
            let destination = route.destination().copied().unwrap_or(anywhere);
            Some(Ground {
                destination: Cidr::new(destination, route.dst_len())?,
                segment: route.gateway().is_none()
                    && route.via().is_none()
                    && route.oif().is_some_and(|link| segments.contains(&link)),
                metric: route.priority().unwrap_or(0),
            })
        })
        .collect())
}
