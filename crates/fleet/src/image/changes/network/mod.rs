//! Addresses and Wi-Fi, in the words of whatever sets up the image's network.

mod ifupdown;
mod link;
mod netplan;
mod networkd;
mod stack;
mod wireless;

pub use self::link::{Ip, Link, Radio};

use self::stack::Stack;
use super::super::change::Change;
use super::super::error::ImageError;
use super::super::layout::Layout;
use super::{Draft, Given};
use crate::config::{Addressing, Board, Cluster, Settings};

/// A board's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    links: Vec<Link>,
}

impl Network {
    /// What a board is connected to, and with which address.
    pub fn of(
        cluster: &Cluster,
        board: &Board,
        settings: &Settings,
        given: &Given,
    ) -> Result<Self, ImageError> {
        let radio = settings.wifi.as_ref().map(|wifi| Radio {
            ssid: wifi.ssid.clone(),
            passphrase: given.passphrase.clone().unwrap_or_default(),
            country: wifi.country.clone(),
        });
        let router = cluster.network.router.as_ref().filter(|_| board.is_router());
        let is_static = router.is_some() || cluster.network.addressing == Addressing::Static;
        let own = match is_static {
            true => fixed(cluster, board, router.is_none())?,
            false => Ip::Dhcp,
        };
        let link = |name: Option<&String>, radio, ip, optional| Link {
            name: name.cloned(),
            radio,
            ip,
            optional,
        };
        let links = match (router, radio) {
            (Some(router), radio) => {
                let uplink = radio.filter(|_| router.uplink.starts_with("wl"));
                vec![
                    link(Some(&router.inside), None, own, false),
                    link(Some(&router.uplink), uplink, Ip::Dhcp, true),
                ]
            }
            (None, Some(radio)) => {
                vec![link(None, Some(radio), own, false), link(None, None, Ip::Dhcp, true)]
            }
            (None, None) => vec![link(None, None, own, false)],
        };
        Ok(Network { links })
    }

    /// Whether the image's tools need a name of the Ethernet port and nothing says which it will have.
    pub fn names_interfaces_by_kernel(&self, layout: &Layout) -> bool {
        let unnamed = self
            .links
            .iter()
            .any(|link| link.name.is_none() && link.radio.is_none() && link.ip != Ip::Dhcp);
        unnamed && Stack::of(layout) == Some(Stack::Ifupdown) && ifupdown::wired(layout).is_none()
    }

    /// The files.
    pub fn changes(&self, draft: &mut Draft<'_>) {
        self.addresses(draft);
        wireless::unblock(draft, &self.links);
        let stack = Stack::of(draft.layout());
        wireless::save_no_power(draft, stack == Some(Stack::NetworkManager));
    }

    /// The files that connections and their addresses stand in.
    fn addresses(&self, draft: &mut Draft<'_>) {
        match Stack::of(draft.layout()) {
            Some(Stack::NetworkManager) => wireless::network_manager(draft, &self.links),
            Some(Stack::Netplan) => netplan::changes(draft, &self.links),
            Some(Stack::Networkd) => networkd::changes(draft, &self.links),
            Some(Stack::Dhcpcd) => ifupdown::dhcpcd(draft, &self.links),
            Some(Stack::Ifupdown) => ifupdown::changes(draft, &self.links),
            None => draft.warn(
                "nothing that is known here sets up the image's network: the board's address is \
                 for you to see to",
            ),
        }
    }
}

/// What fixes the address of a wired port of a board that runs. Nothing where it is not known what sets
/// up its network, or where that stands in files that hold more than could be put back together.
pub fn fixing(device: &str, ip: &Ip, layout: &Layout) -> Vec<Change> {
    let netplan = layout.names("/etc/netplan").iter().filter(|name| name.ends_with(".yaml"));
    let netplan: Vec<String> = netplan.map(|name| format!("/etc/netplan/{name}")).collect();
    let has_radio = |file: &String| layout.text(file).is_some_and(|text| text.contains("wifis:"));
    let is_more = netplan.len() > 1 || netplan.iter().any(has_radio);
    match Stack::of(layout) {
        None => return Vec::new(),
        Some(Stack::Netplan) if is_more => return Vec::new(),
        Some(_) => {}
    }
    let name = Some(device.to_owned());
    let link = Link { name, radio: None, ip: ip.clone(), optional: false };
    let mut draft = Draft::new(layout);
    Network { links: vec![link] }.addresses(&mut draft);
    draft.finish().0
}

/// The files that have a board which runs connect to a Wi-Fi network, and the commands that take them up.
/// Nothing where what sets up the network keeps all of it in one file, or is not known.
pub fn connecting(
    device: &str,
    radio: &Radio,
    layout: &Layout,
    seconds: u32,
) -> Option<(Vec<Change>, String)> {
    let stack = Stack::of(layout)?;
    let take_up = match stack {
        Stack::NetworkManager => format!(
            "nmcli general reload\nnmcli radio wifi on\nnmcli connection reload\n\
             nmcli --wait {seconds} connection up coracle-{device} >/dev/null"
        ),
        Stack::Networkd => format!(
            "systemctl daemon-reload\nsystemctl restart wpa_supplicant@{device}.service\n\
             networkctl reload || systemctl restart systemd-networkd.service"
        ),
        Stack::Netplan | Stack::Dhcpcd | Stack::Ifupdown => return None,
    };
    let name = Some(device.to_owned());
    let link = Link { name, radio: Some(radio.clone()), ip: Ip::Dhcp, optional: true };
    let mut draft = Draft::new(layout);
    Network { links: vec![link] }.addresses(&mut draft);
    wireless::save_no_power(&mut draft, stack == Stack::NetworkManager);
    let take_up = format!("rfkill unblock wifi 2>/dev/null || :\n{take_up}");
    Some((draft.finish().0, take_up))
}

/// The files that [`connecting`] may write for an interface.
pub fn wireless_files(device: &str) -> Vec<String> {
    vec![
        wireless::POWER.to_owned(),
        format!("/etc/NetworkManager/system-connections/coracle-{device}.nmconnection"),
        format!("/etc/systemd/network/05-coracle-{device}.network"),
        format!("/etc/wpa_supplicant/wpa_supplicant-{device}.conf"),
    ]
}

/// The address that is set on a board.
pub fn fixed(cluster: &Cluster, board: &Board, with_gateway: bool) -> Result<Ip, ImageError> {
    let network = &cluster.network;
    let subnet = network.subnet.ok_or_else(|| {
        ImageError::refused(
            format!("the size of {}'s subnet is not known", board.name),
            "set network.subnet, such as 192.168.1.0/24",
        )
    })?;
    let gateway = network.gateway.filter(|_| with_gateway);
    let dns = match (network.dns.as_slice(), gateway) {
        ([], Some(gateway)) => vec![gateway],
        (named, _) => named.to_vec(),
    };
    Ok(Ip::Static { address: board.address, prefix: subnet.prefix_len(), gateway, dns })
}

#[cfg(test)]
mod tests;
