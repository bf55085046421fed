//! Cables and the switch, carried out through netlink.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use nlink::netlink::link::{BridgeLink, VethLink};
use nlink::netlink::nftables as nft;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{Connection, Nftables, Route};

use crate::error::{Doing, Hinted, Result};
use crate::fault::Faults;
use crate::plan::{Board, Plan, network_of};
use crate::process::Identity;
use crate::rules::{self, Drop, MACHINE, bridge_port, port, relay_port};

type Netlink = Connection<Route>;

/// The name of a board's network card.
const CARD: &str = "eth0";
/// Every segment's prefix.
const PREFIX: u8 = 24;
/// Our table in the switch.
const TABLE: &str = "coracle-sandbox";
const NO_BRIDGE: &str = "see that the kernel has bridges and veth pairs (`modprobe bridge veth`)";

fn os_error(error: nlink::Error) -> io::Error {
    let kind = error
        .errno()
        .map_or(io::ErrorKind::Other, |errno| io::Error::from_raw_os_error(errno.abs()).kind());
    io::Error::new(kind, error)
}

fn namespace(init: &Identity) -> PathBuf {
    PathBuf::from(format!("/proc/{}/ns/net", init.pid))
}

fn inside(init: &Identity) -> Result<Netlink> {
    Netlink::new_in(namespace(init))
        .map_err(os_error)
        .doing(|| format!("opening the network namespace of process {}", init.pid))
}

fn bridge(subnet: u8) -> String {
    format!("segment-{subnet}")
}

/// The networks for sandboxes that this machine has routes or addresses of.
pub(crate) async fn taken() -> Result<Vec<u8>> {
    let doing = || "looking at this machine's routes".to_owned();
    let routes = Netlink::new().map_err(os_error).doing(doing)?;
    let routes = routes.get_routes().await.map_err(os_error).doing(doing)?;
    let networks = routes.iter().filter_map(|route| match route.destination()? {
        IpAddr::V4(address) => network_of(*address),
        IpAddr::V6(_) => None,
    });
    Ok(networks.collect())
}

