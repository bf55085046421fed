//! DNS over real sockets.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use net::dns::{ZoneEndpoint, ZonePort, ZoneService, ZoneTarget};
use net::{Dns, DnsConfig, Protocol, ServiceAddress, Upstreams, Zone};

use crate::lab::Lab;

const PATIENCE: Duration = Duration::from_secs(5);

/// A question and its answer over UDP, with an EDNS payload size if there is one.
fn ask(server: SocketAddr, name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    exchange(server, &question(name, kind, payload)).unwrap()
}

/// As `ask`, where it may go wrong.
pub fn try_ask(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<Message> {
    exchange(server, &question(name, kind, None))
}

fn exchange(server: SocketAddr, question: &Message) -> io::Result<Message> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(&question.to_vec().unwrap())?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Message::from_vec(&buffer[..length]).map_err(io::Error::other)
}

fn ask_tcp(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    try_ask_tcp(server, name, kind).unwrap()
}

/// As `ask_tcp`, where it may go wrong.
pub fn try_ask_tcp(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let bytes = question(name, kind, None).to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut buffer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut buffer)?;
    Message::from_vec(&buffer).map_err(io::Error::other)
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_version(0);
        message.set_edns(edns);
    }
    message
}

pub fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// An upstream that counts, and answers A questions for one name only; silent ones keep quiet.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    fn new(code: Option<ResponseCode>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let Some(code) = code else { continue };
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let answer = upstream_answer(&asked, code);
                let _ = socket.send_to(&answer.to_vec().unwrap(), peer);
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn upstream_answer(asked: &Message, code: ResponseCode) -> Message {
    let query = asked.queries[0].clone();
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.response_code = code;
    if code == ResponseCode::NoError && query.query_type() == RecordType::A {
        let data = RData::A(A(Ipv4Addr::new(198, 51, 100, 7)));
        answer.add_answer(Record::from_rdata(query.name().clone(), 300, data));
    }
    answer.add_query(query);
    answer
}

/// A server on loopback, with a runtime of its own that lives as long as the value.
struct Served {
    address: SocketAddr,
    dns: Mutex<Option<Dns>>,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new(upstreams: Upstreams) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let config = DnsConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            service_ips: vec!["10.43.0.10".parse().unwrap()],
            upstreams,
            upstream_timeout: Duration::from_millis(300),
            ..DnsConfig::default()
        };
        let dns = runtime.block_on(Dns::serve(config)).unwrap();
        dns.update(Arc::new(zone(3)));
        Self { address: dns.local_addrs()[0], dns: Mutex::new(Some(dns)), runtime }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(dns) = self.dns.lock().unwrap().take() {
            self.runtime.block_on(dns.shutdown());
        }
    }
}

/// `web` with an address, `big` headless with so many endpoints, `out` elsewhere, `near` an
/// alias of `web`.
fn zone(endpoints: u8) -> Zone {
    let service = |name: &str, target| ZoneService {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        target,
    };
    let port = ZonePort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 80 };
    let endpoint = |number: u8| ZoneEndpoint {
        ip: Ipv4Addr::new(10, 42, 0, number).into(),
        hostname: None,
        ports: vec![port.clone()],
    };
    let web =
        ZoneTarget::Cluster { ips: vec!["10.43.0.80".parse().unwrap()], ports: vec![port.clone()] };
    let near = "web.default.svc.cluster.local".to_owned();
    Zone::new(
        [],
        [
            service("web", web),
            service("big", ZoneTarget::Headless((1..=endpoints).map(endpoint).collect())),
            service("out", ZoneTarget::External("example.org".to_owned())),
            service("near", ZoneTarget::External(near)),
        ],
    )
}

#[test]
fn answers_over_udp_and_tcp_with_the_right_flags() {
    let served = Served::new(Upstreams::Servers(Vec::new()));
    let web = "web.default.svc.cluster.local.";
    for message in [
        ask(served.address, web, RecordType::A, None),
        ask(served.address, web, RecordType::A, Some(4096)),
        ask_tcp(served.address, web, RecordType::A),
    ] {
        assert_eq!(addresses(&message), ["10.43.0.80"]);
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        assert!(message.metadata.authoritative && message.metadata.recursion_available);
        assert!(message.metadata.recursion_desired);
        assert_eq!(message.queries[0].name().to_ascii(), web);
    }
    let absent = ask(served.address, "nope.default.svc.cluster.local.", RecordType::A, None);
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(absent.authorities[0].record_type(), RecordType::SOA);
    // Nobody to ask.
    let outside = ask(served.address, "example.org.", RecordType::A, None);
    assert_eq!(outside.metadata.response_code, ResponseCode::ServFail);
    assert!(!outside.metadata.authoritative);
}

#[test]
fn an_answer_too_long_for_udp_is_cut_and_whole_over_tcp() {
    let served = Served::new(Upstreams::Servers(Vec::new()));
    let big = "big.default.svc.cluster.local.";
    served.dns.lock().unwrap().as_ref().unwrap().update(Arc::new(zone(60)));
    let cut = ask(served.address, big, RecordType::A, None);
    assert!(cut.metadata.truncation && cut.answers.len() < 60, "{}", cut.answers.len());
    let whole = ask(served.address, big, RecordType::A, Some(1232));
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 60);
    assert!(whole.edns.is_some());
    assert_eq!(ask_tcp(served.address, big, RecordType::A).answers.len(), 60);
}

