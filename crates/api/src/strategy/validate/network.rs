//! Rules for the kinds of networking beside Services and Ingresses
//! (k8s.io/kubernetes `pkg/apis/networking/validation`, `pkg/apis/discovery/validation`).

use super::at::{At, Errors};
use super::container::PROTOCOLS;
use super::{formats, meta, selectors, service};
use crate::status::FieldError;
use serde_json::json;
use std::collections::BTreeSet;

const CONTROLLER_MAX_BYTES: usize = 250;
const SLICE_MAX_ENDPOINTS: usize = 1000;
const SLICE_MAX_PORTS: usize = 20_000;
const ENDPOINT_MAX_ADDRESSES: usize = 100;
const ENDPOINT_MAX_TOPOLOGY: usize = 16;
const ENDPOINT_MAX_HINTS: usize = 8;
const MAX_FAMILIES: usize = 2;
/// What a path may consist of beside letters and digits.
const PATH_SIGNS: &str = "/-._~%!$&'()*+,;=:";
const PATH: &str = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";

/// An IngressClass.
pub(super) fn ingress_class(object: &At<'_>, out: &mut Errors) {
    let (controller, parameters) = (object.get("spec.controller"), object.get("spec.parameters"));
    if controller.text().len() > CONTROLLER_MAX_BYTES {
        out.too_long(&controller, CONTROLLER_MAX_BYTES);
    }
    domain_path(&controller, out);
    if parameters.is_set() {
        class_parameters(&parameters, out);
    }
}

/// A domain, a slash and a path.
pub(super) fn domain_path(at: &At<'_>, out: &mut Errors) {
    if !out.needed(at) {
        return;
    }
    let Some((host, path)) =
        at.text().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        return out.invalid(at, r#"must be a domain-prefixed path (such as "acme.io/foo")"#);
    };
    for why in formats::dns_subdomain(host) {
        out.invalid_as(at, host, why);
    }
    if !path.chars().all(|c| c.is_ascii_alphanumeric() || PATH_SIGNS.contains(c)) {
        out.invalid_as(at, path, PATH);
    }
}

fn class_parameters(at: &At<'_>, out: &mut Errors) {
    let group = at.get("apiGroup");
    if group.is_set() {
        out.all(&group, formats::dns_subdomain(group.text()));
    }
    for field in ["kind", "name"] {
        let value = at.get(field);
        match value.text() {
            "" => out.required(&value, &format!("{field} is required")),
            text => out.all(&value, formats::path_segment(text)),
        }
    }
    let (scope, namespace) = (at.get("scope"), at.get("namespace"));
    match (scope.text(), namespace.is_set()) {
        ("", _) => out.required(&scope, ""),
        ("Namespace", false) => {
            out.required(&namespace, "`parameters.scope` is set to 'Namespace'");
        }
        ("Namespace", true) => out.all(&namespace, formats::dns_label(namespace.text())),
        ("Cluster", true) => out.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'"),
        ("Cluster", false) => {}
        _ => out.not_supported(&scope, &["Cluster", "Namespace"]),
    }
}

/// A changed IngressClass.
pub(super) fn ingress_class_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("spec.controller"), old.get("spec.controller").value);
}

/// An IPAddress.
pub(super) fn address(object: &At<'_>, out: &mut Errors) {
    let parent = object.get("spec.parentRef");
    if !parent.is_set() {
        return out.required(&parent, "");
    }
    let group = parent.get("group");
    if !group.text().is_empty() {
        out.all(&group, formats::dns_subdomain(group.text()));
    }
    for field in ["resource", "name", "namespace"] {
        let at = parent.get(field);
        if field == "namespace" || out.needed(&at) {
            out.all(&at, formats::path_segment(at.text()));
        }
    }
}

/// A changed IPAddress.
pub(super) fn address_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("spec.parentRef"), old.get("spec.parentRef").value);
}

/// A ServiceCIDR.
pub(super) fn service_range(object: &At<'_>, out: &mut Errors) {
    let (spec, ranges) = (object.get("spec"), object.get("spec.cidrs"));
    let families: BTreeSet<bool> = ranges.items().map(|at| at.text().contains(':')).collect();
    match ranges.len() {
        0 => return out.required(&ranges, "at least one CIDR required"),
        count if count > MAX_FAMILIES => {
            return out.invalid_as(&ranges, spec.value.clone(), "may only hold up to 2 values");
        }
        count if count > families.len() => {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            return out.invalid_as(&ranges, spec.value.clone(), why);
        }
        _ => {}
    }
    ranges.items().for_each(|range| out.all(&range, formats::canonical_cidr(range.text())));
}

