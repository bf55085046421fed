//! A router board: addresses, names and a way out for the others, by real dnsmasq and nftables.
//!
//! ```text
//!  world 198.51.100.1 --- wlan0 198.51.100.2 pi1 (router) eth0 10.77.0.11 --- switch --- others
//! ```

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::stack::{Fleet, address, mac, private};
use crate::boards::{across, power, story};
use crate::harness::{Boards, Netns, eventually};

const NETWORK: &str = "network:
  subnet: 10.77.0.0/24
  gateway: 10.77.0.11
  router: {uplink: wlan0, inside: eth0, ingress: 10.77.0.12, dynamic: [10.77.0.100, 10.77.0.199]}
";

/// A board that has no address of its own.
fn by_dhcp(fleet: &Fleet, position: usize) {
    let mut board = fleet.boards[position].lock().expect("no panic");
    board.forgets = true;
    let network = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n[DHCPv4]\nUseHostname=no\n";
    board.write("/etc/systemd/network/eth0.network", network, 0o644);
    let wants = board.folder.join("written/etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).expect("a folder");
    let unit = "/lib/systemd/system/systemd-networkd.service";
    symlink(unit, wants.join("systemd-networkd.service")).expect("a link");
}

/// A stack whose first board is the router, with the world on its other side.
fn behind_a_router(count: usize) -> Fleet {
    let fleet = Fleet::behind_a_router(count);
    (1..count).for_each(|position| by_dhcp(&fleet, position));
    fleet
}

fn has_address(fleet: &Fleet, position: usize) -> bool {
    fleet.on(position, "ip -o -4 address show eth0").contains(&format!("{}/24", address(position)))
}

/// Who the world sees when a board calls it, and what answers where the world calls the router.
fn ways_lead_out_and_in(fleet: &Fleet) {
    let world = fleet.world.as_ref().expect("a world");
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

/// A router that runs and a board behind it that is off, with the description of both.
fn a_router_and_a_board() -> (Fleet, String) {
    let fleet = behind_a_router(2);
    let boards = format!(
        "- {{name: pi1, address: 10.77.0.11, roles: [router, server]}}\n\
         - {{name: pi2, address: 10.77.0.12, mac: '{}'}}\n",
        mac(1)
    );
    fleet.describe(&boards, NETWORK);
    fleet.boot([0]);
    (fleet, boards)
}

#[test]
fn a_router_board_gives_the_others_their_network() {
    let (fleet, boards) = a_router_and_a_board();
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
    ways_lead_out_and_in(&fleet);
    an_address_is_fixed(&fleet, &boards);
    its_way_out_is_a_wifi(&fleet, &boards);
    fleet.run("down --yes --no-backup").ok();
    assert!(!fleet.on(0, "nft list tables").contains("coracle"));
}

/// The file that an address is fixed in.
const OWN: &str = "/etc/systemd/network/05-coracle-eth0.network";
const FIXED: &str = "pi2:\n  + address: 10.77.0.12/24 fixed on eth0, no longer by DHCP\n  \
                     + reboot\n  + address: kept\n";

/// What the router lends to a board becomes the board's own.
fn an_address_is_fixed(fleet: &Fleet, boards: &str) {
    fleet.describe(boards, &format!("{NETWORK}  addressing: static\n"));
    let up = fleet.with_power(|| fleet.run("up --yes"));
    println!("{}{} ({:?})", up.out, up.error, up.took);
    let said = up.ok();
    assert!(said.starts_with(&format!("pi1: no change\n{FIXED}")), "{said}");
    assert!(!fleet.on(1, "ip -o -4 address show eth0").contains("dynamic"));
    let text = fleet.on(1, &format!("cat {OWN}"));
    assert!(text.contains("Address=10.77.0.12/24\nGateway=10.77.0.11\n"), "{text}");
    assert_eq!(fleet.on(1, "find /etc -name coracle-address*"), "", "no way back is needed");
    assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));
    fleet.until_ready(&["pi1", "pi2"]);
}

