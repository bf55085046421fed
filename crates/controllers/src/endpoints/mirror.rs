//! EndpointSlices that mirror Endpoints which somebody else writes, for services without a selector:
//! the service proxy and DNS look at slices alone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::spread::{self, Group, MANAGED_BY, Port, SERVICE_NAME, Spread};
use crate::action::{Action, Announce, Plan, reference};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::owner;

/// Addresses of one subset that are mirrored, upstream's limit.
const MAX_ADDRESSES_PER_SUBSET: usize = 1000;
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of Endpoints whose writer writes slices too.
const SKIPPED: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are nothing but a leader's lock.
const LOCK: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that speak of the Endpoints alone.
const OWN_ANNOTATIONS: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// EndpointSlices of services without a selector.
pub const MIRROR: Controller = Controller {
    name: "endpoint-slice-mirroring-controller",
    watches,
    reconcile: Reconcile::Plan(plan),
};

fn watches(watches: &mut Watches) {
    watches.own::<Service>();
    watches.own::<Endpoints>();
    spread::watches(watches, MANAGER);
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let slices = spread::slices_of(cx, key, MANAGER);
    let service = cx.world.get::<Service>(&key.namespace, &key.name);
    let endpoints = cx.world.get::<Endpoints>(&key.namespace, &key.name);
    let mirrored = endpoints.filter(|it| service.is_some_and(|s| !selects(&s)) && is_mirrored(it));
    let Some(endpoints) = mirrored else {
        plan.push(slices.iter().map(|slice| Action::delete(slice.as_ref(), None)));
        return plan;
    };
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.into(), key.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.annotations().clone();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    let metadata = ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![owner::controller_reference(endpoints.as_ref())]),
        ..ObjectMeta::default()
    };
    let failed =
        ("FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Endpoints: ".into());
    let announce = Announce { regarding: reference(endpoints.as_ref()), done: None, failed };
    let mut wanted: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        for (family, endpoint) in mirror(subset) {
            wanted.entry((family.to_owned(), ports(subset))).or_default().push(endpoint);
        }
    }
    Spread { key, metadata, announce }.over(slices, wanted, &mut plan);
    plan
}

fn selects(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIPPED).is_none_or(|skipped| skipped != "true")
        && !endpoints.annotations().contains_key(LOCK)
}

/// The subset's addresses with their families, those that are ready first.
fn mirror(subset: &EndpointSubset) -> impl Iterator<Item = (&'static str, Endpoint)> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    ready.chain(unready).take(MAX_ADDRESSES_PER_SUBSET).map(|(address, ready)| {
        let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
        (family, endpoint(address, ready))
    })
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn ports(subset: &EndpointSubset) -> Vec<Port> {
    let ports = subset.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        (port.name.clone().unwrap_or_default(), port.port, protocol, port.app_protocol.clone())
    });
    let mut ports: Vec<Port> = ports.collect();
    ports.sort();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::check;

    const SERVICE: &str = "
kind: Service
metadata: {name: db}
spec: {ports: [{port: 5432}]}
";
    const ENDPOINTS: &str = "
---
kind: Endpoints
metadata: {name: db, labels: {team: x}, annotations: {leader: a, kubectl.kubernetes.io/last-applied-configuration: '{}'}}
subsets: [{addresses: [{ip: 192.0.2.1}], notReadyAddresses: [{ip: 192.0.2.2, hostname: b}], ports: [{port: 5432}]}]
";
    const SLICE: &str = "
---
kind: EndpointSlice
metadata: {name: db-x, generateName: db-, owner: Endpoints/db, annotations: {leader: a}, labels: {team: x, kubernetes.io/service-name: db, endpointslice.kubernetes.io/managed-by: endpointslicemirroring-controller.k8s.io}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.1], conditions: {ready: true}}, {addresses: [192.0.2.2], conditions: {ready: false}, hostname: b}]
ports: [{name: '', port: 5432, protocol: TCP}]
";

    #[test]
    fn endpoints_of_a_service_without_a_selector_are_mirrored() {
        let all = [SERVICE, ENDPOINTS].concat();
        check(&MIRROR, "default/db", &all, "create EndpointSlice default/db-*");
        check(&MIRROR, "default/db", &[&all, SLICE].concat(), "");
        let bare = [&all, SLICE].concat().replace("leader: a, ", "");
        check(&MIRROR, "default/db", &bare.replace(", annotations: {leader: a}", ""), "");
        let (changed, mirrored) = (all.replace("192.0.2.1", "2001:db8::1"), SLICE);
        check(
            &MIRROR,
            "default/db",
            &[&changed, mirrored].concat(),
            r#"patch EndpointSlice default/db-x {"endpoints":[{"addresses":["192.0.2.2"],"conditions":{"ready":false},"hostname":"b"}]}
create EndpointSlice default/db-*"#,
        );
        let renewed = all.replace("leader: a", "leader: b");
        let patch =
            r#"patch EndpointSlice default/db-x {"metadata":{"annotations":{"leader":"b"}}}"#;
        check(&MIRROR, "default/db", &[&renewed, SLICE].concat(), patch);
    }

    #[test]
    fn others_are_not_and_what_was_mirrored_goes() {
        let all = [SERVICE, ENDPOINTS].concat();
        for other in [
            all.replace("spec: {", "spec: {selector: {app: db}, "),
            all.replace("team: x", "endpointslice.kubernetes.io/skip-mirror: 'true'"),
            all.replace("leader: a", "control-plane.alpha.kubernetes.io/leader: a"),
            ENDPOINTS.replacen("---", "", 1),
            SERVICE.to_owned(),
        ] {
            check(&MIRROR, "default/db", &other, "");
            let gone = [&other, SLICE].concat();
            check(&MIRROR, "default/db", &gone, "delete EndpointSlice default/db-x");
        }
    }
}
