//! The service proxy with a real kernel.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use net::{
    Endpoint, EndpointState, HostPort, PodNetwork, PodNetworkConfig, Protocol, ProxyConfig,
    Service, ServiceModel, ServicePort, ServiceProxy, TrafficPolicy,
};
use nlink::netlink::nftables::Family;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{Connection, Nftables, Route};
use socket2::{Domain, Socket, Type};

use crate::lab::{Lab, exchange};

const CLUSTER_IP: &str = "10.43.0.80:80";
const NODE_PORT: &str = "192.0.2.1:30080";

fn config() -> ProxyConfig {
    ProxyConfig { cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()], ..ProxyConfig::default() }
}

fn endpoint(address: &str, local: bool) -> Endpoint {
    Endpoint { address: address.parse().unwrap(), local, state: EndpointState::Ready }
}

/// A service at 10.43.0.80, port 80 and node port 30080, served by these pods' port 8080.
fn service(protocol: Protocol, pods: &[u8]) -> Service {
    let endpoints = pods.iter().map(|pod| endpoint(&format!("10.42.0.{pod}:8080"), true)).collect();
    Service {
        cluster_ips: vec!["10.43.0.80".parse().unwrap()],
        ports: vec![ServicePort {
            name: "http".to_owned(),
            protocol,
            port: 80,
            node_port: Some(30080),
            endpoints,
        }],
        ..Service::new("default", "web")
    }
}

fn of(service: Service) -> ServiceModel {
    ServiceModel { services: vec![service], host_ports: Vec::new() }
}

/// A lab with both pods serving on 8080, and a proxy for it.
fn stage() -> (Lab, ServiceProxy) {
    let lab = Lab::new();
    lab.attach();
    for (pod, name) in lab.pods.iter().zip(["pod0", "pod1"]) {
        pod.serve_tcp(name, "0.0.0.0:8080");
        pod.serve_udp(name, "0.0.0.0:8080");
    }
    let proxy = lab.node.block_on(async || ServiceProxy::open(config()).await.unwrap());
    (lab, proxy)
}

fn apply(lab: &Lab, proxy: &mut ServiceProxy, model: &ServiceModel) {
    lab.node.block_on(async || proxy.apply(model).await).unwrap();
}

#[test]
fn a_half_closed_connection_is_remembered() {
    let (lab, _proxy) = stage();
    let path = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
    let seconds = lab.node.block_on(async || std::fs::read_to_string(path));
    assert_eq!(seconds.unwrap().trim(), "3600");
}