/// A changed ServiceCIDR.
pub(super) fn service_range_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("spec.cidrs"), old.get("spec.cidrs").value);
}

/// A NetworkPolicy.
pub(super) fn policy(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    selectors::label_selector(&spec.get("podSelector"), out);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(direction).items() {
            rule.get("ports").items().for_each(|port| policy_port(&port, out));
            rule.get(peers).items().for_each(|peer| policy_peer(&peer, out));
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > MAX_FAMILIES {
        return out.invalid(&types, "may not specify more than two policyTypes");
    }
    for kind in types.items().filter(|kind| !matches!(kind.text(), "Ingress" | "Egress")) {
        out.not_supported(&kind, &["Ingress", "Egress"]);
    }
}

fn policy_port(at: &At<'_>, out: &mut Errors) {
    out.one_of_if_set(&at.get("protocol"), &["TCP", "UDP", "SCTP"]);
    let (port, end) = (at.get("port"), at.get("endPort"));
    let number = port.value.as_i64();
    if let Some(number) = number {
        formats::port_number(number).into_iter().for_each(|why| out.invalid(&port, why));
    } else if port.is_set() {
        if end.is_set() {
            out.invalid(&end, "may not be specified when `port` is non-numeric");
        }
        out.all(&port, formats::port_name(port.text()));
    } else if end.is_set() {
        out.invalid(&end, "may not be specified when `port` is not specified");
    }
    if let (Some(number), true) = (number, end.is_set()) {
        if end.number() < number {
            out.invalid_as(&end, number, "must be greater than or equal to `port`");
        }
        formats::port_number(end.number()).into_iter().for_each(|why| out.invalid(&end, why));
    }
}

fn policy_peer(at: &At<'_>, out: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"].map(|field| at.get(field));
    let block = at.get("ipBlock");
    let given = selectors.iter().filter(|selector| selector.is_set());
    let mut peers = 0;
    for selector in given {
        peers += 1;
        selectors::label_selector(selector, out);
    }
    if block.is_set() {
        ip_block(&block, out);
    }
    match (peers, block.is_set()) {
        (0, false) => out.required(at, "must specify a peer"),
        (1.., true) => out.forbidden(at, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(at: &At<'_>, out: &mut Errors) {
    let range = at.get("cidr");
    if !out.needed(&range) {
        return;
    }
    out.all(&range, formats::cidr(range.text()));
    let Some(whole) = formats::parsed_cidr(range.text()) else { return };
    for except in at.get("except").items() {
        out.all(&except, formats::cidr(except.text()));
        let inside = formats::parsed_cidr(except.text())
            .is_none_or(|part| part.1 > whole.1 && formats::holds(whole, part.0));
        if !inside {
            out.invalid(&except, "must be a strict subset of `cidr`");
        }
    }
}

/// An EndpointSlice.
pub(super) fn slice(object: &At<'_>, out: &mut Errors) {
    let kind = object.get("addressType");
    out.one_of(&kind, &["FQDN", "IPv4", "IPv6"]);
    let endpoints = object.get("endpoints");
    if endpoints.len() > SLICE_MAX_ENDPOINTS {
        out.push(FieldError::too_many(&endpoints.path, endpoints.len(), SLICE_MAX_ENDPOINTS));
    } else {
        endpoints.items().for_each(|at| endpoint(&at, kind.text(), out));
    }
    let ports = object.get("ports");
    if ports.len() > SLICE_MAX_PORTS {
        return out.push(FieldError::too_many(&ports.path, ports.len(), SLICE_MAX_PORTS));
    }
    let mut names = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            out.all(&name, formats::dns_label(name.text()));
        }
        out.unique(&name, &mut names);
        out.one_of(&port.get("protocol"), &PROTOCOLS);
        let protocol = port.get("appProtocol");
        if protocol.is_set() {
            meta::label_key(&protocol, protocol.text(), out);
        }
    }
}

fn endpoint(at: &At<'_>, kind: &str, out: &mut Errors) {
    let addresses = at.get("addresses");
    match addresses.len() {
        0 => out.required(&addresses, "must contain at least 1 address"),
        count if count > ENDPOINT_MAX_ADDRESSES => {
            out.push(FieldError::too_many(&addresses.path, count, ENDPOINT_MAX_ADDRESSES));
        }
        _ => {}
    }
    for address in addresses.items() {
        match kind {
            "IPv4" | "IPv6" => endpoint_ip(&address, kind, out),
            "FQDN" => domain(&address, out),
            _ => {}
        }
    }
    let (node, host) = (at.get("nodeName"), at.get("hostname"));
    if node.is_set() {
        out.all(&node, formats::dns_subdomain(node.text()));
    }
    let topology = at.get("deprecatedTopology");
    if topology.len() > ENDPOINT_MAX_TOPOLOGY {
        out.push(FieldError::too_many(&topology.path, topology.len(), ENDPOINT_MAX_TOPOLOGY));
    }
    meta::labels(&topology, out);
    if host.is_set() {
        out.all(&host, formats::dns_label(host.text()));
    }
    for (list, format) in [
        ("forZones", formats::label_value as formats::Format),
        ("forNodes", formats::dns_subdomain),
    ] {
        hints(&at.get("hints").get(list), format, out);
    }
}

fn endpoint_ip(at: &At<'_>, kind: &str, out: &mut Errors) {
    let ip: Option<std::net::IpAddr> = at.text().parse().ok();
    if ip.is_none_or(|ip| ip.is_ipv6() != (kind == "IPv6")) {
        out.invalid(at, format!("must be a valid {kind} address"));
    }
    match ip {
        Some(_) => service::ordinary_ip(at, out),
        None => out.all(at, formats::ip(at.text())),
    }
}

fn domain(at: &At<'_>, out: &mut Errors) {
    if !out.needed(at) {
        return;
    }
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    let wrong = formats::dns_subdomain(name);
    if !wrong.is_empty() {
        return out.invalid_as(at, name, wrong.join(","));
    }
    if !name.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        return out.invalid_as(at, name, why);
    }
    for label in name.split('.') {
        let wrong = formats::dns_label(label);
        if !wrong.is_empty() {
            out.invalid_as(at, label, wrong.join(","));
        }
    }
}

fn hints(at: &At<'_>, format: formats::Format, out: &mut Errors) {
    if at.len() > ENDPOINT_MAX_HINTS {
        return out.push(FieldError::too_many(&at.path, at.len(), ENDPOINT_MAX_HINTS));
    }
    let mut seen = BTreeSet::new();
    for hint in at.items() {
        let name = hint.get("name");
        out.unique(&name, &mut seen);
        out.all(&name, format(name.text()));
    }
}

/// A changed EndpointSlice.
pub(super) fn slice_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("addressType"), old.get("addressType").value);
}

