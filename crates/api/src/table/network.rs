//! Columns of services, endpoints and ingresses.

use super::column::About::{Field, Says};
use super::column::Cell::{Call, Text};
use super::column::{
    AGE, Column, Context, NAME, at, first, items, labels, or, selector, text, text_at, wide,
};
use serde_json::{Value, json};

/// Addresses, ports or hosts that a cell shows before it says how many there are more.
const SHOWN: usize = 3;

/// Columns by group and kind.
pub(super) const TABLES: &[(&str, &str, &[Column])] = &[
    ("", "Service", SERVICE),
    ("", "Endpoints", ENDPOINTS),
    ("discovery.k8s.io", "EndpointSlice", ENDPOINT_SLICE),
    ("networking.k8s.io", "Ingress", INGRESS),
    ("networking.k8s.io", "IngressClass", INGRESS_CLASS),
    ("networking.k8s.io", "NetworkPolicy", NETWORK_POLICY),
    ("networking.k8s.io", "ServiceCIDR", SERVICE_CIDR),
    ("networking.k8s.io", "IPAddress", IP_ADDRESS),
];

const SPEC: &str = "api.core.v1.ServiceSpec";
const SLICE: &str = "api.discovery.v1.EndpointSlice";

const SERVICE: &[Column] = &[
    NAME,
    text("Type", Field(SPEC, "type"), Text("spec.type", "")),
    text("Cluster-IP", Field(SPEC, "clusterIP"), Call(cluster_ip)),
    text("External-IP", Field(SPEC, "externalIPs"), Call(external_ip)),
    text("Port(s)", Field(SPEC, "ports"), Call(service_ports)),
    AGE,
    wide(text(
        "Selector",
        Field(SPEC, "selector"),
        Call(|object, _| json!(labels(at(object, "spec.selector")))),
    )),
];

const ENDPOINTS: &[Column] =
    &[NAME, text("Endpoints", Field("api.core.v1.Endpoints", "subsets"), Call(subsets)), AGE];

const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    text("AddressType", Field(SLICE, "addressType"), Text("addressType", "")),
    text("Ports", Field(SLICE, "ports"), Call(slice_ports)),
    text("Endpoints", Field(SLICE, "endpoints"), Call(slice_endpoints)),
    AGE,
];

const INGRESS: &[Column] = &[
    NAME,
    text(
        "Class",
        Says(
            "The name of the IngressClass resource that should be used for additional configuration",
        ),
        Text("spec.ingressClassName", "<none>"),
    ),
    text(
        "Hosts",
        Says("Hosts that incoming requests are matched against before the ingress rule"),
        Call(hosts),
    ),
    text(
        "Address",
        Says("Address is a list containing ingress points for the load-balancer"),
        Call(|object, _| json!(load_balancer(object).join(","))),
    ),
    text("Ports", Says("Ports of TLS configurations that open"), Call(ingress_ports)),
    AGE,
];

const INGRESS_CLASS: &[Column] = &[
    NAME,
    text(
        "Controller",
        Says("Controller that is responsible for handling this class"),
        Text("spec.controller", ""),
    ),
    text(
        "Parameters",
        Says("A reference to a resource with additional parameters"),
        Call(class_parameters),
    ),
    AGE,
];

const NETWORK_POLICY: &[Column] = &[
    NAME,
    text(
        "Pod-Selector",
        Field("api.networking.v1.NetworkPolicySpec", "podSelector"),
        Call(|object, _| json!(selector(at(object, "spec.podSelector")))),
    ),
    AGE,
];

const SERVICE_CIDR: &[Column] = &[
    NAME,
    text(
        "CIDRs",
        Field("api.networking.v1.ServiceCIDRSpec", "cidrs"),
        Call(|object, _| json!(texts(at(object, "spec.cidrs")).join(","))),
    ),
    AGE,
];

const IP_ADDRESS: &[Column] = &[
    NAME,
    text("ParentRef", Field("api.networking.v1.IPAddressSpec", "parentRef"), Call(parent)),
    AGE,
];

fn texts(value: &Value) -> Vec<&str> {
    items(value).iter().filter_map(Value::as_str).collect()
}

fn cluster_ip(service: &Value, _: &Context) -> Value {
    let first = at(service, "spec.clusterIPs").get(0).and_then(Value::as_str);
    json!(or(first.unwrap_or_else(|| text_at(service, "spec.clusterIP")), "<none>"))
}

