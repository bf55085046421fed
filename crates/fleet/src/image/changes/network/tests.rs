use super::super::super::change::{Change, Content};
use super::*;
use crate::config::Flags;

const NM: &[(&str, &str)] =
    &[("/etc/systemd/system/multi-user.target.wants/NetworkManager.service", "")];
const NETPLAN: &[(&str, &str)] = &[("/usr/sbin/netplan", ""), ("/etc/netplan/90-default.yaml", "")];
const NETWORKD: &[(&str, &str)] =
    &[("/etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "")];
const IFUPDOWN: &[(&str, &str)] = &[
    ("/usr/sbin/ifup", ""),
    ("/etc/network/interfaces", "source /etc/network/interfaces.d/*\n"),
    ("/etc/network/interfaces.d/eth0", "auto eth0\niface eth0 inet dhcp\n"),
];
const DHCPCD: &[(&str, &str)] = &[
    ("/usr/sbin/ifup", ""),
    ("/etc/dhcpcd.conf", "hostname\n"),
    ("/etc/systemd/system/multi-user.target.wants/dhcpcd.service", ""),
];

/// What is written for the first board of this network, path by path.
fn written(image: &[(&str, &str)], network: &str, of_board: &str) -> String {
    let yaml = format!(
        "name: home\nnetwork: {{{network}}}\nboards:\n  - {{name: pi1, address: 192.168.1.41, \
         {of_board}}}\n"
    );
    let cluster = Cluster::parse(&yaml, "cluster.yaml", &Flags::default()).expect("a cluster");
    let board = &cluster.boards[0];
    let given = Given { passphrase: Some("a\\b c".into()), ..Given::default() };
    let network = Network::of(&cluster, board, &cluster.settings(board), &given).expect("known");
    let layout = Layout::of(image);
    let mut draft = Draft::new(&layout);
    network.changes(&mut draft);
    let shown = draft.finish().0.into_iter().map(|change| match change {
        Change::File { path, content: Content::Bytes(bytes), mode, .. } => {
            format!("{path} {mode:o}\n{}", String::from_utf8_lossy(&bytes))
        }
        other => format!("{other}\n"),
    });
    shown.collect()
}

const FIXED: &str = "subnet: 192.168.1.0/24, gateway: 192.168.1.1, addressing: static";
const SERVER: &str = "roles: [server]";
const WIFI: &str = ", wifi: {ssid: My Net, passphrase: {env: X}, country: DE}";

#[test]
fn a_fixed_address_in_the_words_of_each_image() {
    for (image, expected) in [
        (
            NM,
            "/etc/NetworkManager/system-connections/coracle-wired.nmconnection 600\n\
             [connection]\nid=coracle-wired\ntype=ethernet\nautoconnect-priority=10\n\n\
             [ipv4]\nmethod=manual\naddress1=192.168.1.41/24,192.168.1.1\ndns=192.168.1.1;\n\n\
             [ipv6]\nmethod=auto\n\
             /etc/NetworkManager/conf.d/90-coracle.conf 644\n[connection]\nwifi.powersave=2\n",
        ),
        (
            NETPLAN,
            "remove /etc/netplan/90-default.yaml\n\
             /etc/netplan/50-coracle.yaml 600\n\
             network:\n  version: 2\n  ethernets:\n    wired:\n      match: {name: \"e*\"}\n      \
             dhcp4: false\n      addresses: [\"192.168.1.41/24\"]\n      routes: [{to: default, via: \
             \"192.168.1.1\"}]\n      nameservers: {addresses: [\"192.168.1.1\"]}\n      \
             optional: false\n",
        ),
        (
            NETWORKD,
            "/etc/systemd/network/05-coracle-wired.network 644\n[Match]\nName=en* eth*\n\n\
             [Network]\nAddress=192.168.1.41/24\nGateway=192.168.1.1\nDNS=192.168.1.1\n\
             /etc/resolv.conf 644\nnameserver 192.168.1.1\n",
        ),
        (
            IFUPDOWN,
            "/etc/network/interfaces.d/eth0 644\n\
             /etc/network/interfaces.d/coracle 644\nauto eth0\niface eth0 inet static\n    address \
             192.168.1.41/24\n    gateway 192.168.1.1\n    dns-nameservers 192.168.1.1\n\
             /etc/resolv.conf 644\nnameserver 192.168.1.1\n",
        ),
        (
            DHCPCD,
            "/etc/dhcpcd.conf 644\nhostname\ninterface eth0\nstatic ip_address=192.168.1.41/24\n\
             static routers=192.168.1.1\nstatic domain_name_servers=192.168.1.1\n",
        ),
    ] {
        assert_eq!(written(image, FIXED, SERVER), expected);
    }
}

#[test]
fn with_dhcp_images_that_ask_by_themselves_are_left_alone() {
    assert_eq!(written(IFUPDOWN, "", SERVER), "");
    assert_eq!(written(DHCPCD, "", SERVER), "");
    assert!(!written(NM, "", SERVER).contains("system-connections"));
    assert!(written(NETPLAN, "", SERVER).contains("dhcp4: true"));
}

#[test]
fn wifi_has_the_board_s_address_and_its_country() {
    let supplicant = [NETWORKD, &[("/usr/sbin/wpa_supplicant", ""), ("/usr/sbin/iw", "")]].concat();
    let written = |image: &[(&str, &str)]| written(image, FIXED, &format!("{SERVER}{WIFI}"));
    let text = written(NM);
    assert!(text.contains("\n[wifi]\nmode=infrastructure\nssid=77;121;32;78;101;116;\n"), "{text}");
    assert!(text.contains("psk=a\\\\b c\n\n[ipv4]\nmethod=manual\n"), "{text}");
    let text = written(NETPLAN);
    assert!(text.contains("  wifis:\n    wlan0:\n      dhcp4: false\n"), "{text}");
    assert!(text.contains("access-points: {\"My Net\": {password: \"a\\\\b c\"}}\n"), "{text}");
    assert!(text.contains("dhcp4: true\n      optional: true\n"), "no cable is waited for: {text}");
    let text = written(&supplicant);
    assert!(text.contains("[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=yes\n"), "{text}");
    assert!(text.contains("country=DE\nnetwork={\n    ssid=4d79204e6574\n    psk=\"a\\b c\"\n}\n"));
    assert!(
        text.contains("link   /etc/systemd/system/multi-user.target.wants/wpa_supplicant@wlan0")
    );
    assert!(text.contains("iw dev %k set power_save off"), "{text}");
}

#[test]
fn a_router_has_its_address_inside_and_asks_for_one_outside() {
    let network =
        "subnet: 192.168.1.0/24, gateway: 192.168.1.41, router: {uplink: wlan0, inside: eth0}";
    let text =
        written(NM, network, &format!("roles: [server, router]{WIFI}")).replace("\n\n", "\n");
    let (inside, outside) = text.split_once("coracle-wlan0.nmconnection").expect("both");
    assert!(inside.contains("interface-name=eth0"), "{text}");
    assert!(inside.contains("address1=192.168.1.41/24\n"), "{text}");
    assert!(outside.contains("type=wifi\ninterface-name=wlan0"), "{text}");
    assert!(outside.contains("[ipv4]\nmethod=auto\n"), "{text}");
}

/// What `up` compares and writes is what a card has, so that a prepared board is left as it is.
#[test]
fn a_router_that_runs_is_connected_by_the_files_of_a_card() {
    let network = "subnet: 192.168.1.0/24, router: {uplink: wlan0, inside: eth0}";
    for image in [NM, NETWORKD] {
        let card = written(image, network, &format!("roles: [server, router]{WIFI}"));
        let radio =
            Radio { ssid: "My Net".into(), passphrase: "a\\b c".into(), country: "DE".into() };
        let (changes, _) = connecting("wlan0", &radio, &Layout::of(image), 1).expect("known");
        let files = changes.iter().filter_map(|change| match change {
            Change::File { path, content: Content::Bytes(bytes), mode, .. } => {
                Some((path, format!("{path} {mode:o}\n{}", String::from_utf8_lossy(bytes))))
            }
            _ => None,
        });
        for (path, file) in files {
            assert!(card.contains(&file), "{file}\n{card}");
            assert!(wireless_files("wlan0").contains(path), "{path} is not asked for");
        }
    }
}

#[test]
fn an_address_without_a_subnet_is_refused() {
    let yaml = "name: home\nnetwork: {addressing: static}\nboards:\n  - {name: pi1, roles: \
                [server], address: 192.168.1.41}\n";
    let Ok(cluster) = Cluster::parse(yaml, "cluster.yaml", &Flags::default()) else { return };
    let board = &cluster.boards[0];
    let refused = Network::of(&cluster, board, &cluster.settings(board), &Given::default());
    assert!(refused.expect_err("refused").to_string().contains("subnet is not known"));
}
