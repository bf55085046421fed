//! The objects that every cluster has from its first start on.
//!
//! Written through the server's own door, so that they are defaulted, validated and admitted
//! like any other; all at once, so that one commit of the store serves many. A start that
//! finds them as they should be writes nothing. The ConfigMap `kube-root-ca.crt` of every
//! namespace is not among them: a controller publishes it.

pub(crate) mod policy;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::access::FrontProxy;
use crate::authz::aggregate;
use crate::authz::escalation;
use crate::authz::rbac::{GROUP, Rule};
use crate::config::Config;
use crate::objects;
use crate::response;
use crate::server::ApiServer;
use crate::user::User;
use crate::{aggregation, compaction, definitions, flow, keeper};

/// Objects written at once: they share the store's commits.
const WRITES_AT_ONCE: usize = 64;
/// What is kept of an answer that refuses an object.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How often a group of objects is tried: a write can meet a controller's.
const ATTEMPTS_MAX: usize = 3;
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Why an object that every cluster needs could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing {path}: {answer}")]
pub struct BootstrapError {
    path: String,
    answer: String,
}

/// An object that must be there, and how far it must be as it is here.
struct Wanted {
    /// Path of its collection.
    path: String,
    /// The store's collection.
    collection: String,
    namespace: String,
    name: String,
    object: Value,
    keep: Keep,
}

/// What happens to an object that exists already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// It is left alone.
    Existing,
    /// These members are set again where they differ.
    Members(&'static [&'static str]),
    /// It is an RBAC object: what is missing is added, unless a person has forbidden it.
    Policy,
}

impl ApiServer {
    /// Writes the objects that every cluster has, and begins to keep aggregated roles. To be
    /// called once, before the first client is served or shortly after; `/readyz` fails
    /// until it is done.
    pub async fn bootstrap(self: &Arc<Self>) -> Result<(), BootstrapError> {
        let namespaces = NAMESPACES.map(|name| {
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            Wanted::new("", "v1", "namespaces", object, Keep::Existing)
        });
        self.write_all(namespaces.into()).await?;
        let mut rest: Vec<Wanted> = policy::defaults()
            .into_iter()
            .map(|default| Wanted::new(GROUP, "v1", default.resource, default.object, Keep::Policy))
            .collect();
        rest.extend(fixed());
        rest.extend(api_services());
        rest.extend(flows());
        rest.extend(own_service(&self.context.config));
        // Of several servers each is announced once it serves.
        if !self.context.store.is_shared() {
            rest.extend(endpoints(&[self.context.config.advertise]));
        }
        rest.extend(client_authority(&self.context.config));
        self.write_all(rest).await?;
        if let Err(status) = self.registry.repair().await {
            tracing::warn!(
                error = status.message,
                "addresses and ports could not be looked through"
            );
        }
        aggregate::reconcile(self).await;
        keeper::start(self, aggregate::Aggregated);
        aggregation::start(self);
        keeper::start(self, definitions::Definitions::default());
        keeper::start(self, flow::Dangling);
        compaction::start(self);
        crate::quota::start(self);
        crate::policy_status::start(self);
        self.bootstrapped.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    async fn write_all(self: &Arc<Self>, wanted: Vec<Wanted>) -> Result<(), BootstrapError> {
        let server = Arc::clone(self);
        let results: Vec<Result<(), BootstrapError>> = stream::iter(wanted)
            .map(move |wanted| settle(Arc::clone(&server), wanted))
            .buffer_unordered(WRITES_AT_ONCE)
            .collect()
            .await;
        results.into_iter().collect()
    }
}

async fn settle(server: Arc<ApiServer>, wanted: Wanted) -> Result<(), BootstrapError> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS_MAX {
        // Another server may be making the same objects at this moment.
        if let Err(status) = server.context.fresh().await {
            return Err(wanted.refused(status.message));
        }
        let store = &server.context.store;
        let existing = objects::object(store, &wanted.collection, &wanted.namespace, &wanted.name);
        let Some((method, path, body)) = wanted.change(existing.as_ref()) else { return Ok(()) };
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, kind)
            .body(response::full(body.to_string()));
        let request = match request {
            Ok(request) => request,
            Err(error) => return Err(wanted.refused(error.to_string())),
        };
        let answer = Arc::clone(&server).answer(request, Some(User::apiserver())).await;
        if answer.status().is_success() {
            return Ok(());
        }
        let again = answer.status() == StatusCode::CONFLICT;
        let text = crate::body::whole(answer.into_body(), ANSWER_BYTES_MAX).await;
        last = match text {
            Ok(text) => serde_json::from_slice::<Value>(&text)
                .ok()
                .and_then(|status| status["message"].as_str().map(str::to_owned))
                .unwrap_or_else(|| String::from_utf8_lossy(&text).into_owned()),
            Err(status) => status.message,
        };
        if !again {
            break;
        }
    }
    Err(wanted.refused(last))
}

