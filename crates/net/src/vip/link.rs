//! The interface that carries the addresses, as the kernel shows it.

use std::io;
use std::net::IpAddr;

use futures::StreamExt;
use nlink::netlink::addr::{Ipv4Address, Ipv6Address};
use nlink::netlink::messages::AddressMessage;
use nlink::netlink::{
    Connection, NetworkEvent, OwnedEventStream, Route as RouteProto, RtnetlinkGroup,
};

use super::announce::Mac;
use super::{VipAddress, VipConfig};
use crate::Cidr;
use crate::linux::os_error;

/// How long the kernel keeps an address that nobody renews, in seconds: the last watchdog, for
/// the case that every process of ours is killed at once.
const LIFETIME_S: u32 = 6;

/// The interface, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub name: String,
    pub index: u32,
    pub mac: Mac,
    /// Up, and a cable or radio carries it.
    pub running: bool,
    /// The address that our packets come from; none while it has none.
    pub own: Option<IpAddr>,
}

type Netlink = Connection<RouteProto>;

/// The kernel's side of one family.
pub(super) struct Interface {
    netlink: Netlink,
    v4: bool,
    wanted: Option<String>,
    addresses: Vec<VipAddress>,
}

impl Interface {
    /// For the addresses of one family.
    pub(super) fn new(config: &VipConfig, v4: bool) -> io::Result<Self> {
        let netlink = Netlink::new().map_err(os_error)?;
        let addresses = config.addresses.iter().copied().filter(|a| a.ip.is_ipv4() == v4);
        Ok(Self { netlink, v4, wanted: config.interface.clone(), addresses: addresses.collect() })
    }

    /// The interface as it is; none while it is missing.
    pub(super) async fn look(&self) -> io::Result<Option<Link>> {
        let addresses = self.netlink.get_addresses().await.map_err(os_error)?;
        let index = match &self.wanted {
            Some(name) => {
                let link = self.netlink.get_link_by_name(name.as_str()).await.map_err(os_error)?;
                link.map(|link| link.ifindex())
            }
            None => self.choose(&addresses).await?,
        };
        let Some(index) = index else { return Ok(None) };
        let link = self.netlink.get_link_by_index(index).await.map_err(os_error)?;
        Ok(link.and_then(|link| {
            Some(Link {
                name: link.name()?.to_owned(),
                index,
                mac: link.address()?.try_into().ok()?,
                running: link.is_up() && link.is_running(),
                own: self.own_address(&addresses, index),
            })
        }))
    }

    /// The interface whose network the first address lies in, or that of the default route.
    async fn choose(&self, addresses: &[AddressMessage]) -> io::Result<Option<u32>> {
        let home = addresses.iter().find(|message| {
            let network = message.local().or(message.address());
            let network = network.and_then(|ip| Cidr::new(*ip, message.prefix_len()));
            !self.is_virtual(message)
                && self.addresses.iter().any(|vip| network.is_some_and(|n| n.contains(vip.ip)))
        });
        if let Some(message) = home {
            return Ok(Some(message.ifindex()));
        }
        let routes = self.netlink.get_routes().await.map_err(os_error)?;
        let default = routes.iter().filter(|r| r.is_default() && r.is_ipv4() == self.v4);
        Ok(default.min_by_key(|r| r.priority().unwrap_or(0)).and_then(|route| route.oif()))
    }

    fn own_address(&self, addresses: &[AddressMessage], index: u32) -> Option<IpAddr> {
        let usable = |message: &&AddressMessage| {
            let link_local = matches!(message.local().or(message.address()),
                Some(IpAddr::V6(v6)) if v6.is_unicast_link_local());
            message.ifindex() == index
                && message.is_ipv4() == self.v4
                && (self.v4 || (link_local && !message.is_tentative()))
                && !self.is_virtual(message)
        };
        let message = addresses.iter().find(usable)?;
        message.local().or(message.address()).copied()
    }

    fn is_virtual(&self, message: &AddressMessage) -> bool {
        let address = message.local().or(message.address());
        self.addresses.iter().any(|vip| Some(&vip.ip) == address)
    }

    /// Puts the addresses on the interface for a while, or renews them.
    pub(super) async fn hold(&self, index: u32) -> io::Result<()> {
        for VipAddress { ip, prefix } in &self.addresses {
            let added = match ip {
                IpAddr::V4(v4) => {
                    let address = Ipv4Address::with_index(index, *v4, *prefix);
                    let address = address.valid_lifetime(LIFETIME_S).noprefixroute();
                    self.netlink.replace_address(address.preferred_lifetime(LIFETIME_S)).await
                }
                IpAddr::V6(v6) => {
                    // Never preferred: what this board itself sends must not come from an address
                    // that may move. No detection of duplicates: the group is the detection.
                    let address = Ipv6Address::with_index(index, *v6, *prefix);
                    let address = address.valid_lifetime(LIFETIME_S).noprefixroute().nodad();
                    self.netlink.replace_address(address.preferred_lifetime(0)).await
                }
            };
            added.map_err(os_error)?;
        }
        Ok(())
    }

    /// An address of the group that this board has for good: somebody else put it there.
    pub(super) async fn taken(&self) -> io::Result<Option<IpAddr>> {
        let addresses = self.netlink.get_addresses().await.map_err(os_error)?;
        let mut taken = addresses.iter().filter(|m| self.is_virtual(m) && m.is_permanent());
        Ok(taken.next().and_then(|message| message.local().or(message.address()).copied()))
    }

    /// Takes the addresses off every interface, those that an earlier process left too.
    pub(super) async fn release(&self) -> io::Result<()> {
        for message in self.netlink.get_addresses().await.map_err(os_error)? {
            let Some(address) = message.local().or(message.address()) else { continue };
            if !self.is_virtual(&message) || message.is_permanent() {
                continue;
            }
            let gone = self.netlink.del_address_by_index(
                message.ifindex(),
                *address,
                message.prefix_len(),
            );
            match gone.await {
                // It may have expired in this moment.
                Err(error) if error.errno().map(i32::abs) != Some(libc::EADDRNOTAVAIL) => {
                    return Err(os_error(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Listens for changes from now on.
    pub(super) async fn news(&self) -> io::Result<News> {
        let netlink = Netlink::new().map_err(os_error)?;
        let groups = [RtnetlinkGroup::Link, RtnetlinkGroup::Ipv4Addr, RtnetlinkGroup::Ipv6Addr];
        netlink.subscribe(&groups).map_err(os_error)?;
        let addresses = self.addresses.iter().map(|vip| vip.ip).collect();
        Ok(News { events: netlink.into_events().await, addresses })
    }
}

/// Changes of links and addresses, but for those of the virtual addresses, which we renew.
pub(super) struct News {
    events: OwnedEventStream<RouteProto>,
    addresses: Vec<IpAddr>,
}

impl News {
    /// Returns at the next change. An error says that the listening broke off.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        while let Some(event) = self.events.next().await {
            let ours = match event.map_err(os_error)? {
                NetworkEvent::NewAddress(message) => {
                    let address = message.local().or(message.address());
                    address.is_some_and(|address| self.addresses.contains(address))
                }
                _ => false,
            };
            if !ours {
                return Ok(());
            }
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }
}
