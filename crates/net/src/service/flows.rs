//! Which UDP flows may exist. A UDP "connection" lives on in connection tracking as long as
//! packets come, and keeps its endpoint; when that endpoint goes, or when an address that nobody
//! served gets its first one, the entry has to be forgotten.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::{Protocol, Service, ServiceModel};
use crate::linux::firewall::Tracked;

/// Where clients send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Front {
    /// A service's address and port.
    Address(SocketAddr),
    /// A port on any address of this board.
    Port(u16),
}

/// The UDP flows that a model allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UdpFlows {
    fronts: HashSet<Front>,
    flows: HashSet<(Front, SocketAddr)>,
}

impl UdpFlows {
    /// Those of `model`.
    pub(super) fn of(model: &ServiceModel) -> Self {
        let mut all = Self::default();
        for service in &model.services {
            for port in service.ports.iter().filter(|port| port.protocol == Protocol::Udp) {
                let fronts = addresses(service, port.port)
                    .chain(port.node_port.map(Front::Port))
                    .collect::<Vec<_>>();
                for endpoint in &port.endpoints {
                    all.allow(&fronts, endpoint.address);
                }
            }
        }
        for host_port in model.host_ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            let front = match host_port.host_ip.filter(|ip| !ip.is_unspecified()) {
                Some(ip) => Front::Address((ip, host_port.host_port).into()),
                None => Front::Port(host_port.host_port),
            };
            all.allow(&[front], host_port.target);
        }
        all
    }

    fn allow(&mut self, fronts: &[Front], target: SocketAddr) {
        self.fronts.extend(fronts);
        self.flows.extend(fronts.iter().map(|front| (*front, target)));
    }

    /// Whether `tracked` has to go, now that `self` holds and `before` held.
    pub(super) fn makes_stale(&self, before: &Self, tracked: &Tracked) -> bool {
        let translated = tracked.destination != tracked.answering;
        let address = Front::Address(tracked.destination);
        if !translated {
            // It went out untranslated while nobody served the address.
            return self.fronts.contains(&address);
        }
        let fronts = [address, Front::Port(tracked.destination.port())];
        let ours = |front| self.fronts.contains(front) || before.fronts.contains(front);
        fronts.iter().any(ours)
            && !fronts.iter().any(|front| self.flows.contains(&(*front, tracked.answering)))
    }
}

fn addresses(service: &Service, port: u16) -> impl Iterator<Item = Front> + '_ {
    [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips]
        .into_iter()
        .flatten()
        .map(move |ip| Front::Address((*ip, port).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Endpoint, EndpointState, ServicePort};

    fn flows(endpoints: &[&str]) -> UdpFlows {
        let endpoint = |address: &&str| Endpoint {
            address: address.parse().unwrap(),
            local: true,
            state: EndpointState::Ready,
        };
        let port = ServicePort {
            name: String::new(),
            protocol: Protocol::Udp,
            port: 53,
            node_port: Some(30053),
            endpoints: endpoints.iter().map(endpoint).collect(),
        };
        let service = Service {
            cluster_ips: vec!["10.43.0.10".parse().unwrap()],
            ports: vec![port],
            ..Service::new("default", "dns")
        };
        UdpFlows::of(&ServiceModel { services: vec![service], host_ports: Vec::new() })
    }

    #[test]
    fn only_flows_that_lead_astray_are_stale() {
        const A: &str = "10.42.0.2:53";
        const B: &str = "10.42.0.3:53";
        const SERVICE: &str = "10.43.0.10:53";
        for (before, now, destination, answering, stale) in [
            // Still right, or none of ours.
            (&[A][..], &[A][..], SERVICE, A, false),
            (&[A], &[A, B], SERVICE, A, false),
            (&[A], &[B], "192.0.2.9:53", "192.0.2.9:53", false),
            (&[A], &[B], "192.0.2.9:53", "10.0.0.1:53", false),
            (&[A], &[B], A, A, false),
            // The endpoint, or the whole service, is gone.
            (&[A], &[B], SERVICE, A, true),
            (&[A], &[B], "192.0.2.1:30053", A, true),
            (&[A], &[], SERVICE, A, true),
            // Left by an earlier process, whose model nobody knows.
            (&[], &[B], SERVICE, A, true),
            // It went out untranslated while nobody served it.
            (&[], &[A], SERVICE, SERVICE, true),
            (&[], &[], SERVICE, SERVICE, false),
        ] {
            let tracked = Tracked {
                destination: destination.parse().unwrap(),
                answering: answering.parse().unwrap(),
            };
            let result = flows(now).makes_stale(&flows(before), &tracked);
            assert_eq!(result, stale, "{before:?} {now:?} {destination} {answering}");
        }
    }
}