/// A router whose network NetworkManager sets up, a program of the test's that writes down what it is told.
fn its_way_out_is_a_wifi(fleet: &Fleet, boards: &str) {
    let wants = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service";
    fleet.on(0, &format!("ln -s /none {wants}"));
    fleet.program(0, "nmcli", "#!/bin/sh\necho \"$*\" >>/run/nmcli\n");
    fs::write(fleet.folder.join("wifi"), "s3cret").expect("written");
    private(&fleet.folder.join("wifi"));
    let wifi = "roles: [router, server], \
                wifi: {ssid: the world, country: DE, passphrase: {file: wifi}}";
    let boards = boards.replace("roles: [router, server]", wifi);
    fleet.describe(&boards, &format!("{NETWORK}  addressing: static\n"));
    let said = fleet.run("up --yes").ok();
    assert!(
        said.starts_with("pi1:\n  + Wi-Fi: wlan0 to \"the world\"\npi2: no change\n"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
    let folder = "/etc/NetworkManager/system-connections";
    assert_eq!(
        fleet.on(0, &format!("find {folder} -type f -perm 600 -size +0")).lines().count(),
        1
    );
    let told = fleet.on(0, "cat /run/nmcli");
    assert!(told.trim_end().ends_with("--wait 45 connection up coracle-wlan0"), "{told}");
    assert!(fleet.run("up --yes").ok().ends_with("\nno change\n"));
}

/// By hand, as `seven_boards`.
#[test]
#[ignore = "waits four minutes for the way back"]
fn a_board_out_of_reach_with_a_fixed_address_takes_the_way_back() {
    let (fleet, boards) = a_router_and_a_board();
    fleet.run("up --yes --accept-new-host-keys").fails();
    fleet.boot([1]);
    eventually("the router gives pi2 its address", || has_address(&fleet, 1));
    fleet.run("up --yes --accept-new-host-keys").ok();
    // The board has no network as long as its address is fixed.
    let unit = format!(
        "[Unit]\nAfter=systemd-networkd.service\n[Service]\nType=oneshot\n\
         ExecStart=/bin/sh -c '[ ! -e {OWN} ] || ip link set eth0 down'\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    let path = fleet.boards[1].lock().expect("no panic").file("/etc/systemd/system/silent.service");
    fs::write(path, unit).expect("written");
    fleet.on(1, "systemctl enable silent.service");
    fleet.describe(&boards, &format!("{NETWORK}  addressing: static\n"));
    let up = fleet.with_power(|| fleet.run("up --yes"));
    println!("{}{} ({:?})", up.out, up.error, up.took);
    let said = up.fails();
    assert!(said.contains(FIXED) && said.contains("has its settings of before again"), "{said}");
    assert_eq!(fleet.on(1, &format!("find /etc -name coracle-address* -or -path {OWN}")), "");
    fleet.until_ready(&["pi1", "pi2"]);
}

/// Eight boards: by hand, `cargo test ... -- --ignored seven_boards`.
#[test]
#[ignore = "takes the memory and the minutes of eight machines"]
fn seven_boards_behind_a_router_become_a_cluster() {
    let fleet = behind_a_router(8);
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
    let network = format!("{NETWORK}  vip: 10.77.0.40\n");
    fleet.describe_servers(&boards, &network, ", node-monitor-grace-period: 15s");
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
    ways_lead_out_and_in(&fleet);

    // What boards of the sandbox stand.
    fleet.import(1..8);
    let names: Vec<String> = (2..=8).map(|n| format!("pi{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let addresses: Vec<String> = (1..8).map(address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    across::all_reach_all(&fleet, &names, &addresses);
    fleet.kubectl().ok("delete daemonset,service web");
    story::each_is_unplugged(&fleet, &names, 3);
    power::power_goes(&fleet, &names, 2);
}
