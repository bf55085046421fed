//! From services to rules. Pure: the same model always gives the same table.
//!
//! A packet meets two look-ups, however many services there are: its destination in
//! `service-ips`, its port in `node-ports`. The verdict leads to the service port's own chain,
//! which picks an endpoint at random. Chains are
//!
//! - `svc/…`: all usable endpoints;
//! - `local/…`: those on this board, for the traffic policy Local;
//! - `ext/…`: for clients outside: masquerades if need be, then one of the two above;
//! - `lb/…`: who may use a load-balancer address;
//! - `ep/…`: one endpoint of a service with affinity, which remembers the client;
//! - `host/…`: a pod's port on this board.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{
    Endpoint, EndpointState, HostPort, ProxyConfig, Service, ServiceModel, ServicePort,
    TrafficPolicy,
};
use crate::Cidr;
use crate::firewall::{
    Atom, Chain, Family, Field, Hook, HookKind, HookPoint, KeyType, Rule, Ruleset, Set, SetData,
    Statement, Value, Verdict, rule,
};

/// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC` of the kernel's `netfilter_ipv4.h`.
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;
/// Just after destination NAT: what is still unchanged then found no endpoint.
const PRIORITY_REFUSE: i32 = PRIORITY_DSTNAT + 10;

const SERVICE_IPS: &str = "service-ips";
const NODE_PORTS: &str = "node-ports";
const HOST_PORTS: &str = "host-ports";
const REFUSED_IPS: &str = "refused-ips";
const REFUSED_NODE_PORTS: &str = "refused-node-ports";
const CLUSTER_IPS: &str = "cluster-ips";
const HAIRPIN: &str = "hairpin";
const SERVICES: &str = "services";
const REFUSE: &str = "refuse";
const REJECT: &str = "reject";

const ADDRESS_KEY: [Field; 3] = [Field::Destination, Field::Protocol, Field::DestinationPort];
const PORT_KEY: [Field; 2] = [Field::Protocol, Field::DestinationPort];

/// The table that serves `model` for one family.
pub(super) fn plan(model: &ServiceModel, config: &ProxyConfig, family: Family) -> Ruleset {
    let mut plan = Plan {
        config,
        family,
        cluster: config.cluster_cidrs.iter().copied().filter(|c| of(family, c)).collect(),
        sets: fixed_sets(),
        chains: BTreeMap::new(),
    };
    plan.fixed_chains();
    let mut services: Vec<&Service> = model.services.iter().collect();
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    for service in services {
        for port in &service.ports {
            plan.service_port(service, port);
        }
    }
    for host_port in &model.host_ports {
        plan.host_port(host_port);
    }
    Ruleset { family, sets: plan.sets, chains: plan.chains }
}

fn of(family: Family, block: &Cidr) -> bool {
    family.has(&block.network())
}

fn fixed_sets() -> BTreeMap<String, Set> {
    use KeyType::{Address, Port, Protocol};
    [
        (SERVICE_IPS, Set::new(&[Address, Protocol, Port], SetData::Verdict)),
        (NODE_PORTS, Set::new(&[Protocol, Port], SetData::Verdict)),
        (HOST_PORTS, Set::new(&[Protocol, Port], SetData::Verdict)),
        (REFUSED_IPS, Set::new(&[Address, Protocol, Port], SetData::Verdict)),
        (REFUSED_NODE_PORTS, Set::new(&[Protocol, Port], SetData::Verdict)),
        (CLUSTER_IPS, Set::new(&[Address], SetData::None)),
        (HAIRPIN, Set::new(&[Address, Address], SetData::None)),
    ]
    .into_iter()
    .map(|(name, set)| (name.to_owned(), set))
    .collect()
}

/// A pod's packet outside its connection's window is not translated back: its receiver does not
/// know the pod, and would end the connection that it has with the service.
fn stray(block: &Cidr) -> Rule {
    let pods = Statement::InBlock { field: Field::Source, block: *block, inside: true };
    rule([Statement::ConnectionInvalid, pods, Statement::Verdict(Verdict::Drop)])
}

/// A table in the making.
struct Plan<'a> {
    config: &'a ProxyConfig,
    family: Family,
    cluster: Vec<Cidr>,
    sets: BTreeMap<String, Set>,
    chains: BTreeMap<String, Chain>,
}

