use super::*;
use crate::service::Protocol;

fn config() -> ProxyConfig {
    ProxyConfig { cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()], ..ProxyConfig::default() }
}

fn service(endpoints: &[&str]) -> Service {
    let endpoint = |address: &&str| Endpoint {
        address: address.parse().unwrap(),
        local: address.starts_with("10.42.0."),
        state: EndpointState::Ready,
    };
    Service {
        cluster_ips: vec!["10.43.0.80".parse().unwrap()],
        ports: vec![ServicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            endpoints: endpoints.iter().map(endpoint).collect(),
        }],
        ..Service::new("default", "web")
    }
}

/// The table as text, without what is in every table.
fn planned(services: Vec<Service>) -> String {
    let model = ServiceModel { services, host_ports: Vec::new() };
    without_fixed(&plan(&model, &config(), Family::V4), &ServiceModel::default())
}

fn without_fixed(table: &Ruleset, empty: &ServiceModel) -> String {
    let fixed = plan(empty, &config(), Family::V4);
    let mut rest = table.clone();
    rest.sets.retain(|name, set| fixed.sets.get(name) != Some(set));
    rest.chains.retain(|name, chain| fixed.chains.get(name) != Some(chain));
    rest.to_string()
}

#[test]
fn an_empty_model_is_the_frame_alone() {
    let table = plan(&ServiceModel::default(), &config(), Family::V4).to_string();
    assert_eq!(
        table,
        "\
set cluster-ips { }
set hairpin { }
map host-ports { }
map node-ports { }
map refused-ips { }
map refused-node-ports { }
map service-ips { }
chain filter-forward { Filter hook Forward priority -90
  ct state invalid ip saddr 10.42.0.0/16 drop
  ct state new jump refuse
}
chain filter-input { Filter hook Input priority -90
  ct state new jump refuse
}
chain filter-output { Filter hook Output priority -90
  ct state new jump refuse
}
chain nat-output { Nat hook Output priority -100
  jump services
}
chain nat-postrouting { Nat hook Postrouting priority 100
  meta mark & 0x4000 != 0 meta mark set meta mark & ~0x4000 masquerade fully-random
  ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random
}
chain nat-prerouting { Nat hook Prerouting priority -100
  jump services
}
chain refuse {
  ip daddr . meta l4proto . th dport vmap @refused-ips
  ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @refused-node-ports
}
chain reject {
  meta l4proto tcp reject with tcp reset
  reject
}
chain services {
  ip saddr != 10.42.0.0/16 ip daddr @cluster-ips meta mark set meta mark | 0x4000
  ip daddr . meta l4proto . th dport vmap @service-ips
  ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @node-ports
  ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @host-ports
}
"
    );
}

#[test]
fn one_endpoint_needs_no_choice_and_several_are_chosen_at_random() {
    assert_eq!(
        planned(vec![service(&["10.42.1.5:8080"])]),
        "\
set cluster-ips { 10.43.0.80 }
map service-ips { 10.43.0.80 . tcp . 80 : goto svc/default/web/tcp/80 }
chain svc/default/web/tcp/80 {
  dnat to 10.42.1.5:8080
}
"
    );
    // An endpoint on this board may be its own client.
    assert_eq!(
        planned(vec![service(&["10.42.1.5:8080", "10.42.0.5:8080"])]),
        "\
set cluster-ips { 10.43.0.80 }
set hairpin { 10.42.0.5 . 10.42.0.5 }
map service-ips { 10.43.0.80 . tcp . 80 : goto svc/default/web/tcp/80 }
map to/svc/default/web/tcp/80 { 0 : 10.42.0.5:8080, 1 : 10.42.1.5:8080 }
chain svc/default/web/tcp/80 {
  dnat to numgen random mod 2 map @to/svc/default/web/tcp/80
}
"
    );
}

#[test]
fn nobody_to_serve_means_refusal() {
    let mut none = service(&[]);
    none.ports[0].node_port = Some(30080);
    assert_eq!(
        planned(vec![none]),
        "\
map refused-ips { 10.43.0.80 . tcp . 80 : goto reject }
map refused-node-ports { tcp . 30080 : goto reject }
"
    );
    // Somebody elsewhere, but only local ones count: silence.
    let mut elsewhere = service(&["10.42.1.5:8080"]);
    elsewhere.internal_policy = TrafficPolicy::Local;
    assert_eq!(planned(vec![elsewhere]), "map refused-ips { 10.43.0.80 . tcp . 80 : drop }\n");
}

#[test]
fn endpoints_that_leave_serve_while_nobody_else_does() {
    let mut leaving = service(&["10.42.1.5:8080", "10.42.1.6:8080"]);
    leaving.ports[0].endpoints[0].state = EndpointState::ServingTerminating;
    assert!(planned(vec![leaving.clone()]).contains("dnat to 10.42.1.6:8080"));
    leaving.ports[0].endpoints[1].state = EndpointState::ServingTerminating;
    assert!(planned(vec![leaving]).contains("mod 2"));
}

