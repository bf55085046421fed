//! A board's own address, fixed on a board that runs: the files that `coracle image prepare` would have
//! written, and a restart that takes them up.
//!
//! The address stays the one that the board was reached at. Moving it to another over its own connection
//! was turned down: known host keys, certificates and the other servers' lists would all be about the old
//! one. Taking the files up without a restart was, too: each of five programs does that differently, and
//! none can be tried before.
//!
//! Guard: what was there before lies on the board, with a timer that puts it back and restarts the board
//! once more, unless `up` has been there again by then.

use super::Step;
use crate::facts::Facts;
use crate::image::{Change, Content, Ip, Layout, fixing};
use crate::ssh::quoted;

/// Where the way back lies.
const FOLDER: &str = "/etc/coracle-address";
const UNIT: &str = "/etc/systemd/system/coracle-address";
/// How long a board has, before its restart and again after it, until the way back is taken. Less than
/// what the driver waits for a restart.
const PATIENCE_SECONDS: u32 = 240;

/// How long an address may stay a lent one after the restart: the board may be reached before all of its
/// network is set up.
const SETTLES_SECONDS: u32 = 30;

/// What has to be done: before the board's restart, and behind it.
pub fn wanted(ip: Option<&Ip>, facts: &Facts) -> Option<(Option<Step>, Step)> {
    let Some(Ip::Static { address, prefix, .. }) = ip else { return None };
    let keep = Step::KeepAddress(*address);
    let Some(device) = facts.leased(*address) else {
        // A run that was cut after the restart.
        return facts.has("address-pending").then_some((None, keep));
    };
    let files = facts.network_files();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, &**text)).collect();
    // Wi-Fi needs its passphrase in the same files.
    let wired = device.starts_with('e');
    let changes = if wired { fixing(&device, ip?, &Layout::of(&files)) } else { Vec::new() };
    let subnet = format!("{address}/{prefix}");
    (!changes.is_empty()).then_some((Some(Step::Address { device, subnet, changes }), keep))
}

/// The script that sets a board's address down in its files, with the way back prepared before.
pub fn script(changes: &[Change]) -> String {
    let paths: Vec<String> = changes.iter().map(|change| quoted(change.path())).collect();
    let mut lines = vec![format!(
        "folder={FOLDER}\n[ ! -e \"$folder/revert\" ] || sh \"$folder/revert\" stay\n\
         rm -rf \"$folder\"\nmkdir -p -m 700 \"$folder\"\n: >\"$folder/old\"\n: >\"$folder/new\"\n\
         for path in {}; do\n\
         if [ -e \"$path\" ] || [ -L \"$path\" ]; then printf '%s\\n' \"${{path#/}}\" >>\"$folder/old\"\n\
         else printf '%s\\n' \"$path\" >>\"$folder/new\"; fi\ndone\n\
         tar -C / -cpf \"$folder/before.tar\" -T \"$folder/old\"",
        paths.join(" ")
    )];
    let revert = format!(
        "#!/bin/sh\n# Written by `coracle up`, which takes it away when the board is there again.\n\
         tar -C / -xpf {FOLDER}/before.tar\n\
         while read -r path; do rm -f \"$path\"; done <{FOLDER}/new\n{DISARM}sync\n\
         [ \"${{1:-}}\" = stay ] || systemctl reboot\n"
    );
    let service = format!(
        "[Unit]\nDescription=The network's settings of before, unless coracle up was here again\n\n\
         [Service]\nType=oneshot\nExecStart=/bin/sh {FOLDER}/revert\n"
    );
    let timer = format!(
        "[Timer]\nOnActiveSec={PATIENCE_SECONDS}\nAccuracySec=1s\n\n[Install]\nWantedBy=timers.target\n"
    );
    lines.push(super::step::put(&format!("{UNIT}.service"), 0o644, &service));
    lines.push(super::step::put(&format!("{UNIT}.timer"), 0o644, &timer));
    lines.push(super::step::put(&format!("{FOLDER}/revert"), 0o700, &revert));
    lines.push(
        "systemctl daemon-reload\nsystemctl enable -q --now coracle-address.timer\nsync".into(),
    );
    lines.extend(changes.iter().map(change));
    lines.push("sync".into());
    lines.join("\n")
}

/// Ends the guard. The timer goes before the script that it would start.
const DISARM: &str = "systemctl disable -q --now coracle-address.timer\n\
     rm -rf /etc/systemd/system/coracle-address.timer /etc/systemd/system/coracle-address.service \
     /etc/coracle-address\nsystemctl daemon-reload\n";

