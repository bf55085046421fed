//! Rules for Services and Endpoints. Addresses and node ports are allotted, and their rules
//! checked, by the server, which knows what is taken.

use super::at::{At, Errors};
use super::container::PROTOCOLS;
use super::{formats, handler, meta};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_MAX_SECONDS: i64 = 86_400;
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

/// A Service.
pub(super) fn service(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let kind = spec.get("type").text();
    let headless = spec.get("clusterIPs").items().next().is_some_and(|ip| ip.text() == "None")
        || spec.get("clusterIP").text() == "None";
    let ports = spec.get("ports");
    if ports.len() == 0 && !headless && kind != "ExternalName" {
        out.required(&ports, "");
    }
    of_type(&spec, kind, headless, out);
    let mut names = BTreeSet::new();
    ports.items().for_each(|at| port(&at, ports.len() > 1, &mut names, out));
    meta::labels(&spec.get("selector"), out);
    affinity(&spec, out);
    external_ips(&spec.get("externalIPs"), out);
    out.one_of(&spec.get("type"), &TYPES);
    repeated_ports(&ports, kind, out);
    balancer(object, kind, out);
    traffic(&spec, kind, out);
}

fn of_type(spec: &At<'_>, kind: &str, headless: bool, out: &mut Errors) {
    if matches!(kind, "LoadBalancer" | "NodePort") && headless {
        let first = spec.get("clusterIPs").items().next().unwrap_or_else(|| spec.get("clusterIP"));
        out.invalid_as(&first, "None", format!("may not be set to 'None' for {kind} services"));
    }
    if kind != "ExternalName" {
        return;
    }
    for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let at = spec.get(name);
        if at.len() > 0 || !at.text().is_empty() {
            out.forbidden(&at, "may not be set for ExternalName services");
        }
    }
    let name = spec.get("externalName");
    let text = name.text().strip_suffix('.').unwrap_or(name.text());
    if text.is_empty() {
        return out.required(&name, "");
    }
    for why in formats::dns_subdomain(text) {
        out.invalid_as(&name, text, why);
    }
}

fn port<'v>(at: &At<'v>, named: bool, names: &mut BTreeSet<&'v str>, out: &mut Errors) {
    let name = at.get("name");
    if named && name.text().is_empty() {
        out.required(&name, "");
    } else if !name.text().is_empty() {
        out.all(&name, formats::dns_label(name.text()));
        out.unique(&name, names);
    }
    let number = at.get("port");
    if let Some(why) = formats::port_number(number.number()) {
        out.invalid_as(&number, number.number(), why);
    }
    out.one_of(&at.get("protocol"), &PROTOCOLS);
    handler::port(&at.get("targetPort"), out);
    let protocol = at.get("appProtocol");
    if protocol.is_set() {
        meta::label_key(&protocol, protocol.text(), out);
    }
}

