//! The Node object: made at start, kept up to date, and the lease that says "alive".

mod gather;
mod lease;
pub mod machine;
pub(crate) mod news;
mod pressure;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::placement::requests::is_extended;
use client::{EventKind, Recorder};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use runtime::Runtime;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::network::NOTE_BACKEND;
use crate::shutdown::Leaving;
pub use gather::allocatable;
pub use lease::renew;
use machine::Machine;
use news::News;
use pressure::Pressure;

/// How often the status is looked at; it is written when it differs.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A status is written after this time even if nothing has changed.
const REPORT_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// Pause after a failed call, doubling.
const RETRY: base::Backoff = base::Backoff::new(Duration::from_millis(50), Duration::from_secs(7));

/// The node as the agent keeps it.
pub struct Registrar {
    config: Config,
    client: Client,
    runtime: Arc<dyn Runtime>,
    machine: Machine,
    leaving: Leaving,
    recorder: Recorder,
    pressure: Pressure,
}

impl Registrar {
    /// For the node of this configuration.
    pub fn new(
        config: Config,
        client: Client,
        runtime: Arc<dyn Runtime>,
        machine: Machine,
        leaving: Leaving,
        recorder: Recorder,
    ) -> Self {
        let pressure = Pressure::default();
        Registrar { config, client, runtime, machine, leaving, recorder, pressure }
    }

    /// Tells that the agent begins.
    pub fn starts(&self) {
        let (kind, note) = (EventKind::Normal, "Starting kubelet.".to_owned());
        self.tell([News { kind, reason: "Starting", note }]);
    }

    fn tell(&self, news: impl IntoIterator<Item = News>) {
        let node = news::reference(&self.config.node_name);
        for News { kind, reason, note } in news {
            self.recorder.event(&node, kind, reason, &note);
        }
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// Makes the Node object, or brings labels of an old one up to date; gives it back. Tries
    /// until it succeeds.
    pub async fn register(&self) -> Node {
        let mut failures = 0;
        loop {
            match self.try_register().await {
                Ok(node) => return node,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(node = self.config.node_name, error = %base::chain(&error), "node not registered yet");
                    tokio::time::sleep(RETRY.jittered(failures)).await;
                }
            }
        }
    }

