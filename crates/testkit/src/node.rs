use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use client::{Informers, Key, Outcome, Pod, Queue};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Annotation: the exit code of a pod that does not restart; without it the pod succeeds.
const EXIT_CODE: &str = "testkit/exit-code";
/// Annotation: the pod never becomes ready.
const NEVER_READY: &str = "testkit/never-ready";

/// A node whose pods run at once, without a process: they get an address and are ready; those
/// that do not restart end; those that are deleted go.
pub struct FakeNode {
    name: String,
    client: Client,
    next_address: AtomicU32,
}

impl FakeNode {
    /// Registers a node with room for `pods` pods and plenty of everything else, and plays its
    /// kubelet until `stop`.
    pub async fn run(
        name: &str,
        pods: u32,
        client: Client,
        informers: Informers,
        stop: CancellationToken,
    ) {
        let node = Arc::new(FakeNode {
            name: name.to_owned(),
            client: client.clone(),
            next_address: AtomicU32::new(2),
        });
        node.register(pods).await.expect("a node that can be registered");
        let queue: Queue<Key> = Queue::default();
        let added = queue.clone();
        let mine = name.to_owned();
        informers.of::<Pod>().on_change(move |change| {
            let pod = change.latest();
            if pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&mine) {
                added.add(Key::of(pod.as_ref()));
            }
        });
        let cache = informers.of::<Pod>();
        queue
            .run(4, stop, |key| {
                let (node, pod) = (node.clone(), cache.get(&key));
                async move {
                    let Some(pod) = pod else { return Outcome::Done };
                    match node.sync(&pod).await {
                        Ok(()) => Outcome::Done,
                        Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Done,
                        Err(error) => {
                            tracing::debug!(%key, %error, "fake node");
                            Outcome::Retry
                        }
                    }
                }
            })
            .await;
    }

    /// Renews the lease of a node every `period` until `stop`.
    pub async fn beat(name: &str, period: Duration, client: Client, stop: CancellationToken) {
        let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
        let mut ticks = tokio::time::interval(period);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                "spec": {"holderIdentity": name, "renewTime": MicroTime(Timestamp::now())},
            });
            let params = PatchParams::apply("testkit").force();
            if let Err(error) = leases.patch(name, &params, &Patch::Apply(&lease)).await {
                tracing::debug!(name, %error, "fake node");
            }
        }
    }

    async fn register(&self, pods: u32) -> kube::Result<()> {
        let amounts = json!({"cpu": "64", "memory": "64Gi", "pods": pods.to_string()});
        let labels = json!({"kubernetes.io/hostname": self.name});
        let now = Timestamp::now().to_string();
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": self.name, "labels": labels},
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": now}],
            },
        }))
        .map_err(kube::Error::SerdeError)?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await?;
        let status = json!({"status": node.status});
        nodes.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    async fn sync(&self, pod: &Pod) -> kube::Result<()> {
        let pods: Api<Pod> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            // A pod that waits for finalizers is asked once; the server keeps it meanwhile.
            if pod.metadata.deletion_grace_period_seconds == Some(0) {
                return Ok(());
            }
            return pods.delete(&pod.name_any(), &now).await.map(drop);
        }
        let started = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).is_some();
        if started {
            return Ok(());
        }
        let number = self.next_address.fetch_add(1, Ordering::Relaxed);
        let status = status(pod, &format!("10.42.{}.{}", number / 250, number % 250 + 2));
        let patch = Patch::Merge(json!({ "status": status }));
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.map(drop)
    }
}

fn status(pod: &Pod, address: &str) -> serde_json::Value {
    let spec = pod.spec.clone().unwrap_or_default();
    let ends = spec.restart_policy.as_ref().is_some_and(|policy| policy != "Always");
    let code: i32 = pod.annotations().get(EXIT_CODE).and_then(|c| c.parse().ok()).unwrap_or(0);
    let (phase, ready, state) = match (ends, code) {
        (false, _) => {
            ("Running", !pod.annotations().contains_key(NEVER_READY), json!({"running": {}}))
        }
        (true, 0) => ("Succeeded", false, json!({"terminated": {"exitCode": 0}})),
        (true, code) => ("Failed", false, json!({"terminated": {"exitCode": code}})),
    };
    let now = Timestamp::now().to_string();
    let containers = spec.containers.iter().map(|container| {
        json!({
            "name": container.name, "image": container.image, "imageID": "", "ready": ready,
            "restartCount": 0, "started": phase == "Running", "state": state,
        })
    });
    let truth = if ready { "True" } else { "False" };
    json!({
        "phase": phase,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "containerStatuses": containers.collect::<Vec<_>>(),
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": truth, "lastTransitionTime": now},
        ],
    })
}
