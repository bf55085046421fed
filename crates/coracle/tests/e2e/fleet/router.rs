//! A router board: addresses, names and a way out for the others, by real dnsmasq and nftables.
//!
//! ```text
//!  world 198.51.100.1 --- eth1 198.51.100.2 pi1 (router) eth0 10.77.0.11 --- switch --- others
//! ```

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::stack::{Fleet, address};
use crate::harness::{Netns, eventually};

const NETWORK: &str = "network:
  subnet: 10.77.0.0/24
  gateway: 10.77.0.11
  router: {uplink: eth1, inside: eth0, ingress: 10.77.0.12, dynamic: [10.77.0.100, 10.77.0.199]}
";

fn mac(position: usize) -> String {
    format!("02:00:00:00:00:{:02x}", 16 + position)
}

/// A board that has no address of its own.
fn by_dhcp(fleet: &Fleet, position: usize) {
    let board = fleet.boards[position].lock().expect("no panic");
    board.netns.ip("addr flush dev eth0");
    board.netns.ip("link set eth0 down");
    board.netns.ip(&format!("link set eth0 address {}", mac(position)));
    let network = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n[DHCPv4]\nUseHostname=no\n";
    board.write("/etc/systemd/network/eth0.network", network, 0o644);
    let wants = board.folder.join("written/etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).expect("a folder");
    let unit = "/lib/systemd/system/systemd-networkd.service";
    symlink(unit, wants.join("systemd-networkd.service")).expect("a link");
}

/// A stack whose first board is the router, with the world on its other side.
fn behind_a_router(count: usize) -> (Fleet, Netns) {
    let fleet = Fleet::new(count);
    let world = Netns::new("world");
    let router = fleet.boards[0].lock().expect("no panic");
    router.netns.ip(&format!("link add eth1 type veth peer name eth0 netns {}", world.name));
    router.netns.ip("addr add 198.51.100.2/24 dev eth1");
    router.netns.ip("link set eth1 up");
    router.netns.ip("route replace default via 198.51.100.1");
    drop(router);
    world.ip("addr add 198.51.100.1/24 dev eth0");
    world.ip("link set eth0 up");
    for position in 1..count {
        by_dhcp(&fleet, position);
    }
    (fleet, world)
}

fn has_address(fleet: &Fleet, position: usize) -> bool {
    fleet.on(position, "ip -o -4 address show eth0").contains(&format!("{}/24", address(position)))
}

/// Who the world sees when a board calls it, and what answers where the world calls the router.
fn ways_lead_out_and_in(fleet: &Fleet, world: &Netns) {
    let listener = world.run(|| TcpListener::bind("198.51.100.1:8000").expect("a port"));
    let board = &fleet.boards[1].lock().expect("no panic").netns.name.clone();
    let inner = Netns::named(board);
    let call = inner.run(|| TcpStream::connect("198.51.100.1:8000").map(drop));
    call.expect("the world is reached");
    let (_, from) = listener.accept().expect("a call");
    assert_eq!(from.ip().to_string(), "198.51.100.2", "translated");

    let page = inner.run(|| TcpListener::bind("10.77.0.12:80").expect("a port"));
    let call = world.run(|| TcpStream::connect("198.51.100.2:80")).expect("the ingress");
    use std::io::Write;
    page.accept().expect("a call").0.write_all(b"hello").expect("written");
    call.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    let mut text = String::new();
    (&call).read_to_string(&mut text).expect("an answer");
    assert_eq!(text, "hello");
    let open = |port: u16| {
        let address = std::net::SocketAddr::from(([198, 51, 100, 2], port));
        world.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok())
    };
    assert!(open(22), "by it the stack is managed");
    for port in [53, 10250, 30080] {
        assert!(!open(port), "{port} is nobody's outside");
    }
}

#[test]
fn a_router_board_gives_the_others_their_network() {
    let (fleet, world) = behind_a_router(2);
    let boards = format!(
        "- {{name: pi1, address: 10.77.0.11, roles: [router, server]}}\n\
         - {{name: pi2, address: 10.77.0.12, mac: '{}'}}\n",
        mac(1)
    );
    fleet.describe(&boards, NETWORK);
    fleet.boot([0]);
    let up = fleet.run("up --yes --accept-new-host-keys");
    println!("{}{} ({:?})", up.out, up.error, up.took);
    let said = up.fails();
    assert!(said.contains("packages: dnsmasq nftables"), "{said}");
    assert!(said.contains("pi2 cannot be reached") && !said.contains("FAILED"), "{said}");
    fleet.boot([1]);
    eventually("the router gives pi2 its address", || has_address(&fleet, 1));
    let up = fleet.run("up --yes --accept-new-host-keys");
    println!("{}{} ({:?})", up.out, up.error, up.took);
    up.ok();
    fleet.kubectl().ok("wait --for=condition=Ready node --all --timeout=30s");
    assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));
    fleet.on(1, "sh -c echo${IFS}nameserver${IFS}10.77.0.11>/etc/resolv.conf");
    assert!(fleet.on(1, "getent hosts pi1.home.arpa").starts_with("10.77.0.11"));
    ways_lead_out_and_in(&fleet, &world);
    fleet.run("down --yes --no-backup").ok();
    assert!(!fleet.on(0, "nft list tables").contains("coracle"));
}

/// Eight boards: by hand, `cargo test ... -- --ignored seven_boards`.
#[test]
#[ignore = "takes the memory and the minutes of eight machines"]
fn seven_boards_behind_a_router_become_a_cluster() {
    let (fleet, world) = behind_a_router(8);
    let mut boards = String::from("- {name: pi1, address: 10.77.0.11, roles: [router]}\n");
    for position in 1..8 {
        let role = if position <= 3 { "server" } else { "agent" };
        boards.push_str(&format!(
            "- {{name: pi{}, address: {}, mac: '{}', roles: [{role}]}}\n",
            position + 1,
            address(position),
            mac(position)
        ));
    }
    fleet.describe(&boards, &format!("{NETWORK}  vip: 10.77.0.40\n"));
    fleet.boot([0]);
    let up = fleet.run("up --yes --accept-new-host-keys");
    println!("{}{} ({:?})", up.out, up.error, up.took);
    assert!(up.fails().contains("pi2 cannot be reached"));
    fleet.boot(1..8);
    eventually("the router gives all their addresses", || {
        (1..8).all(|position| has_address(&fleet, position))
    });
    let up = fleet.run("up --yes --accept-new-host-keys");
    println!("{}{} ({:?})", up.out, up.error, up.took);
    up.ok();
    let ready = fleet.kubectl().ok("wait --for=condition=Ready node --all --timeout=60s");
    assert_eq!(ready.lines().count(), 7);
    let again = fleet.run("up --yes");
    println!("second run of eight boards: {:?}", again.took);
    assert!(again.ok().ends_with("\nno change\n"));
    ways_lead_out_and_in(&fleet, &world);
}