/// Which endpoints of a service port take traffic.
struct Usable<'a> {
    all: Vec<&'a Endpoint>,
    local: Vec<&'a Endpoint>,
}

impl<'a> Usable<'a> {
    fn of(port: &'a ServicePort, family: Family) -> Self {
        let family = port.endpoints.iter().filter(|e| family.has(&e.address.ip()));
        let all: BTreeSet<&Endpoint> = family.collect();
        let local = all.iter().copied().filter(|endpoint| endpoint.local).collect();
        Self { all: ready_or_leaving(all), local: ready_or_leaving(local) }
    }

    fn for_policy(&self, policy: TrafficPolicy) -> &[&'a Endpoint] {
        match policy {
            TrafficPolicy::Cluster => &self.all,
            TrafficPolicy::Local => &self.local,
        }
    }
}

/// Endpoints that go away serve only while nobody else does.
fn ready_or_leaving(endpoints: BTreeSet<&Endpoint>) -> Vec<&Endpoint> {
    let ready: Vec<_> =
        endpoints.iter().copied().filter(|e| e.state == EndpointState::Ready).collect();
    if ready.is_empty() { endpoints.into_iter().collect() } else { ready }
}

impl Plan<'_> {
    fn chain(&mut self, name: impl Into<String>, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Chain { hook: None, rules });
    }

    fn base_chain(&mut self, kind: HookKind, point: HookPoint, priority: i32, rules: Vec<Rule>) {
        let prefix = if kind == HookKind::Nat { "nat" } else { "filter" };
        let name = format!("{prefix}-{point:?}").to_lowercase();
        self.chains.insert(name, Chain { hook: Some(Hook { kind, point, priority }), rules });
    }

    /// The first claim on a key stands; services come in the order of their names.
    fn put(&mut self, map: &str, key: Vec<Atom>, value: Value) {
        if let Some(set) = self.sets.get_mut(map) {
            set.elements.entry(key).or_insert(value);
        }
    }

    fn fixed_chains(&mut self) {
        let mark = self.config.masquerade_mark;
        let jump = |chain: &str| Statement::Verdict(Verdict::Jump(chain.to_owned()));
        for point in [HookPoint::Prerouting, HookPoint::Output] {
            self.base_chain(HookKind::Nat, point, PRIORITY_DSTNAT, vec![rule([jump(SERVICES)])]);
        }
        for point in [HookPoint::Input, HookPoint::Forward, HookPoint::Output] {
            let mut rules = Vec::new();
            if point == HookPoint::Forward {
                rules.extend(self.cluster.iter().map(stray));
            }
            rules.push(rule([Statement::ConnectionNew, jump(REFUSE)]));
            self.base_chain(HookKind::Filter, point, PRIORITY_REFUSE, rules);
        }
        let back_to_itself = Statement::InSet {
            fields: vec![Field::Source, Field::Destination],
            set: HAIRPIN.to_owned(),
        };
        let masquerade = vec![
            rule([Statement::Marked(mark), Statement::ClearMark(mark), Statement::Masquerade]),
            rule([Statement::ConnectionTranslated, back_to_itself, Statement::Masquerade]),
        ];
        self.base_chain(HookKind::Nat, HookPoint::Postrouting, PRIORITY_SRCNAT, masquerade);
        let services = self.services_chain();
        self.chain(SERVICES, services);
        let mut refuse = vec![rule([lookup(&ADDRESS_KEY, REFUSED_IPS)])];
        refuse.extend(self.node_port_rules(REFUSED_NODE_PORTS));
        self.chain(REFUSE, refuse);
        self.chain(
            REJECT,
            vec![
                rule([Statement::ProtocolIs(6), Statement::RejectReset]),
                rule([Statement::RejectUnreachable]),
            ],
        );
    }

    fn services_chain(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if !self.cluster.is_empty() {
            let outside = self.cluster.iter().map(|block| Statement::InBlock {
                field: Field::Source,
                block: *block,
                inside: false,
            });
            let to_cluster_ip = [
                Statement::InSet { fields: vec![Field::Destination], set: CLUSTER_IPS.to_owned() },
                Statement::SetMark(self.config.masquerade_mark),
            ];
            rules.push(rule(outside.chain(to_cluster_ip)));
        }
        rules.push(rule([lookup(&ADDRESS_KEY, SERVICE_IPS)]));
        rules.extend(self.node_port_rules(NODE_PORTS));
        rules.push(rule([
            self.not_loopback(),
            Statement::Local(Field::Destination),
            lookup(&PORT_KEY, HOST_PORTS),
        ]));
        rules
    }

    /// Node ports answer on the addresses of the configuration, or on all but loopback.
    fn node_port_rules(&self, map: &str) -> Vec<Rule> {
        let blocks: Vec<_> =
            self.config.node_port_addresses.iter().filter(|b| of(self.family, b)).collect();
        let local = Statement::Local(Field::Destination);
        if blocks.is_empty() {
            return vec![rule([self.not_loopback(), local, lookup(&PORT_KEY, map)])];
        }
        blocks
            .into_iter()
            .map(|block| {
                let here =
                    Statement::InBlock { field: Field::Destination, block: *block, inside: true };
                rule([here, local.clone(), lookup(&PORT_KEY, map)])
            })
            .collect()
    }

    fn not_loopback(&self) -> Statement {
        let (address, prefix) = match self.family {
            Family::V4 => (IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
            Family::V6 => (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        };
        let block = Cidr::new(address, prefix).expect("8 <= 32 and 128 <= 128");
        Statement::InBlock { field: Field::Destination, block, inside: false }
    }

    fn service_port(&mut self, service: &Service, port: &ServicePort) {
        let usable = Usable::of(port, self.family);
        let names = Names::new(service, port);
        self.endpoint_chains(service, &usable, &names);
        self.cluster_addresses(service, port, &usable, &names);
        self.outside_addresses(service, port, &usable, &names);
        let local = usable.all.iter().chain(&usable.local).filter(|endpoint| endpoint.local);
        let ips: BTreeSet<IpAddr> = local.map(|endpoint| endpoint.address.ip()).collect();
        for ip in ips {
            self.put(HAIRPIN, vec![Atom::Address(ip), Atom::Address(ip)], Value::Present);
        }
    }

    fn cluster_addresses(
        &mut self,
        service: &Service,
        port: &ServicePort,
        usable: &Usable<'_>,
        names: &Names,
    ) {
        let family = self.family;
        let served = !usable.for_policy(service.internal_policy).is_empty();
        for ip in service.cluster_ips.iter().filter(|ip| family.has(ip)) {
            let key = address_key(*ip, port);
            if served {
                let chain = self.balance(service, usable, names, service.internal_policy);
                self.put(SERVICE_IPS, key, goto(&chain));
                self.put(CLUSTER_IPS, vec![Atom::Address(*ip)], Value::Present);
            } else {
                self.put(REFUSED_IPS, key, refusal(usable));
            }
        }
    }

    fn outside_addresses(
        &mut self,
        service: &Service,
        port: &ServicePort,
        usable: &Usable<'_>,
        names: &Names,
    ) {
        let family = self.family;
        let external = service.external_ips.iter().map(|ip| (*ip, false));
        let balanced = service.load_balancer_ips.iter().map(|ip| (*ip, true));
        let addresses: Vec<(IpAddr, bool)> =
            external.chain(balanced).filter(|(ip, _)| family.has(ip)).collect();
        if addresses.is_empty() && port.node_port.is_none() {
            return;
        }
        let refused = usable.for_policy(service.external_policy).is_empty();
        let chain = (!usable.all.is_empty()).then(|| self.outside_chain(service, usable, names));
        for (ip, guarded) in addresses {
            let key = address_key(ip, port);
            if refused {
                self.put(REFUSED_IPS, key.clone(), refusal(usable));
            }
            if let Some(chain) = &chain {
                let chain = if guarded { self.guard(service, names, chain) } else { chain.clone() };
                self.put(SERVICE_IPS, key, goto(&chain));
            }
        }
        if let Some(node_port) = port.node_port {
            let key = vec![Atom::Protocol(port.protocol.number()), Atom::Port(node_port)];
            if refused {
                self.put(REFUSED_NODE_PORTS, key.clone(), refusal(usable));
            }
            if let Some(chain) = &chain {
                self.put(NODE_PORTS, key, goto(chain));
            }
        }
    }

    /// Clients outside. With policy Local the client's address is kept, and only clients on this
    /// board or in a pod reach endpoints elsewhere.
    fn outside_chain(&mut self, service: &Service, usable: &Usable<'_>, names: &Names) -> String {
        let name = names.chain("ext");
        let mark = Statement::SetMark(self.config.masquerade_mark);
        let all = self.balance(service, usable, names, TrafficPolicy::Cluster);
        let to_all = Statement::Verdict(Verdict::Goto(all));
        let rules = match service.external_policy {
            TrafficPolicy::Cluster => vec![rule([mark, to_all])],
            TrafficPolicy::Local => {
                let mut rules: Vec<Rule> = self
                    .cluster
                    .iter()
                    .map(|block| {
                        let from_pod = Statement::InBlock {
                            field: Field::Source,
                            block: *block,
                            inside: true,
                        };
                        rule([from_pod, to_all.clone()])
                    })
                    .collect();
                rules.push(rule([Statement::Local(Field::Source), mark, to_all]));
                if !usable.local.is_empty() {
                    let local = self.balance(service, usable, names, TrafficPolicy::Local);
                    rules.push(rule([Statement::Verdict(Verdict::Goto(local))]));
                }
                rules
            }
        };
        self.chain(&name, rules);
        name
    }

    /// Only the allowed sources go on to `chain`.
    fn guard(&mut self, service: &Service, names: &Names, chain: &str) -> String {
        if service.load_balancer_source_ranges.is_empty() {
            return chain.to_owned();
        }
        let family = self.family;
        let mut rules: Vec<Rule> = service
            .load_balancer_source_ranges
            .iter()
            .filter(|block| of(family, block))
            .map(|block| {
                rule([
                    Statement::InBlock { field: Field::Source, block: *block, inside: true },
                    Statement::Verdict(Verdict::Goto(chain.to_owned())),
                ])
            })
            .collect();
        rules.push(rule([Statement::Verdict(Verdict::Drop)]));
        let name = names.chain("lb");
        self.chain(&name, rules);
        name
    }

    /// The chain that picks among the endpoints of a policy; made when first asked for.
    fn balance(
        &mut self,
        service: &Service,
        usable: &Usable<'_>,
        names: &Names,
        policy: TrafficPolicy,
    ) -> String {
        let endpoints = usable.for_policy(policy);
        let name = names.chain(match policy {
            TrafficPolicy::Cluster => "svc",
            TrafficPolicy::Local => "local",
        });
        if self.chains.contains_key(&name) {
            return name;
        }
        let rules = if service.affinity.is_some() {
            self.sticky_rules(endpoints, names, &name)
        } else {
            self.plain_rules(endpoints, &name)
        };
        self.chain(&name, rules);
        name
    }

    fn plain_rules(&mut self, endpoints: &[&Endpoint], name: &str) -> Vec<Rule> {
        match endpoints {
            [] => Vec::new(),
            [only] => vec![translate(only.address)],
            several => {
                let values = several.iter().map(|endpoint| Value::Target(endpoint.address));
                let (count, map) = self.balance_map(name, SetData::Target, values);
                vec![rule([Statement::BalanceTargets { count, map }])]
            }
        }
    }

    fn sticky_rules(&mut self, endpoints: &[&Endpoint], names: &Names, name: &str) -> Vec<Rule> {
        let known = endpoints.iter().map(|endpoint| {
            let set = names.endpoint("aff", endpoint.address);
            let target = names.endpoint("ep", endpoint.address);
            rule([
                Statement::InSet { fields: vec![Field::Source], set },
                Statement::Verdict(Verdict::Goto(target)),
            ])
        });
        let mut rules: Vec<Rule> = known.collect();
        match endpoints {
            [] => {}
            [only] => {
                let target = names.endpoint("ep", only.address);
                rules = vec![rule([Statement::Verdict(Verdict::Goto(target))])];
            }
            several => {
                let values = several.iter().map(|endpoint| {
                    Value::Verdict(Verdict::Goto(names.endpoint("ep", endpoint.address)))
                });
                let (count, map) = self.balance_map(name, SetData::Verdict, values);
                rules.push(rule([Statement::BalanceVerdicts { count, map }]));
            }
        }
        rules
    }

    /// A map from 0, 1, 2, … to the values. Its name says whether it holds verdicts, so that a
    /// service that gains affinity gets another map instead of one of another shape.
    fn balance_map(
        &mut self,
        chain: &str,
        data: SetData,
        values: impl Iterator<Item = Value>,
    ) -> (u32, String) {
        let kind = if data == SetData::Verdict { "pick" } else { "to" };
        let name = format!("{kind}/{chain}");
        let mut set = Set::new(&[KeyType::Index], data);
        set.elements = (0..).map(|index| vec![Atom::Index(index)]).zip(values).collect();
        let count = u32::try_from(set.elements.len()).unwrap_or(u32::MAX);
        self.sets.insert(name.clone(), set);
        (count, name)
    }

    /// With affinity every endpoint has a chain and a set of the clients that belong to it. The
    /// set's name carries the timeout, which cannot be changed in place.
    fn endpoint_chains(&mut self, service: &Service, usable: &Usable<'_>, names: &Names) {
        // The kernel takes a timeout of nothing for no timeout at all.
        let Some(timeout) = service.affinity.map(|t| t.max(Duration::from_secs(1))) else { return };
        for endpoint in usable.all.iter().chain(&usable.local) {
            let set = names.endpoint("aff", endpoint.address);
            let members =
                Set { timeout: Some(timeout), ..Set::new(&[KeyType::Address], SetData::None) };
            self.sets.insert(set.clone(), members);
            // Two rules, so that a set that is full costs the client its endpoint's memory, not
            // the connection.
            let rules = vec![rule([Statement::Remember { set }]), translate(endpoint.address)];
            self.chain(names.endpoint("ep", endpoint.address), rules);
        }
    }

    fn host_port(&mut self, host_port: &HostPort) {
        if !self.family.has(&host_port.target.ip())
            || host_port.host_ip.is_some_and(|ip| !self.family.has(&ip))
        {
            return;
        }
        let port = [Atom::Protocol(host_port.protocol.number()), Atom::Port(host_port.host_port)];
        let on = host_port.host_ip.filter(|ip| !ip.is_unspecified());
        let mut name = format!("host/{}/{}", host_port.protocol, host_port.host_port);
        if let Some(ip) = on {
            name.push('/');
            name.push_str(&nft_name(ip));
        }
        let (map, key) = match on {
            Some(ip) => (SERVICE_IPS, [vec![Atom::Address(ip)], port.to_vec()].concat()),
            None => (HOST_PORTS, port.to_vec()),
        };
        // From this board itself the source would be an address that the pod cannot answer to
        // when it is a loopback one; masquerading is harmless otherwise.
        let from_here = rule([
            Statement::Local(Field::Source),
            Statement::SetMark(self.config.masquerade_mark),
        ]);
        self.chain(&name, vec![from_here, translate(host_port.target)]);
        self.put(map, key, goto(&name));
        let ip = Atom::Address(host_port.target.ip());
        self.put(HAIRPIN, vec![ip, ip], Value::Present);
    }
}

/// The names of everything that belongs to one service port.
struct Names {
    base: String,
    affinity_secs: u64,
}

impl Names {
    fn new(service: &Service, port: &ServicePort) -> Self {
        let Service { namespace, name, .. } = service;
        let base = format!("{namespace}/{name}/{}/{}", port.protocol, port.port);
        Self { base, affinity_secs: service.affinity.map_or(0, |timeout| timeout.as_secs()) }
    }

    fn chain(&self, kind: &str) -> String {
        format!("{kind}/{}", self.base)
    }

    fn endpoint(&self, kind: &str, address: SocketAddr) -> String {
        let ip = nft_name(address.ip());
        format!("{kind}/{}/{ip}/{}/{}s", self.base, address.port(), self.affinity_secs)
    }
}

/// nft's names know no colon.
fn nft_name(ip: IpAddr) -> String {
    ip.to_string().replace(':', ".")
}

fn address_key(ip: IpAddr, port: &ServicePort) -> Vec<Atom> {
    vec![Atom::Address(ip), Atom::Protocol(port.protocol.number()), Atom::Port(port.port)]
}

fn goto(chain: &str) -> Value {
    Value::Verdict(Verdict::Goto(chain.to_owned()))
}

/// Nobody at all: tell the client. Nobody here but somebody elsewhere: be silent, as a balancer
/// in front then tries another board.
fn refusal(usable: &Usable<'_>) -> Value {
    if usable.all.is_empty() { goto(REJECT) } else { Value::Verdict(Verdict::Drop) }
}

fn lookup(fields: &[Field], map: &str) -> Statement {
    Statement::Lookup { fields: fields.to_vec(), map: map.to_owned() }
}

fn translate(target: SocketAddr) -> Rule {
    rule([Statement::Translate(target)])
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
