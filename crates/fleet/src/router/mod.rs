//! A router board: DHCP with reservations, names and a way out for the cluster's own network, as the
//! text of dnsmasq's configuration and of nftables' rules.
//!
//! The rules stand in one table of ours that one transaction replaces, and a service of its own puts
//! them and the inner address in place; `/etc/nftables.conf` and the distribution's network
//! configuration stay the owner's.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::board::{After, File};
use crate::config::{Board, Cluster, Router};

/// dnsmasq's configuration.
pub const DNSMASQ: &str = "/etc/dnsmasq.d/coracle.conf";
/// The rules.
pub const RULES: &str = "/etc/coracle-router.nft";
/// The service that puts rules and address in place.
pub const UNIT: &str = "/etc/systemd/system/coracle-router.service";
/// Name of the table.
const TABLE: &str = "coracle-router";
/// Ports that lead to the ingress.
const INGRESS_PORTS: &str = "80, 443";
/// Domain of the boards where none is named: RFC 8375's for homes.
const DOMAIN: &str = "home.arpa";
/// How long an address is lent.
const LEASE: &str = "12h";
/// How many names dnsmasq remembers.
const CACHE: usize = 1000;

/// The files of a router board; none where the cluster says nothing of a router.
pub fn files(cluster: &Cluster, board: &Board) -> Vec<File> {
    let Some(router) = &cluster.network.router else { return Vec::new() };
    vec![
        File::new(RULES, rules(router), After::Router),
        File::new(UNIT, unit(cluster, board, router), After::Router),
        File::new(DNSMASQ, dnsmasq(cluster, board, router), After::Dnsmasq),
    ]
}

/// Addresses for boards by their hardware address, for others from the range, names for all.
pub fn dnsmasq(cluster: &Cluster, board: &Board, router: &Router) -> String {
    let domain = router.domain.as_deref().unwrap_or(DOMAIN);
    let mut text = String::from("# Written by `coracle up`: change cluster.yaml instead.\n");
    let mut say = |line: std::fmt::Arguments| {
        let _ = writeln!(text, "{line}");
    };
    say(format_args!("interface={}", router.inside));
    say(format_args!("except-interface={}", router.uplink));
    // Coracle's own DNS has its address on this board too.
    say(format_args!("bind-dynamic"));
    say(format_args!("domain-needed"));
    say(format_args!("bogus-priv"));
    say(format_args!("cache-size={CACHE}"));
    say(format_args!("domain={domain}"));
    say(format_args!("local=/{domain}/"));
    say(format_args!("expand-hosts"));
    say(format_args!("dhcp-authoritative"));
    for server in &cluster.network.dns {
        say(format_args!("server={server}"));
    }
    if !cluster.network.dns.is_empty() {
        say(format_args!("no-resolv"));
    }
    match (router.dynamic, cluster.network.subnet) {
        (Some((first, last)), _) => say(format_args!("dhcp-range={first},{last},{LEASE}")),
        // Those with a reservation, and nobody else.
        (None, Some(subnet)) => say(format_args!("dhcp-range={},static,{LEASE}", subnet.network())),
        (None, None) => {}
    }
    say(format_args!("dhcp-option=option:router,{}", board.address));
    say(format_args!("dhcp-option=option:dns-server,{}", board.address));
    for other in cluster.boards.iter().filter(|other| other.name != board.name) {
        if let Some(mac) = &other.mac {
            say(format_args!("dhcp-host={mac},{},{}", other.address, other.name));
        }
    }
    for other in &cluster.boards {
        say(format_args!("host-record={0},{0}.{domain},{1}", other.name, other.address));
    }
    if let Some(vip) = cluster.network.vip {
        say(format_args!("host-record={0},{0}.{domain},{vip}", cluster.name));
    }
    text
}

/// Packets out are translated, and those of the world reach the ingress and nothing else.
pub fn rules(router: &Router) -> String {
    let Router { uplink, inside, ingress, .. } = router;
    let (mut lead, mut let_in) = (String::new(), String::new());
    if let Some(ingress) = ingress {
        let (family, to) = match ingress {
            IpAddr::V4(_) => ("ip", ingress.to_string()),
            IpAddr::V6(_) => ("ip6", format!("[{ingress}]")),
        };
        lead = format!(
            "\tchain prerouting {{\n\
             \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
             \t\tiifname \"{uplink}\" fib daddr type local tcp dport {{ {INGRESS_PORTS} }} dnat {family} to {to}\n\
             \t}}\n"
        );
        let_in = format!("\t\tiifname \"{uplink}\" ct status dnat accept\n");
    }
    format!(
        "# Written by `coracle up`: change cluster.yaml instead.\n\
         table inet {TABLE}\n\
         delete table inet {TABLE}\n\
         table inet {TABLE} {{\n\
         {lead}\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\toifname \"{uplink}\" masquerade\n\
         \t}}\n\
         \tchain forward {{\n\
         \t\ttype filter hook forward priority filter; policy accept;\n\
         \t\tct state established,related accept\n\
         {let_in}\
         \t\tiifname \"{uplink}\" oifname \"{inside}\" drop\n\
         \t}}\n\
         }}\n"
    )
}

/// The service. The inner address is set here too, whatever configures the distribution's network.
fn unit(cluster: &Cluster, board: &Board, router: &Router) -> String {
    let inside = &router.inside;
    let bits = cluster.network.subnet.map_or(24, |subnet: IpNet| subnet.prefix_len());
    format!(
        "[Unit]\n\
         Description=The way out of the cluster's network\n\
         Wants=network-pre.target\n\
         After=network.target\n\
         Before=dnsmasq.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=-/sbin/ip link set {inside} up\n\
         ExecStart=-/sbin/ip address replace {}/{bits} dev {inside}\n\
         ExecStart=/usr/sbin/nft -f {RULES}\n\
         ExecStart=/sbin/sysctl -q -w net.ipv4.ip_forward=1\n\
         ExecStop=/usr/sbin/nft delete table inet {TABLE}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        board.address
    )
}