impl Wanted {
    fn new(group: &str, version: &str, resource: &str, object: Value, keep: Keep) -> Self {
        let text =
            |member: &str| object["metadata"][member].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let base = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let path = if namespace.is_empty() {
            format!("{base}/{resource}")
        } else {
            format!("{base}/namespaces/{namespace}/{resource}")
        };
        let collection = api::resource::collection_name(group, resource).into_owned();
        Wanted { path, collection, namespace, name, object, keep }
    }

    fn refused(&self, answer: String) -> BootstrapError {
        BootstrapError { path: format!("{}/{}", self.path, self.name), answer }
    }

    /// The request that makes it so: method, path, body; `None` where it is so.
    fn change(&self, existing: Option<&Value>) -> Option<(Method, String, Value)> {
        let Some(existing) = existing else {
            return Some((Method::POST, self.path.clone(), self.object.clone()));
        };
        let patch = match self.keep {
            Keep::Existing => return None,
            Keep::Members(members) => differing(existing, &self.object, members)?,
            Keep::Policy => missing_policy(existing, &self.object)?,
        };
        Some((Method::PATCH, format!("{}/{}", self.path, self.name), patch))
    }
}

/// A merge patch of the members that differ. Members of an object in the wanted form are
/// compared one by one: what defaulting has added to the existing one is no difference.
fn differing(existing: &Value, wanted: &Value, members: &[&str]) -> Option<Value> {
    let mut patch = json!({});
    for member in members {
        if !within(&wanted[*member], &existing[*member]) {
            patch[*member] = wanted[*member].clone();
        }
    }
    patch.as_object().is_some_and(|patch| !patch.is_empty()).then_some(patch)
}

/// Whether everything that `wanted` says is said by `existing` too.
fn within(wanted: &Value, existing: &Value) -> bool {
    match (wanted, existing) {
        (Value::Object(wanted), Value::Object(existing)) => wanted
            .iter()
            .all(|(key, value)| existing.get(key).is_some_and(|other| within(value, other))),
        (Value::Array(wanted), Value::Array(existing)) => {
            wanted.len() == existing.len() && wanted.iter().zip(existing).all(|(a, b)| within(a, b))
        }
        (wanted, existing) => wanted == existing,
    }
}

/// A merge patch that adds what a default role or binding lacks, without taking away what
/// people added. `rbac.authorization.kubernetes.io/autoupdate: "false"` forbids it.
fn missing_policy(existing: &Value, wanted: &Value) -> Option<Value> {
    let annotations = &existing["metadata"]["annotations"];
    if annotations["rbac.authorization.kubernetes.io/autoupdate"] == "false" {
        return None;
    }
    let mut patch = json!({});
    for member in ["labels", "annotations"] {
        if !within(&wanted["metadata"][member], &existing["metadata"][member]) {
            patch["metadata"][member] = wanted["metadata"][member].clone();
        }
    }
    if !wanted["aggregationRule"].is_null() {
        if existing["aggregationRule"].is_null() {
            patch["aggregationRule"] = wanted["aggregationRule"].clone();
        }
    } else if let Some(rules) = wanted["rules"].as_array() {
        let parse = |value: &Value| serde_json::from_value::<Vec<Rule>>(value.clone());
        let held = parse(&existing["rules"]).unwrap_or_default();
        let lacking: Vec<Value> = rules
            .iter()
            .filter(|rule| {
                parse(&json!([rule])).is_ok_and(|rule| !escalation::covered(&held, &rule))
            })
            .cloned()
            .collect();
        if !lacking.is_empty() {
            let mut all = existing["rules"].as_array().cloned().unwrap_or_default();
            all.extend(lacking);
            patch["rules"] = all.into();
        }
    }
    if let Some(subjects) = wanted["subjects"].as_array() {
        let mut all = existing["subjects"].as_array().cloned().unwrap_or_default();
        let lacking: Vec<Value> = subjects
            .iter()
            .filter(|subject| !all.iter().any(|other| within(subject, other)))
            .cloned()
            .collect();
        if !lacking.is_empty() {
            all.extend(lacking);
            patch["subjects"] = all.into();
        }
    }
    patch.as_object().is_some_and(|patch| !patch.is_empty()).then_some(patch)
}

