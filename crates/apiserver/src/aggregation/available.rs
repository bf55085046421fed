//! Whether the servers behind APIServices answer: the condition `Available`, with upstream's
//! reasons (k8s.io/kube-aggregator/pkg/controllers/status).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::status::go_quote;
use http::Method;
use serde_json::json;
use store::{Entry, Store};
use tokio::time::Instant;

use super::service::{ApiService, Condition, Reference};
use super::{PATH, Table, ask_all, local, pass};
use crate::feed::{Change, Feed};
use crate::server::{ApiServer, Context};
use crate::{endpoints, objects};

/// How long a server may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often those that answer are asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Pause after one did not answer.
const RETRY: base::Backoff = base::Backoff::new(Duration::from_secs(1), LOOK_AGAIN);
const SLICES: &str = "discovery.k8s.io/endpointslices";

/// What makes another look due.
pub(super) struct Wakes {
    store: Store,
    services: Feed,
    definitions: Feed,
    /// Services and their slices; followed only while another server answers for something.
    backends: Option<(Feed, Feed)>,
    /// The Services that matter: namespace and name.
    watched: HashSet<(String, String)>,
    due: Option<Instant>,
    failures: u32,
}

impl Wakes {
    pub(super) fn new(store: &Store) -> Self {
        Wakes {
            store: store.clone(),
            services: Feed::new(store.clone(), super::COLLECTION),
            definitions: Feed::new(store.clone(), local::DEFINITIONS),
            backends: None,
            watched: HashSet::new(),
            due: None,
            failures: 0,
        }
    }

    /// Waits until a look is due; false when the store is closed.
    pub(super) async fn next(&mut self) -> bool {
        loop {
            let due = self.due;
            let matters = tokio::select! {
                change = self.services.next() => change.map(|_| true),
                change = self.definitions.next() => change.map(|_| true),
                change = followed(&mut self.backends) => {
                    change.map(|(change, slices)| concerns(&self.watched, &change, slices))
                }
                () = sleep(due) => Some(true),
            };
            match matters {
                None => return false,
                Some(false) => {}
                Some(true) => break,
            }
        }
        // Changes that came together are answered together.
        while self.services.try_next().is_some() || self.definitions.try_next().is_some() {}
        true
    }

    /// What to wait for from now on: these Services, and the next look, sooner where a server was
    /// not there.
    pub(super) fn follow(&mut self, table: &Table, failed: bool) {
        let references = table.values().filter_map(|service| service.service.as_ref());
        self.watched = references.map(|r| (r.namespace.clone(), r.name.clone())).collect();
        if self.watched.is_empty() {
            (self.backends, self.due, self.failures) = (None, None, 0);
            return;
        }
        let store = &self.store;
        self.backends.get_or_insert_with(|| {
            (Feed::new(store.clone(), "services"), Feed::new(store.clone(), SLICES))
        });
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        let pause = if failed { RETRY.jittered(self.failures) } else { LOOK_AGAIN };
        self.due = Some(Instant::now() + pause);
    }
}

async fn sleep(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The next change of a Service (false) or of a slice (true).
async fn followed(backends: &mut Option<(Feed, Feed)>) -> Option<(Change, bool)> {
    let Some((services, slices)) = backends else { return std::future::pending().await };
    tokio::select! {
        change = services.next() => Some((change?, false)),
        change = slices.next() => Some((change?, true)),
    }
}

/// Whether a change is of a Service that matters. The first state of all was looked at already.
fn concerns(watched: &HashSet<(String, String)>, change: &Change, slice: bool) -> bool {
    let (Change::Put(entry) | Change::Gone(entry)) = change else { return false };
    let name = service_name(entry, slice).unwrap_or_default();
    watched.contains(&(entry.key.namespace.to_string(), name.to_owned()))
}

fn service_name(entry: &Entry, slice: bool) -> Option<&str> {
    if slice {
        return entry.labels.get("kubernetes.io/service-name");
    }
    Some(&entry.key.name)
}

/// Looks at every APIService and writes the conditions that have changed. Says whether a server
/// was not there.
pub(super) async fn reconcile(server: &Arc<ApiServer>) -> bool {
    let table = server.context.aggregator.table();
    let services: Vec<Arc<ApiService>> = table.values().cloned().collect();
    let looks = services.into_iter().map(|service| look_and_say(Arc::clone(server), service));
    ask_all(looks).await.contains(&false)
}

async fn look_and_say(server: Arc<ApiServer>, service: Arc<ApiService>) -> bool {
    let condition = look(&server.context, &service).await;
    if service.condition.as_ref() != Some(&condition)
        && let Err(error) = set(&server, &service.name, &condition).await
    {
        tracing::warn!(apiservice = service.name, error, "writing the condition Available");
        return false;
    }
    condition.status == "True"
}

async fn look(context: &Context, service: &ApiService) -> Condition {
    let Some(reference) = &service.service else {
        return condition(true, "Local", "Local APIServices are always available");
    };
    if let Err((reason, message)) = reachable(&context.store, reference) {
        return condition(false, reason, &message);
    }
    let path = format!("/apis/{}/{}", service.group, service.version);
    match pass::fetch(context, service, &path, PATIENCE).await {
        Ok(document) => {
            context.aggregator.learn(&service.name, document);
            condition(true, "Passed", "all checks passed")
        }
        Err(why) => condition(false, "FailedDiscoveryCheck", &why),
    }
}

fn condition(available: bool, reason: &str, message: &str) -> Condition {
    Condition {
        kind: "Available".to_owned(),
        status: if available { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// What can be said without asking: the Service is there, and somebody is behind it.
fn reachable(store: &Store, reference: &Reference) -> Result<(), (&'static str, String)> {
    let (name, space) = (&reference.name, go_quote(&reference.namespace));
    let Some(service) = objects::object(store, "services", &reference.namespace, name) else {
        return Err(("ServiceNotFound", format!("service/{name} in {space} is not present")));
    };
    let kind = &service["spec"]["type"];
    if kind != "ClusterIP" && !kind.is_null() {
        return Ok(());
    }
    let port = reference.port();
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let Some(found) = ports.find(|one| one["port"].as_u64() == Some(port.into())) else {
        let message = format!("service/{name} in {space} is not listening on port {port}");
        return Err(("ServicePortError", message));
    };
    match endpoints::resolve(store, &reference.namespace, name, &port.to_string()) {
        Ok(all) if !all.is_empty() => Ok(()),
        _ => {
            let port = go_quote(found["name"].as_str().unwrap_or_default());
            let what = format!("endpoints for service/{name} in {space}");
            Err(("MissingEndpoints", format!("{what} have no addresses with port name {port}")))
        }
    }
}

async fn set(server: &Arc<ApiServer>, name: &str, now: &Condition) -> Result<(), String> {
    let store = &server.context.store;
    let object = objects::object(store, super::COLLECTION, "", name).unwrap_or_default();
    let mut all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut next = json!({"type": now.kind, "status": now.status, "lastTransitionTime": since,
        "reason": now.reason, "message": now.message});
    match all.iter_mut().find(|one| one["type"] == now.kind.as_str()) {
        Some(known) => {
            if known["status"] == next["status"] {
                next["lastTransitionTime"] = known["lastTransitionTime"].take();
            }
            *known = next;
        }
        None => all.push(next),
    }
    let patch = json!({"metadata": {"uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"]}, "status": {"conditions": all}});
    server.write_own(Method::PATCH, &format!("{PATH}/{name}/status"), &patch).await
}
