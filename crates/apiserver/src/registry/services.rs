//! Cluster addresses and node ports of Services: which a Service wants, keeps and gets, beside
//! those that are taken. Rules as upstream's `pkg/registry/core/service/storage`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::status::{FieldError, Status};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{Outcome, codec, meta};

/// Addresses looked at by chance before the range is walked in order.
const RANDOM_TRIES: usize = 16;

/// The ranges that Services draw from.
pub struct Ranges<'a> {
    /// Cluster IP ranges, one for each family, the default family first.
    pub cidrs: &'a [IpNet],
    /// First and last node port.
    pub node_ports: (u16, u16),
}

/// Cluster addresses and node ports.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Cluster addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Node ports, those of health checks among them.
    pub ports: BTreeSet<u16>,
}

impl Numbers {
    /// What a Service of this spec has.
    pub fn of(spec: &Value) -> Self {
        let mut ports: BTreeSet<u16> = BTreeSet::new();
        for port in spec["ports"].as_array().into_iter().flatten() {
            ports.extend(port_number(&port["nodePort"]));
        }
        ports.extend(port_number(&spec["healthCheckNodePort"]));
        let addresses = cluster_ips(spec).iter().filter_map(|ip| ip.parse().ok()).collect();
        Numbers { addresses, ports }
    }

    /// What a stored Service has.
    pub fn of_stored(stored: &[u8]) -> Self {
        codec::extract(stored, &["spec"]).map(|spec| Numbers::of(&spec)).unwrap_or_default()
    }

    /// Counts in one stored Service.
    pub fn add(&mut self, stored: &[u8]) {
        let Numbers { addresses, ports } = Numbers::of_stored(stored);
        self.addresses.extend(addresses);
        self.ports.extend(ports);
    }

    /// Counts in what stands for one number: an address or a port.
    pub fn add_claimed(&mut self, name: &str) {
        self.addresses.extend(name.parse::<IpAddr>());
        self.ports.extend(name.parse::<u16>());
    }

    /// Takes these out.
    pub fn remove(&mut self, others: &Numbers) {
        self.addresses.retain(|ip| !others.addresses.contains(ip));
        self.ports.retain(|port| !others.ports.contains(port));
    }
}

fn port_number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

fn cluster_ips(spec: &Value) -> Vec<String> {
    let list = meta::strings(&spec["clusterIPs"]);
    match spec["clusterIP"].as_str() {
        Some(ip) if list.is_empty() && !ip.is_empty() => vec![ip.to_owned()],
        _ => list,
    }
}

fn kind(spec: &Value) -> &str {
    spec["type"].as_str().filter(|kind| !kind.is_empty()).unwrap_or("ClusterIP")
}

fn wants_address(spec: &Value) -> bool {
    kind(spec) != "ExternalName"
}

fn wants_node_ports(spec: &Value) -> bool {
    match kind(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    }
}

