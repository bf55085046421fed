use std::fmt::Write;

use super::super::Draft;
use super::link::{Ip, Link};
use super::wireless::supplicant;

const UNIT: &str = "systemd-networkd.service";

/// A file a connection, before the image's own by its name.
pub fn changes(draft: &mut Draft<'_>, links: &[Link]) {
    for link in links {
        let names = if link.pattern() == "e*" { "en* eth*" } else { link.pattern() };
        let online = if link.optional { "[Link]\nRequiredForOnline=no\n\n" } else { "" };
        let mut text = format!("[Match]\nName={names}\n\n{online}[Network]\n");
        match &link.ip {
            Ip::Dhcp => text.push_str("DHCP=yes\n"),
            Ip::Static { address, prefix, gateway, dns } => {
                let _ = writeln!(text, "Address={address}/{prefix}");
                if let Some(gateway) = gateway {
                    let _ = writeln!(text, "Gateway={gateway}");
                }
                for server in dns {
                    let _ = writeln!(text, "DNS={server}");
                }
            }
        }
        draft.file(format!("/etc/systemd/network/05-coracle-{}.network", link.title()), text);
        if let Some(radio) = &link.radio {
            let name = link.pattern();
            let file = format!("/etc/wpa_supplicant/wpa_supplicant-{name}.conf");
            draft.secret(file, supplicant(radio));
            draft.enable(
                &format!("wpa_supplicant@{name}.service"),
                "multi-user.target",
                "/lib/systemd/system/wpa_supplicant@.service",
            );
        }
    }
    if !draft.layout().starts(UNIT) {
        draft.enable(UNIT, "multi-user.target", &format!("/lib/systemd/system/{UNIT}"));
    }
    name_servers(draft, links);
}

/// Where nothing else keeps `/etc/resolv.conf`, it holds the name servers that are known.
pub fn name_servers(draft: &mut Draft<'_>, links: &[Link]) {
    let layout = draft.layout();
    if layout.starts("systemd-resolved.service") || layout.has_program("resolvconf") {
        return;
    }
    let known = links.iter().find_map(|link| match &link.ip {
        Ip::Static { dns, .. } if !dns.is_empty() => Some(dns),
        _ => None,
    });
    if let Some(dns) = known {
        let lines: String = dns.iter().map(|server| format!("nameserver {server}\n")).collect();
        draft.file("/etc/resolv.conf", lines);
    }
}
