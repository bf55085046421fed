//! Pods on three boards: two on one segment, the third behind a router that knows no pod.
//!
//! ```text
//!  a 192.0.2.1 --+                              +-- c 198.51.100.3
//!                +-- 192.0.2.254 router ... .254 +
//!  b 192.0.2.2 --+
//! ```

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use net::{Backend, Peer, PodNetwork, PodNetworkConfig, ProxyConfig, ServiceModel, ServiceProxy};
use net::{Endpoint, EndpointState, Protocol, Service, ServicePort, TrafficPolicy};
use nlink::netlink::link::{BridgeLink, VethLink};
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{Connection, Route, sysctl};

use crate::lab::Netns;

/// How long something may take that is meant to come.
const PATIENCE: Duration = Duration::from_secs(5);

struct Board {
    node: Netns,
    pod: Netns,
    ip: Ipv4Addr,
    block: &'static str,
    state: tempfile::TempDir,
}

impl Board {
    fn config(&self, backend: Backend) -> PodNetworkConfig {
        PodNetworkConfig {
            pod_cidrs: vec![self.block.parse().unwrap()],
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
            state_dir: self.state.path().to_owned(),
            node_ips: vec![self.ip.into()],
            backend,
            ..PodNetworkConfig::default()
        }
    }

    fn peer(&self) -> Peer {
        Peer {
            node: self.ip.to_string(),
            pod_cidrs: vec![self.block.parse().unwrap()],
            node_ips: vec![self.ip.into()],
            tunnel: false,
        }
    }

    fn pod_ip(&self) -> String {
        self.block.replace(".0/24", ".2")
    }

    /// The routes to other boards' pods, as `block gateway device`.
    fn routes(&self) -> Vec<String> {
        self.node.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            let mut out = Vec::new();
            for route in netlink.get_routes().await.unwrap() {
                let to = route.destination().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
                let (Some(via), true) = (route.gateway(), to.to_string().starts_with("10.42."))
                else {
                    continue;
                };
                let link = netlink.get_link_by_index(route.oif().unwrap()).await.unwrap().unwrap();
                out.push(format!("{to}/{} {via} {}", route.dst_len(), link.name().unwrap()));
            }
            out.sort();
            out
        })
    }
}

struct Stage {
    boards: [Board; 3],
    router: Netns,
}

impl Stage {
    fn new() -> Self {
        let router = Netns::new("router");
        let board = |name: &str, ip: [u8; 4], block| Board {
            node: Netns::new(name),
            pod: Netns::new(&format!("pod-{name}")),
            ip: ip.into(),
            block,
            state: tempfile::tempdir().unwrap(),
        };
        let boards = [
            board("a", [192, 0, 2, 1], "10.42.1.0/24"),
            board("b", [192, 0, 2, 2], "10.42.2.0/24"),
            board("c", [198, 51, 100, 3], "10.42.3.0/24"),
        ];
        let ends: Vec<File> =
            boards.iter().map(|board| File::open(board.node.path()).unwrap()).collect();
        router.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            netlink.add_link(BridgeLink::new("switch")).await.unwrap();
            for (index, end) in ends.iter().enumerate() {
                let port = format!("port{index}");
                let cable = VethLink::new(&port, "eth0").peer_netns_fd(end);
                netlink.add_link(cable).await.unwrap();
                if index < 2 {
                    netlink.set_link_master(port.as_str(), "switch").await.unwrap();
                }
                netlink.set_link_up(port.as_str()).await.unwrap();
            }
            let address = |ip: [u8; 4]| IpAddr::from(ip);
            netlink.add_address_by_name("switch", address([192, 0, 2, 254]), 24).await.unwrap();
            netlink.set_link_up("switch").await.unwrap();
            netlink.add_address_by_name("port2", address([198, 51, 100, 254]), 24).await.unwrap();
            sysctl::set("net/ipv4/ip_forward", "1").unwrap();
        });
        for board in &boards {
            let [a, b, c, _] = board.ip.octets();
            board.node.block_on(async || {
                let netlink = Connection::<Route>::new().unwrap();
                netlink.set_link_up("lo").await.unwrap();
                netlink.add_address_by_name("eth0", board.ip.into(), 24).await.unwrap();
                netlink.set_link_up("eth0").await.unwrap();
                // The strictest filter that a distribution sets.
                sysctl::set("net/ipv4/conf/all/rp_filter", "1").unwrap();
                let route = Ipv4Route::default_route().gateway(Ipv4Addr::new(a, b, c, 254));
                netlink.add_route(route).await.unwrap();
            });
        }
        Self { boards, router }
    }

    /// Every board has its pod and knows the others.
    fn join(&self, backend: Backend) {
        let peers: Vec<Peer> = self.boards.iter().map(Board::peer).collect();
        for board in &self.boards {
            board.node.block_on(async || {
                let network = PodNetwork::open(board.config(backend)).await.unwrap();
                network.set_peers(&peers).await.unwrap();
                network.attach("pod", &board.pod.path()).await.unwrap();
                // A repetition finds nothing to do.
                network.set_peers(&peers).await.unwrap();
            });
        }
    }

    /// A client outside the cluster, on a third port of the router.
    fn plug_in_client(&self, client: &Netns) {
        let end = File::open(client.path()).unwrap();
        self.router.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            let cable = VethLink::new("outside", "eth0").peer_netns_fd(&end);
            netlink.add_link(cable).await.unwrap();
            let ip: IpAddr = [203, 0, 113, 254].into();
            netlink.add_address_by_name("outside", ip, 24).await.unwrap();
            netlink.set_link_up("outside").await.unwrap();
        });
        client.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            let ip: IpAddr = [203, 0, 113, 9].into();
            netlink.add_address_by_name("eth0", ip, 24).await.unwrap();
            netlink.set_link_up("eth0").await.unwrap();
            let route = Ipv4Route::default_route().gateway(Ipv4Addr::new(203, 0, 113, 254));
            netlink.add_route(route).await.unwrap();
        });
    }

    fn everybody_reaches_everybody(&self) {
        for (index, board) in self.boards.iter().enumerate() {
            let name = ["a", "b", "c"][index];
            board.pod.serve_tcp(name, "0.0.0.0:80");
        }
        for from in &self.boards {
            for (index, to) in self.boards.iter().enumerate() {
                let name = ["a", "b", "c"][index];
                let address = format!("{}:80", to.pod_ip());
                let seen = format!("{name} {}", from.pod_ip());
                assert_eq!(from.pod.fetch(&address), Ok(seen), "{} to {name}", from.ip);
                let answer = from.node.fetch(&address).unwrap();
                assert!(answer.starts_with(name), "{answer}");
            }
        }
    }
}