#[test]
fn a_service_is_reached_from_everywhere() {
    let (lab, mut proxy) = stage();
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[3])));
    // From another pod: translated, the source is the pod's own.
    assert_eq!(lab.pods[0].fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.2"));
    // From the pod that serves it: back to itself, by way of the board.
    assert_eq!(lab.pods[1].fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.1"));
    // From the board, and from outside by way of the board.
    assert_eq!(lab.node.fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.client.fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.1"));
    // The node port, on every address but loopback.
    assert_eq!(lab.client.fetch(NODE_PORT).as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.node.fetch(NODE_PORT).as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.pods[0].fetch(NODE_PORT).as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.pods[0].fetch("10.42.0.1:30080").as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.node.fetch("127.0.0.1:30080"), Err(ErrorKind::ConnectionRefused));
    // Another port of the same address is not a service.
    assert!(lab.pods[0].fetch_silence("10.43.0.80:81").is_err());
}

/// Without `br_netfilter` (Debian's default) bridged packets skip the firewall: an answer between
/// two pods of one bridge must pass the board all the same, or nobody translates it back.
#[test]
fn a_service_between_two_pods_needs_no_bridge_netfilter() {
    let (lab, mut proxy) = stage();
    lab.node.run(|| {
        // Absent where the module is not loaded, which is the case meant here.
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
    });
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[3])));
    for _ in 0..3 {
        assert_eq!(lab.pods[0].fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.2"));
        assert_eq!(lab.pods[1].fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.1"));
        assert_eq!(lab.pods[0].fetch("10.42.0.3:8080").as_deref(), Ok("pod1 10.42.0.2"));
    }
}

/// Boards on a switch without a router have no default route; the board's own programs still
/// reach services.
#[test]
fn a_board_without_a_default_route_reaches_services() {
    let lab = Lab::new();
    lab.node.block_on(async || {
        let netlink = Connection::<Route>::new().unwrap();
        let route = Ipv4Route::default_route().gateway("192.0.2.2".parse().unwrap());
        netlink.del_route(route).await.unwrap();
    });
    let config_with_services = PodNetworkConfig {
        service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
        ..lab.pod_config()
    };
    lab.node.block_on(async || PodNetwork::open(config_with_services).await.unwrap());
    lab.attach();
    lab.pods[1].serve_tcp("pod1", "0.0.0.0:8080");
    let mut proxy = lab.node.block_on(async || ServiceProxy::open(config()).await.unwrap());
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[3])));
    assert_eq!(lab.node.fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.pods[0].fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.2"));
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[])));
    assert_eq!(lab.node.fetch(CLUSTER_IP), Err(ErrorKind::ConnectionRefused));
    assert_eq!(lab.pods[0].fetch(CLUSTER_IP), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn connections_are_spread_and_endpoints_come_and_go() {
    let (lab, mut proxy) = stage();
    let who = |address: &str| -> BTreeSet<String> {
        let answers = (0..24).map(|_| lab.client.fetch(address).unwrap());
        answers.map(|answer| answer.split(' ').next().unwrap().to_owned()).collect()
    };
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[2, 3])));
    assert_eq!(who(NODE_PORT).len(), 2);
    assert_eq!(who(CLUSTER_IP).len(), 2);
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[2])));
    assert_eq!(who(NODE_PORT), BTreeSet::from(["pod0".to_owned()]));
    // Nobody: the client is told at once, wherever it is.
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[])));
    for (place, address) in [
        (&lab.client, NODE_PORT),
        (&lab.client, CLUSTER_IP),
        (&lab.pods[0], CLUSTER_IP),
        (&lab.node, CLUSTER_IP),
        (&lab.node, NODE_PORT),
    ] {
        assert_eq!(place.fetch(address), Err(ErrorKind::ConnectionRefused), "{address}");
    }
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[3])));
    assert_eq!(who(CLUSTER_IP), BTreeSet::from(["pod1".to_owned()]));
    apply(&lab, &mut proxy, &ServiceModel::default());
    assert_eq!(lab.client.fetch(NODE_PORT), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_client_with_affinity_keeps_its_endpoint() {
    let (lab, mut proxy) = stage();
    let sticky = |pods: &[u8]| {
        of(Service { affinity: Some(Duration::from_secs(60)), ..service(Protocol::Tcp, pods) })
    };
    apply(&lab, &mut proxy, &sticky(&[2, 3]));
    let answers: BTreeSet<String> = (0..16).map(|_| lab.client.fetch(NODE_PORT).unwrap()).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let first = answers.first().unwrap().clone();
    // Another change of the model does not make it forget.
    let mut more = sticky(&[2, 3]);
    more.services.push(Service { cluster_ips: Vec::new(), ..Service::new("default", "other") });
    more.services[0].ports[0].endpoints.push(endpoint("10.42.9.9:8080", false));
    apply(&lab, &mut proxy, &more);
    for _ in 0..8 {
        assert_eq!(lab.client.fetch(NODE_PORT).unwrap(), first);
    }
    // When its endpoint goes it gets another.
    let left = if first.starts_with("pod0") { 3 } else { 2 };
    apply(&lab, &mut proxy, &sticky(&[left]));
    assert_ne!(lab.client.fetch(NODE_PORT).unwrap(), first);
}

#[test]
fn local_policies_keep_traffic_on_the_board() {
    let (lab, mut proxy) = stage();
    let model = |external, internal, endpoints: Vec<Endpoint>| {
        let mut service = service(Protocol::Tcp, &[]);
        service.external_policy = external;
        service.internal_policy = internal;
        service.ports[0].endpoints = endpoints;
        of(service)
    };
    use TrafficPolicy::{Cluster, Local};
    // "Local" is what the model says: pod0 counts as elsewhere.
    let both = vec![endpoint("10.42.0.2:8080", false), endpoint("10.42.0.3:8080", true)];
    apply(&lab, &mut proxy, &model(Local, Cluster, both.clone()));
    for _ in 0..8 {
        // The client's own address is kept.
        assert_eq!(lab.client.fetch(NODE_PORT).as_deref(), Ok("pod1 192.0.2.2"));
    }
    // Nobody here: silence outside, so that a balancer tries another board, but the board's own
    // programs and pods still get through.
    let elsewhere = vec![endpoint("10.42.0.2:8080", false)];
    apply(&lab, &mut proxy, &model(Local, Local, elsewhere));
    assert_eq!(lab.client.fetch_silence(NODE_PORT), Err(ErrorKind::TimedOut));
    assert_eq!(lab.node.fetch(NODE_PORT).as_deref(), Ok("pod0 10.42.0.1"));
    assert_eq!(lab.pods[1].fetch(NODE_PORT).as_deref(), Ok("pod0 10.42.0.3"));
    assert_eq!(lab.pods[1].fetch_silence(CLUSTER_IP), Err(ErrorKind::TimedOut));
    apply(&lab, &mut proxy, &model(Cluster, Local, both));
    for _ in 0..8 {
        assert_eq!(lab.pods[0].fetch(CLUSTER_IP).as_deref(), Ok("pod1 10.42.0.2"));
    }
}

#[test]
fn udp_flows_follow_their_endpoints() {
    let (lab, mut proxy) = stage();
    apply(&lab, &mut proxy, &of(service(Protocol::Udp, &[2])));
    let inside = lab.pods[1].udp(CLUSTER_IP);
    let outside = lab.client.udp(NODE_PORT);
    assert_eq!(exchange(&inside).as_deref(), Ok("pod0"));
    assert_eq!(exchange(&outside).as_deref(), Ok("pod0"));
    // The same sockets, so the same flows, find the new endpoint.
    apply(&lab, &mut proxy, &of(service(Protocol::Udp, &[3])));
    assert_eq!(exchange(&inside).as_deref(), Ok("pod1"));
    assert_eq!(exchange(&outside).as_deref(), Ok("pod1"));
    // And the first one after there was none.
    apply(&lab, &mut proxy, &of(service(Protocol::Udp, &[])));
    assert_eq!(exchange(&inside), Err(ErrorKind::ConnectionRefused));
    apply(&lab, &mut proxy, &of(service(Protocol::Udp, &[2])));
    assert_eq!(exchange(&inside).as_deref(), Ok("pod0"));
}

#[test]
fn other_addresses_and_host_ports_lead_to_pods() {
    let (lab, mut proxy) = stage();
    let mut model = of(Service {
        // The client routes 10.43.0.0/16 to the board; any address of it does.
        external_ips: vec!["10.43.200.1".parse().unwrap()],
        load_balancer_ips: vec!["10.43.200.2".parse().unwrap()],
        load_balancer_source_ranges: vec!["192.0.2.0/30".parse().unwrap()],
        ..service(Protocol::Tcp, &[3])
    });
    let host_port = |host_ip: Option<&str>, host_port| HostPort {
        host_ip: host_ip.map(|ip| ip.parse::<IpAddr>().unwrap()),
        host_port,
        protocol: Protocol::Tcp,
        target: "10.42.0.2:8080".parse().unwrap(),
    };
    model.host_ports = vec![host_port(None, 8081), host_port(Some("192.0.2.1"), 8082)];
    apply(&lab, &mut proxy, &model);
    assert_eq!(lab.client.fetch("10.43.200.1:80").as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.client.fetch("10.43.200.2:80").as_deref(), Ok("pod1 10.42.0.1"));
    assert_eq!(lab.client.fetch("192.0.2.1:8081").as_deref(), Ok("pod0 192.0.2.2"));
    assert_eq!(lab.client.fetch("192.0.2.1:8082").as_deref(), Ok("pod0 192.0.2.2"));
    assert_eq!(lab.node.fetch("192.0.2.1:8081").as_deref(), Ok("pod0 10.42.0.1"));
    assert_eq!(lab.pods[0].fetch("192.0.2.1:8081").as_deref(), Ok("pod0 10.42.0.1"));
    model.services[0].load_balancer_source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    model.host_ports.clear();
    apply(&lab, &mut proxy, &model);
    assert_eq!(lab.client.fetch_silence("10.43.200.2:80"), Err(ErrorKind::TimedOut));
    assert_eq!(lab.client.fetch("192.0.2.1:8081"), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_table_that_was_touched_heals_and_uninstall_leaves_nothing() {
    let (lab, mut proxy) = stage();
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[2])));
    let remove_table = async || {
        let nftables = Connection::<Nftables>::new().unwrap();
        nftables.del_table("coracle", Family::Ip).await.unwrap();
    };
    lab.node.block_on(remove_table);
    assert!(lab.client.fetch_silence(NODE_PORT).is_err());
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[3])));
    assert_eq!(lab.client.fetch(NODE_PORT).as_deref(), Ok("pod1 10.42.0.1"));
    // A second process takes over what the first one left.
    let mut next = lab.node.block_on(async || ServiceProxy::open(config()).await.unwrap());
    apply(&lab, &mut next, &of(service(Protocol::Tcp, &[2])));
    assert_eq!(lab.client.fetch(NODE_PORT).as_deref(), Ok("pod0 10.42.0.1"));
    let tables = lab.node.block_on(async || {
        next.uninstall().await.unwrap();
        let nftables = Connection::<Nftables>::new().unwrap();
        nftables.list_tables().await.unwrap().iter().map(|t| t.name.clone()).collect::<Vec<_>>()
    });
    assert_eq!(tables, ["coracle-pods"]);
}

