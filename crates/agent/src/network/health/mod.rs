//! What the service proxy says of itself at the ports where kube-proxy does: whether load balancers
//! may send here, figures, and for services that keep to their own node's pods, whether it has any.

mod doors;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::server::metrics::{gauge, metric};
pub use doors::Doors;

/// A change that has waited for so long makes the proxy unhealthy: two of kube-proxy's periods.
const PATIENCE: Duration = Duration::from_secs(60);
/// The taint of a node that an autoscaler is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// How the proxy works, among kube-proxy's modes.
const MODE: &str = "nftables";

/// Which port is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// Load balancers ask it about the node.
    Health,
    /// The node's own programs ask it about the proxy.
    Status,
    /// Load balancers ask it about one service.
    Service(u16),
}

/// A service that load balancers reach only where it has pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its pods of this node that are ready.
    pub endpoints: usize,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Its code.
    pub status: StatusCode,
    /// What kind of text it is.
    pub kind: &'static str,
    /// The text.
    pub body: String,
}

/// The proxy's health, told by whoever loads the rules.
pub struct Health {
    node: Box<dyn Fn() -> Option<Arc<Node>> + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since when a change waits.
    waiting: Option<Instant>,
    queued: Option<Timestamp>,
    loaded: Option<Timestamp>,
    loads: u64,
    loading: Duration,
    services: BTreeMap<u16, LocalService>,
}

impl Health {
    /// Of a proxy that has loaded nothing yet; `node` shows its node.
    pub fn new(node: impl Fn() -> Option<Arc<Node>> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { node: Box::new(node), state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has changed that is to be loaded.
    pub fn queued(&self, now: Instant) {
        let mut state = self.state();
        state.waiting.get_or_insert(now);
        state.queued = Some(Timestamp::now());
    }

    /// Everything is loaded; it took `loading`.
    pub fn loaded(&self, loading: Duration) {
        let mut state = self.state();
        state.waiting = None;
        state.loaded = Some(Timestamp::now());
        state.loads += 1;
        state.loading += loading;
    }

    /// Takes the services that have a port of their own, by that port.
    pub fn set_services(&self, services: BTreeMap<u16, LocalService>) {
        self.state().services = services;
    }

    /// What is answered.
    pub fn page(&self, door: Door, path: &str, now: Instant) -> Page {
        let state = self.state();
        let late = |since: Instant| now.saturating_duration_since(since) >= PATIENCE;
        let healthy = !state.waiting.is_some_and(late);
        match (door, path) {
            (Door::Health, "/healthz") => {
                let eligible = (self.node)().is_none_or(|node| is_eligible(&node));
                let more = format!(", \"nodeEligible\": {eligible}");
                state.times(healthy && eligible, &more)
            }
            (Door::Health, "/livez") => state.times(healthy, ""),
            (Door::Status, "/healthz") => Page::text("ok"),
            (Door::Status, "/proxyMode") => Page::text(MODE),
            (Door::Status, "/metrics") => state.metrics(),
            (Door::Service(port), _) if state.services.contains_key(&port) => {
                state.services[&port].page(healthy)
            }
            _ => Page { status: StatusCode::NOT_FOUND, ..Page::text("404 page not found\n") },
        }
    }
}

fn is_eligible(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    node.metadata.deletion_timestamp.is_none() && taints.iter().all(|t| t.key != TO_BE_DELETED)
}

impl State {
    /// kube-proxy's words: a healthy proxy counts as loaded just now.
    fn times(&self, healthy: bool, more: &str) -> Page {
        let now = Timestamp::now();
        let loaded = if healthy { Some(now) } else { self.loaded };
        let shown = |time: Option<Timestamp>| match time {
            Some(time) => time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
            None => "0001-01-01 00:00:00 +0000 UTC".to_owned(),
        };
        let (loaded, now) = (shown(loaded), shown(Some(now)));
        Page::json(
            healthy,
            format!("{{\"lastUpdated\": \"{loaded}\",\"currentTime\": \"{now}\"{more}}}"),
        )
    }

    fn metrics(&self) -> Page {
        let mut out = String::new();
        let seconds = |time: Option<Timestamp>| {
            time.map_or(0.0, |time| time.as_millisecond() as f64 / 1000.0)
        };
        gauge(
            &mut out,
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            seconds(self.loaded),
        );
        gauge(
            &mut out,
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            seconds(self.queued),
        );
        let name = "kubeproxy_sync_proxy_rules_duration_seconds";
        let loads = self.loads as f64;
        let values = [
            ("_bucket{le=\"+Inf\"}".to_owned(), loads),
            ("_sum".to_owned(), self.loading.as_secs_f64()),
            ("_count".to_owned(), loads),
        ];
        metric(&mut out, name, "SyncProxyRules latency in seconds", "histogram", &values);
        Page { kind: "text/plain; version=0.0.4; charset=utf-8", ..Page::text(&out) }
    }
}

impl LocalService {
    fn page(&self, healthy: bool) -> Page {
        let Self { namespace, name, endpoints } = self;
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\
             \"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
        );
        Page::json(healthy && *endpoints > 0, body)
    }
}

impl Page {
    fn text(body: &str) -> Self {
        Self { status: StatusCode::OK, kind: "text/plain; charset=utf-8", body: body.to_owned() }
    }

