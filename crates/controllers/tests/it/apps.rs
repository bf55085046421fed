//! Deployments, their services, and their end.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;
use testkit::Cluster;

use crate::harness::{cluster, deployment, events, pods};

/// Waits until the Deployment's status says that its rollout is complete.
async fn rolled_out(cluster: &Cluster, replicas: i32) {
    let api: Api<Deployment> = Api::default_namespaced(cluster.client.clone());
    cluster
        .eventually(&format!("{replicas} replicas rolled out"), || async {
            let deployment = api.get("web").await.ok()?;
            let status = deployment.status.clone()?;
            let progressed = status.conditions.iter().flatten().any(|c| {
                c.type_ == "Progressing" && c.reason.as_deref() == Some("NewReplicaSetAvailable")
            });
            (progressed
                && status.observed_generation == deployment.metadata.generation
                && status.replicas == Some(replicas)
                && status.updated_replicas == Some(replicas)
                && status.available_replicas == Some(replicas))
            .then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_runs_rolls_and_goes() {
    let cluster = cluster().await;
    cluster.apply(deployment(3, "v1")).await;
    rolled_out(&cluster, 3).await;
    assert_eq!(pods(&cluster, "app=web").await.len(), 3);

    cluster.apply(deployment(3, "v2")).await;
    rolled_out(&cluster, 3).await;
    let images = |pods: Vec<Pod>| {
        let images = pods.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none());
        images.filter_map(|p| p.spec?.containers.first()?.image.clone()).collect::<Vec<_>>()
    };
    cluster
        .eventually("only new pods", || async {
            (images(pods(&cluster, "app=web").await) == ["v2", "v2", "v2"]).then_some(())
        })
        .await;
    let sets: Api<ReplicaSet> = Api::default_namespaced(cluster.client.clone());
    let sets = sets.list(&ListParams::default()).await.expect("sets").items;
    let mut revisions: Vec<_> = sets
        .iter()
        .filter_map(|s| s.annotations().get("deployment.kubernetes.io/revision").cloned())
        .collect();
    revisions.sort();
    assert_eq!(revisions, ["1", "2"]);
    assert!(!events(&cluster, "ScalingReplicaSet").await.is_empty());
    assert!(!events(&cluster, "Scheduled").await.is_empty());

    let api: Api<Deployment> = Api::default_namespaced(cluster.client.clone());
    api.delete("web", &DeleteParams::default()).await.expect("deleted");
    let sets: Api<ReplicaSet> = Api::default_namespaced(cluster.client.clone());
    cluster
        .eventually("sets and pods collected", || async {
            let left = sets.list(&ListParams::default()).await.ok()?.items.len();
            (left == 0 && pods(&cluster, "app=web").await.is_empty()).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_pods_at_once_and_their_endpoints() {
    let cluster = cluster().await;
    cluster
        .apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }))
        .await;
    cluster.apply(deployment(50, "v1")).await;
    rolled_out(&cluster, 50).await;
    assert_eq!(pods(&cluster, "app=web").await.len(), 50, "not one too many");
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client.clone());
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    cluster
        .eventually("fifty ready endpoints", || async {
            let slices = slices.list(&of_web).await.ok()?.items;
            let endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
            let ready =
                endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
            (ready.count() == 50 && slices.len() == 1).then_some(())
        })
        .await;
    let endpoints: Api<Endpoints> = Api::default_namespaced(cluster.client.clone());
    cluster
        .eventually("fifty addresses", || async {
            let subsets = endpoints.get("web").await.ok()?.subsets?;
            (subsets.first()?.addresses.as_ref()?.len() == 50).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_all_it_holds() {
    let cluster = cluster().await;
    cluster
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    let ca = cluster
        .eventually("the cluster's CA", || async { maps.get_opt("kube-root-ca.crt").await.ok()? })
        .await;
    assert_eq!(ca.data.and_then(|data| data.get("ca.crt").cloned()).as_deref(), Some("PEM"));
    let mut web = deployment(2, "v1");
    web["metadata"]["namespace"] = "shop".into();
    cluster
        .eventually("the service account", || async {
            let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
                Api::namespaced(cluster.client.clone(), "shop");
            accounts.get_opt("default").await.ok()?
        })
        .await;
    cluster.apply(web).await;
    let shop: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    cluster
        .eventually("two pods", || async {
            (shop.list(&ListParams::default()).await.ok()?.items.len() == 2).then_some(())
        })
        .await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("shop", &DeleteParams::default()).await.expect("deleted");
    cluster
        .eventually("no namespace", || async {
            namespaces.get_opt("shop").await.ok()?.is_none().then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_waits_and_orphans_stay() {
    let cluster = cluster().await;
    cluster.apply(deployment(2, "v1")).await;
    rolled_out(&cluster, 2).await;
    let sets: Api<ReplicaSet> = Api::default_namespaced(cluster.client.clone());
    let api: Api<Deployment> = Api::default_namespaced(cluster.client.clone());
    api.delete("web", &DeleteParams::orphan()).await.expect("deleted");
    let orphan = cluster
        .eventually("an orphaned set", || async {
            let gone = api.get_opt("web").await.ok()?.is_none();
            let set = sets.list(&ListParams::default()).await.ok()?.items.into_iter().next()?;
            (gone && set.owner_references().is_empty()).then_some(set)
        })
        .await;
    assert_eq!(pods(&cluster, "app=web").await.len(), 2);

    // The same template: the new Deployment adopts the set.
    cluster.apply(deployment(2, "v1")).await;
    rolled_out(&cluster, 2).await;
    let adopted = sets.get(&orphan.name_any()).await.expect("the set");
    assert_eq!(adopted.owner_references().len(), 1);

    api.delete("web", &DeleteParams::foreground()).await.expect("deleted");
    cluster
        .eventually("the end of all", || async {
            let gone = api.get_opt("web").await.ok()?.is_none();
            if gone {
                assert!(sets.list(&ListParams::default()).await.ok()?.items.is_empty());
            }
            gone.then_some(())
        })
        .await;
    cluster.stop().await;
}