#[test]
fn both_families_load_side_by_side() {
    let lab = Lab::new();
    let config_of_both = PodNetworkConfig {
        pod_cidrs: vec!["10.42.0.0/24".parse().unwrap(), "fd00:42::/64".parse().unwrap()],
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/48".parse().unwrap()],
        ..lab.pod_config()
    };
    let attached = lab.node.block_on(async || {
        let network = PodNetwork::open(config_of_both).await.unwrap();
        network.attach("a", &lab.pods[0].path()).await.unwrap();
        network.attach("b", &lab.pods[1].path()).await.unwrap()
    });
    assert_eq!(format!("{:?}", attached.addresses), "[10.42.0.3, fd00:42::3]");
    lab.pods[1].serve_tcp("pod1", "[::]:8080");
    let config = ProxyConfig {
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/48".parse().unwrap()],
        ..ProxyConfig::default()
    };
    let mut proxy = lab.node.block_on(async || ServiceProxy::open(config).await.unwrap());
    let dual = |affinity| {
        let mut service = service(Protocol::Tcp, &[3]);
        service.cluster_ips.push("fd00:43::80".parse().unwrap());
        service.ports[0].endpoints.push(endpoint("[fd00:42::3]:8080", true));
        service.affinity = affinity;
        of(service)
    };
    for affinity in [None, Some(Duration::from_secs(9))] {
        apply(&lab, &mut proxy, &dual(affinity));
        assert_eq!(lab.pods[0].fetch(CLUSTER_IP).as_deref(), Ok("pod1 ::ffff:10.42.0.2"));
        // Addresses of IPv6 are usable once the kernel has made sure nobody else has them.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut answer = lab.pods[0].fetch("[fd00:43::80]:80");
        while answer.is_err() && Instant::now() < deadline {
            answer = lab.pods[0].fetch_silence("[fd00:43::80]:80");
        }
        assert_eq!(answer.as_deref(), Ok("pod1 fd00:42::2"));
    }
}