fn affinity(spec: &At<'_>, out: &mut Errors) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    out.one_of(&affinity, &["ClientIP", "None"]);
    match affinity.text() {
        "ClientIP" => {
            let seconds = config.get("clientIP.timeoutSeconds");
            for at in [config.clone(), config.get("clientIP"), seconds.clone()] {
                if !at.is_set() {
                    return out.required(&at, "when session affinity type is ClientIP");
                }
            }
            if !(1..=AFFINITY_MAX_SECONDS).contains(&seconds.number()) {
                let why = format!("must be greater than 0 and less than {AFFINITY_MAX_SECONDS}");
                out.invalid(&seconds, why);
            }
        }
        "None" if config.is_set() => {
            out.forbidden(&config, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn external_ips(at: &At<'_>, out: &mut Errors) {
    for ip in at.items() {
        let wrong = formats::ip(ip.text());
        match wrong.is_empty() {
            true => ordinary_ip(&ip, out),
            false => out.all(&ip, wrong),
        }
    }
}

/// An address that other machines can have.
pub(super) fn ordinary_ip(at: &At<'_>, out: &mut Errors) {
    let Ok(ip) = at.text().parse::<IpAddr>() else { return };
    let (local, group) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] == 0xff02),
    };
    for (wrong, why) in [
        (ip.is_unspecified(), format!("may not be unspecified ({ip})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (
            group,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ] {
        if wrong {
            out.invalid(at, why);
        }
    }
}

fn repeated_ports(ports: &At<'_>, kind: &str, out: &mut Errors) {
    let protocol = |port: &At<'_>| port.get("protocol").text().to_owned();
    if kind == "ClusterIP" {
        for port in ports.items().filter(|port| port.get("nodePort").number() != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            out.forbidden(&port.get("nodePort"), why);
        }
    }
    let mut seen = BTreeSet::new();
    for port in ports.items().filter(|port| port.get("nodePort").number() != 0) {
        let at = port.get("nodePort");
        if !seen.insert((protocol(&port), at.number())) {
            out.duplicate(&at, at.number());
        }
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let number = port.get("port").number();
        if !seen.insert((protocol(&port), number)) {
            // Upstream shows a port that has these two fields only.
            out.duplicate(
                &port,
                json!({"protocol": protocol(&port), "port": number, "targetPort": 0}),
            );
        }
    }
}

fn balancer(object: &At<'_>, kind: &str, out: &mut Errors) {
    let spec = object.get("spec");
    let is_balanced = kind == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges");
    if ranges.len() > 0 {
        // Upstream's path begins with a capital.
        let at = ranges.named(&spec, "LoadBalancerSourceRanges");
        if !is_balanced {
            out.forbidden(&at, ONLY_BALANCED);
        }
        for range in at.items() {
            let text = range.text().trim();
            formats::cidr(text).into_iter().for_each(|why| out.invalid_as(&range, text, why));
        }
    }
    let allot = spec.get("allocateLoadBalancerNodePorts");
    if allot.is_set() && !is_balanced {
        out.forbidden(&allot, ONLY_BALANCED);
    }
    let class = spec.get("loadBalancerClass");
    if class.is_set() {
        match is_balanced {
            true => meta::label_key(&class, class.text(), out),
            false => out.forbidden(&class, ONLY_BALANCED),
        }
    }
}

fn traffic(spec: &At<'_>, kind: &str, out: &mut Errors) {
    let policy = spec.get("externalTrafficPolicy");
    let external = matches!(kind, "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && spec.get("externalIPs").len() > 0);
    if external {
        out.one_of(&policy, &["Cluster", "Local"]);
    } else if !policy.text().is_empty() {
        out.invalid(&policy, "may only be set for externally-accessible services");
    }
    let health = spec.get("healthCheckNodePort");
    let checked = kind == "LoadBalancer" && policy.text() == "Local";
    if !checked && health.number() != 0 {
        let why =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        out.invalid(&health, why);
    }
    out.one_of_if_set(&spec.get("internalTrafficPolicy"), &["Cluster", "Local"]);
    let near = spec.get("trafficDistribution");
    out.one_of_if_set(&near, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

/// A changed Service.
pub(super) fn service_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let class = new.get("spec.loadBalancerClass");
    let kept = old.get("spec.type").text() == "LoadBalancer"
        && new.get("spec.type").text() == "LoadBalancer";
    if kept && class.value != old.get("spec.loadBalancerClass").value {
        out.invalid(&class, "may not change once set");
    }
    service(new, out);
}

/// Endpoints.
pub(super) fn endpoints(object: &At<'_>, out: &mut Errors) {
    for subset in object.get("subsets").items() {
        let (ready, waiting) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.len() + waiting.len() == 0 {
            out.required(&subset, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().chain(waiting.items()) {
            let ip = address.get("ip");
            let wrong = formats::ip(ip.text());
            match wrong.is_empty() {
                true => ordinary_ip(&ip, out),
                false => out.all(&ip, wrong),
            }
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            let (name, number) = (port.get("name"), port.get("port"));
            if ports.len() > 1 && name.text().is_empty() {
                out.required(&name, "");
            } else if !name.text().is_empty() {
                out.all(&name, formats::dns_label(name.text()));
            }
            if let Some(why) = formats::port_number(number.number()) {
                out.invalid_as(&number, number.number(), why);
            }
            out.one_of(&port.get("protocol"), &PROTOCOLS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    #[test]
    fn services() {
        created(
            "services",
            &[
                ("spec: {ports: [{port: 80}]}", ""),
                ("spec: {clusterIP: None}", ""),
                ("spec: {externalIPs: [192.0.2.1], ports: [{port: 80}]}", ""),
                (
                    "spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}",
                    "",
                ),
                (
                    "metadata: {name: A}\nspec: {}",
                    "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 label…\nspec.ports: Required value",
                ),
                (
                    "spec: {ports: [{port: 80}, {name: b, port: 0, targetPort: no_port, protocol: X, nodePort: 5}, {name: b, port: 80}]}",
                    r#"spec.ports[0].name: Required value
                       spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive
                       spec.ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"
                       spec.ports[1].targetPort: Invalid value: "no_port": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
                       spec.ports[2].name: Duplicate value: "b"
                       spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
                       spec.ports[2]: Duplicate value: {"protocol":"TCP","port":80,"targetPort":0}"#,
                ),
                ("spec: {type: ExternalName}", "spec.externalName: Required value"),
                (
                    "spec: {type: ExternalName, externalName: a_b, clusterIPs: [10.0.0.1]}",
                    "spec.clusterIPs: Forbidden: may not be set for ExternalName services\nspec.externalName: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain…",
                ),
                (
                    "spec: {type: NodePort, clusterIPs: [None], ports: [{port: 1}]}",
                    "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
                ),
                (
                    "spec: {type: Mesh, ports: [{port: 1}], sessionAffinity: Sticky, externalIPs: [127.0.0.1, x], internalTrafficPolicy: Near}",
                    r#"spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", "None"
                       spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
                       spec.externalIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
                       spec.type: Unsupported value: "Mesh": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
                       spec.internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local""#,
                ),
                (
                    "spec: {ports: [{port: 1}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}, loadBalancerSourceRanges: [x]}",
                    r#"spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400
                       spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'
                       spec.LoadBalancerSourceRanges[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
                ),
            ],
        );
    }
}