async fn index(netlink: &Netlink, name: &str) -> io::Result<u32> {
    let link = netlink.get_link_by_name(name).await.map_err(os_error)?;
    link.map(|link| link.ifindex()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

async fn exists(netlink: &Netlink, name: &str) -> io::Result<bool> {
    Ok(netlink.get_link_by_name(name).await.map_err(os_error)?.is_some())
}

/// Makes the segments, and the machine's own cable into the first.
pub(crate) async fn switch(plan: &Plan, init: &Identity) -> Result {
    make_switch(plan, init).await.doing(|| "making the switch".into()).hinted(NO_BRIDGE)
}

async fn make_switch(plan: &Plan, init: &Identity) -> io::Result<()> {
    let there = Netlink::new_in(namespace(init)).map_err(os_error)?;
    there.set_link_up("lo").await.map_err(os_error)?;
    for subnet in 0..plan.options.subnets {
        let name = bridge(subnet);
        if !exists(&there, &name).await? {
            there.add_link(BridgeLink::new(&name).stp(false)).await.map_err(os_error)?;
        }
        address(&there, &name, plan.router(subnet)).await?;
    }
    let here = Netlink::new().map_err(os_error)?;
    let link = plan.machine_link();
    if !exists(&there, MACHINE).await? {
        here.del_link_if_exists(link.as_str()).await.map_err(os_error)?;
        let pair = VethLink::new(&link, MACHINE).peer_netns_fd(&File::open(namespace(init))?);
        here.add_link(pair).await.map_err(os_error)?;
    }
    plug(&there, MACHINE, &bridge(0)).await?;
    address(&here, &link, plan.machine()).await?;
    for subnet in 1..plan.options.subnets {
        let route = Ipv4Route::from_addr(plan.segment(subnet), PREFIX).gateway(plan.router(0));
        here.replace_route(route).await.map_err(os_error)?;
    }
    Ok(())
}

async fn address(netlink: &Netlink, link: &str, address: Ipv4Addr) -> io::Result<()> {
    let index = index(netlink, link).await?;
    netlink.replace_address_by_index(index, address.into(), PREFIX).await.map_err(os_error)?;
    netlink.set_link_up_by_index(index).await.map_err(os_error)
}

/// Puts a link into a bridge.
async fn plug(netlink: &Netlink, link: &str, bridge: &str) -> io::Result<()> {
    let (link, bridge) = (index(netlink, link).await?, index(netlink, bridge).await?);
    netlink.set_link_master_by_index(link, bridge).await.map_err(os_error)?;
    netlink.set_link_up_by_index(link).await.map_err(os_error)
}

/// Lays the cable of a board that has just been switched on.
pub(crate) async fn connect(
    plan: &Plan,
    board: &Board,
    switch: &Identity,
    init: &Identity,
) -> Result {
    lay_cable(plan, board, switch, init)
        .await
        .doing(|| format!("laying the cable of {}", board.name))
        .hinted(NO_BRIDGE)
}

async fn lay_cable(
    plan: &Plan,
    board: &Board,
    switch: &Identity,
    init: &Identity,
) -> io::Result<()> {
    let there = Netlink::new_in(namespace(switch)).map_err(os_error)?;
    let name = port(&board.name);
    // The kernel takes a dead board's end down in its own time.
    there.del_link_if_exists(name.as_str()).await.map_err(os_error)?;
    let pair = VethLink::new(&name, CARD)
        .peer_address(board.mac)
        .peer_netns_fd(&File::open(namespace(init))?);
    there.add_link(pair).await.map_err(os_error)?;
    let on_board = Netlink::new_in(namespace(init)).map_err(os_error)?;
    on_board.set_link_up("lo").await.map_err(os_error)?;
    address(&on_board, CARD, board.address).await?;
    let card = index(&on_board, CARD).await?;
    let route = Ipv4Route::default_route().gateway(plan.router(board.subnet)).dev_index(card);
    on_board.replace_route(route).await.map_err(os_error)
}

/// What has to run beside the kernel for a board's cable to be as bad as it should be.
pub(crate) enum Cable {
    /// Straight into the bridge.
    Plain,
    /// Through a relay between these two links.
    Relayed(String, String),
}

/// Plugs a board's cable in, or pulls it, straight or by way of a relay.
pub(crate) async fn wire(board: &Board, faults: &Faults, switch: &Identity) -> Result<Cable> {
    set_cable(board, faults, switch)
        .await
        .doing(|| format!("changing the cable of {}", board.name))
        .hinted("see that the board is on: `coracle sandbox status`")
}

async fn set_cable(board: &Board, faults: &Faults, switch: &Identity) -> io::Result<Cable> {
    let there = Netlink::new_in(namespace(switch)).map_err(os_error)?;
    let (cable, relay) = (port(&board.name), relay_port(&board.name));
    let segment = bridge(board.subnet);
    let wired = faults.wires.contains_key(&board.name);
    if wired {
        let joined = bridge_port(&board.name, faults);
        if !exists(&there, &relay).await? {
            there.add_link(VethLink::new(&relay, &joined)).await.map_err(os_error)?;
        }
        let cable_index = index(&there, &cable).await?;
        there.set_link_nomaster_by_index(cable_index).await.map_err(os_error)?;
        there.set_link_up(relay.as_str()).await.map_err(os_error)?;
        plug(&there, &joined, &segment).await?;
    } else {
        there.del_link_if_exists(relay.as_str()).await.map_err(os_error)?;
        plug(&there, &cable, &segment).await?;
    }
    // The board sees its link go, as it does when a plug is pulled.
    let up = !faults.unplugged.contains(&board.name);
    there.set_link_state(cable.as_str(), up).await.map_err(os_error)?;
    Ok(if wired { Cable::Relayed(cable, relay) } else { Cable::Plain })
}

/// Makes the switch drop what the faults say, and nothing else.
pub(crate) async fn filter(plan: &Plan, faults: &Faults, switch: &Identity) -> Result {
    set_filter(&rules::drops(plan, faults), switch)
        .await
        .map_err(os_error)
        .doing(|| "changing what the switch drops".into())
        .hinted("see that the kernel has nf_tables for bridges (`modprobe nf_tables`)")
}

async fn set_filter(drops: &[Drop], switch: &Identity) -> nlink::Result<()> {
    let connection = Connection::<Nftables>::new_in(namespace(switch))?;
    for family in [nft::Family::Bridge, nft::Family::Ip] {
        connection.del_table_if_exists(TABLE, family).await?;
    }
    let mut transaction = connection.transaction();
    let mut chains = Vec::new();
    for drop in drops {
        let (family, name, hook) = match drop {
            Drop::From { .. } => (nft::Family::Bridge, "in", nft::FilterHook::Prerouting),
            Drop::Between { .. } => (nft::Family::Bridge, "through", nft::FilterHook::Forward),
            Drop::Routed { .. } => (nft::Family::Ip, "routed", nft::FilterHook::Forward),
        };
        if !chains.iter().any(|(known, _)| *known == family) {
            transaction = transaction.add_table(TABLE, family);
        }
        if !chains.contains(&(family, name)) {
            let base = nft::BaseChain::filter(hook, nft::Priority::Filter);
            let chain = nft::Chain::new(TABLE, name)?.family(family).base(base);
            transaction = transaction.add_chain(chain);
            chains.push((family, name));
        }
        let rule = nft::Rule::new(TABLE, name).family(family);
        let rule = match drop {
            Drop::From { port } => rule.match_iif(port),
            Drop::Between { from, to } => rule.match_iif(from).match_oif(to),
            Drop::Routed { from, to } => rule.match_saddr_v4(*from, 32).match_daddr_v4(*to, 32),
        };
        transaction = transaction.add_rule(rule.drop());
    }
    match drops.is_empty() {
        true => Ok(()),
        false => transaction.commit(&connection).await,
    }
}

/// Removes the machine's end of its cable, where the switch has not taken it along yet.
pub(crate) async fn unlink(plan: &Plan) -> Result {
    let doing = || format!("removing {}", plan.machine_link());
    let here = Netlink::new().map_err(os_error).doing(doing)?;
    let removed = here.del_link_if_exists(plan.machine_link().as_str()).await;
    removed.map(drop).map_err(os_error).doing(doing)
}

/// Waits until the switch knows nothing of a board's old cable, which the kernel takes down in
/// the background.
pub(crate) async fn disconnect(board: &str, switch: &Identity) -> Result {
    let removed = inside(switch)?.del_link_if_exists(port(board).as_str()).await;
    removed.map(drop).map_err(os_error).doing(|| format!("taking away the cable of {board}"))
}