#[test]
fn near_boards_by_plain_routes_and_far_ones_by_vxlan() {
    let stage = Stage::new();
    stage.join(Backend::Auto);
    let [a, b, c] = &stage.boards;
    assert_eq!(a.routes(), ["10.42.2.0/24 192.0.2.2 eth0", "10.42.3.0/24 10.42.3.1 coracle-vxlan"]);
    assert_eq!(b.routes(), ["10.42.1.0/24 192.0.2.1 eth0", "10.42.3.0/24 10.42.3.1 coracle-vxlan"]);
    assert_eq!(
        c.routes(),
        ["10.42.1.0/24 10.42.1.1 coracle-vxlan", "10.42.2.0/24 10.42.2.1 coracle-vxlan"]
    );
    stage.everybody_reaches_everybody();
}

#[test]
fn vxlan_to_all_where_it_was_asked_for() {
    let stage = Stage::new();
    stage.join(Backend::Vxlan);
    assert!(stage.boards[0].routes().iter().all(|route| route.ends_with("coracle-vxlan")));
    stage.everybody_reaches_everybody();
    let attachment = stage.boards[0].node.block_on(async || {
        let network = PodNetwork::open(stage.boards[0].config(Backend::Vxlan)).await.unwrap();
        network.attachment("pod").unwrap()
    });
    assert_eq!(attachment.mtu, 1450);
}

#[test]
fn large_packets_pass_the_tunnel_also_from_pods_that_were_there_before() {
    let stage = Stage::new();
    let peers: Vec<Peer> = stage.boards.iter().map(Board::peer).collect();
    for board in &stage.boards {
        board.node.block_on(async || {
            let network = PodNetwork::open(board.config(Backend::Auto)).await.unwrap();
            // Alone in the cluster, the pod has the whole MTU of the link.
            assert_eq!(network.attach("pod", &board.pod.path()).await.unwrap().mtu, 1500);
            network.set_peers(&peers).await.unwrap();
        });
    }
    let [a, _, c] = &stage.boards;
    let sent: Vec<u8> = (0..2_000_000u32).map(|n| n.to_be_bytes()[3]).collect();
    c.pod.serve_bytes(&sent, "0.0.0.0:81");
    assert!(a.pod.fetch_bytes(&format!("{}:81", c.pod_ip())).unwrap() == sent);
}

