//! EndpointSlices: up to 100 endpoints each, one family and one set of ports a slice.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Pod;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{HEADLESS, addresses, has_endpoints, hostname, is_headless, pods_of};
use crate::action::{Action, Announce, Plan, reference};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::{owner, pods};

/// Endpoints in one slice, upstream's default.
const MAX_ENDPOINTS_PER_SLICE: usize = 100;
/// Label with the name of the service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// EndpointSlices of services with a selector.
pub const ENDPOINT_SLICE: Controller =
    Controller { name: "endpoint-slice-controller", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    super::watches(watches);
    watches.read::<Node>();
    watches.map::<EndpointSlice>(|_, slice| match slice.labels().get(SERVICE_NAME) {
        Some(service) if is_ours(slice) => {
            vec![Key::new(slice.namespace().unwrap_or_default(), service)]
        }
        _ => Vec::new(),
    });
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
}

/// What all endpoints of a slice share: address type and ports.
type Group = (String, Vec<Port>);

/// Name, number, protocol, application protocol; ordered so that it can be a key.
type Port = (String, i32, String, Option<String>);

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = cx.world.get::<Service>(&key.namespace, &key.name) else { return plan };
    if !has_endpoints(&service) || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut slices = cx.world.list::<EndpointSlice>(&key.namespace);
    slices.retain(|slice| is_ours(slice) && slice.labels().get(SERVICE_NAME) == Some(&key.name));
    let mut wanted = endpoints(cx, &service);
    let families = families(&service);
    for family in &families {
        // A family without endpoints keeps one empty slice, so that watchers know of it.
        if !wanted.keys().any(|(type_, _)| type_ == family) {
            wanted.insert((family.clone(), Vec::new()), Vec::new());
        }
    }
    let mut spare = slices;
    let groups: Vec<(Group, Vec<Endpoint>)> = wanted.into_iter().collect();
    for (group, endpoints) in groups {
        let (matching, others): (Vec<_>, Vec<_>) =
            spare.into_iter().partition(|slice| group_of(slice) == group);
        spare = others;
        let left = fill(&service, &group, endpoints, matching, &mut plan);
        spare.extend(left);
    }
    plan.push(spare.iter().map(|slice| Action::delete(slice.as_ref(), None)));
    plan
}

fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.clone());
    families.filter(|f| !f.is_empty()).unwrap_or_else(|| vec!["IPv4".into()])
}

fn group_of(slice: &EndpointSlice) -> Group {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.port.unwrap_or(0),
                port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port.app_protocol.clone(),
            )
        })
        .collect();
    ports.sort();
    (slice.address_type.clone(), ports)
}

/// The wanted endpoints by address type and ports.
fn endpoints(cx: &Cx, service: &Service) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods_of(cx.world, service) {
        for family in families(service) {
            let fits = |ip: &&String| ip.contains(':') == (family == "IPv6");
            if let Some(address) = addresses(&pod).iter().find(fits) {
                let group = (family, ports(service, &pod));
                groups.entry(group).or_default().push(endpoint(cx, service, &pod, address));
            }
        }
    }
    groups
}

fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let declared = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let mut ports: Vec<Port> = declared
        .filter_map(|port| {
            let number = super::target_port(pod, port)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let name = port.name.clone().unwrap_or_default();
            Some((name, number, protocol, port.app_protocol.clone()))
        })
        .collect();
    ports.sort();
    ports
}

fn endpoint(cx: &Cx, service: &Service, pod: &Pod, address: &str) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let ready = super::publishes_not_ready(service) || (serving && !terminating);
    let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    let zone = node_name.as_deref().and_then(|name| {
        let node = cx.world.get::<Node>("", name)?;
        node.labels().get("topology.kubernetes.io/zone").cloned()
    });
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        hints: hints(service, node_name.as_deref(), zone.as_deref()).filter(|_| ready),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// Whose clients an endpoint is for, where the service wants them to stay near (KEP-4444, KEP-3015).
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let node = node.map(|name| vec![ForNode { name: name.to_owned() }]);
    let for_zones = zone.map(|name| vec![ForZone { name: name.to_owned() }]);
    let for_nodes = match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferSameNode" => node,
        "PreferSameZone" | "PreferClose" => None,
        _ => return None,
    };
    let any = for_nodes.is_some() || for_zones.is_some();
    any.then_some(EndpointHints { for_nodes, for_zones })
}

