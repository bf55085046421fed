//! Pods that cannot be placed, and what makes them placeable.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use testkit::FakeNode;

use crate::harness::{cluster, events};

fn pod(name: &str, cpu: &str, rest: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
        ]},
    });
    let spec = pod["spec"].as_object_mut().expect("a spec");
    spec.extend(rest.as_object().cloned().unwrap_or_default());
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_waits_for_room() {
    let cluster = cluster().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client.clone());
    cluster.apply(pod("large", "40", json!({}))).await;
    let node_of = |name: &'static str| {
        let pods = pods.clone();
        move || {
            let pods = pods.clone();
            async move { pods.get(name).await.ok()?.spec?.node_name }
        }
    };
    assert_eq!(cluster.eventually("a place", node_of("large")).await, "n1");
    cluster.apply(pod("second", "40", json!({}))).await;
    let message = cluster
        .eventually("the condition", || async {
            let status = pods.get("second").await.ok()?.status?;
            let condition = status.conditions?.into_iter().find(|c| c.type_ == "PodScheduled")?;
            (condition.reason.as_deref() == Some("Unschedulable")).then_some(condition.message?)
        })
        .await;
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
    cluster
        .eventually("the event", || async {
            events(&cluster, "FailedScheduling").await.contains(&message).then_some(())
        })
        .await;
    pods.delete("large", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(cluster.eventually("a place", node_of("second")).await, "n1");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_takes_what_waited_for_it() {
    let cluster = cluster().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client.clone());
    let selector = json!({"nodeSelector": {"kubernetes.io/hostname": "n2"}});
    cluster.apply(pod("picky", "1", selector)).await;
    cluster
        .eventually("a refusal", || async {
            (!events(&cluster, "FailedScheduling").await.is_empty()).then_some(())
        })
        .await;
    cluster.spawn(|client, informers, stop| async move {
        FakeNode::run("n2", 10, client, informers, stop).await;
    });
    let node = cluster
        .eventually("a place", || async { pods.get("picky").await.ok()?.spec?.node_name })
        .await;
    assert_eq!(node, "n2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_runs_on_every_node_and_is_renewed() {
    let cluster = cluster().await;
    let set = |image: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "log"},
            "spec": {
                "selector": {"matchLabels": {"app": "log"}},
                "template": {
                    "metadata": {"labels": {"app": "log"}},
                    "spec": {"containers": [{"name": "c", "image": image}]},
                },
            },
        })
    };
    let sets: Api<DaemonSet> = Api::default_namespaced(cluster.client.clone());
    let available = |wanted: i32| {
        let sets = sets.clone();
        move || {
            let sets = sets.clone();
            async move {
                let set = sets.get("log").await.ok()?;
                let status = set.status?;
                (status.observed_generation == set.metadata.generation
                    && status.desired_number_scheduled == wanted
                    && status.number_available == Some(wanted)
                    && status.updated_number_scheduled == Some(wanted))
                .then_some(())
            }
        }
    };
    cluster.apply(set("v1")).await;
    cluster.eventually("one daemon", available(1)).await;
    cluster.spawn(|client, informers, stop| async move {
        FakeNode::run("n2", 10, client, informers, stop).await;
    });
    cluster.eventually("two daemons", available(2)).await;
    cluster.apply(set("v2")).await;
    cluster.eventually("two new daemons", available(2)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_important_pod_pushes_a_lesser_one_out() {
    let cluster = cluster().await;
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "vip"}, "value": 1000,
    });
    cluster.apply(class).await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client.clone());
    cluster.apply(pod("small-fry", "40", json!({}))).await;
    cluster
        .eventually("a place", || async { pods.get("small-fry").await.ok()?.spec?.node_name })
        .await;
    let vip = json!({"priority": 1000, "priorityClassName": "vip"});
    cluster.apply(pod("vip", "40", vip)).await;
    let node = cluster
        .eventually("a place", || async { pods.get("vip").await.ok()?.spec?.node_name })
        .await;
    assert_eq!(node, "n1");
    assert!(pods.get_opt("small-fry").await.expect("an answer").is_none());
    cluster.stop().await;
}
