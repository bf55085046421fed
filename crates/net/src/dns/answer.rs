//! What a question about the cluster's zone is answered with. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Zone, ZoneEndpoint, ZonePort, ZoneService, ZoneTarget};
use crate::Protocol;

/// How long clients may keep an answer, and the absence of one.
pub(super) const TTL_SECS: u32 = 5;
/// The version of the specification that `dns-version` states.
const SPECIFICATION_VERSION: &str = "1.1.0";

/// What the cluster's zone is called and who serves it.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The cluster's domain.
    pub domain: Name,
    /// The addresses of `ns.dns.<domain>`.
    pub service_ips: Vec<IpAddr>,
}

/// An answer in the making.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// Success also when there is no record of the type asked for.
    pub code: ResponseCode,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// The start of authority when there is nothing to answer.
    pub authorities: Vec<Record>,
    /// Addresses of the names in the answers.
    pub additionals: Vec<Record>,
    /// Where the name leads, when that has to be looked up as well.
    pub alias: Option<Name>,
}

/// What a name in the zone turned out to be.
enum Found {
    /// There is no such name, nor any below it.
    Nothing,
    /// These records, of whatever type was asked for; none means the name exists without.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// Another name.
    Alias(Name),
}

impl Found {
    fn records(answers: Vec<Record>) -> Self {
        Self::Records { answers, additionals: Vec::new() }
    }

    fn empty() -> Self {
        Self::records(Vec::new())
    }

    fn empty_if(exists: bool) -> Self {
        if exists { Self::empty() } else { Self::Nothing }
    }
}

/// The answer to `kind` of `name`; `None` when the name is not ours to answer.
pub(super) fn answer(
    origin: &Origin,
    zone: &Zone,
    name: &Name,
    kind: RecordType,
) -> Option<Answer> {
    if !origin.domain.zone_of(name) {
        return reverse(origin, zone, name, kind);
    }
    let below = usize::from(name.num_labels().saturating_sub(origin.domain.num_labels()));
    let labels: Option<Vec<String>> = name
        .iter()
        .take(below)
        .map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase))
        .collect();
    let question = Question { origin, zone, name, kind };
    let found = labels.map_or(Found::Nothing, |labels| {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        question.find(&labels)
    });
    Some(finish(origin, name, found))
}

fn finish(origin: &Origin, name: &Name, found: Found) -> Answer {
    let (code, answers, additionals, alias) = match found {
        Found::Nothing => (ResponseCode::NXDomain, Vec::new(), Vec::new(), None),
        Found::Records { answers, additionals } => {
            (ResponseCode::NoError, answers, additionals, None)
        }
        Found::Alias(target) => {
            let record = record(name, RData::CNAME(CNAME(target.clone())));
            (ResponseCode::NoError, vec![record], Vec::new(), Some(target))
        }
    };
    let authorities = if answers.is_empty() { vec![soa(origin)] } else { Vec::new() };
    Answer { code, answers, authorities, additionals, alias }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECS, data)
}

/// The zone's start of authority. The serial never changes: nobody transfers this zone.
fn soa(origin: &Origin) -> Record {
    let below = |labels: &[&str]| child(origin, labels).unwrap_or_else(|| origin.domain.clone());
    let start =
        SOA::new(below(&["ns", "dns"]), below(&["hostmaster"]), 1, 7200, 1800, 86400, TTL_SECS);
    record(&origin.domain, RData::SOA(start))
}

/// A name below the cluster's domain; `None` when it would be too long.
fn child<L: AsRef<str>>(origin: &Origin, labels: &[L]) -> Option<Name> {
    let labels = labels.iter().map(|label| label.as_ref().as_bytes());
    Name::from_labels(labels).ok()?.append_domain(&origin.domain).ok()
}

