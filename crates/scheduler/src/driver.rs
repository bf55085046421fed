//! Keeps the snapshot, takes pods from the queue, binds them. A pod that has been given a node
//! counts there at once (it is assumed), so that the next decision need not wait for the watch.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{EventKind, Informer, Informers, Key, Pod, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::decide::{Unschedulable, decide, fits};
use crate::preempt::{self, Preemption};
use crate::queue::{Change, Queue};
use crate::snapshot::{PodInfo, Snapshot};

/// Bindings and status reports under way at the same time.
const MAX_CONCURRENT_WRITES: usize = 32;

/// Longest sleep without a deadline; only bounds the arithmetic.
const LONG_SLEEP: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    queue: Queue,
    /// Pods that wait for a node.
    pending: HashMap<Key, Arc<Pod>>,
    /// Pods with a node in the snapshot that the API server has not confirmed.
    assumed: HashSet<Key>,
    /// Important pods that wait for others to leave this node: less important ones must not
    /// take the room meanwhile.
    nominated: HashMap<Key, (Arc<PodInfo>, String)>,
}

struct Scheduler {
    client: Client,
    config: Config,
    recorder: Recorder,
    state: Mutex<State>,
    changed: Notify,
    writes: Semaphore,
    siblings: Siblings,
}

/// Where the selectors of a pod's service or set are found.
struct Siblings {
    services: Informer<Service>,
    replica_sets: Informer<ReplicaSet>,
}

/// Schedules pods until `stop` is cancelled; bindings under way are finished first.
pub async fn run(client: Client, informers: Informers, config: Config, stop: CancellationToken) {
    let (pods, nodes) = (informers.of::<Pod>(), informers.of::<Node>());
    let namespaces = informers.of::<Namespace>();
    let siblings = Siblings { services: informers.of(), replica_sets: informers.of() };
    let scheduler = Arc::new(Scheduler {
        recorder: Recorder::new(client.clone(), &config.scheduler_name, ""),
        state: Mutex::default(),
        changed: Notify::new(),
        writes: Semaphore::new(MAX_CONCURRENT_WRITES),
        siblings,
        client,
        config,
    });
    let synced = async { tokio::join!(pods.synced(), nodes.synced(), namespaces.synced()) };
    tokio::select! {
        _ = synced => {}
        () = stop.cancelled() => return,
    }
    let this = scheduler.clone();
    nodes.on_change(move |change| this.node_changed(change.old.as_deref(), change.new.as_ref()));
    let this = scheduler.clone();
    namespaces.on_change(move |change| this.namespace_changed(change.latest()));
    let this = scheduler.clone();
    pods.on_change(move |change| this.pod_changed(change.old.as_deref(), change.new.as_ref()));
    // Not waited for: without them pods are pushed out all the same.
    let this = scheduler.clone();
    informers.of::<PodDisruptionBudget>().on_change(move |change| {
        let mut state = this.state();
        let budgets = &mut state.snapshot.budgets;
        match (&change.old, &change.new) {
            (_, Some(budget)) => drop(budgets.insert(Key::of(budget.as_ref()), budget.clone())),
            (Some(budget), None) => drop(budgets.remove(&Key::of(budget.as_ref()))),
            (None, None) => {}
        }
    });
    scheduler.work(stop).await;
}

/// What came of one turn.
enum Turn {
    Bind(Arc<Pod>, String),
    Report(Arc<Pod>, String, Nomination),
    Idle(Option<Timestamp>),
}

/// What becomes of the node that is kept for a pod.
enum Nomination {
    /// It is, or is not, as before.
    Stays,
    /// No pods can be pushed out any more that would make room there.
    Ends,
    /// Others have to leave a node.
    Begins(Preemption),
}

/// Why a pod fits nowhere, and what follows.
struct Refusal {
    filters: Vec<&'static str>,
    message: String,
    nomination: Nomination,
}