fn wants_health_port(spec: &Value) -> bool {
    kind(spec) == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn headless(spec: &Value) -> bool {
    cluster_ips(spec).first().is_some_and(|ip| ip == "None")
}

/// Completes a new Service (`old` is `None`) or a changed one: fields that follow from its type,
/// its addresses and its ports.
pub fn complete(
    service: &mut Value,
    old: Option<&Value>,
    mut taken: Numbers,
    ranges: &Ranges<'_>,
) -> Outcome<()> {
    let name = meta::name(service).to_owned();
    let invalid = |errors: &[FieldError]| Status::invalid(("", "Service"), &name, errors);
    let mut spec = Value::Object(std::mem::take(meta::member(service, "spec")));
    if let Some(old) = old {
        let old = &old["spec"];
        // What the old state holds is free for the new one.
        taken.remove(&Numbers::of(old));
        drop_for_type(&mut spec, old);
        keep_allocated(&mut spec, old);
        if let Some(error) = check_immutable(&spec, old) {
            return Err(invalid(&[error]));
        }
    }
    if wants_address(&spec) {
        families(&mut spec, ranges).map_err(|errors| invalid(&errors))?;
        addresses(&mut spec, &taken, ranges, &invalid)?;
    }
    if wants_node_ports(&spec) {
        node_ports(&mut spec, &mut taken, ranges, &invalid)?;
    }
    if wants_health_port(&spec) {
        health_port(&mut spec, &mut taken, ranges, &invalid)?;
    }
    if let (Some(object), Value::Object(_)) = (service.as_object_mut(), &spec) {
        object.insert("spec".to_owned(), spec);
    }
    Ok(())
}

fn fields(spec: &mut Value) -> &mut Map<String, Value> {
    if !spec.is_object() {
        *spec = json!({});
    }
    match spec {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

/// A changed type drops what only the old type had, unless the writer changed that too.
fn drop_for_type(spec: &mut Value, old: &Value) {
    let same = |field: &str| spec[field] == old[field];
    let mut gone: Vec<&str> = Vec::new();
    if wants_address(old) && !wants_address(spec) {
        gone.extend(
            ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]
                .into_iter()
                .filter(|f| same(f)),
        );
    }
    if wants_health_port(old) && !wants_health_port(spec) && same("healthCheckNodePort") {
        gone.push("healthCheckNodePort");
    }
    if matches!(kind(old), "NodePort" | "LoadBalancer")
        && !matches!(kind(spec), "NodePort" | "LoadBalancer")
    {
        gone.extend(["externalTrafficPolicy"].into_iter().filter(|f| same(f)));
    }
    let drop_ports = wants_node_ports(old) && kind(spec) != kind(old) && !wants_node_ports(spec);
    for field in gone {
        fields(spec).shift_remove(field);
    }
    let held: BTreeSet<u64> = old["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p["nodePort"].as_u64())
        .collect();
    let ports = if drop_ports { spec.get_mut("ports").and_then(Value::as_array_mut) } else { None };
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        if port.get("nodePort").and_then(Value::as_u64).is_some_and(|number| held.contains(&number))
        {
            port.shift_remove("nodePort");
        }
    }
}

/// What was allocated stays where the writer left it out.
fn keep_allocated(spec: &mut Value, old: &Value) {
    if wants_address(spec) && wants_address(old) {
        // Older clients know `clusterIP` alone: where only it changed, the list follows.
        let first = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
        let list_unchanged =
            spec["clusterIPs"].is_null() || spec["clusterIPs"] == old["clusterIPs"];
        if !first.is_empty() && old["clusterIP"] != first.as_str() && list_unchanged {
            fields(spec).insert("clusterIPs".to_owned(), json!([first]));
        }
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let unset = spec[field].as_str().is_none_or(str::is_empty)
                && spec[field].as_array().is_none_or(Vec::is_empty);
            if unset && !old[field].is_null() {
                fields(spec).insert(field.to_owned(), old[field].clone());
            }
        }
    }
    if wants_health_port(spec)
        && wants_health_port(old)
        && port_number(&spec["healthCheckNodePort"]).is_none()
    {
        fields(spec).insert("healthCheckNodePort".to_owned(), old["healthCheckNodePort"].clone());
    }
    if !(wants_node_ports(spec) && wants_node_ports(old)) {
        return;
    }
    let key = |port: &Value| {
        (port["protocol"].as_str().unwrap_or("TCP").to_owned(), port["port"].as_u64())
    };
    let held: Vec<_> = old["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| (key(p), p["nodePort"].clone()))
        .collect();
    let explicit: BTreeSet<u64> = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p["nodePort"].as_u64())
        .collect();
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let found =
            held.iter().find(|(held, _)| *held == key(port)).map(|(_, number)| number.clone());
        if let (None, Some(number)) = (port_number(&port["nodePort"]), found)
            && number.as_u64().is_some_and(|number| !explicit.contains(&number))
        {
            port["nodePort"] = number;
        }
    }
}

/// The first cluster IP never changes while the Service has one.
fn check_immutable(spec: &Value, old: &Value) -> Option<FieldError> {
    let (new_ips, old_ips) = (cluster_ips(spec), cluster_ips(old));
    let kept = wants_address(spec) && wants_address(old);
    let (new, before) = (new_ips.first()?, old_ips.first()?);
    (kept && new != before).then(|| {
        FieldError::invalid("spec.clusterIPs[0]", json!(new_ips), "may not change once set")
    })
}

fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn family_of_range(range: &IpNet) -> &'static str {
    family_of(range.addr())
}

