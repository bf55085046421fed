//! A cluster with everything running and one node that pretends.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use testkit::{Cluster, FakeNode};

/// Starts everything.
pub async fn cluster() -> Cluster {
    let config = controllers::Config { root_ca_pem: "PEM".into(), ..Default::default() };
    cluster_with(config).await
}

/// Starts everything, with these settings.
pub async fn cluster_with(config: controllers::Config) -> Cluster {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let cluster = Cluster::start().await;
    cluster.spawn(|client, informers, stop| controllers::run(client, informers, config, stop));
    cluster.spawn(|client, informers, stop| {
        scheduler::run(client, informers, scheduler::Config::default(), stop)
    });
    cluster.spawn(|client, informers, stop| async move {
        FakeNode::run("n1", 200, client, informers, stop).await;
    });
    // Pods are refused until their namespace has its service account.
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::default_namespaced(cluster.client.clone());
    cluster
        .eventually("the default service account", || async {
            accounts.get_opt("default").await.ok().flatten()
        })
        .await;
    cluster
}

/// A Deployment `web` of `replicas` pods of `image`.
pub fn deployment(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

/// The pods that a selector selects.
pub async fn pods(cluster: &Cluster, selector: &str) -> Vec<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client.clone());
    pods.list(&ListParams::default().labels(selector)).await.expect("a list of pods").items
}

/// The messages of all events with this reason.
pub async fn events(cluster: &Cluster, reason: &str) -> Vec<String> {
    let events: Api<Event> = Api::default_namespaced(cluster.client.clone());
    let list = events.list(&ListParams::default()).await.expect("a list of events");
    let of_reason = list.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    of_reason.filter_map(|event| event.message).collect()
}