impl Scheduler {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == self.config.scheduler_name
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
            && pod.metadata.deletion_timestamp.is_none()
    }

    fn pod_changed(&self, old: Option<&Pod>, new: Option<&Arc<Pod>>) {
        let Some(key) = new.map(AsRef::as_ref).or(old).map(Key::of) else { return };
        let (mut state, now) = (self.state(), Timestamp::now());
        let state = &mut *state;
        let alive = new.filter(|pod| !is_terminal(pod));
        let node = alive.and_then(|pod| node_name(pod));
        match (alive, node) {
            (Some(pod), Some(node)) => {
                state.pending.remove(&key);
                state.queue.remove(&key);
                let is_news = !state.snapshot.is_placed(&key)
                    || old.is_some_and(|old| old.labels() != pod.labels());
                state.assumed.remove(&key);
                let info = Arc::new(PodInfo::new(pod.clone()));
                let was = state.snapshot.place(info.clone(), node);
                if was.is_some_and(|was| info.requests.gives_back(&was.requests)) {
                    state.queue.wake(Change::PodGone, now);
                }
                if is_news {
                    state.queue.wake(Change::PodPlaced, now);
                }
            }
            (Some(pod), None) if self.is_ours(pod) => {
                if state.assumed.contains(&key) {
                    return;
                }
                let same = |old: &Pod| {
                    old.spec == pod.spec
                        && old.labels() == pod.labels()
                        && old.annotations() == pod.annotations()
                };
                state.pending.insert(key.clone(), pod.clone());
                // What was kept before this process began, or somebody else wishes to be kept.
                let kept = nominated_node(pod);
                match kept {
                    _ if old.and_then(nominated_node) == kept => {}
                    None => drop(state.nominated.remove(&key)),
                    Some(node) => {
                        let info = Arc::new(PodInfo::new(pod.clone()));
                        state.nominated.insert(key.clone(), (info, node.to_owned()));
                    }
                }
                if !state.queue.contains(&key) || !old.is_some_and(same) {
                    state.queue.add(key, pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0));
                }
            }
            _ => {
                state.pending.remove(&key);
                state.queue.remove(&key);
                state.assumed.remove(&key);
                let kept = state.nominated.remove(&key).is_some();
                if state.snapshot.remove_pod(&key).is_some() || kept {
                    state.queue.wake(Change::PodGone, now);
                }
            }
        }
        self.changed.notify_one();
    }

    fn node_changed(&self, old: Option<&Node>, new: Option<&Arc<Node>>) {
        let mut state = self.state();
        match (old, new) {
            (old, Some(node)) => {
                let news = old.is_none_or(|old| offers_something_else(old, node));
                state.snapshot.set_node(node.clone());
                if news {
                    state.queue.wake(Change::Node, Timestamp::now());
                    self.changed.notify_one();
                }
            }
            (Some(old), None) => state.snapshot.remove_node(&old.name_any()),
            (None, None) => {}
        }
    }

    fn namespace_changed(&self, namespace: &Namespace) {
        let labels = namespace.labels().clone();
        self.state().snapshot.namespaces.insert(namespace.name_any(), labels);
    }

    async fn work(self: Arc<Self>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        while !stop.is_cancelled() {
            let turn = self.turn();
            let due = match turn {
                Turn::Idle(due) => due,
                turn => {
                    let Ok(permit) = self.writes.acquire().await else { break };
                    permit.forget();
                    let this = self.clone();
                    tasks.spawn(async move {
                        this.write(turn).await;
                        this.writes.add_permits(1);
                    });
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let pause = due.map_or(LONG_SLEEP, |due| {
                Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default()
            });
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(pause), if due.is_some() => {}
                () = stop.cancelled() => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Takes one pod from the queue and decides on it.
    fn turn(&self) -> Turn {
        let (mut state, now) = (self.state(), Timestamp::now());
        let state = &mut *state;
        let Some(key) = state.queue.pop(now) else { return Turn::Idle(state.queue.next_due()) };
        let Some(pod) = state.pending.get(&key).cloned() else {
            state.queue.remove(&key);
            return Turn::Idle(Some(now));
        };
        let info = PodInfo::new(pod.clone());
        let siblings = self.siblings.selector(&pod);
        match state.decide(&key, &info, siblings.as_ref()) {
            Ok(node) => {
                state.nominated.remove(&key);
                state.snapshot.place(Arc::new(info), &node);
                state.queue.remove(&key);
                state.assumed.insert(key);
                Turn::Bind(pod, node)
            }
            Err(Refusal { filters, message, nomination }) => {
                state.queue.unschedulable(&key, filters, now);
                match &nomination {
                    Nomination::Stays => {}
                    Nomination::Ends => {
                        if state.nominated.remove(&key).is_some() {
                            state.queue.wake(Change::PodGone, now);
                        }
                    }
                    Nomination::Begins(preemption) => {
                        let nominated = (Arc::new(info), preemption.node.clone());
                        state.nominated.insert(key, nominated);
                    }
                }
                Turn::Report(pod, message, nomination)
            }
        }
    }

    async fn write(&self, turn: Turn) {
        match turn {
            Turn::Idle(_) => {}
            Turn::Report(pod, message, nomination) => {
                self.report(&pod, &message, &nomination).await;
                if let Nomination::Begins(preemption) = nomination {
                    self.push_out(&pod, &preemption).await;
                }
            }
            Turn::Bind(pod, node) => match self.bind(&pod, &node).await {
                Ok(()) => {
                    let note = format!("Successfully assigned {} to {node}", Key::of(pod.as_ref()));
                    self.recorder.event(
                        &pod.object_ref(&()),
                        EventKind::Normal,
                        "Scheduled",
                        &note,
                    );
                }
                Err(error) => self.unbind(&pod, &error),
            },
        }
    }

    async fn bind(&self, pod: &Pod, node: &str) -> kube::Result<()> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let data = serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?;
        let request = Request::new(Pod::url_path(&(), Some(&namespace)))
            .create_subresource("binding", &name, &PostParams::default(), data)
            .map_err(kube::Error::BuildRequest)?;
        self.client.request::<serde::de::IgnoredAny>(request).await.map(drop)
    }

    /// The API server did not take the binding: the pod waits again, if it is still there.
    fn unbind(&self, pod: &Pod, error: &kube::Error) {
        let key = Key::of(pod);
        tracing::debug!(pod = %key, error = %base::chain(error), "binding failed");
        let (mut state, now) = (self.state(), Timestamp::now());
        if !state.assumed.remove(&key) {
            return;
        }
        state.snapshot.remove_pod(&key);
        let gone = matches!(error, kube::Error::Api(status) if status.reason == "NotFound");
        if gone || !state.pending.contains_key(&key) {
            state.pending.remove(&key);
        } else {
            state.queue.add(key.clone(), pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0));
            state.queue.failed(&key, now);
        }
        state.queue.wake(Change::PodGone, now);
        drop(state);
        self.changed.notify_one();
    }

    async fn report(&self, pod: &Pod, message: &str, nomination: &Nomination) {
        let nominated = match nomination {
            Nomination::Begins(preemption) => Some(preemption.node.as_str().into()),
            Nomination::Ends if nominated_node(pod).is_some() => Some(serde_json::Value::Null),
            _ => None,
        };
        let kind = EventKind::Warning;
        self.recorder.event(&pod.object_ref(&()), kind, "FailedScheduling", message);
        let present = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        let present = present.and_then(|all| all.iter().find(|c| c.type_ == "PodScheduled"));
        let said =
            present.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message));
        if said && nominated.is_none() {
            return;
        }
        let since = present
            .filter(|condition| condition.status == "False")
            .and_then(|condition| condition.last_transition_time.clone())
            .unwrap_or_else(|| Time(Timestamp::now()));
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": since,
            "lastProbeTime": null,
            "observedGeneration": pod.metadata.generation,
        });
        let mut status = json!({ "conditions": [condition] });
        if let Some(node) = nominated {
            status["nominatedNodeName"] = node;
        }
        self.patch_status(pod, status).await;
    }

    async fn patch_status(&self, pod: &Pod, status: serde_json::Value) {
        let patch = json!({ "metadata": {"uid": pod.uid()}, "status": status });
        let pods: Api<Pod> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        if let Err(error) = pods.patch_status(&pod.name_any(), &params, &patch).await {
            tracing::debug!(pod = %Key::of(pod), error = %base::chain(&error), "status not written");
        }
    }

    /// Deletes the pods that have to make room; the pod is tried again as they go.
    async fn push_out(&self, pod: &Pod, preemption: &Preemption) {
        for victim in &preemption.victims {
            let victim = &victim.pod;
            if victim.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let by = pod.uid().unwrap_or_default();
            let note = format!("Preempted by pod {by} on node {}", preemption.node);
            let kind = EventKind::Normal;
            self.recorder.event(&victim.object_ref(&()), kind, "Preempted", &note);
            let message = format!(
                "{}: preempting to accommodate a higher priority pod",
                self.config.scheduler_name
            );
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": message, "lastTransitionTime": Time(Timestamp::now()),
                "observedGeneration": victim.metadata.generation,
            });
            self.patch_status(victim, json!({ "conditions": [condition] })).await;
            let pods: Api<Pod> =
                Api::namespaced(self.client.clone(), &victim.namespace().unwrap_or_default());
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: victim.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            if let Err(error) = pods.delete(&victim.name_any(), &params).await {
                tracing::debug!(pod = %Key::of(victim.as_ref()), error = %base::chain(&error), "not preempted");
            }
        }
    }
}