#[test]
fn what_cannot_work_is_found_out_at_the_start_and_leaves_no_trace() {
    let lab = Lab::new();
    lab.node.block_on(async || {
        ServiceProxy::open(config()).await.unwrap();
        let nftables = Connection::<Nftables>::new().unwrap();
        assert!(nftables.list_tables().await.unwrap().is_empty());
    });
    // A thread without the privilege stands for a kernel without the parts.
    let error = lab.node.block_on(async || {
        give_up_privileges();
        ServiceProxy::open(config()).await.unwrap_err()
    });
    assert!(error.to_string().contains("hint: services take root"), "{error}");
}

/// Of this thread alone: the raw call, not libc's, which would change all threads.
fn give_up_privileges() {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: setresuid takes three numbers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(result, 0);
}

#[test]
fn three_thousand_services_load_in_one_go() {
    let (lab, mut proxy) = stage();
    let many = |first_endpoint: u8| {
        let services = (0..3000u32).map(|number| {
            let ip = IpAddr::V4((u32::from_be_bytes([10, 43, 1, 0]) + number).into());
            let mut service = service(Protocol::Tcp, &[first_endpoint, 3]);
            service.name = format!("service-{number}");
            service.cluster_ips = vec![ip];
            service.ports[0].node_port = None;
            service
        });
        ServiceModel { services: services.collect(), host_ports: Vec::new() }
    };
    let timed = |proxy: &mut ServiceProxy, model: &ServiceModel| {
        let start = Instant::now();
        apply(&lab, proxy, model);
        start.elapsed()
    };
    let mut model = many(2);
    let all = timed(&mut proxy, &model);
    model.services[1234].ports[0].endpoints.pop();
    let one = timed(&mut proxy, &model);
    let same = timed(&mut proxy, &model);
    println!("3,000 services: {all:?}; one changed: {one:?}; none: {same:?}");
    assert!(all < Duration::from_secs(20), "{all:?}");
    assert!(lab.client.fetch("10.43.12.183:80").is_ok());
    for _ in 0..8 {
        // Service 1234 is the one that lost an endpoint.
        assert_eq!(lab.client.fetch("10.43.5.210:80").as_deref(), Ok("pod0 10.42.0.1"));
    }
}

