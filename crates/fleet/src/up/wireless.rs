//! A router board's Wi-Fi towards the world, on a board that runs: the files that `coracle image prepare`
//! would have written, compared one by one, and taken up without a restart.
//!
//! Other boards are left as they are: their Wi-Fi would be what `up` itself comes by, and so may a router's
//! be. It is left alone too while the connection leads over it.

use super::{Secrets, Step, binaries};
use crate::config::{Board, Cluster, Secret, Settings};
use crate::facts::Facts;
use crate::image::{Change, Content, Layout, Radio, connecting, wireless_files};

/// How long a board may take to find its network.
const CONNECT_SECONDS: u32 = 45;

/// The interface of a router board's way out and the Wi-Fi network that it should be connected to.
pub fn uplink(
    cluster: &Cluster,
    board: &Board,
    settings: &Settings,
    secrets: &Secrets,
) -> Option<(String, Radio)> {
    let device = device(cluster, board)?;
    let wifi = settings.wifi.as_ref()?;
    let radio = Radio {
        ssid: wifi.ssid.clone(),
        passphrase: secrets.wifi.as_ref()?.expose().to_owned(),
        country: wifi.country.clone(),
    };
    Some((device.to_owned(), radio))
}

/// What has to be done.
pub fn wanted(uplink: Option<&(String, Radio)>, facts: &Facts) -> Option<Step> {
    let (device, radio) = uplink?;
    let files = facts.network_files();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, &**text)).collect();
    let (changes, take_up) = connecting(device, radio, &Layout::of(&files), CONNECT_SECONDS)?;
    if carries(device, facts) || !changes.iter().any(|change| differs(change, facts)) {
        return None;
    }
    let (device, ssid) = (device.clone(), radio.ssid.clone());
    Some(Step::Wireless { device, ssid, changes, take_up })
}

/// The interface of a router board's way out, where that is Wi-Fi.
fn device<'a>(cluster: &'a Cluster, board: &Board) -> Option<&'a str> {
    let router = cluster.network.router.as_ref().filter(|_| board.is_router())?;
    Some(router.uplink.as_str()).filter(|name| name.starts_with("wl"))
}

/// Where the passphrase stands of a router board's Wi-Fi towards the world.
pub fn uplink_passphrase(cluster: &Cluster) -> Option<Secret> {
    let board = cluster.router().filter(|board| device(cluster, board).is_some())?;
    Some(cluster.settings(board).wifi?.passphrase)
}

/// The files whose checksums are wanted of a board.
pub fn files(cluster: &Cluster, board: &Board) -> Vec<String> {
    device(cluster, board).map(wireless_files).unwrap_or_default()
}

fn differs(change: &Change, facts: &Facts) -> bool {
    let Change::File { path, content: Content::Bytes(bytes), mode, .. } = change else {
        return false;
    };
    let sum = binaries::sum(&String::from_utf8_lossy(bytes));
    facts.file(path) != Some((u32::from(*mode), sum.as_str()))
}

/// Whether the connection to the board leads over the interface. Where it is not known, any address on it
/// may be what it was reached at.
fn carries(device: &str, facts: &Facts) -> bool {
    let via = facts.get("via").parse().ok();
    facts.addresses().iter().any(|(own, address)| {
        own == device && via.is_none_or(|via: std::net::IpAddr| via == *address)
    })
}

/// The script that writes the files and takes them up.
pub fn script(changes: &[Change], take_up: &str) -> String {
    let written: Vec<String> = changes.iter().map(super::address::change).collect();
    format!("{}\nsync\n{take_up}", written.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Hidden};

    const STACK: &str = "
name: home
network: {subnet: 10.0.0.0/24, router: {uplink: wlan0, inside: eth0}}
boards:
  - {name: gate, address: 10.0.0.1, roles: [router, server],
     wifi: {ssid: the world, passphrase: {env: WIFI}, country: DE}}
";
    const MANAGER: &str = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service";
    const NETWORKD: &str = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
    const INSIDE: &str = "2: eth0 inet 10.0.0.1/24 x\n";
    const BOTH: &str = "2: eth0 inet 10.0.0.1/24 x\n3: wlan0 inet 192.168.1.7/24 x\n";

    /// The step for a board with these files, addresses and further facts.
    fn step(stack: &str, network: &str, addresses: &str, more: &str) -> Option<Step> {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let text = format!(
            "network:={}\naddresses:={}\n{more}done=yes\n",
            encode(&format!("{network}\n")),
            encode(addresses)
        );
        let facts = Facts::parse(&text).expect("facts");
        let cluster = Cluster::parse(stack, "", &Flags::default()).expect("a cluster");
        let secrets = Secrets { wifi: Some(Hidden::new("s3cret")), ..Secrets::default() };
        let board = &cluster.boards[0];
        let settings = cluster.settings(board);
        wanted(uplink(&cluster, board, &settings, &secrets).as_ref(), &facts)
    }

    #[test]
    fn a_routers_way_out_gets_the_files_that_a_card_would_have() {
        let step = step(STACK, MANAGER, INSIDE, "").expect("a step");
        assert_eq!(step.to_string(), "Wi-Fi: wlan0 to \"the world\"");
        let Step::Wireless { changes, .. } = &step else { panic!("{step}") };
        let script = step.script().expect("a script");
        assert!(script.contains("nmcli --wait 45 connection up coracle-wlan0"), "{script}");
        assert!(!script.contains("s3cret"), "it goes as base64: {script}");
        // They are there already, as the next run or a prepared card has them.
        let there = |change: &Change| match change {
            Change::File { path, content: Content::Bytes(bytes), mode, .. } => {
                let sum = binaries::sum(&String::from_utf8_lossy(bytes));
                format!("file.{path}={mode:o} {sum}\n")
            }
            other => panic!("{other}"),
        };
        let there: String = changes.iter().map(there).collect();
        assert_eq!(there.lines().count(), 2, "{there}");
        assert_eq!(super::tests::step(STACK, MANAGER, INSIDE, &there), None);
        let other = STACK.replace("the world", "elsewhere");
        assert!(super::tests::step(&other, MANAGER, INSIDE, &there).is_some());
    }

    #[test]
    fn what_up_itself_comes_by_is_left_as_it_is() {
        let decided = |stack: &str, network: &str, addresses: &str, more: &str| {
            step(stack, network, addresses, more).is_some()
        };
        assert!(decided(STACK, NETWORKD, INSIDE, ""));
        assert!(!decided(STACK, MANAGER, BOTH, ""), "by which way is not known");
        assert!(!decided(STACK, MANAGER, BOTH, "via=192.168.1.7\n"));
        assert!(decided(STACK, MANAGER, BOTH, "via=10.0.0.1\n"));
        // netplan has it in one file with the cable.
        assert!(!decided(STACK, "/usr/sbin/netplan", INSIDE, ""));
        assert!(!decided(&STACK.replace("wlan0", "eth1"), MANAGER, INSIDE, ""));
    }
}
