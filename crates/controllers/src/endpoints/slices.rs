//! EndpointSlices of services with a selector.

use std::collections::BTreeMap;

use client::Pod;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::spread::{self, Group, MANAGED_BY, Port, SERVICE_NAME, Spread};
use super::{HEADLESS, addresses, has_endpoints, hostname, is_headless, pods_of};
use crate::action::{Announce, Plan, reference};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::{owner, pods};

const MANAGER: &str = "endpointslice-controller.k8s.io";

/// EndpointSlices of services with a selector.
pub const ENDPOINT_SLICE: Controller =
    Controller { name: "endpoint-slice-controller", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    super::watches(watches);
    watches.read::<Node>();
    spread::watches(watches, MANAGER);
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = cx.world.get::<Service>(&key.namespace, &key.name) else { return plan };
    if !has_endpoints(&service) || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let slices = spread::slices_of(cx, key, MANAGER);
    let mut wanted = endpoints(cx, &service);
    let families = families(&service);
    for family in &families {
        // A family without endpoints keeps one empty slice, so that watchers know of it.
        if !wanted.keys().any(|(type_, _)| type_ == family) {
            wanted.insert((family.clone(), Vec::new()), Vec::new());
        }
    }
    let metadata = ObjectMeta {
        labels: Some(labels(&service)),
        owner_references: Some(vec![owner::controller_reference(service.as_ref())]),
        ..ObjectMeta::default()
    };
    let failed =
        ("FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Service: ".into());
    let announce = Announce { regarding: reference(service.as_ref()), done: None, failed };
    Spread { key, metadata, announce }.over(slices, wanted, &mut plan);
    plan
}

fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.clone());
    families.filter(|f| !f.is_empty()).unwrap_or_else(|| vec!["IPv4".into()])
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
