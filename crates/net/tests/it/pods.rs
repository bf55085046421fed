//! The pod network with a real kernel.

use std::collections::HashSet;

use net::{Backend, Peer, PodNetwork, PodNetworkConfig};
use nlink::netlink::nftables::{BaseChain, Chain, Family, FilterHook, Policy, Priority};
use nlink::netlink::{Connection, Nftables, Route};

use crate::lab::Lab;

#[test]
fn pods_reach_each_other_the_board_and_the_outside() {
    let lab = Lab::new();
    let attachments = lab.attach();
    let addresses: Vec<String> =
        attachments.iter().map(|attachment| attachment.addresses[0].to_string()).collect();
    assert_eq!(addresses, ["10.42.0.2", "10.42.0.3"]);
    assert_eq!(attachments[0].mac, [0x0a, 0x58, 10, 42, 0, 2]);
    lab.pods[1].serve_tcp("pod1", "0.0.0.0:80");
    lab.node.serve_tcp("node", "0.0.0.0:81");
    lab.client.serve_tcp("client", "0.0.0.0:82");

    assert_eq!(lab.pods[0].fetch("10.42.0.3:80").as_deref(), Ok("pod1 10.42.0.2"));
    assert_eq!(lab.node.fetch("10.42.0.3:80").as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.pods[1].fetch("127.0.0.1:80").as_deref(), Ok("pod1 127.0.0.1"));
    assert_eq!(lab.pods[0].fetch("10.42.0.1:81").as_deref(), Ok("node 10.42.0.2"));
    // The outside sees the board, not the pod.
    assert_eq!(lab.pods[0].fetch("192.0.2.2:82").as_deref(), Ok("client 192.0.2.1"));
}

#[test]
fn addresses_survive_restarts_and_repeats_change_nothing() {
    let lab = Lab::new();
    let first = lab.attach();
    lab.pods[1].serve_tcp("pod1", "0.0.0.0:80");
    assert!(lab.pods[0].fetch("10.42.0.3:80").is_ok());
    let index = |name: &str| {
        let name = name.to_owned();
        lab.node.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            netlink.get_link_by_name(name.as_str()).await.unwrap().map(|link| link.ifindex())
        })
    };
    let before = index(&first[0].host_interface);
    assert!(before.is_some());
    // A new process opens the same folder and attaches the same sandboxes.
    assert_eq!(lab.attach(), first);
    assert_eq!(index(&first[0].host_interface), before, "the pair must not be made again");
    assert!(lab.pods[0].fetch("10.42.0.3:80").is_ok());
}

#[test]
fn what_nobody_wants_goes() {
    let lab = Lab::new();
    let attachments = lab.attach();
    lab.pods[1].serve_tcp("pod1", "0.0.0.0:80");
    let config = lab.pod_config();
    let stranger = lab.client.path();
    lab.node.block_on(async || {
        let network = PodNetwork::open(config.clone()).await.unwrap();
        let live = HashSet::from(["sandbox-1".to_owned()]);
        assert_eq!(network.retain(&live).await.unwrap(), ["sandbox-0"]);
        assert_eq!(network.attachment("sandbox-0"), None);
        assert_eq!(network.attachment("sandbox-1").as_ref(), Some(&attachments[1]));
        network.detach("never seen").await.unwrap();
        // The freed address is not given again at once.
        let next = network.attach("sandbox-2", &lab.pods[0].path()).await.unwrap();
        assert_eq!(next.addresses[0].to_string(), "10.42.0.4");
        let gone = network.attach("sandbox-3", &stranger.join("missing")).await.unwrap_err();
        assert!(gone.to_string().contains("attaching to the pod network"), "{gone}");
    });
    assert_eq!(lab.pods[0].fetch("10.42.0.3:80").as_deref(), Ok("pod1 10.42.0.4"));
    lab.node.block_on(async || {
        PodNetwork::purge(config.clone()).await.unwrap();
        PodNetwork::purge(config.clone()).await.unwrap();
        let netlink = Connection::<Route>::new().unwrap();
        let links = netlink.get_links().await.unwrap();
        let mut names: Vec<&str> = links.iter().filter_map(|link| link.name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["lo", "uplink"]);
        let nftables = Connection::<Nftables>::new().unwrap();
        assert!(nftables.list_tables_in(Family::Ip).await.unwrap().is_empty());
    });
    assert_eq!(lab.state.path().read_dir().unwrap().count(), 0, "no file is left behind");
}