/// The script that keeps the address, or says why it cannot be kept.
pub fn keep(address: std::net::IpAddr) -> String {
    format!(
        "[ -e {FOLDER}/revert ] || {{ echo 'it was out of reach with a fixed address, and has its settings \
         of before again: are network.subnet and network.gateway right?' >&2; exit 1; }}\n\
         lent() {{ ip -o address show | grep -F ' {address}/' | grep -qw dynamic; }}\n\
         for _ in $(seq {SETTLES_SECONDS}); do lent || break; sleep 1; done\n\
         if lent; then\n\
         sh {FOLDER}/revert stay\n\
         echo 'its address is by DHCP after the restart, too: something else sets up its network. The \
         settings of before are back' >&2\nexit 1\nfi\n{DISARM}"
    )
}

/// The lines that make one change.
pub(super) fn change(change: &Change) -> String {
    let path = quoted(change.path());
    match change {
        Change::File { path, content: Content::Bytes(bytes), mode, .. } => {
            super::step::put(path, (*mode).into(), &String::from_utf8_lossy(bytes))
        }
        Change::Link { target, .. } => {
            format!("mkdir -p \"$(dirname {path})\"\nln -sfn {} {path}", quoted(target))
        }
        Change::Remove { .. } => format!("rm -f {path}"),
        // Nothing that sets up a network copies files or makes folders.
        Change::File { .. } | Change::Folder { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip() -> Ip {
        let address = "10.0.0.2".parse().expect("an address");
        let gateway = "10.0.0.1".parse().ok();
        Ip::Static { address, prefix: 24, gateway, dns: Vec::new() }
    }

    fn decided(addresses: &str, network: &[(&str, &str)], more: &str) -> String {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let network = network.iter().map(|(path, text)| format!("{path} {}\n", encode(text)));
        let network = encode(&network.collect::<String>());
        let text = format!(
            "addresses:={}\nnetwork:={network}\n{more}done=yes\n",
            encode(&format!("2: {addresses} scope global\n"))
        );
        let facts = Facts::parse(&text).expect("facts");
        match wanted(Some(&ip()), &facts) {
            None => "nothing".into(),
            Some((None, keep)) => keep.to_string(),
            Some((Some(Step::Address { changes, .. }), _)) => {
                changes.iter().map(|change| change.path().to_owned()).collect::<Vec<_>>().join(" ")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_on_loan_is_fixed_where_it_is_known_how() {
        const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
        let networkd = format!("{WANTS}/systemd-networkd.service");
        let manager = format!("{WANTS}/NetworkManager.service");
        let loan = "eth0 inet 10.0.0.2/24 dynamic";
        let netplan =
            [("/usr/sbin/netplan", ""), ("/etc/netplan/50-cloud-init.yaml", "ethernets:")];
        let ifupdown = [
            ("/usr/sbin/ifup", ""),
            (
                "/etc/network/interfaces",
                "source /etc/network/interfaces.d/*\niface eth0 inet dhcp\n",
            ),
        ];
        for (addresses, network, expected) in [
            ("eth0 inet 10.0.0.2/24", &[(&*networkd, "")][..], "nothing"),
            ("eth0 inet 10.0.0.7/24 dynamic", &[(&networkd, "")], "nothing"),
            ("wlan0 inet 10.0.0.2/24 dynamic", &[(&networkd, "")], "nothing"),
            (loan, &[], "nothing"),
            (loan, &[(&networkd, "")], "/etc/systemd/network/05-coracle-eth0.network"),
            (
                loan,
                &[(&manager, "")],
                "/etc/NetworkManager/system-connections/coracle-eth0.nmconnection",
            ),
            (loan, &netplan, "/etc/netplan/50-cloud-init.yaml /etc/netplan/50-coracle.yaml"),
            (loan, &[netplan[0], netplan[1], ("/etc/netplan/90-mine.yaml", "")], "nothing"),
            (loan, &[netplan[0], ("/etc/netplan/50-cloud-init.yaml", "wifis:")], "nothing"),
            (loan, &ifupdown, "/etc/network/interfaces /etc/network/interfaces.d/coracle"),
        ] {
            assert_eq!(decided(addresses, network, ""), expected, "{addresses} {network:?}");
        }
        let pending = "address-pending=yes\n";
        assert_eq!(decided("eth0 inet 10.0.0.2/24", &[], pending), "address: kept");
    }

    #[test]
    fn the_way_back_is_there_before_anything_is_written() {
        let file = Change::File {
            path: "/etc/x".into(),
            content: Content::Bytes(b"new".to_vec()),
            mode: 0o644,
            owner: (0, 0),
            secret: false,
            before: None,
        };
        let script = script(&[file]);
        let at = |text: &str| script.find(text).unwrap_or_else(|| panic!("{text}: {script}"));
        assert!(at("before.tar") < at("enable -q --now coracle-address.timer"));
        assert!(at("enable -q --now coracle-address.timer") < at("put '/etc/x' 644"));
    }
}