#[test]
fn other_names_are_forwarded_and_kept() {
    let upstream = Upstream::new(Some(ResponseCode::NoError));
    let served = Served::new(Upstreams::Servers(vec![upstream.address]));
    for _ in 0..3 {
        let message = ask(served.address, "Example.org.", RecordType::A, None);
        assert_eq!(addresses(&message), ["198.51.100.7"]);
        assert!(!message.metadata.authoritative);
    }
    assert_eq!(upstream.asked(), 1, "the second and third come from the cache");
    // An alias out of the cluster brings its target's records along.
    let out = ask(served.address, "out.default.svc.cluster.local.", RecordType::A, None);
    assert_eq!(addresses(&out), ["example.org.", "198.51.100.7"]);
    let near = ask(served.address, "near.default.svc.cluster.local.", RecordType::A, None);
    assert_eq!(addresses(&near), ["web.default.svc.cluster.local.", "10.43.0.80"]);
    // Reverse names that are not the cluster's are somebody else's.
    let before = upstream.asked();
    ask(served.address, "9.9.9.9.in-addr.arpa.", RecordType::PTR, None);
    assert_eq!(upstream.asked(), before + 1);
}

#[test]
fn a_silent_or_failing_upstream_is_passed_over() {
    let silent = Upstream::new(None);
    let failing = Upstream::new(Some(ResponseCode::ServFail));
    let good = Upstream::new(Some(ResponseCode::NoError));
    let servers = vec![silent.address, failing.address, good.address];
    let served = Served::new(Upstreams::Servers(servers));
    let message = ask(served.address, "a.example.", RecordType::A, None);
    assert_eq!(addresses(&message), ["198.51.100.7"]);
    // The one that answered is asked first from now on.
    let message = ask(served.address, "b.example.", RecordType::A, None);
    assert_eq!(addresses(&message), ["198.51.100.7"]);
    assert_eq!((silent.asked(), failing.asked(), good.asked()), (1, 1, 2));
    // All fail: the client is told, not left waiting.
    let served = Served::new(Upstreams::Servers(vec![silent.address, failing.address]));
    let message = ask(served.address, "c.example.", RecordType::A, None);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn an_upstream_answer_too_long_for_udp_is_fetched_by_tcp() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let mut cut = upstream_answer(&asked, ResponseCode::NoError);
            cut.answers.clear();
            cut.metadata.truncation = true;
            let _ = socket.send_to(&cut.to_vec().unwrap(), peer);
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut buffer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut buffer).unwrap();
            let asked = Message::from_vec(&buffer).unwrap();
            let whole = upstream_answer(&asked, ResponseCode::NoError).to_vec().unwrap();
            let length = u16::try_from(whole.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &whole].concat()).unwrap();
        }
    });
    let served = Served::new(Upstreams::Servers(vec![address]));
    let message = ask(served.address, "long.example.", RecordType::A, None);
    assert_eq!(addresses(&message), ["198.51.100.7"]);
    assert!(!message.metadata.truncation);
}

#[test]
fn a_version_of_edns_that_nobody_knows_is_named_as_such() {
    let served = Served::new(Upstreams::Servers(Vec::new()));
    let mut request = question("web.default.svc.cluster.local.", RecordType::A, Some(1232));
    if let Some(edns) = &mut request.edns {
        edns.set_version(1);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&request.to_vec().unwrap(), served.address).unwrap();
    let mut buffer = [0; 512];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    assert!(answer.answers.is_empty());
}

#[test]
fn upstreams_come_from_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, "search lan\n").unwrap();
    let served = Served::new(Upstreams::ResolvConf(file));
    let message = ask(served.address, "a.example.", RecordType::A, None);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn nonsense_is_answered_with_an_error_code() {
    let served = Served::new(Upstreams::Servers(Vec::new()));
    let transfer = ask_tcp(served.address, "cluster.local.", RecordType::AXFR);
    assert_eq!(transfer.metadata.response_code, ResponseCode::Refused);
    let mut status = question("cluster.local.", RecordType::A, None);
    status.metadata.op_code = OpCode::Status;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&status.to_vec().unwrap(), served.address).unwrap();
    let mut buffer = [0; 512];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
    // And it still works.
    assert_eq!(
        addresses(&ask(served.address, "web.default.svc.cluster.local.", RecordType::A, None)),
        ["10.43.0.80"]
    );
}

#[test]
fn pods_reach_it_at_the_service_address() {
    let lab = Lab::new();
    lab.attach();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server: SocketAddr = "10.43.0.10:53".parse().unwrap();
    thread::scope(|scope| {
        let node = &lab.node;
        scope.spawn(move || {
            node.block_on(async || {
                let device = ServiceAddress::open("coracle-dns", &[server.ip()]).await.unwrap();
                // A second process adopts it.
                let again = ServiceAddress::open("coracle-dns", &[server.ip()]).await.unwrap();
                assert_eq!(again.device(), device.device());
                let upstreams = Upstreams::Servers(Vec::new());
                let config = DnsConfig { listen: vec![server], upstreams, ..DnsConfig::default() };
                let dns = Dns::serve(config.clone()).await.unwrap();
                dns.update(Arc::new(zone(1)));
                let taken = Dns::serve(config).await.err().unwrap().to_string();
                assert_eq!(taken, "listening for DNS on 10.43.0.10:53 (udp)");
                ready.send(()).unwrap();
                let _ = stopped.await;
                dns.shutdown().await;
                device.uninstall().await.unwrap();
            });
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        let ask = || ask(server, "web.default.svc.cluster.local.", RecordType::A, None);
        for place in [&lab.pods[0], &lab.node, &lab.client] {
            assert_eq!(addresses(&place.run(ask)), ["10.43.0.80"]);
        }
        drop(stop);
    });
}
