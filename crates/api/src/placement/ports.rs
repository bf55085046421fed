//! Ports of the node itself that pods take.

use k8s_openapi::api::core::v1::PodSpec;

/// A port of the node that a pod has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Of the node; empty: each of them.
    pub address: String,
    /// Its number.
    pub number: i32,
}

impl HostPort {
    /// Whether both cannot be given at a time.
    pub fn clashes(&self, other: &HostPort) -> bool {
        let everywhere = self.address.is_empty() || other.address.is_empty();
        self.protocol == other.protocol
            && self.number == other.number
            && (everywhere || self.address == other.address)
    }
}

/// The ports of the node that a pod takes while it runs.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let inits = spec.init_containers.iter().flatten();
    let sidecars = inits.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let host_network = spec.host_network == Some(true);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.or(host_network.then_some(port.container_port))?;
            let address = port.host_ip.clone().unwrap_or_default();
            let address = if address == "0.0.0.0" { String::new() } else { address };
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            (number > 0).then_some(HostPort { protocol, address, number })
        })
        .collect()
}