/// A packet outside the connection's window is translated by nobody: were it let through, the client
/// would answer a pod that it does not know with a reset, and the pod would believe it
/// (kubernetes/kubernetes#74839).
#[test]
fn a_stray_packet_of_a_pod_ends_no_connection() {
    let lab = Lab::new();
    lab.attach();
    let mut proxy = lab.node.block_on(async || ServiceProxy::open(config()).await.unwrap());
    apply(&lab, &mut proxy, &of(service(Protocol::Tcp, &[3])));
    let (listener, raw) = lab.pods[1].run(|| {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::TCP)).unwrap();
        raw.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (TcpListener::bind("0.0.0.0:8080").unwrap(), raw)
    });
    let mut client = lab.pods[0].run(|| TcpStream::connect(CLUSTER_IP).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let _syn = received(&raw);
    let stray = stray(&received(&raw));
    raw.send_to(&stray, &SocketAddr::from(([10, 42, 0, 2], 0)).into()).unwrap();
    let mut heard = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut heard).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"pong");
}

/// The next TCP segment, without the header of IP.
fn received(mut raw: &Socket) -> Vec<u8> {
    let mut packet = [0; 256];
    let length = raw.read(&mut packet).unwrap();
    packet[20..length].to_vec()
}

/// An answer of 10.42.0.3 to 10.42.0.2 that is far behind the window of the connection (one before it is
/// translated by newer kernels).
fn stray(answered: &[u8]) -> Vec<u8> {
    let number = |at: usize| u32::from_be_bytes(answered[at..at + 4].try_into().unwrap());
    let mut segment = [&answered[2..4], &answered[..2]].concat();
    segment.extend(number(8).wrapping_add(100_000_000).to_be_bytes());
    segment.extend(number(4).to_be_bytes());
    // Five words long, PSH and ACK, a window; then the checksum, no urgent data, and the text.
    segment.extend([0x50, 0x18, 0x10, 0, 0, 0, 0, 0]);
    segment.extend(b"boom");
    let pseudo = [&[10, 42, 0, 3, 10, 42, 0, 2, 0, 6, 0, 24], segment.as_slice()].concat();
    let pairs = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = pairs.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}