/// The address record of `kind`, if the address is of that kind.
fn address_record(name: &Name, ip: &IpAddr, kind: RecordType) -> Option<Record> {
    let data = match (ip, kind) {
        (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
        (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
        _ => return None,
    };
    Some(record(name, data))
}

/// Addresses of whatever kind they are, for the additional section.
fn any_address(name: &Name, ip: &IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(v4) => RData::A(A(*v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
    };
    record(name, data)
}

struct Question<'a> {
    origin: &'a Origin,
    zone: &'a Zone,
    name: &'a Name,
    kind: RecordType,
}

impl Question<'_> {
    fn find(&self, labels: &[&str]) -> Found {
        match labels {
            [] => self.apex(),
            ["dns-version"] => self.version(),
            ["dns"] => Found::empty(),
            ["ns", "dns"] => Found::records(self.addresses(&self.origin.service_ips)),
            ["svc" | "pod"] => Found::empty(),
            [namespace, "svc" | "pod"] => Found::empty_if(self.zone.has_namespace(namespace)),
            [pod, namespace, "pod"] => self.pod(pod, namespace),
            [below @ .., service, namespace, "svc"] => {
                match self.zone.service(namespace, service) {
                    Some(service) => self.service(below, service),
                    None => Found::Nothing,
                }
            }
            _ => Found::Nothing,
        }
    }

    fn addresses<'b>(&self, ips: impl IntoIterator<Item = &'b IpAddr>) -> Vec<Record> {
        // Two endpoints may share an address; one record says it all.
        let ips: BTreeSet<&IpAddr> = ips.into_iter().collect();
        ips.into_iter().filter_map(|ip| address_record(self.name, ip, self.kind)).collect()
    }

    fn apex(&self) -> Found {
        match self.kind {
            RecordType::SOA => Found::records(vec![soa(self.origin)]),
            RecordType::NS => {
                let Some(server) = child(self.origin, &["ns", "dns"]) else {
                    return Found::empty();
                };
                let ips = &self.origin.service_ips;
                Found::Records {
                    answers: vec![record(self.name, RData::NS(NS(server.clone())))],
                    additionals: ips.iter().map(|ip| any_address(&server, ip)).collect(),
                }
            }
            _ => Found::empty(),
        }
    }

    fn version(&self) -> Found {
        if self.kind != RecordType::TXT {
            return Found::empty();
        }
        let text = TXT::new(vec![SPECIFICATION_VERSION.to_owned()]);
        Found::records(vec![record(self.name, RData::TXT(text))])
    }

    /// `10-42-0-5.default.pod`: any address, as long as the namespace exists.
    fn pod(&self, pod: &str, namespace: &str) -> Found {
        match dashed(pod).filter(|_| self.zone.has_namespace(namespace)) {
            Some(ip) => Found::records(self.addresses([&ip])),
            None => Found::Nothing,
        }
    }

    fn service(&self, below: &[&str], service: &ZoneService) -> Found {
        match (&service.target, below) {
            (ZoneTarget::External(target), []) => match Name::from_ascii(target) {
                Ok(mut target) => {
                    target.set_fqdn(true);
                    Found::Alias(target)
                }
                Err(_) => Found::empty(),
            },
            (ZoneTarget::External(_), _) => Found::Nothing,
            (ZoneTarget::Cluster { ips, ports }, below) => self.cluster(below, service, ips, ports),
            (ZoneTarget::Headless(endpoints), below) => self.headless(below, service, endpoints),
        }
    }

    fn cluster(
        &self,
        below: &[&str],
        service: &ZoneService,
        ips: &[IpAddr],
        ports: &[ZonePort],
    ) -> Found {
        let own = self.service_name(service, None);
        let target = |port: &ZonePort| Some((port.port, own.clone()?, ips.to_vec()));
        match below {
            [] if self.kind == RecordType::SRV => self.srv(ports.iter().filter_map(target)),
            [] => Found::records(self.addresses(ips)),
            [protocol] => Found::empty_if(ports.iter().any(|port| has_protocol(port, protocol))),
            [name, protocol] => {
                let port = ports.iter().find(|port| is_port(port, name, protocol));
                match port {
                    Some(port) => self.srv_only(target(port)),
                    None => Found::Nothing,
                }
            }
            _ => Found::Nothing,
        }
    }

    fn headless(&self, below: &[&str], service: &ZoneService, endpoints: &[ZoneEndpoint]) -> Found {
        let targets = |wanted: &dyn Fn(&ZonePort) -> bool| -> Vec<(u16, Name, Vec<IpAddr>)> {
            endpoints
                .iter()
                .flat_map(|endpoint| endpoint.ports.iter().map(move |port| (endpoint, port)))
                .filter(|(_, port)| wanted(port))
                .filter_map(|(endpoint, port)| {
                    let name = self.service_name(service, Some(endpoint))?;
                    Some((port.port, name, vec![endpoint.ip]))
                })
                .collect()
        };
        match below {
            // The specification wants NXDOMAIN here, not an empty answer (2.4.1).
            [] if endpoints.is_empty() => Found::Nothing,
            [] if self.kind == RecordType::SRV => self.srv(targets(&|_| true)),
            [] => Found::records(self.addresses(endpoints.iter().map(|endpoint| &endpoint.ip))),
            [label] => {
                let mut named = endpoints.iter().filter(|endpoint| endpoint.label() == *label);
                let first = named.next();
                let ips: Vec<&IpAddr> = first.into_iter().chain(named).map(|e| &e.ip).collect();
                let protocol = || !targets(&|port| has_protocol(port, label)).is_empty();
                if ips.is_empty() {
                    Found::empty_if(protocol())
                } else {
                    Found::records(self.addresses(ips))
                }
            }
            [name, protocol] => {
                let targets = targets(&|port| is_port(port, name, protocol));
                if targets.is_empty() { Found::Nothing } else { self.srv_only(targets) }
            }
            _ => Found::Nothing,
        }
    }

    fn service_name(&self, service: &ZoneService, endpoint: Option<&ZoneEndpoint>) -> Option<Name> {
        let mut labels: Vec<String> = endpoint.map(ZoneEndpoint::label).into_iter().collect();
        labels.extend([
            service.name.to_ascii_lowercase(),
            service.namespace.clone(),
            "svc".to_owned(),
        ]);
        child(self.origin, &labels)
    }

    /// For names that have records of type SRV and no other.
    fn srv_only(&self, targets: impl IntoIterator<Item = (u16, Name, Vec<IpAddr>)>) -> Found {
        if self.kind == RecordType::SRV { self.srv(targets) } else { Found::empty() }
    }

    fn srv(&self, targets: impl IntoIterator<Item = (u16, Name, Vec<IpAddr>)>) -> Found {
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        let mut targets: Vec<_> = targets.into_iter().collect();
        targets.sort();
        targets.dedup();
        // Weights add up to about 100, as upstream has it.
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
        for (port, target, ips) in targets {
            for ip in &ips {
                let address = any_address(&target, ip);
                if !additionals.contains(&address) {
                    additionals.push(address);
                }
            }
            answers.push(record(self.name, RData::SRV(SRV::new(0, weight, port, target))));
        }
        Found::Records { answers, additionals }
    }
}

