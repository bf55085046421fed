//! Bridges, veth pairs, addresses and routes, behind one trait.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use nlink::netlink::link::{BridgeLink, BridgePortConfig, DummyLink, VethLink};
use nlink::netlink::route::{Ipv4Route, Ipv6Route};
use nlink::netlink::types::route::{RouteProtocol, RouteScope};
use nlink::netlink::{Connection, Route as RouteProto, sysctl};

use super::tunnel::{self, TunnelPlan};
use super::{ground, os_error};
use crate::Cidr;
use crate::pod::Ground;

/// Marks routes as ours (`rtm_protocol`); no daemon of `iproute2`'s `rt_protos` has this number.
const ROUTE_PROTOCOL: u8 = 82;

/// An address and the length of its network's prefix.
pub(crate) type Assigned = (IpAddr, u8);

/// A bridge as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgePlan {
    pub name: String,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub addresses: Vec<Assigned>,
    /// Blocks that the board reaches through the bridge.
    pub routes: Vec<Cidr>,
}

/// A pod's pair of interfaces as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodPlan {
    pub bridge: String,
    pub host_interface: String,
    pub interface: String,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub addresses: Vec<Assigned>,
    pub gateways: Vec<IpAddr>,
    pub hairpin: bool,
}

/// A route to another board's pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoutePlan {
    pub destination: Cidr,
    pub via: IpAddr,
    /// The device that the gateway is a neighbour on, where that is not the kernel's to find out.
    pub device: Option<String>,
}

/// The kernel's links, addresses and routes.
#[async_trait::async_trait]
pub(crate) trait Links: Send + Sync {
    /// The MTU of the interface with the default route.
    async fn uplink_mtu(&self) -> io::Result<Option<u32>>;
    /// Makes the bridge, or corrects what is there.
    async fn bridge(&self, plan: &BridgePlan) -> io::Result<()>;
    /// Makes the pair, or leaves one that is right alone.
    async fn pod(&self, plan: &PodPlan, netns: &Path) -> io::Result<()>;
    /// Removes an interface if it exists.
    async fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of the ports of a bridge.
    async fn ports(&self, bridge: &str) -> io::Result<Vec<String>>;
    /// The routes of ours. One through `tunnel` says so.
    async fn routes(&self, tunnel: &str) -> io::Result<Vec<RoutePlan>>;
    /// The routes that are not ours.
    async fn ground(&self) -> io::Result<Vec<Ground>>;
    /// Makes the tunnel, or corrects what is there.
    async fn tunnel(&self, plan: &TunnelPlan) -> io::Result<()>;
    /// Adds or replaces a route.
    async fn add_route(&self, route: &RoutePlan) -> io::Result<()>;
    /// Removes a route.
    async fn remove_route(&self, route: &RoutePlan) -> io::Result<()>;
    /// Sets a kernel parameter, named with slashes (`net/ipv4/ip_forward`).
    fn set_parameter(&self, key: &str, value: &str) -> io::Result<()>;
}

/// The links of the network namespace of the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kernel;

type Netlink = Connection<RouteProto>;

fn here() -> io::Result<Netlink> {
    Netlink::new().map_err(os_error)
}

/// The interface's index, if there is such an interface.
async fn find(netlink: &Netlink, name: &str) -> io::Result<Option<u32>> {
    let link = netlink.get_link_by_name(name).await.map_err(os_error)?;
    Ok(link.map(|link| link.ifindex()))
}