/// Spreads endpoints over the existing slices of their group, moving none from one slice to
/// another, and makes new slices for the rest. Returns slices that are no longer needed.
fn fill(
    service: &Service,
    group: &Group,
    mut endpoints: Vec<Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
    plan: &mut Plan,
) -> Vec<Arc<EndpointSlice>> {
    let identity = |endpoint: &Endpoint| endpoint.target_ref.as_ref().and_then(|r| r.uid.clone());
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let mut stay = Vec::new();
        for old in slice.endpoints.iter().flatten() {
            if let Some(at) = endpoints.iter().position(|new| identity(new) == identity(old)) {
                stay.push(endpoints.remove(at));
            }
        }
        kept.push((slice, stay));
    }
    for (_, stay) in &mut kept {
        let room = MAX_ENDPOINTS_PER_SLICE.saturating_sub(stay.len()).min(endpoints.len());
        stay.extend(endpoints.drain(..room));
    }
    // An empty slice is wanted only where there is nothing else.
    let needs_placeholder = group.1.is_empty() && endpoints.is_empty();
    let mut any = kept.iter().any(|(_, stay)| !stay.is_empty());
    let mut unneeded = Vec::new();
    for (slice, stay) in kept {
        if stay.is_empty() && (any || !needs_placeholder) {
            unneeded.push(slice);
            continue;
        }
        any = true;
        let mut wanted = fresh(service, group, stay);
        wanted.metadata = slice.metadata.clone();
        wanted.metadata.labels = Some(labels(service));
        plan.push(Action::change(slice.as_ref(), &wanted, ""));
    }
    let announce = Announce {
        regarding: reference(service),
        done: None,
        failed: (
            "FailedToUpdateEndpointSlices",
            "Error updating Endpoint Slices for Service: ".into(),
        ),
    };
    while !endpoints.is_empty() || (!any && needs_placeholder) {
        let rest = endpoints.split_off(endpoints.len().min(MAX_ENDPOINTS_PER_SLICE));
        plan.push([Action::create(&fresh(service, group, endpoints), Some(announce.clone()))]);
        (endpoints, any) = (rest, true);
    }
    unneeded
}

fn fresh(service: &Service, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let ports = group.1.iter().map(|(name, port, protocol, app_protocol)| EndpointPort {
        name: Some(name.clone()),
        port: Some(*port),
        protocol: Some(protocol.clone()),
        app_protocol: app_protocol.clone(),
    });
    EndpointSlice {
        address_type: group.0.clone(),
        endpoints: Some(endpoints),
        ports: Some(ports.collect()),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels(service)),
            owner_references: Some(vec![owner::controller_reference(service)]),
            ..ObjectMeta::default()
        },
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;
    use crate::fixture::{check, plan};

    const SERVICE: &str = "
kind: Service
metadata: {name: web, labels: {team: x}}
spec: {clusterIP: 10.43.0.7, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
";

    fn pod(name: &str, ip: &str, port: u16, rest: &str) -> String {
        format!(
            "
---
kind: Pod
metadata: {{name: {name}, labels: {{app: web}}}}
spec: {{nodeName: n1, containers: [{{name: c, ports: [{{name: http, containerPort: {port}}}]}}]}}
status: {{phase: Running, podIP: {ip}{rest}}}
"
        )
    }

    const READY: &str = ", conditions: [{type: Ready, status: 'True'}]";

    #[test]
    fn one_slice_a_set_of_ports() {
        let yaml = [
            SERVICE.to_owned(),
            pod("a", "10.42.0.2", 8080, READY),
            pod("b", "10.42.0.3", 8080, ""),
            pod("c", "10.42.0.4", 9090, READY),
            pod("no-address", "''", 8080, READY),
        ]
        .concat();
        let plan = plan(&ENDPOINT_SLICE, "default/web", &yaml, None);
        let slices: Vec<String> = plan
            .actions
            .iter()
            .map(|action| match action {
                Action::Create { body, .. } => {
                    let endpoints = body["endpoints"].as_array().into_iter().flatten();
                    let endpoints: Vec<String> = endpoints
                        .map(|e| format!("{} {}", e["addresses"][0], e["conditions"]["ready"]))
                        .collect();
                    format!("{} {}", body["ports"][0]["port"], endpoints.join(", "))
                }
                other => other.to_string(),
            })
            .collect();
        assert_eq!(
            slices,
            ["8080 \"10.42.0.2\" true, \"10.42.0.3\" false", "9090 \"10.42.0.4\" true"]
        );
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice() {
        check(&ENDPOINT_SLICE, "default/web", SERVICE, "create EndpointSlice default/web-*");
        let slice = "
---
kind: EndpointSlice
metadata: {name: web-x, generateName: web-, owner: Service/web, labels: {team: x, kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}
addressType: IPv4
endpoints: []
ports: []
";
        check(&ENDPOINT_SLICE, "default/web", &format!("{SERVICE}{slice}"), "");
    }

    #[test]
    fn changes_one_slice_in_place() {
        let slice = "
---
kind: EndpointSlice
metadata: {name: web-x, generateName: web-, owner: Service/web, labels: {team: x, kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}
addressType: IPv4
endpoints: [{addresses: [10.42.0.9], targetRef: {kind: Pod, uid: gone}}]
ports: [{name: http, port: 8080, protocol: TCP}]
";
        check(
            &ENDPOINT_SLICE,
            "default/web",
            &[SERVICE, &pod("a", "10.42.0.2", 8080, READY), slice].concat(),
            r#"patch EndpointSlice default/web-x {"endpoints":[{"addresses":["10.42.0.2"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"a","namespace":"default","uid":"Pod-a"}}]}"#,
        );
    }
}