/// What a load balancer says of itself in a status.
pub(super) fn balancer_status(at: &At<'_>, out: &mut Errors) {
    for point in at.get("ingress").items() {
        let (ip, host) = (point.get("ip"), point.get("hostname"));
        if !ip.text().is_empty() {
            out.all(&ip, formats::ip(ip.text()));
        }
        if !host.text().is_empty() {
            out.all(&host, formats::dns_subdomain(host.text()));
            if host.text().parse::<std::net::IpAddr>().is_ok() {
                out.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
        let mode = point.get("ipMode");
        if mode.is_set() && ip.text().is_empty() {
            out.forbidden(&mode, "may not be specified when `ip` is not set");
        } else if mode.is_set() && !matches!(mode.text(), "VIP" | "Proxy") {
            out.push(FieldError::not_supported(&mode.path, json!(mode.text()), &["Proxy", "VIP"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    #[test]
    fn classes_addresses_and_ranges() {
        created(
            "networking.k8s.io/ingressclasses",
            &[
                ("spec: {controller: a.b/c, parameters: {kind: K, name: a}}", ""),
                ("spec: {}", "spec.controller: Required value"),
                (
                    "spec: {controller: x, parameters: {scope: Namespace}}",
                    r#"spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")
                       spec.parameters.kind: Required value: kind is required
                       spec.parameters.name: Required value: name is required
                       spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"#,
                ),
                (
                    "spec: {controller: A/b c, parameters: {kind: K, name: a, namespace: d}}",
                    r#"spec.controller: Invalid value: "A": a lowercase RFC 1123 subdomain must…
                       spec.controller: Invalid value: "b c": Invalid path (regex used…
                       spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"#,
                ),
            ],
        );
        updated(
            "networking.k8s.io/ingressclasses",
            &[(
                "spec: {controller: a.b/c}",
                "spec: {controller: a.b/d}",
                r#"spec.controller: Invalid value: "a.b/d": field is immutable"#,
            )],
        );
        created(
            "networking.k8s.io/ipaddresses",
            &[
                (
                    "{metadata: {name: 10.0.0.1}, spec: {parentRef: {resource: services, name: a, namespace: b}}}",
                    "",
                ),
                (
                    "{metadata: {name: 'fd00:0::1'}, spec: {}}",
                    r#"metadata.name: Invalid value: "fd00:0::1": must be in canonical form ("fd00::1")
                       spec.parentRef: Required value"#,
                ),
                (
                    "{metadata: {name: x}, spec: {parentRef: {group: B}}}",
                    r#"metadata.name: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
                       spec.parentRef.group: Invalid value: "B": a lowercase RFC 1123 subdomain…
                       spec.parentRef.resource: Required value
                       spec.parentRef.name: Required value"#,
                ),
            ],
        );
        created(
            "networking.k8s.io/servicecidrs",
            &[
                ("spec: {cidrs: [10.43.0.0/16, 'fd00::/112']}", ""),
                ("spec: {}", "spec.cidrs: Required value: at least one CIDR required"),
                (
                    "spec: {cidrs: [10.43.0.0/16, 10.44.0.0/16]}",
                    r#"spec.cidrs: Invalid value: {"cidrs":["10.43.0.0/16","10.44.0.0/16"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#,
                ),
                (
                    "spec: {cidrs: [10.43.0.1/16]}",
                    r#"spec.cidrs[0]: Invalid value: "10.43.0.1/16": must not have bits set beyond the prefix length"#,
                ),
            ],
        );
    }

    #[test]
    fn policies() {
        created(
            "networking.k8s.io/networkpolicies",
            &[
                (
                    "spec: {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}], from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}",
                    "",
                ),
                (
                    "spec: {podSelector: {matchLabels: {a b: c}}, policyTypes: [Sideways], egress: [{ports: [{protocol: X, port: Big, endPort: 1}, {endPort: 2}, {port: 5, endPort: 4}], to: [{}, {podSelector: {}, ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8, x]}}, {ipBlock: {}}]}]}",
                    r#"spec.podSelector.matchLabels: Invalid value: "a b": name part must consist of…
                       spec.egress[0].ports[0].protocol: Unsupported value: "X": supported values: "TCP", "UDP", "SCTP"
                       spec.egress[0].ports[0].endPort: Invalid value: 1: may not be specified when `port` is non-numeric
                       spec.egress[0].ports[0].port: Invalid value: "Big": must contain only alpha-numeric…
                       spec.egress[0].ports[1].endPort: Invalid value: 2: may not be specified when `port` is not specified
                       spec.egress[0].ports[2].endPort: Invalid value: 5: must be greater than or equal to `port`
                       spec.egress[0].to[0]: Required value: must specify a peer
                       spec.egress[0].to[1].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`
                       spec.egress[0].to[1].ipBlock.except[1]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
                       spec.egress[0].to[1]: Forbidden: may not specify both ipBlock and another peer
                       spec.egress[0].to[2].ipBlock.cidr: Required value
                       spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Ingress", "Egress""#,
                ),
            ],
        );
    }

    #[test]
    fn slices() {
        created(
            "discovery.k8s.io/endpointslices",
            &[
                (
                    "{addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}], ports: [{port: 80}]}",
                    "",
                ),
                ("endpoints: []", "addressType: Required value"),
                (
                    "{addressType: IPv4, endpoints: [{addresses: ['fd00::1', 127.0.0.1, x], hostname: A}, {}], ports: [{name: a}, {name: a, protocol: X}]}",
                    r#"endpoints[0].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address
                       endpoints[0].addresses[1]: Invalid value: "127.0.0.1": may not be in the loopback…
                       endpoints[0].addresses[2]: Invalid value: "x": must be a valid IPv4 address
                       endpoints[0].addresses[2]: Invalid value: "x": must be a valid IP address…
                       endpoints[0].hostname: Invalid value: "A": a lowercase RFC 1123 label…
                       endpoints[1].addresses: Required value: must contain at least 1 address
                       ports[1].name: Duplicate value: "a"
                       ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP""#,
                ),
                (
                    "{addressType: FQDN, endpoints: [{addresses: [a.b., a]}]}",
                    r#"endpoints[0].addresses[1]: Invalid value: "a": should be a domain with at least two segments separated by dots"#,
                ),
            ],
        );
        updated(
            "discovery.k8s.io/endpointslices",
            &[(
                "addressType: IPv4",
                "addressType: IPv6",
                r#"addressType: Invalid value: "IPv6": field is immutable"#,
            )],
        );
    }
}