impl State {
    /// Decides on a pod, and where it fits nowhere on what would make room, while others have the
    /// room that is kept for them. The node that is kept for the pod itself comes first.
    fn decide(
        &mut self,
        key: &Key,
        info: &PodInfo,
        siblings: Option<&LabelSelector>,
    ) -> Result<String, Refusal> {
        let reserved = self.reserve(key, info.priority());
        let own = self.nominated.get(key).map(|(_, node)| node.clone());
        let decision = match own.filter(|node| fits(info, &self.snapshot, node)) {
            Some(node) => Ok(node),
            None => decide(info, &self.snapshot, siblings).map_err(|unschedulable| {
                let (message, nomination) = make_room(info, &self.snapshot, &unschedulable);
                Refusal { filters: unschedulable.filters(), message, nomination }
            }),
        };
        for key in &reserved {
            self.snapshot.remove_pod(key);
        }
        decision
    }

    /// Puts the more important nominated pods on their nodes for one decision.
    fn reserve(&mut self, but: &Key, priority: i32) -> Vec<Key> {
        let State { nominated, pending, snapshot, .. } = self;
        nominated.retain(|key, _| pending.contains_key(key));
        let others = nominated.iter().filter(|(key, (pod, _))| {
            *key != but && pod.priority() >= priority && !snapshot.is_placed(key)
        });
        let others: Vec<_> =
            others.map(|(key, (pod, node))| (key.clone(), pod.clone(), node.clone())).collect();
        others
            .into_iter()
            .map(|(key, pod, node)| {
                snapshot.place(pod, &node);
                key
            })
            .collect()
    }
}