#[test]
fn clients_outside_are_masqueraded_or_kept_on_the_board() {
    let mut web = service(&["10.42.0.5:8080", "10.42.1.5:8080"]);
    web.cluster_ips.clear();
    web.ports[0].node_port = Some(30080);
    assert_eq!(
        planned(vec![web.clone()]),
        "\
set hairpin { 10.42.0.5 . 10.42.0.5 }
map node-ports { tcp . 30080 : goto ext/default/web/tcp/80 }
map to/svc/default/web/tcp/80 { 0 : 10.42.0.5:8080, 1 : 10.42.1.5:8080 }
chain ext/default/web/tcp/80 {
  meta mark set meta mark | 0x4000 goto svc/default/web/tcp/80
}
chain svc/default/web/tcp/80 {
  dnat to numgen random mod 2 map @to/svc/default/web/tcp/80
}
"
    );
    web.external_policy = TrafficPolicy::Local;
    let table = planned(vec![web]);
    assert!(
        table.contains(
            "\
chain ext/default/web/tcp/80 {
  ip saddr 10.42.0.0/16 goto svc/default/web/tcp/80
  fib saddr type local meta mark set meta mark | 0x4000 goto svc/default/web/tcp/80
  goto local/default/web/tcp/80
}
chain local/default/web/tcp/80 {
  dnat to 10.42.0.5:8080
}
"
        ),
        "{table}"
    );
}

#[test]
fn affinity_remembers_clients_per_endpoint() {
    let mut web = service(&["10.42.1.5:8080", "10.42.1.6:8080"]);
    web.affinity = Some(Duration::from_secs(300));
    assert_eq!(
        planned(vec![web]),
        "\
set aff/default/web/tcp/80/10.42.1.5/8080/300s { timeout 300s }
set aff/default/web/tcp/80/10.42.1.6/8080/300s { timeout 300s }
set cluster-ips { 10.43.0.80 }
map pick/svc/default/web/tcp/80 { 0 : goto ep/default/web/tcp/80/10.42.1.5/8080/300s, \
         1 : goto ep/default/web/tcp/80/10.42.1.6/8080/300s }
map service-ips { 10.43.0.80 . tcp . 80 : goto svc/default/web/tcp/80 }
chain ep/default/web/tcp/80/10.42.1.5/8080/300s {
  update @aff/default/web/tcp/80/10.42.1.5/8080/300s { ip saddr }
  dnat to 10.42.1.5:8080
}
chain ep/default/web/tcp/80/10.42.1.6/8080/300s {
  update @aff/default/web/tcp/80/10.42.1.6/8080/300s { ip saddr }
  dnat to 10.42.1.6:8080
}
chain svc/default/web/tcp/80 {
  ip saddr @aff/default/web/tcp/80/10.42.1.5/8080/300s goto ep/default/web/tcp/80/10.42.1.5/8080/300s
  ip saddr @aff/default/web/tcp/80/10.42.1.6/8080/300s goto ep/default/web/tcp/80/10.42.1.6/8080/300s
  numgen random mod 2 vmap @pick/svc/default/web/tcp/80
}
"
    );
}

#[test]
fn each_family_has_its_own() {
    let mut web = service(&["10.42.1.5:8080", "[fd00:42::5]:8080"]);
    web.cluster_ips.push("fd00:43::80".parse().unwrap());
    let model = ServiceModel { services: vec![web], host_ports: Vec::new() };
    let v4 = plan(&model, &config(), Family::V4).to_string();
    let v6 = plan(&model, &config(), Family::V6).to_string();
    assert!(v4.contains("dnat to 10.42.1.5:8080") && !v4.contains("fd00"), "{v4}");
    assert!(v6.contains("dnat to [fd00:42::5]:8080") && !v6.contains("10.4"), "{v6}");
    assert!(v6.contains("ip6 daddr != ::1/128 fib daddr type local"), "{v6}");
}

#[test]
fn two_claims_on_one_address_are_settled_by_name() {
    let mut other = service(&["10.42.1.9:9090"]);
    other.name = "aaa".to_owned();
    let table = planned(vec![service(&["10.42.1.5:8080"]), other]);
    assert!(table.contains("10.43.0.80 . tcp . 80 : goto svc/default/aaa/tcp/80 }"), "{table}");
}

#[test]
fn node_ports_stay_on_the_addresses_given() {
    let config = ProxyConfig {
        node_port_addresses: vec!["192.0.2.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        ..config()
    };
    let table = plan(&ServiceModel::default(), &config, Family::V4).to_string();
    assert!(
        table.contains("  ip daddr 192.0.2.0/24 fib daddr type local meta l4proto . th dport vmap @node-ports\n"),
        "{table}"
    );
    assert!(!table.contains("fd00"), "{table}");
}
