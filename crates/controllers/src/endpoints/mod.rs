//! Which addresses stand behind a Service, as EndpointSlices and as the older Endpoints.

mod legacy;
mod mirror;
mod slices;
mod spread;

pub use legacy::ENDPOINTS;
pub use mirror::MIRROR;
pub use slices::ENDPOINT_SLICE;

use std::sync::Arc;

use client::Pod;
use k8s_openapi::api::core::v1::{ContainerPort, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::context::Key;
use crate::driver::Watches;
use crate::pods;
use crate::world::World;

/// Label of endpoints whose service has no address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Services wake themselves, pods the services that select them.
fn watches(watches: &mut Watches) {
    watches.own::<Service>();
    watches.map::<Pod>(|world, pod| {
        let services = world.list::<Service>(pod.metadata.namespace.as_deref().unwrap_or_default());
        let selecting = services.iter().filter(|service| selects(service, pod));
        selecting.map(|service| Key::of(service.as_ref())).collect()
    });
}

/// Whether the service has a selector and it selects the pod.
fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(k, v)| pod.labels().get(k) == Some(v))
    })
}

/// Whether it is this controller's business: a service with a selector that is no alias.
fn has_endpoints(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
            && spec.type_.as_deref() != Some("ExternalName")
    })
}

/// The pods behind a service that can have traffic now or soon, ordered by name.
fn pods_of(world: &World, service: &Service) -> Vec<Arc<Pod>> {
    let mut all = world.list::<Pod>(service.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|pod| {
        selects(service, pod) && !pods::is_terminal(pod) && !addresses(pod).is_empty()
    });
    all
}

/// The pod's addresses, one a family.
fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<String> = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    if all.is_empty() { status.pod_ip.clone().into_iter().collect() } else { all }
        .into_iter()
        .filter(|ip| !ip.is_empty())
        .collect()
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// The name by which DNS knows the pod within a headless service.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let in_domain = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.clone().filter(|name| in_domain && !name.is_empty())
}

/// The container port behind a service port; a named one may differ from pod to pod.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".into());
    let fits = |candidate: &&ContainerPort| {
        candidate.name.as_ref() == Some(name)
            && protocol(&candidate.protocol) == protocol(&port.protocol)
    };
    ports.find(fits).map(|found| found.container_port)
}
