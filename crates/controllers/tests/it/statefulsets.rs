//! A StatefulSet from its first pod to its last.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use testkit::Cluster;

use crate::harness::{cluster, events, pods};

fn set(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

/// Waits until all pods are there, of one image, and the status says so.
async fn settled(cluster: &Cluster, replicas: i32, image: &str) -> Vec<Pod> {
    let api: Api<StatefulSet> = Api::default_namespaced(cluster.client.clone());
    cluster
        .eventually(&format!("{replicas} pods of {image}"), || async {
            let set = api.get("db").await.ok()?;
            let status = set.status.clone()?;
            let pods = pods(cluster, "app=db").await;
            let of_image = |pod: &Pod| {
                pod.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some(image))
            };
            (status.observed_generation == set.metadata.generation
                && status.replicas == replicas
                && status.available_replicas == Some(replicas)
                && status.current_revision == status.update_revision
                && pods.len() == usize::try_from(replicas).ok()?
                && pods.iter().all(of_image))
            .then_some(pods)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_runs_rolls_comes_back_and_goes() {
    let cluster = cluster().await;
    cluster.apply(set(3, "v1")).await;
    let pods = settled(&cluster, 3, "v1").await;
    let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    let created = |pod: &Pod| pod.metadata.creation_timestamp.clone().map(|time| time.0);
    assert!(pods.is_sorted_by_key(created), "not in order: {pods:?}");

    cluster.apply(set(3, "v2")).await;
    settled(&cluster, 3, "v2").await;
    cluster.apply(set(3, "v1")).await;
    settled(&cluster, 3, "v1").await;
    let revisions: Api<ControllerRevision> = Api::default_namespaced(cluster.client.clone());
    let revisions = revisions.list(&ListParams::default()).await.expect("revisions").items;
    let mut numbers: Vec<_> = revisions.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3], "a template that comes back is the newest");
    let said = events(&cluster, "SuccessfulDelete").await;
    assert!(said.contains(&"delete Pod db-2 in StatefulSet db successful".to_owned()), "{said:?}");

    cluster.apply(set(1, "v1")).await;
    settled(&cluster, 1, "v1").await;
    let api: Api<StatefulSet> = Api::default_namespaced(cluster.client.clone());
    api.delete("db", &DeleteParams::default()).await.expect("deleted");
    cluster
        .eventually("no pods", || async {
            crate::harness::pods(&cluster, "app=db").await.is_empty().then_some(())
        })
        .await;
    cluster.stop().await;
}
