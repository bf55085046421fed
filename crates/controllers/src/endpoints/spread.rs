//! Endpoints spread over EndpointSlices: up to 100 each, one family and one set of ports a slice.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::action::{Action, Announce, Plan};
use crate::context::{Cx, Key};
use crate::driver::Watches;

/// Endpoints in one slice, upstream's default.
const MAX_ENDPOINTS_PER_SLICE: usize = 100;
/// Label with the name of the service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label with the controller that writes the slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// What all endpoints of a slice share: address type and ports.
pub(super) type Group = (String, Vec<Port>);

/// Name, number, protocol, application protocol; ordered so that it can be a key.
pub(super) type Port = (String, i32, String, Option<String>);

/// Slices wake the service that they belong to.
pub(super) fn watches(watches: &mut Watches, manager: &'static str) {
    watches.map::<EndpointSlice>(move |_, slice| match slice.labels().get(SERVICE_NAME) {
        Some(service) if is_of(slice, manager) => {
            vec![Key::new(slice.namespace().unwrap_or_default(), service)]
        }
        _ => Vec::new(),
    });
}

/// The slices of a service that a controller writes.
pub(super) fn slices_of(cx: &Cx, service: &Key, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mut slices = cx.world.list::<EndpointSlice>(&service.namespace);
    slices.retain(|slice| {
        is_of(slice, manager) && slice.labels().get(SERVICE_NAME) == Some(&service.name)
    });
    slices
}

fn is_of(slice: &EndpointSlice, manager: &str) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|label| label == manager)
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

/// What the slices of one service have in common.
pub(super) struct Spread<'a> {
    /// The service.
    pub key: &'a Key,
    /// Labels and owner, and annotations where these are the controller's too.
    pub metadata: ObjectMeta,
    /// What is said where a slice cannot be made.
    pub announce: Announce,
}

impl Spread<'_> {
    /// Spreads endpoints over the slices that there are and new ones, and deletes what is left over.
    pub fn over(
        &self,
        slices: Vec<Arc<EndpointSlice>>,
        wanted: BTreeMap<Group, Vec<Endpoint>>,
        plan: &mut Plan,
    ) {
        let mut spare = slices;
        for (group, endpoints) in wanted {
            let (matching, others): (Vec<_>, Vec<_>) =
                spare.into_iter().partition(|slice| group_of(slice) == group);
            spare = others;
            let left = self.fill(&group, endpoints, matching, plan);
            spare.extend(left);
        }
        plan.push(spare.iter().map(|slice| Action::delete(slice.as_ref(), None)));
    }

    /// Spreads endpoints over the existing slices of their group, moving none from one slice to
    /// another, and makes new slices for the rest. Returns slices that are no longer needed.
    fn fill(
        &self,
        group: &Group,
        mut endpoints: Vec<Endpoint>,
        slices: Vec<Arc<EndpointSlice>>,
        plan: &mut Plan,
    ) -> Vec<Arc<EndpointSlice>> {
        // A pod keeps its place under another address; what is no pod has nothing else.
        let identity = |endpoint: &Endpoint| {
            let pod = endpoint.target_ref.as_ref().and_then(|r| r.uid.clone());
            pod.or_else(|| endpoint.addresses.first().cloned())
        };
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
            let mut wanted = self.slice(group, stay);
            let common = std::mem::replace(&mut wanted.metadata, slice.metadata.clone());
            wanted.metadata.labels = common.labels;
            if self.metadata.annotations.is_some() {
                wanted.metadata.annotations = common.annotations;
            }
            plan.push(Action::change(slice.as_ref(), &wanted, ""));
        }
        while !endpoints.is_empty() || (!any && needs_placeholder) {
            let rest = endpoints.split_off(endpoints.len().min(MAX_ENDPOINTS_PER_SLICE));
            plan.push([Action::create(&self.slice(group, endpoints), Some(self.announce.clone()))]);
            (endpoints, any) = (rest, true);
        }
        unneeded
    }

    fn slice(&self, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
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
                generate_name: Some(format!("{}-", self.key.name)),
                namespace: Some(self.key.namespace.clone()),
                annotations: self.metadata.annotations.clone().filter(|all| !all.is_empty()),
                ..self.metadata.clone()
            },
        }
    }
}
