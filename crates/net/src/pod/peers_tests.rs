use super::*;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn config(backend: Backend) -> PodNetworkConfig {
    PodNetworkConfig {
        pod_cidrs: vec![cidr("10.42.3.0/24")],
        node_ips: vec!["192.0.2.1".parse().unwrap()],
        backend,
        ..PodNetworkConfig::default()
    }
}

fn peer(node: &str, block: &str, ip: &str) -> Peer {
    let node_ips = vec![ip.parse().unwrap()];
    Peer { node: node.to_owned(), pod_cidrs: vec![cidr(block)], node_ips, tunnel: false }
}

/// A home network of one segment, a default route, and a WireGuard link.
fn ground() -> Vec<Ground> {
    let route = |to: &str, segment, metric| Ground { destination: cidr(to), segment, metric };
    vec![
        route("0.0.0.0/0", false, 100),
        route("192.0.2.0/24", true, 0),
        route("192.0.2.128/25", false, 0),
        route("198.51.100.0/24", false, 0),
        route("203.0.113.0/24", true, 600),
        route("203.0.113.0/24", false, 100),
    ]
}

fn told(reach: &Reach) -> Vec<String> {
    let routes = reach.routes.values().map(|(route, node)| {
        let device = route.device.as_deref().map_or(String::new(), |name| format!(" dev {name}"));
        format!("{node}: {} via {}{device}", route.destination, route.via)
    });
    let neighbours = reach.tunnel.iter().flat_map(|tunnel| &tunnel.neighbours).map(|neighbour| {
        format!("{} is {:x?} at {}", neighbour.gateway, neighbour.mac, neighbour.remote)
    });
    routes.chain(neighbours).chain(reach.unreachable.iter().cloned()).collect()
}

#[test]
fn the_way_is_chosen_for_each_peer() {
    let peers = [
        peer("near", "10.42.4.0/24", "192.0.2.2"),
        peer("behind-a-router", "10.42.5.0/24", "192.0.2.130"),
        peer("on-wireguard", "10.42.6.0/24", "198.51.100.9"),
        peer("by-the-better-route", "10.42.7.0/24", "203.0.113.4"),
    ];
    let reach = reach(&config(Backend::Auto), 1500, &peers, &ground());
    assert_eq!(
        told(&reach),
        [
            "near: 10.42.4.0/24 via 192.0.2.2",
            "behind-a-router: 10.42.5.0/24 via 10.42.5.1 dev coracle-vxlan",
            "on-wireguard: 10.42.6.0/24 via 10.42.6.1 dev coracle-vxlan",
            "by-the-better-route: 10.42.7.0/24 via 10.42.7.1 dev coracle-vxlan",
            "10.42.5.1 is [e, 58, a, 2a, 5, 0] at 192.0.2.130",
            "10.42.6.1 is [e, 58, a, 2a, 6, 0] at 198.51.100.9",
            "10.42.7.1 is [e, 58, a, 2a, 7, 0] at 203.0.113.4",
        ]
    );
    let tunnel = reach.tunnel.unwrap();
    assert_eq!((tunnel.mtu, tunnel.vni, tunnel.port), (1450, 1, 8472));
    assert_eq!(
        (tunnel.mac, tunnel.local.to_string()),
        ([0xe, 0x58, 10, 42, 3, 0], "192.0.2.1".into())
    );
    assert_eq!(tunnel.addresses, [("10.42.3.1".parse().unwrap(), 32)]);
}

#[test]
fn a_backend_that_was_asked_for_is_used_for_all() {
    let peers =
        [peer("near", "10.42.4.0/24", "192.0.2.2"), peer("far", "10.42.5.0/24", "203.0.113.4")];
    assert_eq!(
        told(&reach(&config(Backend::HostGw), 1500, &peers, &ground())),
        ["near: 10.42.4.0/24 via 192.0.2.2", "far: 10.42.5.0/24 via 203.0.113.4"]
    );
    let reach = reach(&config(Backend::Vxlan), 1500, &peers, &ground());
    assert!(reach.routes.values().all(|(route, _)| route.device.is_some()));
}

