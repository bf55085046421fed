//! One address on one of several boards of a segment, with a real keepalived among them.
//!
//! ```text
//!  a 192.0.2.1 --+
//!  b 192.0.2.2 --+-- switch -- client 192.0.2.9        address 192.0.2.40, fd00:2::40
//!  k 192.0.2.3 --+
//! ```

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use net::vip::State;
use net::{VipConfig, VipStatus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nlink::netlink::link::{BridgeLink, VethLink};
use nlink::netlink::nftables::{BaseChain, Chain, ChainType, Family, Hook, Policy, Priority};
use nlink::netlink::{Connection, Nftables, Route};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{oneshot, watch};

use crate::lab::Netns;

/// How long something may take that is meant to come, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long nothing may happen where nothing is to happen: several take-over times.
const CALM: Duration = Duration::from_secs(2);

const V4: &str = "192.0.2.40";
const V6: &str = "fd00:2::40";

/// Waits for a condition.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition")]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sees that a condition stays.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition")]
fn stays(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + CALM;
    while Instant::now() < deadline {
        assert!(condition(), "did not stay: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

struct Segment {
    a: Netns,
    b: Netns,
    k: Netns,
    client: Netns,
    switch: Netns,
}

impl Segment {
    fn new() -> Self {
        let [switch, a, b, k, client] = ["switch", "a", "b", "k", "client"].map(Netns::new);
        let ends = [(&a, 1), (&b, 2), (&k, 3), (&client, 9)];
        let files: Vec<(File, u8)> =
            ends.iter().map(|(ns, last)| (File::open(ns.path()).unwrap(), *last)).collect();
        switch.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            netlink.add_link(BridgeLink::new("switch")).await.unwrap();
            netlink.set_link_up("switch").await.unwrap();
            for (file, last) in &files {
                let port = format!("port{last}");
                let cable = VethLink::new(&port, "eth0").peer_netns_fd(file);
                netlink.add_link(cable).await.unwrap();
                netlink.set_link_master(port.as_str(), "switch").await.unwrap();
                netlink.set_link_up(port.as_str()).await.unwrap();
            }
        });
        for (ns, last) in ends {
            ns.block_on(async || {
                let netlink = Connection::<Route>::new().unwrap();
                netlink.set_link_up("lo").await.unwrap();
                let v4: IpAddr = [192, 0, 2, last].into();
                netlink.add_address_by_name("eth0", v4, 24).await.unwrap();
                let v6: IpAddr = format!("fd00:2::{last}").parse().unwrap();
                netlink.add_address_by_name("eth0", v6, 64).await.unwrap();
                netlink.set_link_up("eth0").await.unwrap();
            });
        }
        for (ns, name) in [(&a, "a"), (&b, "b"), (&k, "k")] {
            ns.serve_tcp(name, "[::]:80");
        }
        Self { a, b, k, client, switch }
    }

    /// Who answers at the address; nobody in half a second is nobody.
    fn answering(&self, address: &str) -> String {
        let address = match address.contains(':') {
            true => format!("[{address}]:80"),
            false => format!("{address}:80"),
        };
        let answer = self.client.fetch_silence(&address).unwrap_or_default();
        answer.split(' ').next().unwrap_or_default().to_owned()
    }

    /// Drops all that a board sends and hears, with its cable in.
    fn cut(&self, board: &Netns) {
        board.block_on(async || {
            let nftables = Connection::<Nftables>::new().unwrap();
            nftables.add_table("cut", Family::Ip).await.unwrap();
            for (name, hook) in [("in", Hook::Input), ("out", Hook::Output)] {
                let base = BaseChain::try_new(ChainType::Filter, hook, Priority::Filter, [""; 0]);
                let chain = Chain::new("cut", name).unwrap().family(Family::Ip);
                let chain = chain.base(base.unwrap().policy(Policy::Drop));
                nftables.add_chain(chain).await.unwrap();
            }
        });
    }

    fn heal(&self, board: &Netns) {
        board.block_on(async || {
            let nftables = Connection::<Nftables>::new().unwrap();
            nftables.del_table("cut", Family::Ip).await.unwrap();
        });
    }

    fn port(&self, number: u8, up: bool) {
        self.switch.block_on(async || {
            let netlink = Connection::<Route>::new().unwrap();
            let port = format!("port{number}");
            match up {
                true => netlink.set_link_up(port.as_str()).await.unwrap(),
                false => netlink.set_link_down(port.as_str()).await.unwrap(),
            }
        });
    }
}

/// The virtual addresses that a namespace has.
fn has(ns: &Netns, address: &str) -> bool {
    let wanted: IpAddr = address.parse().unwrap();
    ns.block_on(async || {
        let netlink = Connection::<Route>::new().unwrap();
        let addresses = netlink.get_addresses().await.unwrap();
        addresses.iter().any(|message| message.local().or(message.address()) == Some(&wanted))
    })
}

/// A member of ours on a thread of its own.
struct Member {
    priority: Option<watch::Sender<Option<u8>>>,
    crash: Option<oneshot::Sender<()>>,
    states: mpsc::Receiver<VipStatus>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Member {
    fn start(ns: &Netns, config: VipConfig, priority: u8) -> Self {
        let (priority, heard) = watch::channel(Some(priority));
        let (crash, crashed) = oneshot::channel();
        let (tell, states) = mpsc::channel();
        let path = ns.path();
        let thread = thread::spawn(move || {
            crate::lab::enter(&path);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let tell = Arc::new(move |status| drop(tell.send(status)));
                tokio::select! {
                    ended = net::vip::run(config, heard, tell) => ended.unwrap(),
                    _ = crashed => {}
                }
            });
        });
        Self { priority: Some(priority), crash: Some(crash), states, thread: Some(thread) }
    }

    /// Ends as SIGKILL would: nothing is said and nothing is cleaned.
    fn crash(&mut self) {
        let _ = self.crash.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }

    /// Leaves in order.
    fn stop(&mut self) {
        self.priority = None;
        self.thread.take().unwrap().join().unwrap();
    }

    fn set(&self, priority: u8) {
        self.priority.as_ref().unwrap().send_replace(Some(priority));
    }

    fn becomes(&self, state: State) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let status = self.states.recv_timeout(left).expect("the state never came");
            if status.state == state {
                return;
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.priority = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config(addresses: &[&str]) -> VipConfig {
    VipConfig::new(addresses.iter().map(|text| text.parse().unwrap()).collect())
}

/// Whether a raw socket for VRRP (protocol 0x70) is open in a namespace.
fn listens(ns: &Netns) -> bool {
    ns.run(|| {
        ["raw", "raw6"].iter().any(|table| {
            let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"));
            table.is_ok_and(|sockets| sockets.lines().any(|line| line.contains(":0070 ")))
        })
    })
}

/// The keepalived of the distribution.
struct Keepalived {
    process: Child,
    folder: tempfile::TempDir,
}

impl Keepalived {
    fn start(ns: &Netns, priority: u8, addresses: &str, more: &str) -> Self {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/keepalived");
        let program = tools.join("usr/sbin/keepalived");
        assert!(program.exists(), "{} is missing; run tools/test-tools.sh", program.display());
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let text = format!(
            "global_defs {{\n  vrrp_version 3\n}}\nvrrp_instance group {{\n  state BACKUP\n  \
             interface eth0\n  virtual_router_id 51\n  priority {priority}\n  advert_int 0.2\n  \
             {more}\n  virtual_ipaddress {{\n    {addresses}\n  }}\n}}\n"
        );
        std::fs::write(file("keepalived.conf"), text).unwrap();
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
            .map(|folder| tools.join(folder).display().to_string())
            .join(":");
        let process = Command::new("nsenter")
            .arg(format!("--net={}", ns.path().display()))
            .arg(program)
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"])
            .arg(format!("--use-file={}", file("keepalived.conf").display()))
            .arg(format!("--pid={}", file("pid").display()))
            .arg(format!("--vrrp_pid={}", file("vrrp.pid").display()))
            .env("LD_LIBRARY_PATH", libraries)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("keepalived listens", || listens(ns));
        Self { process, folder }
    }

    fn pids(&self) -> Vec<Pid> {
        let file = |name: &str| self.folder.path().join(name);
        ["pid", "vrrp.pid"]
            .iter()
            .filter_map(|name| std::fs::read_to_string(file(name)).ok()?.trim().parse().ok())
            .map(Pid::from_raw)
            .collect()
    }

    fn signal(&mut self, signal: Signal) {
        for pid in self.pids() {
            let _ = kill(pid, signal);
        }
        let _ = self.process.wait();
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

#[test]
fn of_two_one_holds_both_families_and_the_other_takes_over() {
    let segment = Segment::new();
    let mut a = Member::start(&segment.a, config(&[V4, V6]), 150);
    until("a holds both", || segment.answering(V4) == "a" && segment.answering(V6) == "a");
    let b = Member::start(&segment.b, config(&[V4, V6]), 100);
    stays("a holds alone", || has(&segment.a, V4) && !has(&segment.b, V4));
    // It dies without a word; what it leaves behind expires.
    a.crash();
    until("b answers", || segment.answering(V4) == "b" && segment.answering(V6) == "b");
    until("a's remains are gone", || !has(&segment.a, V4) && !has(&segment.a, V6));
    // It comes back, and being better takes the addresses back.
    let mut a = Member::start(&segment.a, config(&[V4, V6]), 150);
    until("a is back", || segment.answering(V4) == "a" && segment.answering(V6) == "a");
    until("b let go", || !has(&segment.b, V4) && !has(&segment.b, V6));
    a.stop();
    assert!(!has(&segment.a, V4) && !has(&segment.a, V6));
    until("b again", || segment.answering(V4) == "b");
    drop(b);
    assert!(!has(&segment.b, V4));
}

#[test]
fn who_can_tell_nobody_takes_no_traffic_away() {
    let segment = Segment::new();
    let _a = Member::start(&segment.a, config(&[V4]), 150);
    until("a answers", || segment.answering(V4) == "a");
    let b = Member::start(&segment.b, config(&[V4]), 100);
    b.becomes(State::Backup);
    segment.cut(&segment.b);
    b.becomes(State::Active);
    stays("a answers", || segment.answering(V4) == "a");
    segment.heal(&segment.b);
    b.becomes(State::Backup);
}

#[test]
fn what_a_killed_process_left_is_removed_at_the_start() {
    let segment = Segment::new();
    let mut a = Member::start(&segment.a, config(&[V4]), 150);
    until("a holds", || has(&segment.a, V4));
    a.crash();
    assert!(has(&segment.a, V4));
    let b = Member::start(&segment.b, config(&[V4]), 200);
    b.becomes(State::Active);
    let a = Member::start(&segment.a, config(&[V4]), 150);
    a.becomes(State::Backup);
    assert!(!has(&segment.a, V4));
}

#[test]
fn an_address_that_the_board_has_for_good_is_refused_and_left() {
    let segment = Segment::new();
    let error = segment.a.block_on(async || {
        let (_keep, priority) = watch::channel(Some(100));
        net::vip::run(config(&["192.0.2.1"]), priority, Arc::new(|_| {})).await.unwrap_err()
    });
    assert!(error.to_string().starts_with("192.0.2.1 is an address"), "{error}");
    assert!(has(&segment.a, "192.0.2.1"));
}

#[test]
fn ours_takes_over_from_a_killed_keepalived_and_gives_back() {
    let segment = Segment::new();
    let mut keepalived = Keepalived::start(&segment.k, 150, V4, "");
    until("keepalived holds", || segment.answering(V4) == "k");
    let _a = Member::start(&segment.a, config(&[V4]), 100);
    stays("keepalived is let be", || !has(&segment.a, V4));
    keepalived.signal(Signal::SIGKILL);
    // Keepalived's address stays on its board; ours must win nevertheless.
    until("ours answers", || segment.answering(V4) == "a");
    assert!(has(&segment.k, V4));
    let _keepalived = Keepalived::start(&segment.k, 150, V4, "");
    until("keepalived is back", || segment.answering(V4) == "k" && !has(&segment.a, V4));
}

#[test]
fn keepalived_takes_over_from_ours_killed_stopped_or_unwell() {
    let segment = Segment::new();
    let mut a = Member::start(&segment.a, config(&[V4]), 150);
    until("ours holds", || segment.answering(V4) == "a");
    let _keepalived = Keepalived::start(&segment.k, 100, V4, "");
    stays("ours is let be", || !has(&segment.k, V4));
    a.set(10);
    until("ours abdicates", || segment.answering(V4) == "k" && !has(&segment.a, V4));
    a.set(150);
    until("ours is well again", || segment.answering(V4) == "a" && !has(&segment.k, V4));
    a.stop();
    until("ours stopped", || segment.answering(V4) == "k");
    let mut a = Member::start(&segment.a, config(&[V4]), 150);
    until("ours came back", || segment.answering(V4) == "a" && !has(&segment.k, V4));
    a.crash();
    until("ours was killed", || segment.answering(V4) == "k");
}

#[test]
fn ipv6_and_several_addresses_are_shared_with_keepalived() {
    let segment = Segment::new();
    let mut a = Member::start(&segment.a, config(&[V6, "fd00:2::41"]), 150);
    until("ours holds", || segment.answering(V6) == "a");
    let two = format!("{V6}/128\n    fd00:2::41/128");
    let _keepalived = Keepalived::start(&segment.k, 100, &two, "");
    stays("ours is let be", || !has(&segment.k, V6));
    a.crash();
    let both = || segment.answering(V6) == "k" && segment.answering("fd00:2::41") == "k";
    until("keepalived has both", both);
    let _a = Member::start(&segment.a, config(&[V6, "fd00:2::41"]), 150);
    until("ours has both", || {
        segment.answering(V6) == "a" && segment.answering("fd00:2::41") == "a"
    });
    until("keepalived let go", || !has(&segment.k, V6));
}

#[test]
fn members_that_multicast_does_not_reach_are_named() {
    let segment = Segment::new();
    let peers = |ips: [&str; 1]| ips.map(|ip| ip.parse().unwrap()).to_vec();
    let ours = VipConfig { unicast_peers: peers(["192.0.2.3"]), ..config(&[V4]) };
    let unicast = "unicast_src_ip 192.0.2.3\n  unicast_peer {\n    192.0.2.1\n  }";
    let mut keepalived = Keepalived::start(&segment.k, 150, V4, unicast);
    until("keepalived holds", || segment.answering(V4) == "k");
    let mut a = Member::start(&segment.a, ours, 100);
    stays("keepalived is let be", || !has(&segment.a, V4));
    keepalived.signal(Signal::SIGTERM);
    until("ours answers", || segment.answering(V4) == "a");
    let _keepalived = Keepalived::start(&segment.k, 50, V4, unicast);
    stays("ours is let be", || !has(&segment.k, V4));
    a.stop();
    until("keepalived follows", || segment.answering(V4) == "k");
}

#[test]
fn after_a_partition_one_is_left() {
    let segment = Segment::new();
    let a = Member::start(&segment.a, config(&[V4]), 100);
    until("a holds", || segment.answering(V4) == "a");
    let _b = Member::start(&segment.b, config(&[V4]), 100);
    stays("b waits, being no better", || !has(&segment.b, V4));
    // Its cable is out: it takes no part, and the other takes over.
    segment.port(1, false);
    until("b answers", || segment.answering(V4) == "b");
    until("a let go", || !has(&segment.a, V4));
    segment.port(1, true);
    stays("it stays where it is", || has(&segment.b, V4) && !has(&segment.a, V4));
    // Cut with the cables in: packets are dropped between them, and both hold.
    segment.cut(&segment.a);
    until("both hold", || has(&segment.a, V4) && has(&segment.b, V4));
    segment.heal(&segment.a);
    until("one is left", || has(&segment.b, V4) && !has(&segment.a, V4));
    until("and is known", || segment.answering(V4) == "b");
    drop(a);
}

#[test]
fn forged_and_foreign_packets_change_nothing() {
    let segment = Segment::new();
    let _a = Member::start(&segment.a, config(&[V4]), 100);
    until("a holds", || segment.answering(V4) == "a");
    segment.client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112))).unwrap();
        let group: std::net::SocketAddr = "224.0.0.18:0".parse().unwrap();
        socket.set_multicast_if_v4(&[192, 0, 2, 9].into()).unwrap();
        let good = advertisement([192, 0, 2, 40]);
        let mut random = fastrand::Rng::with_seed(112);
        for round in 0..2_000 {
            let mut bytes = good.clone();
            // Half have travelled (their checksum is right), half are altered.
            let travelled = round % 2 == 0;
            socket.set_multicast_ttl_v4(if travelled { 254 } else { 255 }).unwrap();
            if !travelled {
                let at = random.usize(0..bytes.len());
                bytes[at] ^= 1 << random.u8(0..8);
            }
            if round % 7 == 0 {
                bytes.truncate(random.usize(0..bytes.len()));
            }
            let _ = socket.send_to(&bytes, &group.into());
        }
        // Another group of the same number, with other addresses.
        socket.set_multicast_ttl_v4(255).unwrap();
        for _ in 0..20 {
            socket.send_to(&advertisement([192, 0, 2, 77]), &group.into()).unwrap();
        }
    });
    stays("a holds", || has(&segment.a, V4));
    assert_eq!(segment.answering(V4), "a");
}

/// An advertisement of the owner, priority 255, from 192.0.2.9.
fn advertisement(address: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0x31, 51, 255, 1, 0, 20, 0, 0];
    bytes.extend_from_slice(&address);
    let pseudo = [192, 0, 2, 9, 224, 0, 0, 18, 0, 112, 0, 12];
    let mut sum: u32 = pseudo
        .iter()
        .chain(&bytes)
        .collect::<Vec<_>>()
        .chunks(2)
        .map(|pair| u32::from(*pair[0]) << 8 | u32::from(*pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    bytes
}