/// Settles `ipFamilyPolicy`, `ipFamilies` and the pair `clusterIP`/`clusterIPs`.
fn families(spec: &mut Value, ranges: &Ranges<'_>) -> Result<(), Vec<FieldError>> {
    let configured: Vec<&str> = ranges.cidrs.iter().map(family_of_range).collect();
    let selectorless = spec["selector"].as_object().is_none_or(Map::is_empty);
    let special = headless(spec) && selectorless;
    let ips = cluster_ips(spec);
    if let (Some(first), Some(ip)) = (ips.first(), spec["clusterIP"].as_str())
        && !ip.is_empty()
        && first != ip
    {
        return Err(vec![FieldError::invalid(
            "spec.clusterIPs",
            json!(ips),
            "first value must match `clusterIP`",
        )]);
    }
    let policy = match spec["ipFamilyPolicy"].as_str() {
        Some(policy) => policy.to_owned(),
        None if special => "RequireDualStack".to_owned(),
        None => "SingleStack".to_owned(),
    };
    let mut families = meta::strings(&spec["ipFamilies"]);
    for (index, ip) in ips.iter().enumerate().filter(|(_, ip)| *ip != "None") {
        let Ok(address) = ip.parse::<IpAddr>() else {
            let path = format!("spec.clusterIPs[{index}]");
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            return Err(vec![FieldError::invalid(path, ip.as_str(), detail)]);
        };
        if index >= families.len() {
            families.push(family_of(address).to_owned());
        }
    }
    let mut errors = Vec::new();
    if !special {
        if policy == "RequireDualStack" && configured.len() < 2 {
            errors.push(FieldError::invalid(
                "spec.ipFamilyPolicy",
                policy.as_str(),
                "this cluster is not configured for dual-stack services",
            ));
        }
        for (index, family) in
            families.iter().enumerate().filter(|(_, family)| !configured.contains(&family.as_str()))
        {
            errors.push(FieldError::invalid(
                format!("spec.ipFamilies[{index}]"),
                family.as_str(),
                "not configured on this cluster",
            ));
        }
    }
    if policy == "SingleStack" && families.len() > 1 {
        let detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy.as_str(), detail));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if families.is_empty() {
        families.extend(configured.first().map(|family| (*family).to_owned()));
    }
    if policy != "SingleStack" && families.len() == 1 && (special || configured.len() == 2) {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    let spec = fields(spec);
    spec.insert("ipFamilies".to_owned(), families.into());
    spec.insert("ipFamilyPolicy".to_owned(), policy.into());
    if let Some(first) = ips.first() {
        spec.insert("clusterIP".to_owned(), first.as_str().into());
        spec.insert("clusterIPs".to_owned(), ips.into());
    }
    Ok(())
}

/// Gives the Service an address of each of its families.
fn addresses(
    spec: &mut Value,
    taken: &Numbers,
    ranges: &Ranges<'_>,
    invalid: &dyn Fn(&[FieldError]) -> Status,
) -> Outcome<()> {
    if headless(spec) {
        return Ok(());
    }
    let mut ips = cluster_ips(spec);
    for (index, family) in meta::strings(&spec["ipFamilies"]).iter().enumerate() {
        let range = ranges.cidrs.iter().find(|range| family_of_range(range) == family);
        match (ips.get(index).and_then(|ip| ip.parse().ok()), range) {
            (Some(ip), range) => {
                if let Err(why) = check_address(ip, range, taken) {
                    let detail = format!("failed to allocate IP {ip}: {why}");
                    return Err(invalid(&[FieldError::invalid(
                        "spec.clusterIPs",
                        json!(ips),
                        detail,
                    )]));
                }
            }
            (None, Some(range)) => ips.push(
                pick_address(range, taken)
                    .ok_or_else(|| {
                        Status::internal_error("failed to allocate a serviceIP: range is full")
                    })?
                    .to_string(),
            ),
            (None, None) => {}
        }
    }
    let spec = fields(spec);
    spec.insert("clusterIP".to_owned(), ips.first().cloned().into());
    spec.insert("clusterIPs".to_owned(), ips.into());
    Ok(())
}

