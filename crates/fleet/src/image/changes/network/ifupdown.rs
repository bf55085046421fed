use std::fmt::Write;

use super::super::super::layout::Layout;
use super::super::Draft;
use super::super::account::with_line;
use super::link::{Ip, Link, joined};
use super::networkd::name_servers;
use super::wireless::supplicant;

const MAIN: &str = "/etc/network/interfaces";
const FOLDER: &str = "/etc/network/interfaces.d";
/// What a wired port is called where nothing renames it.
const USUAL: &str = "eth0";

/// The wired interface that the image sets up already.
pub fn wired(layout: &Layout) -> Option<String> {
    let files = std::iter::once(MAIN.to_owned())
        .chain(layout.names(FOLDER).iter().map(|name| format!("{FOLDER}/{name}")));
    let texts: Vec<&str> = files.filter_map(|file| layout.text(&file)).collect();
    texts.into_iter().flat_map(str::lines).find_map(|line| {
        let mut words = line.split_whitespace();
        let name = (words.next() == Some("iface")).then(|| words.next()).flatten()?;
        name.starts_with('e').then(|| name.to_owned())
    })
}

/// A stanza a connection, in a file of ours; the image's own of these interfaces go.
pub fn changes(draft: &mut Draft<'_>, links: &[Link]) {
    let layout = draft.layout();
    let mut text = String::new();
    for link in links {
        let name = match link.pattern() {
            "e*" => wired(layout).unwrap_or_else(|| USUAL.into()),
            name => name.to_owned(),
        };
        let known = link.name.is_none() && wired(layout).is_some();
        if link.ip == Ip::Dhcp && link.radio.is_none() && known {
            continue;
        }
        forget(draft, &name);
        stanza(&mut text, &name, link);
    }
    if text.is_empty() {
        return;
    }
    let secret = links.iter().any(|link| link.radio.is_some());
    let mode = if secret { 0o600 } else { 0o644 };
    draft.put(format!("{FOLDER}/coracle"), text, mode, (0, 0), secret);
    draft.edit(MAIN, |text| match text.lines().any(|line| line.starts_with("source")) {
        true => text.to_owned(),
        false => with_line(text, &format!("source {FOLDER}/*")),
    });
    name_servers(draft, links);
}

fn stanza(text: &mut String, name: &str, link: &Link) {
    let _ = writeln!(text, "auto {name}");
    match &link.ip {
        Ip::Dhcp => {
            let _ = writeln!(text, "iface {name} inet dhcp");
        }
        Ip::Static { address, prefix, gateway, dns } => {
            let family = if address.is_ipv4() { "inet" } else { "inet6" };
            let _ = writeln!(text, "iface {name} {family} static\n    address {address}/{prefix}");
            if let Some(gateway) = gateway {
                let _ = writeln!(text, "    gateway {gateway}");
            }
            if !dns.is_empty() {
                let _ = writeln!(text, "    dns-nameservers {}", joined(dns, " "));
            }
        }
    }
    if let Some(radio) = &link.radio {
        let _ = writeln!(text, "    wpa-ssid {}\n    wpa-psk {}", radio.ssid, radio.passphrase);
    }
}

/// Takes an interface out of the image's files.
fn forget(draft: &mut Draft<'_>, name: &str) {
    let files = draft.layout().names(FOLDER).iter().map(|file| format!("{FOLDER}/{file}"));
    for file in std::iter::once(MAIN.to_owned()).chain(files.collect::<Vec<_>>()) {
        draft.edit(&file, |text| without(text, name));
    }
}

/// The text without what is about an interface.
fn without(text: &str, name: &str) -> String {
    let mut inside = false;
    let kept = text.split_inclusive('\n').filter(|line| {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next());
        let begins = matches!(first, "auto" | "iface" | "mapping" | "source" | "source-directory")
            || first.starts_with("allow-");
        if begins {
            inside = second == Some(name);
        }
        !inside
    });
    kept.collect()
}

/// dhcpcd has fixed addresses, too; Wi-Fi is wpa_supplicant's.
pub fn dhcpcd(draft: &mut Draft<'_>, links: &[Link]) {
    for link in links {
        if let Ip::Static { address, prefix, gateway, dns } = &link.ip {
            let name = if link.pattern() == "e*" { USUAL } else { link.pattern() };
            let mut text = format!("interface {name}\nstatic ip_address={address}/{prefix}");
            if let Some(gateway) = gateway {
                let _ = write!(text, "\nstatic routers={gateway}");
            }
            if !dns.is_empty() {
                let _ = write!(text, "\nstatic domain_name_servers={}", joined(dns, " "));
            }
            draft.edit("/etc/dhcpcd.conf", |before| with_line(before, &text));
        }
        if let Some(radio) = &link.radio {
            draft.secret("/etc/wpa_supplicant/wpa_supplicant.conf", supplicant(radio));
        }
    }
}
