//! Addresses that belong together, and the router board.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{DEFAULT_PODS, DEFAULT_SERVICES, Rules};
use crate::config::document::Path;
use crate::config::{Addressing, Board, Router, syntax};

/// Networks of pods and services are not larger than this.
const SHORTEST_PREFIX: u8 = 8;
/// Each board gets a /24 of the pods' addresses.
const LONGEST_PODS_PREFIX: u8 = 24;
/// Fewer services than this network has are not worth a cluster.
const LONGEST_SERVICES_PREFIX: u8 = 28;

impl<'a> Rules<'a> {
    pub(super) fn subnet(&mut self) {
        let network = &self.cluster.network;
        let at = Path::default().key("network");
        let Some(subnet) = network.subnet else {
            if network.addressing == Addressing::Static {
                let what = "fixed addresses need to know the network that they are in";
                self.hinted(&at, what, "write `subnet: 192.168.1.0/24` under `network`");
            }
            return;
        };
        if subnet != subnet.trunc() {
            let what = format!("{subnet} is one address of a network, and the network is needed");
            self.hinted(&at.key("subnet"), what, format!("did you mean `{}`?", subnet.trunc()));
        }
        let further = [("gateway", network.gateway), ("vip", network.vip)];
        for (key, address) in further {
            if let Some(address) = address {
                self.inside(subnet, address, &at.key(key));
            }
        }
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let at = Path::default().key("boards").item(position).key("address");
            self.inside(subnet, board.address, &at);
        }
    }

    /// Notes an address that no host of the subnet can have.
    fn inside(&mut self, subnet: IpNet, address: IpAddr, at: &Path) {
        let last = subnet.prefix_len() + 1 >= subnet.max_prefix_len();
        let v4 = address.is_ipv4();
        let what = match () {
            () if !subnet.contains(&address) => "is not in",
            () if address == subnet.network() && !last => "is the network itself of",
            () if address == subnet.broadcast() && v4 && !last => "is the broadcast address of",
            () => return,
        };
        self.note(at, format!("{address} {what} the boards' network {subnet}"));
    }

    /// Notes boards on the gateway's address or the virtual one.
    pub(super) fn taken(&mut self) {
        let network = &self.cluster.network;
        let vip = Path::default().key("network").key("vip");
        if network.vip.is_some() && network.vip == network.gateway {
            self.note(&vip, "the virtual address is the gateway's");
        }
        for (position, board) in self.cluster.boards.iter().enumerate() {
            let at = Path::default().key("boards").item(position).key("address");
            if network.gateway == Some(board.address) && !board.is_router() {
                let what = format!("{} is the gateway's address", board.address);
                self.hinted(&at, what, "only a board of role `router` can have it");
            }
            if network.vip == Some(board.address) {
                let what = format!("{} is the virtual address, and no board's own", board.address);
                self.note(&at, what);
            }
        }
    }

    pub(super) fn router(&mut self) {
        let at = Path::default().key("network").key("router");
        let boards = Path::default().key("boards");
        let router = self.cluster.boards.iter().position(Board::is_router);
        let (settings, position) = match (&self.cluster.network.router, router) {
            (Some(settings), Some(position)) => (settings, position),
            (None, None) => return,
            (Some(_), None) => {
                let hint = "write `roles: [router]` at the board that routes";
                return self.hinted(&at, "no board is a router", hint);
            }
            (None, Some(position)) => {
                let hint = "write `router:` with `uplink` and `inside` under `network`";
                let at = boards.item(position).key("roles");
                return self.hinted(&at, "a router needs to know its two interfaces", hint);
            }
        };
        let network = &self.cluster.network;
        let Some(subnet) = network.subnet else {
            let hint = "write `subnet: 10.9.0.0/24` under `network`";
            return self.hinted(&at, "a router needs to know the network that it gives", hint);
        };
        let own = self.cluster.boards[position].address;
        if network.gateway.is_some_and(|gateway| gateway != own) {
            let gateway = Path::default().key("network").key("gateway");
            let what = "the gateway is not the router board";
            self.hinted(&gateway, what, format!("write `gateway: {own}`, or leave it out"));
        }
        self.interfaces(settings, &at);
        if let Some(ingress) = settings.ingress {
            self.inside(subnet, ingress, &at.key("ingress"));
        }
        self.dynamic(settings.dynamic, subnet, &at.key("dynamic"));
        self.reservations(position);
    }

    fn interfaces(&mut self, settings: &Router, at: &Path) {
        for (key, name) in [("uplink", &settings.uplink), ("inside", &settings.inside)] {
            let fits = syntax::word(name, "._-") && name.len() <= 15;
            self.when(!fits, name, "the name of an interface", &at.key(key));
        }
        if settings.uplink == settings.inside {
            self.note(&at.key("inside"), "both interfaces are the same");
        }
        if let Some(domain) = &settings.domain {
            let fits = domain.split('.').all(|label| syntax::dns_label(label).is_ok());
            self.when(!fits, domain, "a domain such as cluster.home", &at.key("domain"));
        }
    }

    /// Hosts without a reservation must not be given what others have.
    fn dynamic(&mut self, range: Option<(IpAddr, IpAddr)>, subnet: IpNet, at: &Path) {
        let Some((first, last)) = range else { return };
        self.inside(subnet, first, at);
        self.inside(subnet, last, at);
        if first > last {
            self.note(at, format!("{first} comes after {last}"));
        }
        let within = |address: &IpAddr| (first..=last).contains(address);
        let network = &self.cluster.network;
        let router = self.cluster.router().map(|board| board.address);
        if let Some(address) =
            [network.vip, network.gateway, router].into_iter().flatten().find(within)
        {
            self.note(at, format!("{address} is in use and would be given to others"));
        }
    }

    /// A router gives boards their addresses by their hardware addresses.
    fn reservations(&mut self, router: usize) {
        if self.cluster.network.addressing == Addressing::Static {
            return;
        }
        for (position, board) in self.cluster.boards.iter().enumerate() {
            if position != router && board.mac.is_none() {
                let at = Path::default().key("boards").item(position);
                let what = format!(
                    "{} has no `mac`, which the router gives it its address by",
                    board.name
                );
                self.hinted(&at, what, "add it, or write `addressing: static` under `network`");
            }
        }
    }

    pub(super) fn pod_networks(&mut self) {
        let network = &self.cluster.network;
        let at = Path::default().key("network");
        let mut seen: Vec<(&str, IpNet)> = network
            .subnet
            .map(|subnet| ("the boards' network", subnet.trunc()))
            .into_iter()
            .collect();
        let default = |text: &str| text.parse::<IpNet>().expect("a network");
        let both = [
            ("pods", network.pods, DEFAULT_PODS, LONGEST_PODS_PREFIX),
            ("services", network.services, DEFAULT_SERVICES, LONGEST_SERVICES_PREFIX),
        ];
        for (key, net, usual, longest) in both {
            let (at, net) = (at.key(key), net.unwrap_or_else(|| default(usual)));
            let wanted = format!("an IPv4 network of {SHORTEST_PREFIX} to {longest} bits");
            let bits = SHORTEST_PREFIX..=longest;
            if net != net.trunc() {
                let what = format!("`{at}` is {net}, and {wanted} is needed");
                self.hinted(&at, what, format!("did you mean `{}`?", net.trunc()));
            } else if !matches!(net, IpNet::V4(_)) || !bits.contains(&net.prefix_len()) {
                self.note(&at, format!("`{at}` is {net}, and {wanted} is needed"));
            }
            if let Some((other, with)) = seen.iter().find(|(_, other)| overlap(*other, net)) {
                let what = format!("the {key}' addresses {net} overlap with {other} {with}");
                let hint = format!("write `{key}: ` with another network under `network`");
                self.hinted(&at, what, hint);
            }
            if network.subnet.is_none() {
                self.outside(net, key);
            }
            seen.push(("the pods' addresses", net.trunc()));
        }
    }

    /// Notes the first address of the boards' that is among those of pods or services; where their
    /// network is known, all of it was compared.
    fn outside(&mut self, net: IpNet, key: &str) {
        let boards = self.cluster.boards.iter().enumerate().map(|(position, board)| {
            (Path::default().key("boards").item(position).key("address"), board.address)
        });
        let vip = self.cluster.network.vip;
        let vip = vip.map(|vip| (Path::default().key("network").key("vip"), vip));
        if let Some((at, address)) = boards.chain(vip).find(|(_, address)| net.contains(address)) {
            let what = format!("{address} is one of the {key}' addresses {net}");
            let hint = format!("write `{key}: ` with another network under `network`");
            self.hinted(&at, what, hint);
        }
    }
}

/// Whether hosts are reached at it from elsewhere.
pub(super) fn is_hosts(address: IpAddr) -> bool {
    let other = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let own = match address {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        // One of these means nothing without an interface.
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    own && !other
}

/// Whether two networks have an address in common.
fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}