/// Whether `_tcp` is the port's protocol.
fn has_protocol(port: &ZonePort, label: &str) -> bool {
    label.strip_prefix('_') == Some(protocol_label(port.protocol))
}

fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn is_port(port: &ZonePort, name: &str, protocol: &str) -> bool {
    has_protocol(port, protocol)
        && !port.name.is_empty()
        && name.strip_prefix('_').is_some_and(|name| port.name.eq_ignore_ascii_case(name))
}

/// `10-42-0-5` or `fd00--5`.
fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// Names of addresses that are ours; all others are somebody else's to answer.
fn reverse(origin: &Origin, zone: &Zone, name: &Name, kind: RecordType) -> Option<Answer> {
    let ip = arpa_address(name)?;
    let names = zone.names_of(&ip);
    if names.is_empty() {
        return None;
    }
    let names = names.iter().filter_map(|labels| child(origin, labels));
    let answers = match kind {
        RecordType::PTR => names.map(|target| record(name, RData::PTR(PTR(target)))).collect(),
        _ => Vec::new(),
    };
    Some(finish(origin, name, Found::records(answers)))
}

/// The whole address that a name of `in-addr.arpa` or `ip6.arpa` stands for.
fn arpa_address(name: &Name) -> Option<IpAddr> {
    let labels: Vec<String> =
        name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => {
            format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let digits: String = nibbles.iter().rev().copied().collect();
            let bits = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
            Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