#[test]
fn who_asks_for_the_tunnel_gets_it() {
    let near = Peer { tunnel: true, ..peer("near", "10.42.4.0/24", "192.0.2.2") };
    for backend in [Backend::Auto, Backend::HostGw, Backend::Vxlan] {
        let reach = reach(&config(backend), 1500, std::slice::from_ref(&near), &ground());
        assert!(reach.tunnel.is_some(), "{backend}");
    }
}

#[test]
fn of_several_addresses_the_near_one_is_taken() {
    let mut two = peer("b", "10.42.4.0/24", "203.0.113.4");
    two.node_ips.push("192.0.2.9".parse().unwrap());
    assert_eq!(
        told(&reach(&config(Backend::Auto), 1500, &[two], &ground())),
        ["b: 10.42.4.0/24 via 192.0.2.9"]
    );
}

#[test]
fn nobody_takes_our_own_block_nor_each_others() {
    for (block, routed) in [
        ("10.42.4.0/24", true),
        ("10.42.3.0/24", false),
        ("10.42.0.0/16", false),
        ("10.42.3.128/25", false),
    ] {
        let peers = [peer("b", block, "192.0.2.2")];
        let reach = reach(&config(Backend::Auto), 1500, &peers, &ground());
        assert_eq!(!reach.routes.is_empty(), routed, "{block}");
    }
    let twice = [peer("b", "10.42.4.0/24", "192.0.2.2"), peer("c", "10.42.4.0/24", "192.0.2.3")];
    assert_eq!(
        told(&reach(&config(Backend::Auto), 1500, &twice, &ground())),
        ["b: 10.42.4.0/24 via 192.0.2.2", "c claims 10.42.4.0/24 of b"]
    );
}

#[test]
fn what_cannot_be_reached_is_named() {
    let six = peer("six", "10.42.4.0/24", "fd00::2");
    assert_eq!(
        told(&reach(&config(Backend::Auto), 1500, std::slice::from_ref(&six), &ground())),
        ["six has no address that 192.0.2.1 can send to"]
    );
    assert_eq!(
        told(&reach(&config(Backend::HostGw), 1500, &[six], &ground())),
        ["six has no address of the family of 10.42.4.0/24"]
    );
    let nowhere = PodNetworkConfig { node_ips: Vec::new(), ..config(Backend::Auto) };
    assert_eq!(
        told(&reach(&nowhere, 1500, &[peer("far", "10.42.4.0/24", "203.0.113.4")], &ground())),
        ["far needs a tunnel, and this board has no address for it"]
    );
}

#[test]
fn ipv6_pods_pass_an_ipv4_tunnel() {
    let config = PodNetworkConfig {
        pod_cidrs: vec![cidr("10.42.3.0/24"), cidr("fd00:42:0:3::/64")],
        ..config(Backend::Auto)
    };
    let mut far = peer("far", "10.42.5.0/24", "203.0.113.4");
    far.pod_cidrs.push(cidr("fd00:42:0:5::/64"));
    assert_eq!(
        told(&reach(&config, 1500, &[far], &ground())),
        [
            "far: 10.42.5.0/24 via 10.42.5.1 dev coracle-vxlan",
            "far: fd00:42:0:5::/64 via fd00:42:0:5::1 dev coracle-vxlan",
            "10.42.5.1 is [e, 58, a, 2a, 5, 0] at 203.0.113.4",
            "fd00:42:0:5::1 is [e, 58, a, 2a, 5, 0] at 203.0.113.4",
        ]
    );
}

#[test]
fn a_board_draws_no_traffic_to_it_that_is_not_for_pods() {
    let config =
        PodNetworkConfig { cluster_cidrs: vec![cidr("10.42.0.0/16")], ..config(Backend::Auto) };
    let peers = [
        peer("good", "10.42.4.0/24", "192.0.2.2"),
        peer("greedy", "128.0.0.0/1", "192.0.2.3"),
        peer("wide", "10.0.0.0/9", "192.0.2.4"),
    ];
    assert_eq!(
        told(&reach(&config, 1500, &peers, &ground())),
        [
            "good: 10.42.4.0/24 via 192.0.2.2",
            "greedy claims 128.0.0.0/1, where the cluster has no pods",
        ]
    );
}
