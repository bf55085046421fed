//! Services and EndpointSlices as the proxy's model. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{EndpointHints, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use net::{Endpoint, EndpointState, TrafficPolicy};

use super::health::LocalService;
use super::{Slices, port, protocol};

/// Labels of services and slices that are not for this proxy, whatever they say.
const NOT_OURS: [&str; 2] =
    ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
/// How long a client keeps its endpoint when nothing is said, in seconds.
const AFFINITY_S: i32 = 10_800;

/// Where services are used.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    /// The node.
    pub node: &'a str,
    /// The zone that it is labelled with.
    pub zone: Option<&'a str>,
}

/// What a board has to serve. `own` are addresses that the board answers itself (cluster DNS).
pub fn model<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    here: Here,
    own: &[IpAddr],
) -> Vec<net::Service> {
    let ours = |meta: &ObjectMeta| {
        let labels = meta.labels.as_ref();
        labels.is_none_or(|labels| !NOT_OURS.iter().any(|label| labels.contains_key(*label)))
    };
    let slices = Slices::new(slices.into_iter().filter(|slice| ours(&slice.metadata)));
    let services = services.into_iter().filter(|service| ours(&service.metadata));
    let mut out: Vec<net::Service> =
        services.filter_map(|s| one(s, slices.of(s), here, own)).collect();
    out.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    out
}

/// Services whose load balancers ask each board for pods of its own, by the port for that.
pub fn local<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    model: &[net::Service],
) -> BTreeMap<u16, LocalService> {
    let port = |service: &Service| {
        let spec = service.spec.as_ref()?;
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        spec.health_check_node_port.filter(|_| local).and_then(port)
    };
    let asked = services.into_iter().filter_map(|service| Some((port(service)?, service)));
    let described = |(port, service): (u16, &Service)| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &service.metadata;
        let (namespace, name) = (text(&meta.namespace), text(&meta.name));
        let served = model.iter().find(|s| s.namespace == namespace && s.name == name)?;
        let here = served.ports.iter().flat_map(|port| &port.endpoints);
        let here = here.filter(|e| e.local && e.state == EndpointState::Ready);
        let endpoints = here.map(|e| e.address.ip()).collect::<BTreeSet<_>>().len();
        Some((port, LocalService { namespace, name, endpoints }))
    };
    asked.filter_map(described).collect()
}

fn one(
    service: &Service,
    slices: &[&EndpointSlice],
    here: Here,
    own: &[IpAddr],
) -> Option<net::Service> {
    let spec = service.spec.as_ref()?;
    let ips = |list: Option<&Vec<String>>| -> Vec<IpAddr> {
        list.into_iter().flatten().filter_map(|ip| ip.parse().ok()).collect()
    };
    let mut cluster_ips = ips(spec.cluster_ips.as_ref());
    if cluster_ips.is_empty() {
        cluster_ips.extend(spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    let headless = cluster_ips.is_empty();
    if spec.type_.as_deref() == Some("ExternalName")
        || headless
        || cluster_ips.iter().any(|ip| own.contains(ip))
    {
        return None;
    }
    let policy = |text: Option<&str>| match text {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    };
    let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = ingress.into_iter().flat_map(|l| l.ingress.iter().flatten());
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        let seconds = config.and_then(|c| c.timeout_seconds).unwrap_or(AFFINITY_S);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    });
    let meta = &service.metadata;
    let name = |text: &Option<String>| text.clone().unwrap_or_default();
    Some(net::Service {
        cluster_ips,
        external_ips: ips(spec.external_ips.as_ref()),
        load_balancer_ips: ingress
            .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|i| i.ip.as_deref()?.parse().ok())
            .collect(),
        load_balancer_source_ranges: spec
            .load_balancer_source_ranges
            .iter()
            .flatten()
            .filter_map(|range| range.trim().parse().ok())
            .collect(),
        ports: spec.ports.iter().flatten().filter_map(|p| service_port(p, slices, here)).collect(),
        affinity,
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        external_policy: policy(spec.external_traffic_policy.as_deref()),
        ..net::Service::new(name(&meta.namespace), name(&meta.name))
    })
}

