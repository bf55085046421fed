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
/// Port of the API, where the router is a server too.
const API_PORT: u16 = 6443;
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
        File::new(RULES, rules(router, ssh_port(cluster, board)), After::Router),
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

/// The port that the board is set up through.
fn ssh_port(cluster: &Cluster, board: &Board) -> u16 {
    cluster.ssh(board).port.unwrap_or(22)
}

/// Packets out are translated. Those of the world reach the ingress, and of the board itself only what
/// it is managed by: the network that the stack was carried to may be anybody's.
pub fn rules(router: &Router, ssh_port: u16) -> String {
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
         \tchain input {{\n\
         \t\ttype filter hook input priority filter; policy accept;\n\
         \t\tiifname != \"{uplink}\" accept\n\
         \t\tct state established,related accept\n\
         \t\tct status dnat accept\n\
         \t\tmeta l4proto {{ icmp, ipv6-icmp }} accept\n\
         \t\tudp dport {{ 68, 546 }} accept\n\
         \t\ttcp dport {{ {ssh_port}, {API_PORT} }} accept\n\
         \t\tdrop\n\
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

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: &str = r#"{"name": "home", "boards": [
        {"name": "gate", "address": "10.0.0.1", "roles": ["router"]},
        {"name": "a", "address": "10.0.0.2", "mac": "02:00:00:00:00:0a", "roles": ["server"]},
        {"name": "b", "address": "10.0.0.3"}],
        "network": {"subnet": "10.0.0.0/24", "vip": "10.0.0.9", "dns": ["9.9.9.9"],
            "router": {"uplink": "wlan0", "inside": "eth0", "ingress": "10.0.0.9"}}}"#;

    fn files_of(text: &str) -> Vec<File> {
        let cluster: Cluster = serde_json::from_str(text).expect("a cluster");
        files(&cluster, &cluster.boards[0])
    }

    #[test]
    fn addresses_are_reserved_and_names_are_known() {
        let files = files_of(STACK);
        let text = &files.iter().find(|file| file.path == DNSMASQ).expect("there").content;
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>().join("\n"),
            "interface=eth0\nexcept-interface=wlan0\nbind-dynamic\ndomain-needed\nbogus-priv\n\
             cache-size=1000\ndomain=home.arpa\nlocal=/home.arpa/\nexpand-hosts\ndhcp-authoritative\n\
             server=9.9.9.9\nno-resolv\ndhcp-range=10.0.0.0,static,12h\n\
             dhcp-option=option:router,10.0.0.1\ndhcp-option=option:dns-server,10.0.0.1\n\
             dhcp-host=02:00:00:00:00:0a,10.0.0.2,a\n\
             host-record=gate,gate.home.arpa,10.0.0.1\nhost-record=a,a.home.arpa,10.0.0.2\n\
             host-record=b,b.home.arpa,10.0.0.3\nhost-record=home,home.home.arpa,10.0.0.9"
        );
    }

    #[test]
    fn without_an_ingress_nothing_is_let_in() {
        let with = files_of(STACK);
        let rules = |files: &[File]| {
            files.iter().find(|file| file.path == RULES).expect("there").content.clone()
        };
        assert!(rules(&with).contains("tcp dport { 80, 443 } dnat ip to 10.0.0.9"));
        let without = rules(&files_of(&STACK.replace(", \"ingress\": \"10.0.0.9\"", "")));
        assert!(!without.contains("prerouting"), "{without}");
        assert!(without.contains("iifname \"wlan0\" oifname \"eth0\" drop"), "{without}");
        assert!(
            files_of(r#"{"name": "x", "boards": [{"name": "a", "address": "10.0.0.1"}]}"#)
                .is_empty()
        );
    }
}
