use std::fmt::Write;

use super::super::Draft;
use super::link::{Ip, Link, joined};

const FILE: &str = "/etc/netplan/50-coracle.yaml";

/// One file for all; the image's own go, since two that name the same port are both in force, and the
/// other's name may come first.
pub fn changes(draft: &mut Draft<'_>, links: &[Link]) {
    for name in draft.layout().names("/etc/netplan") {
        if name.ends_with(".yaml") {
            draft.remove(&format!("/etc/netplan/{name}"));
        }
    }
    let mut text = "network:\n  version: 2\n".to_owned();
    for (section, is_radio) in [("ethernets", false), ("wifis", true)] {
        let of_section: Vec<&Link> =
            links.iter().filter(|link| link.radio.is_some() == is_radio).collect();
        if !of_section.is_empty() {
            let _ = writeln!(text, "  {section}:");
        }
        of_section.into_iter().for_each(|link| one(&mut text, link));
    }
    let is_secret = links.iter().any(|link| link.radio.is_some());
    draft.put(FILE, text, 0o600, (0, 0), is_secret);
}

fn one(text: &mut String, link: &Link) {
    // Wi-Fi takes a name and no pattern.
    let id = if link.radio.is_some() { link.pattern() } else { link.title() };
    let _ = writeln!(text, "    {id}:");
    if link.radio.is_none() {
        let _ = writeln!(text, "      match: {{name: {:?}}}", link.pattern());
    }
    match &link.ip {
        Ip::Dhcp => {
            let _ = writeln!(text, "      dhcp4: true");
        }
        Ip::Static { address, prefix, gateway, dns } => {
            let _ = writeln!(text, "      dhcp4: false\n      addresses: [\"{address}/{prefix}\"]");
            if let Some(gateway) = gateway {
                let _ = writeln!(text, "      routes: [{{to: default, via: \"{gateway}\"}}]");
            }
            if !dns.is_empty() {
                let list = joined(dns, "\", \"");
                let _ = writeln!(text, "      nameservers: {{addresses: [\"{list}\"]}}");
            }
        }
    }
    let _ = writeln!(text, "      optional: {}", link.optional);
    if let Some(radio) = &link.radio {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let _ = writeln!(
            text,
            "      access-points: {{{}: {{password: {}}}}}",
            quoted(&radio.ssid),
            quoted(&radio.passphrase)
        );
    }
}
