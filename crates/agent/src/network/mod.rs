//! Objects into models of the network: services for the proxy, names for DNS, host ports.

mod dns;
mod driver;
mod health;
mod peers;
mod services;

pub use driver::{Network, NetworkParts};
pub(crate) use peers::{NOTE_BACKEND, Peers};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Label by which a slice names its service.
pub const LABEL_SERVICE: &str = "kubernetes.io/service-name";

fn protocol(name: Option<&str>) -> net::Protocol {
    match name {
        Some("UDP") => net::Protocol::Udp,
        Some("SCTP") => net::Protocol::Sctp,
        _ => net::Protocol::Tcp,
    }
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|p| *p > 0)
}

/// Slices by the service they belong to.
struct Slices<'a>(std::collections::HashMap<(String, String), Vec<&'a EndpointSlice>>);

impl<'a> Slices<'a> {
    fn new(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Self {
        let mut map = std::collections::HashMap::<_, Vec<_>>::new();
        for slice in slices {
            let meta = &slice.metadata;
            let service = meta.labels.as_ref().and_then(|l| l.get(LABEL_SERVICE));
            if let (Some(namespace), Some(service)) = (&meta.namespace, service) {
                map.entry((namespace.clone(), service.clone())).or_default().push(slice);
            }
        }
        Slices(map)
    }

    fn of(&self, service: &Service) -> &[&'a EndpointSlice] {
        let meta = &service.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = (text(&meta.namespace), text(&meta.name));
        self.0.get(&key).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Host ports of the pods of this node.
pub fn host_ports<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Vec<net::HostPort> {
    let mut out = Vec::new();
    for pod in pods {
        let Some(spec) = pod.spec.as_ref().filter(|s| s.host_network != Some(true)) else {
            continue;
        };
        let status = pod.status.as_ref();
        let over = crate::pod::status::terminal(status.and_then(|s| s.phase.as_deref()));
        let ip = status.and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        let Some(ip) = ip.filter(|_| !over) else { continue };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        for mapping in containers.flat_map(|c| c.ports.iter().flatten()) {
            let (Some(host_port), Some(target)) =
                (mapping.host_port.and_then(port), port(mapping.container_port))
            else {
                continue;
            };
            out.push(net::HostPort {
                host_ip: mapping
                    .host_ip
                    .as_deref()
                    .and_then(|ip| ip.parse::<std::net::IpAddr>().ok())
                    .filter(|ip| !ip.is_unspecified()),
                host_port,
                protocol: protocol(mapping.protocol.as_deref()),
                target: std::net::SocketAddr::new(ip, target),
            });
        }
    }
    out
}