fn service_port(
    wanted: &ServicePort,
    slices: &[&EndpointSlice],
    here: Here,
) -> Option<net::ServicePort> {
    let name = wanted.name.clone().unwrap_or_default();
    let mut endpoints = BTreeMap::new();
    for slice in slices {
        let number = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == name
                && protocol(p.protocol.as_deref()) == protocol(wanted.protocol.as_deref())
        });
        let Some(number) = number.and_then(|p| p.port).and_then(port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let state = match (ready, serving && terminating) {
                (true, _) => EndpointState::Ready,
                (false, true) => EndpointState::ServingTerminating,
                (false, false) => continue,
            };
            let local = endpoint.node_name.as_deref() == Some(here.node);
            let first = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
            let served =
                first.map(|ip| Endpoint { address: SocketAddr::new(ip, number), local, state });
            endpoints.extend(served.map(|served| (served, endpoint.hints.as_ref())));
        }
    }
    Some(net::ServicePort {
        name,
        protocol: protocol(wanted.protocol.as_deref()),
        port: port(wanted.port)?,
        node_port: wanted.node_port.and_then(port),
        endpoints: near(endpoints, here),
    })
}

/// The endpoints that are meant for clients here, as kube-proxy understands hints: all of them, unless
/// every one that is ready has hints and some are for this node, or else for its zone.
fn near(all: BTreeMap<Endpoint, Option<&EndpointHints>>, here: Here) -> Vec<Endpoint> {
    type Names = for<'a> fn(&'a EndpointHints) -> Vec<&'a str>;
    let nodes: Names = |hints| hints.for_nodes.iter().flatten().map(|n| n.name.as_str()).collect();
    let zones: Names = |hints| hints.for_zones.iter().flatten().map(|z| z.name.as_str()).collect();
    let meant = |hints: Option<&EndpointHints>, names: Names, own: &str| {
        let names = hints.map(names).unwrap_or_default();
        (!names.is_empty()).then(|| names.contains(&own))
    };
    for (names, own) in [(nodes, Some(here.node)), (zones, here.zone)] {
        let Some(own) = own else { continue };
        let ready = all.iter().filter(|(endpoint, _)| endpoint.state == EndpointState::Ready);
        let verdicts: Option<Vec<bool>> =
            ready.map(|(_, hints)| meant(*hints, names, own)).collect();
        if verdicts.is_some_and(|verdicts| verdicts.contains(&true)) {
            let stays = |endpoint: &Endpoint, hints| {
                endpoint.state != EndpointState::Ready || meant(hints, names, own) == Some(true)
            };
            let near = all.into_iter().filter(|(endpoint, hints)| stays(endpoint, *hints));
            return near.map(|(endpoint, _)| endpoint).collect();
        }
    }
    all.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ME: Here = Here { node: "me", zone: Some("attic") };

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec}),
        )
        .unwrap()
    }

    fn slice() -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.42.0.2"], "nodeName": "me", "conditions": {"ready": true}},
                {"addresses": ["10.42.1.2"], "nodeName": "other",
                 "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.42.1.3"], "conditions": {"ready": false, "serving": false}}]}))
        .unwrap()
    }

    #[test]
    fn endpoints_by_port_and_state() {
        let service = service(json!({"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"],
            "externalTrafficPolicy": "Local",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "other", "port": 81}]}));
        let got = model([&service], [&slice()], ME, &[]);
        let (http, other) = (&got[0].ports[0], &got[0].ports[1]);
        assert_eq!((http.port, http.node_port), (80, Some(30080)));
        let shown: Vec<_> =
            http.endpoints.iter().map(|e| (e.address.to_string(), e.local, e.state)).collect();
        assert_eq!(
            shown,
            [
                ("10.42.0.2:8080".to_owned(), true, EndpointState::Ready),
                ("10.42.1.2:8080".to_owned(), false, EndpointState::ServingTerminating),
            ]
        );
        assert!(other.endpoints.is_empty());
        assert_eq!(got[0].external_policy, TrafficPolicy::Local);
    }

    #[test]
    fn a_port_that_tells_of_pods_here() {
        let service = |policy: &str, port: u16| {
            service(json!({"type": "LoadBalancer", "clusterIP": "10.43.0.7",
                "externalTrafficPolicy": policy, "healthCheckNodePort": port,
                "ports": [{"name": "http", "port": 80}, {"name": "http", "port": 81}]}))
        };
        let told = |service: &Service, node: &str| {
            local([service], &model([service], [&slice()], Here { node, zone: None }, &[]))
        };
        let wanted = |endpoints| {
            let named = ("ns".to_owned(), "web".to_owned());
            BTreeMap::from([(30500, LocalService { namespace: named.0, name: named.1, endpoints })])
        };
        assert_eq!(told(&service("Local", 30500), "me"), wanted(1));
        assert_eq!(told(&service("Local", 30500), "other"), wanted(0));
        assert!(told(&service("Local", 0), "me").is_empty());
        assert!(told(&service("Cluster", 30500), "me").is_empty());
    }

    #[test]
    fn headless_external_and_own_addresses_are_not_proxied() {
        let of = |spec| model([&service(spec)], [], ME, &["10.43.0.10".parse().unwrap()]).len();
        assert_eq!(of(json!({"clusterIP": "None", "clusterIPs": ["None"]})), 0);
        assert_eq!(of(json!({"type": "ExternalName", "externalName": "x"})), 0);
        assert_eq!(of(json!({"clusterIP": "10.43.0.10"})), 0);
        assert_eq!(of(json!({"clusterIP": "10.43.0.11"})), 1);
    }

    #[test]
    fn what_is_another_proxys_is_not_ours() {
        let named = |labels: serde_json::Value| {
            let spec = json!({"clusterIP": "10.43.0.7", "ports": [{"name": "http", "port": 80}]});
            let mut service = service(spec);
            service.metadata.labels = serde_json::from_value(labels).unwrap();
            model([&service], [&slice()], ME, &[]).len()
        };
        assert_eq!(named(json!({"app": "web"})), 1);
        assert_eq!(named(json!({"service.kubernetes.io/service-proxy-name": "mesh"})), 0);
        assert_eq!(named(json!({"service.kubernetes.io/headless": ""})), 0);
        let mut theirs = slice();
        let label = ("service.kubernetes.io/service-proxy-name".into(), "mesh".into());
        theirs.metadata.labels.as_mut().unwrap().extend([label]);
        let spec = json!({"clusterIP": "10.43.0.7", "ports": [{"name": "http", "port": 80}]});
        let got = model([&service(spec)], [&theirs], ME, &[]);
        assert!(got[0].ports[0].endpoints.is_empty());
    }
    #[test]
    fn clients_stay_near_where_all_endpoints_say_for_whom_they_are() {
        let service = service(json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}));
        let served = |hints: [serde_json::Value; 3], here: Here| {
            let endpoints: Vec<_> = hints
                .into_iter()
                .enumerate()
                .map(|(i, hints)| json!({"addresses": [format!("10.42.0.{i}")], "hints": hints}))
                .collect();
            let slice: EndpointSlice = serde_json::from_value(json!({
                "metadata": {"name": "web-1", "namespace": "ns",
                    "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints}))
            .unwrap();
            let got = model([&service], [&slice], here, &[]);
            let last = |e: &Endpoint| e.address.ip().to_string().chars().last();
            got[0].ports[0].endpoints.iter().filter_map(last).collect::<String>()
        };
        let zone = |name: &str| json!({"forZones": [{"name": name}]});
        let node = |name: &str, zone: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": zone}]});
        assert_eq!(served([zone("attic"), zone("cellar"), zone("attic")], ME), "02");
        let unlabelled = Here { node: "me", zone: None };
        assert_eq!(served([zone("attic"), zone("cellar"), zone("attic")], unlabelled), "012");
        assert_eq!(served([zone("cellar"), zone("cellar"), zone("cellar")], ME), "012");
        assert_eq!(served([zone("attic"), json!(null), zone("attic")], ME), "012");
        assert_eq!(served([node("me", "x"), node("b", "attic"), node("c", "x")], ME), "0");
        assert_eq!(served([node("a", "x"), node("b", "attic"), node("c", "x")], ME), "1");
    }
}
