//! The older Endpoints object: one a service, named as the service.

use std::collections::BTreeMap;

use client::Pod;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{HEADLESS, addresses, has_endpoints, hostname, is_headless, pods_of};
use crate::action::{Action, Announce, Plan, reference};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::pods;

/// Addresses in one object, upstream's limit; beyond it the annotation below says so.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// Endpoints of services with a selector.
pub const ENDPOINTS: Controller =
    Controller { name: "endpoint-controller", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    super::watches(watches);
    watches.own::<Endpoints>();
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let present = cx.world.get::<Endpoints>(&key.namespace, &key.name);
    let Some(service) = cx.world.get::<Service>(&key.namespace, &key.name) else {
        // Endpoints have no owner reference: nobody else would clear them away.
        let ours = present.filter(|e| e.labels().get(MANAGED_BY).is_some_and(|m| m == MANAGER));
        plan.push(ours.map(|endpoints| Action::delete(endpoints.as_ref(), None)));
        return plan;
    };
    if !has_endpoints(&service) || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut subsets = subsets(cx, &service);
    let over = truncate(&mut subsets);
    let mut metadata = present.as_ref().map_or_else(
        || ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            ..ObjectMeta::default()
        },
        |endpoints| endpoints.metadata.clone(),
    );
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.remove(HEADLESS);
    if is_headless(&service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if over {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    let wanted = Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) };
    match present {
        Some(present) => plan.push(Action::change(present.as_ref(), &wanted, "")),
        None => {
            let failed =
                ("FailedToCreateEndpoint", "Failed to create endpoint for service: ".into());
            let announce = Announce { regarding: reference(service.as_ref()), done: None, failed };
            plan.push([Action::create(&wanted, Some(announce))]);
        }
    }
    plan
}

/// Pods grouped by their ports, ready and not ready apart.
fn subsets(cx: &Cx, service: &Service) -> Vec<EndpointSubset> {
    type Ports = Vec<(String, i32, String, Option<String>)>;
    type Addresses = Vec<EndpointAddress>;
    let mut groups: BTreeMap<Ports, (Addresses, Addresses)> = BTreeMap::new();
    let published = super::publishes_not_ready(service);
    for pod in pods_of(cx.world, service) {
        if pods::is_terminating(&pod) && !published {
            continue;
        }
        let Some(ip) = addresses(&pod).into_iter().next() else { continue };
        let declared = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
        let mut ports: Ports = declared
            .filter_map(|port| {
                let number = super::target_port(&pod, port)?;
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                Some((
                    port.name.clone().unwrap_or_default(),
                    number,
                    protocol,
                    port.app_protocol.clone(),
                ))
            })
            .collect();
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        ports.sort();
        let group = groups.entry(ports).or_default();
        let list = if published || pods::is_ready(&pod) { &mut group.0 } else { &mut group.1 };
        list.push(address(service, &pod, ip));
    }
    let some = |mut list: Addresses| {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!list.is_empty()).then_some(list)
    };
    let port = |(name, port, protocol, app_protocol): (String, i32, String, Option<String>)| {
        let name = (!name.is_empty()).then_some(name);
        EndpointPort { name, port, protocol: Some(protocol), app_protocol }
    };
    let subset = |(ports, (ready, unready)): (Ports, (Addresses, Addresses))| EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(unready),
        ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
    };
    groups.into_iter().map(subset).collect()
}

fn address(service: &Service, pod: &Pod, ip: String) -> EndpointAddress {
    EndpointAddress {
        ip,
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
    }
}

/// Cuts off addresses beyond the limit, those that are not ready first.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let (mut room, mut cut) = (MAX_ADDRESSES, false);
    let ready: Vec<_> =
        subsets.iter_mut().map(|s| (&mut s.addresses, &mut s.not_ready_addresses)).collect();
    let (first, second): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
    for list in first.into_iter().chain(second).flatten() {
        cut |= list.len() > room;
        list.truncate(room);
        room -= list.len();
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::check;

    #[test]
    fn ready_and_unready_apart_and_stale_ones_removed() {
        let yaml = "
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
kind: Pod
metadata: {name: a, labels: {app: web}}
status: {phase: Running, podIP: 10.42.0.2, conditions: [{type: Ready, status: 'True'}]}
---
kind: Pod
metadata: {name: b, labels: {app: web}}
status: {phase: Running, podIP: 10.42.0.3}
---
kind: Endpoints
metadata: {name: web, labels: {endpoints.kubernetes.io/managed-by: endpoint-controller}}
";
        check(
            &ENDPOINTS,
            "default/web",
            yaml,
            r#"patch Endpoints default/web {"subsets":[{"addresses":[{"ip":"10.42.0.2","targetRef":{"kind":"Pod","name":"a","namespace":"default","uid":"Pod-a"}}],"notReadyAddresses":[{"ip":"10.42.0.3","targetRef":{"kind":"Pod","name":"b","namespace":"default","uid":"Pod-b"}}],"ports":[{"port":8080,"protocol":"TCP"}]}]}"#,
        );
        let (_, orphan) = yaml.rsplit_once("---\n").expect("documents");
        check(&ENDPOINTS, "default/web", orphan, "delete Endpoints default/web");
    }
}