fn check_address(ip: IpAddr, range: Option<&IpNet>, taken: &Numbers) -> Result<(), &'static str> {
    if !range.is_some_and(|range| range.contains(&ip)) {
        return Err("the provided network does not match the current range");
    }
    if taken.addresses.contains(&ip) { Err("provided IP is already allocated") } else { Ok(()) }
}

/// Numbers of a range with a lower band that is left to whoever asks for a number: a free one
/// above `band`, by chance where there is room, else in order, else below.
fn pick(size: u64, band: u64, free: impl Fn(u64) -> bool) -> Option<u64> {
    let upper = size.saturating_sub(band);
    let by_chance = (0..RANDOM_TRIES)
        .filter(|_| upper > 0)
        .map(|_| band + fastrand::u64(..upper))
        .find(|n| free(*n));
    by_chance.or_else(|| (band..size).chain(0..band.min(size)).find(|n| free(*n)))
}

fn pick_address(range: &IpNet, taken: &Numbers) -> Option<IpAddr> {
    // The first address is the network's own; the last of an IPv4 range its broadcast.
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(16);
    let edge = if range.addr().is_ipv4() { 2 } else { 1 };
    let size = (1u64 << bits).saturating_sub(edge);
    let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
    let address = |offset: u64| match range.network() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).saturating_add(offset as u32 + 1).into()),
        IpAddr::V6(base) => {
            IpAddr::V6(u128::from(base).saturating_add(u128::from(offset) + 1).into())
        }
    };
    pick(size, band, |offset| !taken.addresses.contains(&address(offset))).map(address)
}

fn pick_port(taken: &Numbers, (first, last): (u16, u16)) -> Option<u16> {
    let size = u64::from(last.saturating_sub(first)) + 1;
    let band = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
    let port = |offset: u64| first.saturating_add(offset as u16);
    pick(size, band, |offset| !taken.ports.contains(&port(offset))).map(port)
}

fn check_port(port: u16, taken: &Numbers, (first, last): (u16, u16)) -> Result<(), String> {
    if port < first || port > last {
        return Err(format!(
            "provided port is not in the valid range. The range of valid ports is {first}-{last}"
        ));
    }
    if taken.ports.contains(&port) {
        Err("provided port is already allocated".to_owned())
    } else {
        Ok(())
    }
}

fn node_ports(
    spec: &mut Value,
    taken: &mut Numbers,
    ranges: &Ranges<'_>,
    invalid: &dyn Fn(&[FieldError]) -> Status,
) -> Outcome<()> {
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
    let mut own: Vec<u16> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        // One number may serve several protocols of the same Service.
        let Some(number) = port_number(&port["nodePort"]).filter(|number| !own.contains(number))
        else {
            continue;
        };
        check_port(number, taken, ranges.node_ports).map_err(|why| {
            invalid(&[FieldError::invalid(format!("spec.ports[{index}].nodePort"), number, why)])
        })?;
        own.push(number);
    }
    taken.ports.extend(&own);
    // A number already drawn for the same port in another protocol is drawn again, so that
    // DNS over TCP and UDP, say, meet at one node port.
    let mut drawn: Vec<(Value, Value, u16)> = ports
        .iter()
        .filter_map(|p| {
            Some((p["port"].clone(), p["protocol"].clone(), port_number(&p["nodePort"])?))
        })
        .collect();
    for (index, port) in ports.iter_mut().enumerate() {
        if port_number(&port["nodePort"]).is_some() {
            continue;
        }
        let shared = drawn
            .iter()
            .find(|(number, protocol, _)| *number == port["port"] && *protocol != port["protocol"])
            .map(|d| d.2);
        let number = match shared {
            Some(number) => number,
            None => pick_port(taken, ranges.node_ports).ok_or_else(|| {
                Status::internal_error(&format!(
                    "spec.ports[{index}].nodePort: failed to allocate a nodePort: range is full"
                ))
            })?,
        };
        taken.ports.insert(number);
        drawn.push((port["port"].clone(), port["protocol"].clone(), number));
        port["nodePort"] = number.into();
    }
    Ok(())
}