/// What is told of a pod that fits nowhere, and what would make room for it beside those that room
/// is kept for already.
fn make_room(
    info: &PodInfo,
    snapshot: &Snapshot,
    unschedulable: &Unschedulable,
) -> (String, Nomination) {
    if unschedulable.nodes.is_empty() {
        return (unschedulable.to_string(), Nomination::Stays);
    }
    if let Some(why) = preempt::refused(info, snapshot) {
        return (format!("{} preemption: {why}", unschedulable.reasons()), Nomination::Stays);
    }
    match preempt::preempt(info, snapshot, unschedulable) {
        Some(preemption) => (unschedulable.reasons(), Nomination::Begins(preemption)),
        None => (unschedulable.to_string(), Nomination::Ends),
    }
}

impl Siblings {
    /// Selects the pods of all services that select this one, and of its set.
    fn selector(&self, pod: &Pod) -> Option<LabelSelector> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut selector = LabelSelector::default();
        for service in self.services.in_namespace(namespace) {
            let labels = service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
            if !labels.is_empty() && labels.iter().all(|(k, v)| pod.labels().get(k) == Some(v)) {
                selector.match_labels.get_or_insert_default().extend(labels);
            }
        }
        let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        if let Some(owner) = owner.filter(|owner| owner.kind == "ReplicaSet")
            && let Some(set) = self.replica_sets.get(&Key::new(namespace, &owner.name))
            && let Some(spec) = &set.spec
        {
            let labels = spec.selector.match_labels.clone().unwrap_or_default();
            selector.match_labels.get_or_insert_default().extend(labels);
            selector.match_expressions = spec.selector.match_expressions.clone();
        }
        (selector != LabelSelector::default()).then_some(selector)
    }
}

fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The node that is kept for a pod, as its status says.
fn nominated_node(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a change of the node may help a waiting pod; a heartbeat does not.
fn offers_something_else(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    old.spec != new.spec || old.labels() != new.labels() || allocatable(old) != allocatable(new)
}

#[cfg(test)]
mod tests;
