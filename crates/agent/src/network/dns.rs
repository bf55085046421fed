//! Services and EndpointSlices as the names of cluster DNS. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use net::dns::{ZoneEndpoint, ZonePort, ZoneService, ZoneTarget};

use super::{Slices, port, protocol};

/// All names that the services give.
pub fn names<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Vec<ZoneService> {
    let slices = Slices::new(slices);
    services.into_iter().filter_map(|service| one(service, slices.of(service))).collect()
}

fn one(service: &Service, slices: &[&EndpointSlice]) -> Option<ZoneService> {
    let spec = service.spec.as_ref()?;
    let ips: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let target = match spec.type_.as_deref() {
        Some("ExternalName") => ZoneTarget::External(spec.external_name.clone()?),
        _ if ips.is_empty() => {
            let unready = spec.publish_not_ready_addresses == Some(true);
            ZoneTarget::Headless(endpoints(slices, unready))
        }
        _ => {
            let mut unique = Vec::new();
            for ip in ips {
                if !unique.contains(&ip) {
                    unique.push(ip);
                }
            }
            let ports = spec.ports.iter().flatten().filter_map(zone_port).collect();
            ZoneTarget::Cluster { ips: unique, ports }
        }
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&service.metadata.namespace), text(&service.metadata.name));
    Some(ZoneService { namespace, name, target })
}

fn zone_port(from: &ServicePort) -> Option<ZonePort> {
    Some(ZonePort {
        name: from.name.clone().unwrap_or_default(),
        protocol: protocol(from.protocol.as_deref()),
        port: port(from.port)?,
    })
}

fn endpoints(slices: &[&EndpointSlice], unready: bool) -> Vec<ZoneEndpoint> {
    let mut out: Vec<ZoneEndpoint> = Vec::new();
    for slice in slices {
        let ports: Vec<ZonePort> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|p| {
                Some(ZonePort {
                    name: p.name.clone().unwrap_or_default(),
                    protocol: protocol(p.protocol.as_deref()),
                    port: p.port.and_then(port)?,
                })
            })
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            if !ready && !unready {
                continue;
            }
            for ip in endpoint.addresses.iter().filter_map(|a| a.parse().ok()) {
                let hostname = endpoint.hostname.clone().filter(|h| !h.is_empty());
                out.push(ZoneEndpoint { ip, hostname, ports: ports.clone() });
            }
        }
    }
    out.sort_by(|a, b| (a.ip, &a.hostname).cmp(&(b.ip, &b.hostname)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn three_kinds_of_services() {
        let service = |name: &str, spec: serde_json::Value| -> Service {
            serde_json::from_value(
                json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}),
            )
            .unwrap()
        };
        let services = [
            service(
                "web",
                json!({"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"], "ports": [{"port": 80}]}),
            ),
            service("db", json!({"clusterIP": "None"})),
            service("ext", json!({"type": "ExternalName", "externalName": "example.org"})),
        ];
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "db-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432}],
            "endpoints": [{"addresses": ["10.42.0.2"], "hostname": "db-0"},
                {"addresses": ["10.42.0.3"], "conditions": {"ready": false}}]}))
        .unwrap();
        let names = names(&services, [&slice]);
        assert!(
            matches!(&names[0].target, ZoneTarget::Cluster { ips, ports } if ips.len() == 1 && ports[0].port == 80)
        );
        let ZoneTarget::Headless(endpoints) = &names[1].target else { panic!("headless") };
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0].hostname.as_deref(), Some("db-0"));
        assert_eq!(endpoints[0].ports[0].name, "sql");
        assert_eq!(names[2].target, ZoneTarget::External("example.org".into()));
    }
}