#[test]
fn routes_lead_to_other_boards() {
    let lab = Lab::new();
    let config =
        PodNetworkConfig { masquerade: false, backend: Backend::HostGw, ..lab.pod_config() };
    let peer = |node: &str, block: &str, ip: &str| Peer {
        node: node.to_owned(),
        pod_cidrs: vec![block.parse().unwrap()],
        node_ips: vec![ip.parse().unwrap()],
        tunnel: false,
    };
    lab.node.block_on(async || {
        let network = PodNetwork::open(config).await.unwrap();
        let routes = async || {
            let netlink = Connection::<Route>::new().unwrap();
            let routes = netlink.get_routes().await.unwrap();
            let mut routes: Vec<String> = routes
                .iter()
                .filter(|route| route.is_ipv4() && !route.is_default() && route.has_gateway())
                .map(|r| {
                    format!("{}/{} {}", r.destination().unwrap(), r.dst_len(), r.gateway().unwrap())
                })
                .collect();
            routes.sort();
            routes
        };
        let (b, c) =
            (peer("b", "10.42.1.0/24", "192.0.2.2"), peer("c", "10.42.2.0/24", "192.0.2.3"));
        let itself = peer("a", "10.42.0.0/24", "192.0.2.1");
        network.set_peers(&[itself, b.clone(), c]).await.unwrap();
        assert_eq!(routes().await, ["10.42.1.0/24 192.0.2.2", "10.42.2.0/24 192.0.2.3"]);
        // One moves, one goes, one is out of reach: the rest is done all the same.
        let moved = peer("b", "10.42.1.0/24", "192.0.2.9");
        let far = peer("far", "10.42.3.0/24", "203.0.113.1");
        let error = network.set_peers(&[moved, far]).await.unwrap_err();
        assert_eq!(error.to_string(), "routing 10.42.3.0/24 of far by 203.0.113.1");
        assert_eq!(routes().await, ["10.42.1.0/24 192.0.2.9"]);
        network.set_peers(&[]).await.unwrap();
        assert!(routes().await.is_empty());
    });
}

#[test]
fn a_firewall_that_closes_the_way_is_named() {
    let lab = Lab::new();
    let config = lab.pod_config();
    lab.node.block_on(async || {
        let network = PodNetwork::open(config).await.unwrap();
        assert!(network.closed_forwards().await.unwrap().is_empty());
        let nftables = Connection::<Nftables>::new().unwrap();
        nftables.add_table("filter", Family::Ip).await.unwrap();
        let base = BaseChain::filter(FilterHook::Forward, Priority::Filter).policy(Policy::Drop);
        let chain = Chain::new("filter", "FORWARD").unwrap().family(Family::Ip).base(base);
        nftables.add_chain(chain).await.unwrap();
        assert_eq!(network.closed_forwards().await.unwrap(), ["ip filter FORWARD"]);
    });
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let lab = Lab::new();
    for (change, message) in [
        (
            (|config: &mut PodNetworkConfig| config.bridge = "much-too-long-name".to_owned())
                as fn(&mut PodNetworkConfig),
            "must have 1 to 15 bytes",
        ),
        (|config| config.veth_prefix = "coracle".to_owned(), "at most 4 bytes"),
        (|config| config.pod_cidrs.clear(), "exactly one IPv4 block"),
        (|config| config.pod_cidrs = vec!["10.42.0.0/31".parse().unwrap()], "too small"),
    ] {
        let mut config = lab.pod_config();
        change(&mut config);
        let error = lab.node.block_on(async || PodNetwork::open(config).await.unwrap_err());
        assert!(error.to_string().contains(message), "{error}");
    }
}
