//! A node falls silent and comes back, among nodes that only pretend.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;
use testkit::{Cluster, FakeNode};
use tokio_util::sync::CancellationToken;

use crate::harness::{cluster_with, deployment, pods};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_millis(200);
/// A silence that is longer than this is a node's end.
const GRACE_SECONDS: u32 = 2;

/// Starts a node's heartbeat.
fn beat(cluster: &Cluster, name: &'static str) -> CancellationToken {
    let alive = CancellationToken::new();
    let stop = alive.clone();
    cluster.spawn(move |client, _, end| async move {
        tokio::select! {
            () = FakeNode::beat(name, BEAT, client, stop) => {}
            () = end.cancelled() => {}
        }
    });
    alive
}

async fn wait_for_node(cluster: &Cluster, name: &str, what: &str, is: impl Fn(&Node) -> bool) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    cluster
        .eventually(what, || async {
            nodes.get_opt(name).await.ok().flatten().filter(|node| is(node)).map(drop)
        })
        .await;
}

fn ready(node: &Node) -> &str {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .filter(|c| c.type_ == "Ready")
        .map(|c| c.status.as_str())
        .next_back()
        .unwrap_or("none")
}

fn tainted(node: &Node, effect: &str) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.into_iter().any(|t| t.key == "node.kubernetes.io/unreachable" && t.effect == effect)
}

#[tokio::test]
async fn pods_of_a_silent_node_run_elsewhere() {
    let config = controllers::Config {
        root_ca_pem: "PEM".into(),
        node_grace_seconds: GRACE_SECONDS,
        ..Default::default()
    };
    let cluster = cluster_with(config).await;
    cluster.spawn(|client, informers, stop| async move {
        FakeNode::run("n2", 200, client, informers, stop).await;
    });
    let _first = beat(&cluster, "n1");
    let second = beat(&cluster, "n2");
    wait_for_node(&cluster, "n2", "the second node", |node| ready(node) == "True").await;
    let mut web = deployment(2, "a");
    let tolerations = json!([{
        "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 1,
    }]);
    web["spec"]["template"]["spec"]["tolerations"] = tolerations;
    web["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "web"}},
    }]);
    cluster.apply(web).await;
    let on = async |name: &str| {
        let pods = pods(&cluster, "app=web").await;
        let here = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        here.filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(name)).count()
    };
    cluster
        .eventually("a pod on the second node", || async { (on("n2").await == 1).then_some(()) })
        .await;

    second.cancel();
    wait_for_node(&cluster, "n2", "the silence to be noticed", |node| {
        ready(node) == "Unknown" && tainted(node, "NoSchedule") && tainted(node, "NoExecute")
    })
    .await;
    cluster
        .eventually("both pods on the first node", || async {
            (on("n1").await == 2 && on("n2").await == 0).then_some(())
        })
        .await;
    cluster.stop().await;
}
