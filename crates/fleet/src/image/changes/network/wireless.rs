//! Wi-Fi, and NetworkManager, which has it in the same files as cables.

use std::fmt::Write;

use super::super::Draft;
use super::link::{Ip, Link, Radio, joined};

/// NetworkManager's own settings of Wi-Fi's power saving.
pub const POWER: &str = "/etc/NetworkManager/conf.d/90-coracle.conf";
const RFKILL: &str = "/var/lib/systemd/rfkill";

/// A file a connection, for root only as NetworkManager has it.
pub fn network_manager(draft: &mut Draft<'_>, links: &[Link]) {
    for link in links {
        // Without a file it takes any cable, and asks for an address.
        if link.ip == Ip::Dhcp && link.radio.is_none() && link.name.is_none() {
            continue;
        }
        let title = link.title();
        let sort = if link.radio.is_some() { "wifi" } else { "ethernet" };
        let mut text = format!("[connection]\nid=coracle-{title}\ntype={sort}\n");
        if let Some(name) = &link.name {
            let _ = writeln!(text, "interface-name={name}");
        }
        text.push_str("autoconnect-priority=10\n");
        if let Some(radio) = &link.radio {
            let _ = write!(
                text,
                "\n[wifi]\nmode=infrastructure\nssid={}\n\n[wifi-security]\nkey-mgmt=wpa-psk\npsk={}\n",
                octets(&radio.ssid),
                escaped(&radio.passphrase)
            );
        }
        text.push_str(&addresses(&link.ip));
        let file = format!("/etc/NetworkManager/system-connections/coracle-{title}.nmconnection");
        draft.put(file, text, 0o600, (0, 0), link.radio.is_some());
    }
}

fn addresses(ip: &Ip) -> String {
    let Ip::Static { address, prefix, gateway, dns } = ip else {
        return "\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n".into();
    };
    let mut own = format!("method=manual\naddress1={address}/{prefix}");
    if let Some(gateway) = gateway {
        let _ = write!(own, ",{gateway}");
    }
    own.push('\n');
    if !dns.is_empty() {
        let _ = writeln!(own, "dns={};", joined(dns, ";"));
    }
    match address.is_ipv4() {
        true => format!("\n[ipv4]\n{own}\n[ipv6]\nmethod=auto\n"),
        false => format!("\n[ipv4]\nmethod=auto\n\n[ipv6]\n{own}"),
    }
}

/// A network's name as NetworkManager's files take any: names may hold what is special there.
fn octets(ssid: &str) -> String {
    match ssid.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        true => ssid.to_owned(),
        false => ssid.bytes().map(|byte| format!("{byte};")).collect(),
    }
}

/// A value of a key file.
fn escaped(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\");
    match escaped.strip_prefix(' ') {
        Some(rest) => format!("\\s{rest}"),
        None => escaped,
    }
}

/// A file of wpa_supplicant. The name stands in hexadecimal digits, since quotes in it would end it.
pub fn supplicant(radio: &Radio) -> String {
    let ssid: String = radio.ssid.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "ctrl_interface=DIR=/run/wpa_supplicant GROUP=netdev\nupdate_config=1\ncountry={}\n\
         network={{\n    ssid={ssid}\n    psk=\"{}\"\n}}\n",
        radio.country, radio.passphrase
    )
}

/// Raspberry Pi OS keeps Wi-Fi off until somebody has named the country, in two places.
pub fn unblock(draft: &mut Draft<'_>, links: &[Link]) {
    if !links.iter().any(|link| link.radio.is_some()) {
        return;
    }
    for name in draft.layout().names(RFKILL).iter().filter(|name| name.ends_with(":wlan")) {
        draft.file(format!("{RFKILL}/{name}"), "0\n");
    }
    draft.edit("/var/lib/NetworkManager/NetworkManager.state", |text| {
        text.replace("WirelessEnabled=false", "WirelessEnabled=true")
    });
    if !draft.layout().has_program("wpa_supplicant") && !draft.layout().has_program("iwd") {
        draft.warn("the image has no wpa_supplicant: its Wi-Fi will not work");
    }
}

/// A Wi-Fi that sleeps answers after hundreds of milliseconds, or not at all.
pub fn save_no_power(draft: &mut Draft<'_>, by_network_manager: bool) {
    if by_network_manager {
        let text = "[connection]\nwifi.powersave=2\n";
        draft.file(POWER, text);
    } else if draft.layout().has_program("iw") {
        draft.file(
            "/etc/udev/rules.d/90-coracle-wifi.rules",
            "ACTION==\"add\", SUBSYSTEM==\"net\", KERNEL==\"wl*\", \
             RUN+=\"/usr/sbin/iw dev %k set power_save off\"\n",
        );
    }
}