fn health_port(
    spec: &mut Value,
    taken: &mut Numbers,
    ranges: &Ranges<'_>,
    invalid: &dyn Fn(&[FieldError]) -> Status,
) -> Outcome<()> {
    let number = match port_number(&spec["healthCheckNodePort"]) {
        Some(port) => check_port(port, taken, ranges.node_ports).map(|()| port).map_err(|why| {
            let detail = format!("failed to allocate requested HealthCheck NodePort {port}: {why}");
            invalid(&[FieldError::invalid("spec.healthCheckNodePort", port, detail)])
        })?,
        None => pick_port(taken, ranges.node_ports).ok_or_else(|| {
            Status::internal_error("failed to allocate a HealthCheck NodePort: range is full")
        })?,
    };
    taken.ports.insert(number);
    fields(spec).insert("healthCheckNodePort".to_owned(), number.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(spec: Value, old: Option<Value>, others: &[Value]) -> Outcome<Value> {
        let cidrs = ["10.43.0.0/16".parse().unwrap()];
        let ranges = Ranges { cidrs: &cidrs, node_ports: (30000, 32767) };
        let mut taken = Numbers::default();
        let old = old.map(|spec| json!({"metadata": {"name": "s"}, "spec": spec}));
        for spec in others.iter().chain(old.as_ref().map(|old| &old["spec"])) {
            taken.add(json!({"spec": spec}).to_string().as_bytes());
        }
        let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
        complete(&mut service, old.as_ref(), taken, &ranges).map(|()| service["spec"].take())
    }

    #[test]
    fn draws_from_the_upper_band() {
        let spec = done(json!({"type": "NodePort", "ports": [{"port": 80}]}), None, &[]).unwrap();
        let ip: std::net::Ipv4Addr = spec["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(u32::from(ip) > u32::from(std::net::Ipv4Addr::new(10, 43, 1, 0)), "{ip}");
        assert_eq!(spec["clusterIPs"], json!([ip.to_string()]));
        assert_eq!(
            (&spec["ipFamilies"], &spec["ipFamilyPolicy"]),
            (&json!(["IPv4"]), &json!("SingleStack"))
        );
        assert!((30086..=32767).contains(&spec["ports"][0]["nodePort"].as_u64().unwrap()));
    }

    #[test]
    fn taken_and_foreign_numbers_are_refused() {
        let other = json!({"clusterIPs": ["10.43.0.10"], "ports": [{"nodePort": 30080}]});
        for (spec, expected) in [
            (
                json!({"clusterIP": "10.43.0.10"}),
                "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.10\"]: failed to allocate IP 10.43.0.10: provided IP is already allocated",
            ),
            (json!({"clusterIP": "10.9.0.1"}), "does not match the current range"),
            (
                json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30080}]}),
                "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}),
                "The range of valid ports is 30000-32767",
            ),
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                "this cluster is not configured for dual-stack services",
            ),
        ] {
            let refused = done(spec, None, std::slice::from_ref(&other)).unwrap_err();
            assert!(refused.message.contains(expected), "{}", refused.message);
        }
    }

    #[test]
    fn headless_and_external() {
        let headless =
            done(json!({"clusterIP": "None", "selector": {"a": "b"}}), None, &[]).unwrap();
        assert_eq!(
            (&headless["clusterIPs"], &headless["ipFamilies"]),
            (&json!(["None"]), &json!(["IPv4"]))
        );
        let external =
            done(json!({"type": "ExternalName", "externalName": "x.y"}), None, &[]).unwrap();
        assert_eq!(external, json!({"type": "ExternalName", "externalName": "x.y"}));
    }

    #[test]
    fn updates_keep_and_release() {
        let old = json!({"type": "NodePort", "clusterIP": "10.43.5.5", "clusterIPs": ["10.43.5.5"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 31000}]});
        let kept =
            done(json!({"type": "NodePort", "ports": [{"port": 80}]}), Some(old.clone()), &[])
                .unwrap();
        assert_eq!(
            (&kept["clusterIP"], &kept["ports"][0]["nodePort"]),
            (&json!("10.43.5.5"), &json!(31000))
        );

        let mut plain = old.clone();
        plain["type"] = json!("ClusterIP");
        assert!(done(plain, Some(old.clone()), &[]).unwrap()["ports"][0]["nodePort"].is_null());

        let moved = done(json!({"clusterIP": "10.43.6.6"}), Some(old), &[]).unwrap_err();
        assert!(moved.message.ends_with("may not change once set"), "{}", moved.message);
    }
}