    async fn try_register(&self) -> kube::Result<Node> {
        let name = &self.config.node_name;
        let status = self.status(None).await;
        let labels = self.labels();
        let Some(old) = self.api().get_opt(name).await? else {
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels),
                    annotations: Some(self.annotations()),
                    ..ObjectMeta::default()
                },
                spec: Some(NodeSpec { taints: self.taints(), ..NodeSpec::default() }),
                status: Some(status),
            };
            return match self.api().create(&PostParams::default(), &node).await {
                // Status of a new node may be taken from the creation or not: see to it.
                Ok(made) => {
                    let status = node.status.unwrap_or_default();
                    self.tell(news::of_status(name, None, &status));
                    self.write(&made, status).await
                }
                Err(error) => Err(error),
            };
        };
        // A node that asks for the tunnel no more says so by not saying it.
        let backend = self.annotations().remove(NOTE_BACKEND);
        let notes = json!({NOTE_BACKEND: backend});
        let patch = json!({"metadata": {"labels": labels, "annotations": notes}});
        let old = self
            .api()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap_or(old);
        let status = NodeStatus { conditions: self.carry_over(&old, status.conditions), ..status };
        let news = news::of_status(name, old.status.as_ref(), &status);
        let written = self.write(&old, status).await?;
        self.tell(news);
        Ok(written)
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let tunnel = self.config.tunnel.then_some((NOTE_BACKEND, "vxlan"));
        [("volumes.kubernetes.io/controller-managed-attach-detach", "true")]
            .into_iter()
            .chain(tunnel)
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    fn taints(&self) -> Option<Vec<Taint>> {
        (!self.config.taints.is_empty()).then(|| self.config.taints.clone())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.config.labels.clone();
        let arch = machine::arch().to_owned();
        for (key, value) in [
            ("kubernetes.io/hostname", self.config.node_name.clone()),
            ("kubernetes.io/arch", arch.clone()),
            ("kubernetes.io/os", "linux".to_owned()),
            ("beta.kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux".to_owned()),
        ] {
            labels.insert(key.to_owned(), value);
        }
        labels
    }

    async fn status(&self, old: Option<&Node>) -> NodeStatus {
        let mut gathered =
            gather::status(&self.config, &*self.runtime, &self.machine, &self.leaving).await;
        let conditions = gathered.conditions.as_deref_mut().unwrap_or_default();
        self.pressure.prolong(conditions, Instant::now(), self.config.pressure_lasts);
        match old {
            None => gathered,
            Some(old) => {
                let others = advertised(old);
                let with = |own: Option<Resources>| {
                    Some(others.clone().into_iter().chain(own.into_iter().flatten()).collect())
                };
                NodeStatus {
                    conditions: self.carry_over(old, gathered.conditions),
                    capacity: with(gathered.capacity),
                    allocatable: with(gathered.allocatable),
                    ..gathered
                }
            }
        }
    }

    /// Keeps the times of conditions that have not changed, and conditions of others.
    fn carry_over(
        &self,
        old: &Node,
        new: Option<Vec<NodeCondition>>,
    ) -> Option<Vec<NodeCondition>> {
        let known = old.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let known: Vec<&NodeCondition> = known.collect();
        let mut out = new.unwrap_or_default();
        for condition in &mut out {
            let before =
                known.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
            if let Some(before) = before {
                condition.last_transition_time = before.last_transition_time.clone();
            }
        }
        let foreign = known.iter().filter(|c| !out.iter().any(|o| o.type_ == c.type_));
        let foreign: Vec<NodeCondition> = foreign.map(|c| (*c).clone()).collect();
        out.extend(foreign);
        Some(out)
    }

    async fn write(&self, node: &Node, status: NodeStatus) -> kube::Result<Node> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let before = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let now = status.allocatable.clone().unwrap_or_default();
        let mut patch = json!({"status": status});
        // A merge leaves alone what it does not name.
        for gone in before.into_iter().flatten().filter(|(name, _)| !now.contains_key(*name)) {
            patch["status"]["allocatable"][gone.0] = Value::Null;
        }
        let patch = Patch::Merge(patch);
        self.api().patch_status(name, &PatchParams::default(), &patch).await
    }

    /// Keeps the status up to date until `stop`; makes the object again if someone deletes it,
    /// which `lost` may tell sooner than the next write. `seen` is the object as the watch has it:
    /// others may have advertised resources. Subscribers get the newest object.
    pub async fn keep(
        &self,
        current: watch::Sender<Node>,
        seen: &(dyn Fn() -> Option<Arc<Node>> + Sync),
        lost: Arc<Notify>,
        stop: CancellationToken,
    ) {
        let mut written = Timestamp::now();
        let mut leaving = self.leaving.subscribe();
        let name = &self.config.node_name;
        let cordoned = |node: &Node| node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
        let mut was_cordoned = cordoned(&current.borrow());
        loop {
            let beat = base::next_beat(Timestamp::now(), LOOK_EVERY);
            let asked = tokio::select! {
                () = tokio::time::sleep(beat) => false,
                () = lost.notified() => true,
                Ok(()) = leaving.changed() => true,
                () = stop.cancelled() => return,
            };
            let node = seen().unwrap_or_else(|| Arc::new(current.borrow().clone()));
            if std::mem::replace(&mut was_cordoned, cordoned(&node)) != was_cordoned {
                self.tell([news::of_cordon(name, was_cordoned)]);
            }
            let status = self.status(Some(&node)).await;
            let now = Timestamp::now();
            let due = asked || now.duration_since(written).abs() >= REPORT_EVERY;
            if !due && !differs(node.status.as_ref(), &status) {
                continue;
            }
            let news = news::of_status(name, node.status.as_ref(), &status);
            match self.write(&node, status).await {
                Ok(fresh) => {
                    self.tell(news);
                    current.send_replace(fresh);
                    written = now;
                }
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    tracing::info!(node = name, "the Node was deleted: made again");
                    current.send_replace(self.register().await);
                }
                Err(error) => {
                    tracing::warn!(error = %base::chain(&error), "node status not written");
                }
            }
        }
    }
}

/// Resources that others have put into the node's capacity, such as devices without a driver: pods
/// may have what is there of them.
fn advertised(node: &Node) -> Resources {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.clone());
    let mut capacity = capacity.unwrap_or_default();
    capacity.retain(|name, _| is_extended(name));
    capacity
}

/// Whether more has changed than heartbeat times and the last bytes of free space.
fn differs(old: Option<&NodeStatus>, new: &NodeStatus) -> bool {
    let plain = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    old.map(plain).as_ref() != Some(&plain(new))
}

/// A condition of a node with upstream's words.
fn condition(kind: &str, status: bool, reason: &str, message: &str) -> NodeCondition {
    let now = Some(Time(Timestamp::now()));
    NodeCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: now.clone(),
        last_transition_time: now,
    }
}

/// Resources by name.
type Resources = BTreeMap<String, Quantity>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_advertise_is_what_has_a_domain_of_theirs() {
        let node: Node = serde_json::from_value(json!({"metadata": {}, "status": {"capacity": {
            "cpu": "2", "hugepages-2Mi": "0", "example.com/dongle": "3",
            "attachable-volumes.kubernetes.io/x": "1", "kubernetes.io/y": "1"}}}))
        .unwrap();
        let expected = Resources::from([("example.com/dongle".to_owned(), Quantity("3".into()))]);
        assert_eq!(advertised(&node), expected);
        assert!(advertised(&Node::default()).is_empty());
    }
}