    fn json(good: bool, body: String) -> Self {
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Self { status, kind: "application/json", body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn health(node: Value) -> Arc<Health> {
        let node: Arc<Node> = Arc::new(serde_json::from_value(node).unwrap());
        Health::new(move || Some(node.clone()))
    }

    fn ask(health: &Health, door: Door, path: &str, now: Instant) -> (u16, Value) {
        let page = health.page(door, path, now);
        (page.status.as_u16(), serde_json::from_str(&page.body).unwrap_or(Value::String(page.body)))
    }

    #[test]
    fn a_change_that_waits_too_long_is_no_health() {
        let health = health(json!({"metadata": {}}));
        let start = Instant::now();
        let code = |path: &str, after: u64| {
            ask(&health, Door::Health, path, start + Duration::from_secs(after)).0
        };
        assert_eq!(code("/healthz", 1000), 200, "nothing was to be loaded yet");
        health.queued(start);
        assert_eq!((code("/healthz", 59), code("/healthz", 60)), (200, 503));
        // A further change does not make the first one younger.
        health.queued(start + Duration::from_secs(50));
        assert_eq!((code("/healthz", 60), code("/livez", 60)), (503, 503));
        health.loaded(Duration::from_millis(3));
        assert_eq!((code("/healthz", 60), code("/livez", 60)), (200, 200));
        assert_eq!(code("/elsewhere", 60), 404);
    }

    #[test]
    fn a_node_that_goes_is_not_eligible() {
        for (node, eligible) in [
            (json!({"metadata": {}}), true),
            (
                json!({"metadata": {}, "spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]}}),
                true,
            ),
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false),
            (
                json!({"metadata": {}, "spec": {"taints": [
                {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}),
                false,
            ),
        ] {
            let health = health(node.clone());
            let (code, page) = ask(&health, Door::Health, "/healthz", Instant::now());
            assert_eq!(code, if eligible { 200 } else { 503 }, "{node}");
            assert_eq!(page["nodeEligible"], eligible);
            assert!(page["currentTime"].as_str().unwrap().ends_with(" +0000 UTC"));
            // Whether the proxy lives does not depend on its node.
            let (code, page) = ask(&health, Door::Health, "/livez", Instant::now());
            assert_eq!((code, page.get("nodeEligible")), (200, None), "{node}");
        }
    }

    #[test]
    fn services_that_keep_to_their_node() {
        let health = health(json!({"metadata": {}}));
        let service =
            |endpoints| LocalService { namespace: "ns".into(), name: "web".into(), endpoints };
        health.set_services(BTreeMap::from([(30001, service(2)), (30002, service(0))]));
        let want = |endpoints: usize| {
            json!({"service": {"namespace": "ns", "name": "web"}, "localEndpoints": endpoints,
                "serviceProxyHealthy": true})
        };
        let now = Instant::now();
        assert_eq!(ask(&health, Door::Service(30001), "/", now), (200, want(2)));
        assert_eq!(ask(&health, Door::Service(30002), "/any", now), (503, want(0)));
        assert_eq!(ask(&health, Door::Service(30003), "/", now).0, 404);
    }

    #[test]
    fn what_the_nodes_own_programs_are_told() {
        let health = health(json!({"metadata": {}}));
        health.loaded(Duration::from_millis(500));
        health.loaded(Duration::from_millis(250));
        let page = |path: &str| health.page(Door::Status, path, Instant::now()).body;
        assert_eq!((page("/healthz"), page("/proxyMode")), ("ok".into(), "nftables".into()));
        let metrics = page("/metrics");
        assert!(
            metrics.contains("\nkubeproxy_sync_proxy_rules_duration_seconds_sum 0.75\n"),
            "{metrics}"
        );
        assert!(metrics.contains("\nkubeproxy_sync_proxy_rules_duration_seconds_count 2\n"));
    }
}