fn external_ip(service: &Value, _: &Context) -> Value {
    let mut external = texts(at(service, "spec.externalIPs"));
    json!(match text_at(service, "spec.type") {
        "ClusterIP" | "NodePort" => or(&external.join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let mut all = load_balancer(service);
            all.append(&mut external);
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text_at(service, "spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    })
}

/// Addresses of `status.loadBalancer`, sorted.
fn load_balancer(object: &Value) -> Vec<&str> {
    let ingress = items(at(object, "status.loadBalancer.ingress"));
    let mut addresses: Vec<&str> = ingress
        .iter()
        .map(|point| or(text_at(point, "ip"), text_at(point, "hostname")))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn service_ports(service: &Value, _: &Context) -> Value {
    let ports = items(at(service, "spec.ports")).iter().map(|port| {
        let (number, protocol) = (&port["port"], text_at(port, "protocol"));
        match port["nodePort"].as_i64() {
            Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    });
    json!(or(&ports.collect::<Vec<_>>().join(","), "<none>"))
}

/// `address:port`, with brackets around an IPv6 address.
fn socket(address: &str, port: &Value) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn subsets(endpoints: &Value, _: &Context) -> Value {
    let mut all = Vec::new();
    for subset in items(&endpoints["subsets"]) {
        let addresses = || items(&subset["addresses"]).iter().map(|a| text_at(a, "ip"));
        let ports = items(&subset["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            all.extend(addresses().map(|address| socket(address, &port["port"])));
        }
    }
    // Subsets whose addresses all wait show nothing, but not that there is nothing.
    let missing = if items(&endpoints["subsets"]).is_empty() { "<none>" } else { "" };
    json!(or(&first(&all, SHOWN, ","), missing))
}

fn slice_ports(slice: &Value, _: &Context) -> Value {
    let ports = items(&slice["ports"]).iter().map(|port| match (&port["port"], &port["name"]) {
        (Value::Number(number), _) => number.to_string(),
        (_, Value::String(name)) => name.clone(),
        _ => "*".to_owned(),
    });
    json!(or(&first(&ports.collect::<Vec<_>>(), SHOWN, ","), "<unset>"))
}

fn slice_endpoints(slice: &Value, _: &Context) -> Value {
    let endpoints = items(&slice["endpoints"]).iter();
    let addresses = endpoints.flat_map(|endpoint| texts(&endpoint["addresses"])).map(str::to_owned);
    json!(or(&first(&addresses.collect::<Vec<_>>(), SHOWN, ","), "<unset>"))
}

fn hosts(ingress: &Value, _: &Context) -> Value {
    let rules = items(at(ingress, "spec.rules"));
    let named = rules.iter().enumerate().map(|(i, rule)| (i, text_at(rule, "host")));
    let shown: Vec<(usize, &str)> =
        named.filter(|(_, host)| !host.is_empty()).take(SHOWN).collect();
    let text = shown.iter().map(|(_, host)| *host).collect::<Vec<_>>().join(",");
    json!(match shown.last() {
        None => "*".to_owned(),
        // Upstream counts the rules that follow, with or without a host, less what it shows.
        Some((last, _)) if shown.len() == SHOWN && last + 1 < rules.len() => {
            format!("{text} + {} more...", rules.len() - SHOWN)
        }
        Some(_) => text,
    })
}

fn ingress_ports(ingress: &Value, _: &Context) -> Value {
    json!(if items(at(ingress, "spec.tls")).is_empty() { "80" } else { "80, 443" })
}

fn class_parameters(class: &Value, _: &Context) -> Value {
    let parameters = at(class, "spec.parameters");
    if parameters.is_null() {
        return json!("<none>");
    }
    let group = parameters["apiGroup"].as_str().map(|g| format!(".{g}")).unwrap_or_default();
    json!(format!("{}{group}/{}", text_at(parameters, "kind"), text_at(parameters, "name")))
}

fn parent(address: &Value, _: &Context) -> Value {
    let parent = at(address, "spec.parentRef");
    if parent.is_null() {
        return json!("<none>");
    }
    let resource = match text_at(parent, "group") {
        "" => text_at(parent, "resource").to_owned(),
        group => format!("{}.{group}", text_at(parent, "resource")),
    };
    let path = [&resource.to_lowercase(), text_at(parent, "namespace"), text_at(parent, "name")];
    json!(path.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use crate::table::tests::cells;

    #[test]
    fn rows() {
        for (group, kind, object, expected) in [
            (
                "",
                "Service",
                r#"{"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIPs": ["10.43.0.1"], "selector": {"b": "2", "a": "1"},
                    "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}"#,
                "s | NodePort | 10.43.0.1 | <none> | 80:30080/TCP,53/UDP | <unknown> | a=1,b=2",
            ),
            (
                "",
                "Service",
                r#"{"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "h"}]}}}"#,
                "s | LoadBalancer | <none> | 1.2.3.4,h,9.9.9.9 | <none> | <unknown> | <none>",
            ),
            (
                "",
                "Service",
                r#"{"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "clusterIPs": ["None"]}}"#,
                "s | LoadBalancer | None | <pending> | <none> | <unknown> | <none>",
            ),
            (
                "",
                "Endpoints",
                r#"{"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 81}]}]}"#,
                "e | 1.1.1.1:80,[fd00::1]:80,1.1.1.1:81 + 1 more... | <unknown>",
            ),
            (
                "",
                "Endpoints",
                r#"{"metadata": {"name": "e"}, "subsets": [{"notReadyAddresses": [{"ip": "1.1.1.1"}], "ports": [{"port": 80}]}]}"#,
                "e |  | <unknown>",
            ),
            (
                "discovery.k8s.io",
                "EndpointSlice",
                r#"{"metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}, {}], "endpoints": []}"#,
                "e | IPv4 | 80,x,* | <unset> | <unknown>",
            ),
            (
                "networking.k8s.io",
                "Ingress",
                r#"{"metadata": {"name": "i"}, "spec": {"tls": [{}], "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}}"#,
                "i | <none> | a,b,c + 1 more... | 1.1.1.1 | 80, 443 | <unknown>",
            ),
            (
                "networking.k8s.io",
                "NetworkPolicy",
                r#"{"metadata": {"name": "n"}, "spec": {"podSelector": {}}}"#,
                "n | <none> | <unknown>",
            ),
            (
                "networking.k8s.io",
                "IPAddress",
                r#"{"metadata": {"name": "10.43.0.1"}, "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}}}"#,
                "10.43.0.1 | services/default/kubernetes | <unknown>",
            ),
        ] {
            assert_eq!(cells(group, kind, object), expected);
        }
    }
}