#[test]
fn a_board_that_is_gone_is_forgotten_and_one_that_moves_is_followed() {
    let stage = Stage::new();
    stage.join(Backend::Auto);
    let [a, b, c] = &stage.boards;
    a.node.block_on(async || {
        let network = PodNetwork::open(a.config(Backend::Auto)).await.unwrap();
        // b goes; c gets an address on our segment.
        let moved = Peer { node_ips: vec!["192.0.2.3".parse().unwrap()], ..c.peer() };
        network.set_peers(&[a.peer(), moved]).await.unwrap();
        let netlink = Connection::<Route>::new().unwrap();
        assert!(netlink.get_link_by_name("coracle-vxlan").await.unwrap().is_none());
    });
    assert_eq!(a.routes(), ["10.42.3.0/24 192.0.2.3 eth0"]);
    a.node.block_on(async || {
        let network = PodNetwork::open(a.config(Backend::Auto)).await.unwrap();
        network.set_peers(&[b.peer(), c.peer()]).await.unwrap();
    });
    stage.everybody_reaches_everybody();
    a.node.block_on(async || {
        PodNetwork::purge(a.config(Backend::Auto)).await.unwrap();
        let netlink = Connection::<Route>::new().unwrap();
        let links = netlink.get_links().await.unwrap();
        let mut names: Vec<&str> = links.iter().filter_map(|link| link.name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["eth0", "lo"]);
    });
    assert!(a.routes().is_empty());
}

#[test]
fn routes_come_back_after_a_link_has_been_down() {
    let stage = Stage::new();
    stage.join(Backend::Auto);
    let [a, b, c] = &stage.boards;
    let before = a.routes();
    a.node.block_on(async || {
        let network = PodNetwork::open(a.config(Backend::Auto)).await.unwrap();
        let peers = [b.peer(), c.peer()];
        let mut news = network.disturbances().await.unwrap();
        let netlink = Connection::<Route>::new().unwrap();
        netlink.set_link_down("eth0").await.unwrap();
        netlink.set_link_up("eth0").await.unwrap();
        let gateway = Ipv4Route::default_route().gateway("192.0.2.254".parse().unwrap());
        netlink.add_route(gateway).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while network.set_peers(&peers).await.is_err() || a.routes() != before {
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::timeout(left, news.next()).await.expect("no news in time").unwrap();
        }
    });
    stage.everybody_reaches_everybody();
}

#[test]
fn a_service_answers_the_same_on_every_board() {
    let stage = Stage::new();
    stage.join(Backend::Auto);
    let [a, b, c] = &stage.boards;
    c.pod.serve_tcp("c", "0.0.0.0:80");
    let client = Netns::new("client");
    stage.plug_in_client(&client);
    for board in [a, b, c] {
        let endpoint = Endpoint {
            address: format!("{}:80", c.pod_ip()).parse().unwrap(),
            local: std::ptr::eq(board, c),
            state: EndpointState::Ready,
        };
        let port = |node_port| ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(node_port),
            endpoints: vec![endpoint.clone()],
        };
        let everywhere = Service {
            cluster_ips: vec!["10.43.0.7".parse().unwrap()],
            ports: vec![port(30080)],
            ..Service::new("ns", "everywhere")
        };
        let local = Service {
            cluster_ips: vec!["10.43.0.8".parse().unwrap()],
            ports: vec![port(30081)],
            external_policy: TrafficPolicy::Local,
            internal_policy: TrafficPolicy::Local,
            ..Service::new("ns", "local")
        };
        board.node.block_on(async || {
            let config = ProxyConfig {
                cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
                ..ProxyConfig::default()
            };
            let mut proxy = ServiceProxy::open(config).await.unwrap();
            let services = vec![everywhere, local];
            proxy.apply(&ServiceModel { services, ..ServiceModel::default() }).await.unwrap();
        });
    }
    for board in [a, b, c] {
        // The pod's address is kept, but for a pod that reaches itself.
        let own = if std::ptr::eq(board, c) { "10.42.3.1".to_owned() } else { board.pod_ip() };
        assert_eq!(board.pod.fetch("10.43.0.7:80"), Ok(format!("c {own}")));
        let answer = board.node.fetch("10.43.0.7:80");
        assert!(answer.as_deref().is_ok_and(|text| text.starts_with("c ")), "{answer:?}");
        let answer = client.fetch(&format!("{}:30080", board.ip));
        assert!(answer.as_deref().is_ok_and(|text| text.starts_with("c ")), "{answer:?}");
    }
    // Policy Local: the client's own address, and silence where there is no pod.
    assert_eq!(client.fetch("198.51.100.3:30081").as_deref(), Ok("c 203.0.113.9"));
    assert!(client.fetch_silence("192.0.2.1:30081").is_err());
    assert_eq!(c.pod.fetch("10.43.0.8:80").as_deref(), Ok("c 10.42.3.1"));
    assert!(a.pod.fetch_silence("10.43.0.8:80").is_err());
}