pub(super) async fn require(netlink: &Netlink, name: &str) -> io::Result<u32> {
    find(netlink, name).await?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Gives the interface exactly these addresses (link-local ones are the kernel's own affair).
pub(super) async fn assign(netlink: &Netlink, index: u32, wanted: &[Assigned]) -> io::Result<()> {
    for (address, prefix) in wanted {
        let added = netlink.replace_address_by_index(index, *address, *prefix).await;
        added.map_err(os_error)?;
    }
    for (address, prefix) in assigned(netlink, index).await? {
        if !wanted.contains(&(address, prefix)) {
            let gone = netlink.del_address_by_index(index, address, prefix).await;
            gone.map_err(os_error)?;
        }
    }
    Ok(())
}

async fn assigned(netlink: &Netlink, index: u32) -> io::Result<Vec<Assigned>> {
    let messages = netlink.get_addresses_by_index(index).await.map_err(os_error)?;
    let link_local =
        |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Ok(messages
        .iter()
        .filter_map(|message| {
            let address = message.local().or(message.address())?;
            Some((*address, message.prefix_len()))
        })
        .filter(|(address, _)| !link_local(address))
        .collect())
}

/// Makes `name` a dummy device that carries exactly these addresses. Where the kernel has no
/// dummy driver, a bridge without ports does the same service.
pub(crate) async fn address_device(name: &str, addresses: &[IpAddr]) -> io::Result<()> {
    let netlink = here()?;
    if find(&netlink, name).await?.is_none() {
        match netlink.add_link(DummyLink::new(name)).await {
            Ok(()) => {}
            Err(error) if error.is_not_supported() => {
                netlink.add_link(BridgeLink::new(name)).await.map_err(os_error)?;
            }
            Err(error) => return Err(os_error(error)),
        }
    }
    let index = require(&netlink, name).await?;
    let single: Vec<Assigned> = addresses
        .iter()
        .map(|address| (*address, if address.is_ipv4() { 32 } else { 128 }))
        .collect();
    assign(&netlink, index, &single).await?;
    netlink.set_link_up_by_index(index).await.map_err(os_error)
}

#[async_trait::async_trait]
impl Links for Kernel {
    async fn uplink_mtu(&self) -> io::Result<Option<u32>> {
        let netlink = here()?;
        let routes = netlink.get_routes().await.map_err(os_error)?;
        let uplink = routes
            .iter()
            .filter(|route| route.is_default() && route.is_ipv4())
            .min_by_key(|route| route.priority().unwrap_or(0))
            .and_then(|route| route.oif());
        let Some(index) = uplink else { return Ok(None) };
        let link = netlink.get_link_by_index(index).await.map_err(os_error)?;
        Ok(link.and_then(|link| link.mtu()))
    }

    async fn bridge(&self, plan: &BridgePlan) -> io::Result<()> {
        let netlink = here()?;
        if find(&netlink, &plan.name).await?.is_none() {
            let bridge = BridgeLink::new(&plan.name).address(plan.mac).mtu(plan.mtu);
            netlink.add_link(bridge).await.map_err(os_error)?;
        }
        let index = require(&netlink, &plan.name).await?;
        netlink.set_link_mtu_by_index(index, plan.mtu).await.map_err(os_error)?;
        assign(&netlink, index, &plan.addresses).await?;
        netlink.set_link_up_by_index(index).await.map_err(os_error)?;
        for block in &plan.routes {
            route_to_link(&netlink, index, block).await?;
        }
        Ok(())
    }

    async fn pod(&self, plan: &PodPlan, netns: &Path) -> io::Result<()> {
        let netlink = here()?;
        let inside: Netlink = Netlink::new_in(netns).map_err(os_error)?;
        if !is_as_planned(&netlink, &inside, plan).await? {
            self.remove(&plan.host_interface).await?;
            if let Some(index) = find(&inside, &plan.interface).await? {
                inside.del_link_by_index(index).await.map_err(os_error)?;
            }
            let namespace = std::fs::File::open(netns)?;
            let pair = VethLink::new(&plan.host_interface, &plan.interface)
                .mtu(plan.mtu)
                .peer_mtu(plan.mtu)
                .peer_address(plan.mac)
                .peer_netns_fd(&namespace);
            netlink.add_link(pair).await.map_err(os_error)?;
        }
        inside.set_link_up("lo").await.map_err(os_error)?;
        configure_inside(&inside, plan).await?;
        plug_in(&netlink, plan).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        here()?.del_link_if_exists(name).await.map_err(os_error)?;
        Ok(())
    }

    async fn ports(&self, bridge: &str) -> io::Result<Vec<String>> {
        let netlink = here()?;
        let Some(index) = find(&netlink, bridge).await? else { return Ok(Vec::new()) };
        let links = netlink.get_links().await.map_err(os_error)?;
        let ports = links.iter().filter(|link| link.master() == Some(index));
        Ok(ports.filter_map(|link| Some(link.name()?.to_owned())).collect())
    }

    async fn routes(&self, tunnel: &str) -> io::Result<Vec<RoutePlan>> {
        let netlink = here()?;
        let tunnel = find(&netlink, tunnel).await?.map(|index| (index, tunnel));
        let routes = netlink.get_routes().await.map_err(os_error)?;
        let ours = routes.iter().filter(|route| route.protocol() == route_protocol());
        Ok(ours
            .filter_map(|route| {
                let destination = Cidr::new(*route.destination()?, route.dst_len())?;
                let device = tunnel.filter(|(index, _)| route.oif() == Some(*index));
                let device = device.map(|(_, name)| name.to_owned());
                Some(RoutePlan { destination, via: *route.gateway()?, device })
            })
            .collect())
    }

    async fn ground(&self) -> io::Result<Vec<Ground>> {
        ground::read(&here()?, route_protocol()).await
    }

    async fn tunnel(&self, plan: &TunnelPlan) -> io::Result<()> {
        tunnel::set_up(&here()?, plan).await
    }

    async fn add_route(&self, route: &RoutePlan) -> io::Result<()> {
        let netlink = here()?;
        let added = match lower(&netlink, route).await? {
            Lowered::V4(route) => netlink.replace_route(route).await,
            Lowered::V6(route) => netlink.replace_route(route).await,
        };
        added.map_err(os_error)
    }

    async fn remove_route(&self, route: &RoutePlan) -> io::Result<()> {
        let netlink = here()?;
        let removed = match lower(&netlink, route).await? {
            Lowered::V4(route) => netlink.del_route_if_exists(route).await,
            Lowered::V6(route) => netlink.del_route_if_exists(route).await,
        };
        removed.map(|_| ()).map_err(os_error)
    }

    fn set_parameter(&self, key: &str, value: &str) -> io::Result<()> {
        if sysctl::get(key).is_ok_and(|current| current == value) {
            return Ok(());
        }
        sysctl::set(key, value).map_err(os_error)
    }
}

/// A route in the words of its family.
enum Lowered {
    V4(Ipv4Route),
    V6(Ipv6Route),
}

/// The gateway stands in every route, also in one that is to be removed: without one the kernel
/// looks for a route of another scope, and finds none.
async fn lower(netlink: &Netlink, route: &RoutePlan) -> io::Result<Lowered> {
    let prefix = route.destination.prefix();
    let device = match &route.device {
        Some(name) => Some(require(netlink, name).await?),
        None => None,
    };
    Ok(match (route.destination.network(), route.via) {
        (IpAddr::V4(to), IpAddr::V4(via)) => {
            let route = Ipv4Route::from_addr(to, prefix).gateway(via).protocol(route_protocol());
            Lowered::V4(match device {
                Some(index) => route.dev_index(index).onlink(),
                None => route,
            })
        }
        (IpAddr::V6(to), IpAddr::V6(via)) => {
            let route = Ipv6Route::from_addr(to, prefix).gateway(via).protocol(route_protocol());
            Lowered::V6(match device {
                Some(index) => route.dev_index(index).onlink(),
                None => route,
            })
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    })
}

fn route_protocol() -> RouteProtocol {
    RouteProtocol::from(ROUTE_PROTOCOL)
}

/// Whether the pair exists, with the right addresses inside: then it is left as it is, because
/// making it again would break the pod's connections.
async fn is_as_planned(host: &Netlink, inside: &Netlink, plan: &PodPlan) -> io::Result<bool> {
    if find(host, &plan.host_interface).await?.is_none() {
        return Ok(false);
    }
    let Some(index) = find(inside, &plan.interface).await? else { return Ok(false) };
    let present = assigned(inside, index).await?;
    Ok(plan.addresses.iter().all(|address| present.contains(address)))
}

async fn configure_inside(inside: &Netlink, plan: &PodPlan) -> io::Result<()> {
    let index = require(inside, &plan.interface).await?;
    assign(inside, index, &plan.addresses).await?;
    inside.set_link_up_by_index(index).await.map_err(os_error)?;
    for gateway in &plan.gateways {
        // The gateway is outside the pod's own prefix, which is but one address.
        let only = if gateway.is_ipv4() { 32 } else { 128 };
        if let Some(block) = Cidr::new(*gateway, only) {
            route_to_link(inside, index, &block).await?;
        }
        let added = match gateway {
            IpAddr::V4(via) => {
                let route = Ipv4Route::default_route().gateway(*via).dev_index(index);
                inside.replace_route(route).await
            }
            IpAddr::V6(via) => {
                let route = Ipv6Route::default_route().gateway(*via).dev_index(index);
                inside.replace_route(route).await
            }
        };
        added.map_err(os_error)?;
    }
    Ok(())
}

/// A route to neighbours on the link itself.
async fn route_to_link(netlink: &Netlink, index: u32, block: &Cidr) -> io::Result<()> {
    let added = match block.network() {
        IpAddr::V4(to) => {
            let route = Ipv4Route::from_addr(to, block.prefix()).dev_index(index);
            netlink.replace_route(route.scope(RouteScope::Link)).await
        }
        IpAddr::V6(to) => {
            let route = Ipv6Route::from_addr(to, block.prefix()).dev_index(index);
            netlink.replace_route(route).await
        }
    };
    added.map_err(os_error)
}

/// Connects the board's end.
async fn plug_in(netlink: &Netlink, plan: &PodPlan) -> io::Result<()> {
    let port = require(netlink, &plan.host_interface).await?;
    let bridge = require(netlink, &plan.bridge).await?;
    netlink.set_link_master_by_index(port, bridge).await.map_err(os_error)?;
    let hairpin = BridgePortConfig::new().hairpin(plan.hairpin);
    netlink.set_bridge_port_by_index(port, hairpin).await.map_err(os_error)?;
    netlink.set_link_up_by_index(port).await.map_err(os_error)
}

/// Links that only take notes, and fail when told to.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    /// What was asked, in order.
    pub calls: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
    /// Calls that begin with this fail.
    pub failing: std::sync::Arc<std::sync::Mutex<Option<&'static str>>>,
    /// The routes that there are.
    pub routes: std::sync::Arc<std::sync::Mutex<Vec<RoutePlan>>>,
}

#[cfg(test)]
impl Recorder {
    fn note(&self, call: String) -> io::Result<()> {
        let fails = self.failing.lock().unwrap().is_some_and(|start| call.starts_with(start));
        self.calls.lock().unwrap().push(call);
        if fails { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    /// The notes so far; they start anew.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

#[cfg(test)]
#[async_trait::async_trait]
impl Links for Recorder {
    async fn uplink_mtu(&self) -> io::Result<Option<u32>> {
        self.note("uplink mtu".to_owned())?;
        Ok(Some(1480))
    }

    async fn bridge(&self, plan: &BridgePlan) -> io::Result<()> {
        self.note(format!("bridge {} {:?} mtu {}", plan.name, plan.addresses, plan.mtu))
    }

    async fn pod(&self, plan: &PodPlan, netns: &Path) -> io::Result<()> {
        self.note(format!("pod {:?} in {}", plan.addresses, netns.display()))
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.note(format!("remove {name}"))
    }

    async fn ports(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(vec!["cor-stray".to_owned(), "tap0".to_owned()])
    }

    async fn routes(&self, _: &str) -> io::Result<Vec<RoutePlan>> {
        Ok(self.routes.lock().unwrap().clone())
    }

    async fn ground(&self) -> io::Result<Vec<Ground>> {
        let destination = "192.0.2.0/24".parse().unwrap();
        Ok(vec![Ground { destination, segment: true, metric: 0 }])
    }

    async fn tunnel(&self, plan: &TunnelPlan) -> io::Result<()> {
        let remotes: Vec<String> = plan.neighbours.iter().map(|n| n.remote.to_string()).collect();
        self.note(format!("tunnel {} to {}", plan.name, remotes.join(" ")))
    }

    async fn add_route(&self, route: &RoutePlan) -> io::Result<()> {
        self.note(format!("route {} via {}", route.destination, route.via))?;
        self.routes.lock().unwrap().push(route.clone());
        Ok(())
    }

    async fn remove_route(&self, route: &RoutePlan) -> io::Result<()> {
        self.routes.lock().unwrap().retain(|present| present != route);
        self.note(format!("unroute {}", route.destination))
    }

    fn set_parameter(&self, key: &str, value: &str) -> io::Result<()> {
        self.note(format!("{key} = {value}"))
    }
}