/// Priority classes.
fn fixed() -> Vec<Wanted> {
    let class = |name: &str, value: u32, description: &str| {
        let object = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": description,
        });
        Wanted::new("scheduling.k8s.io", "v1", "priorityclasses", object, Keep::Existing)
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// The objects of API priority and fairness.
fn flows() -> impl Iterator<Item = Wanted> {
    let wanted = |plural: &'static str| {
        move |object| Wanted::new(flow::defaults::GROUP, "v1", plural, object, Keep::Existing)
    };
    let levels = flow::defaults::levels().map(wanted("prioritylevelconfigurations"));
    levels.chain(flow::defaults::schemas().map(wanted("flowschemas")))
}

/// An APIService for each built-in group and version.
fn api_services() -> impl Iterator<Item = Wanted> {
    let (group, plural) = ("apiregistration.k8s.io", "apiservices");
    aggregation::builtin()
        .into_iter()
        .map(move |object| Wanted::new(group, "v1", plural, object, Keep::Existing))
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Where the Service `default/kubernetes` leads: every server of the family of the first one.
fn endpoints(servers: &[SocketAddr]) -> Vec<Wanted> {
    let mut servers = servers.to_vec();
    servers.sort();
    servers.dedup();
    let Some(first) = servers.first().copied() else { return Vec::new() };
    servers.retain(|server| server.is_ipv4() == first.is_ipv4());
    let mut by_port: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for server in &servers {
        by_port.entry(server.port()).or_default().push(server.ip().to_string());
    }
    let port_of = |port: u16| json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subsets: Vec<Value> = by_port
        .iter()
        .map(|(port, ips)| {
            let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            json!({"addresses": addresses, "ports": port_of(*port)})
        })
        .collect();
    // A slice has one port for all; servers elsewhere are reached by the Endpoints alone.
    let common = by_port.iter().max_by_key(|(port, ips)| (ips.len(), Reverse(**port)));
    let (port, ips) = common.map_or((first.port(), &[][..]), |(port, ips)| (*port, ips));
    let ready: Vec<Value> =
        ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let legacy = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets,
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family(first.ip()),
        "endpoints": ready,
        "ports": port_of(port),
    });
    let (group, members) = ("discovery.k8s.io", Keep::Members(&["endpoints", "ports"]));
    vec![
        Wanted::new("", "v1", "endpoints", legacy, Keep::Members(&["subsets"])),
        Wanted::new(group, "v1", "endpointslices", slice, members),
    ]
}

/// Makes the Service `default/kubernetes` lead to these servers; writes nothing where it does.
pub(crate) async fn publish_endpoints(
    server: &Arc<ApiServer>,
    servers: &[SocketAddr],
) -> Result<(), BootstrapError> {
    for wanted in endpoints(servers) {
        let store = &server.context.store;
        let known = objects::object(store, &wanted.collection, &wanted.namespace, &wanted.name);
        if wanted.change(known.as_ref()).is_some() {
            settle(Arc::clone(server), wanted).await?;
        }
    }
    Ok(())
}

/// The Service that pods reach the API by, and the range that its address is from.
fn own_service(config: &Config) -> Vec<Wanted> {
    let Some(address) = config.first_service_address() else { return Vec::new() };
    let port = config.advertise.port();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address.to_string(),
            "clusterIPs": [address.to_string()],
            "ipFamilies": [family(address)],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    });
    let cidrs: Vec<String> = config.service_cidrs.iter().map(ToString::to_string).collect();
    let range = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs},
    });
    vec![
        Wanted::new("", "v1", "services", service, Keep::Members(&["spec"])),
        Wanted::new("networking.k8s.io", "v1", "servicecidrs", range, Keep::Existing),
    ]
}

/// What extension API servers need to know to trust the same client certificates.
fn client_authority(config: &Config) -> Option<Wanted> {
    if config.client_ca_pem.is_empty() {
        return None;
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"client-ca-file": config.client_ca_pem},
    });
    if let Some(proxy) = &config.access.front_proxy {
        for (key, value) in FrontProxy::published(&proxy.ca_pem) {
            object["data"][key] = value.into();
        }
    }
    Some(Wanted::new("", "v1", "configmaps", object, Keep::Members(&["data"])))
}
