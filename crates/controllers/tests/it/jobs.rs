//! Jobs, from their first pod to their last condition.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use testkit::Cluster;

use crate::harness::{cluster, deployment, events, pods};

fn job(spec: Value, annotations: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sum"},
        "spec": {
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    let own = job["spec"].as_object_mut().expect("a spec");
    own.extend(spec.as_object().cloned().unwrap_or_default());
    job
}

async fn ended(cluster: &Cluster, condition: &str) -> Job {
    let api: Api<Job> = Api::default_namespaced(cluster.client.clone());
    cluster
        .eventually(&format!("a job that is {condition}"), || async {
            let job = api.get("sum").await.ok()?;
            let conditions = job.status.as_ref()?.conditions.as_ref()?;
            conditions.iter().any(|c| c.type_ == condition && c.status == "True").then_some(job)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_completes_and_counts_each_pod_once() {
    let cluster = cluster().await;
    cluster.apply(job(json!({"completions": 7, "parallelism": 3}), json!({}))).await;
    let status = ended(&cluster, "Complete").await.status.expect("a status");
    assert_eq!((status.succeeded, status.failed, status.active), (Some(7), None, None));
    assert!(status.completion_time.is_some());
    let pods = pods(&cluster, "job-name=sum").await;
    assert_eq!(pods.len(), 7);
    assert!(pods.iter().all(|pod: &Pod| pod.finalizers().is_empty()));
    cluster
        .eventually("the event", || async {
            (events(&cluster, "Completed").await == ["Job completed"]).then_some(())
        })
        .await;

    let api: Api<Job> = Api::default_namespaced(cluster.client.clone());
    api.delete("sum", &DeleteParams::background()).await.expect("deleted");
    cluster
        .eventually("no pods", || async {
            self::pods(&cluster, "job-name=sum").await.is_empty().then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexed_job_runs_each_index() {
    let cluster = cluster().await;
    let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
    cluster.apply(job(spec, json!({}))).await;
    let status = ended(&cluster, "Complete").await.status.expect("a status");
    assert_eq!(status.completed_indexes.as_deref(), Some("0-3"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_job_ends_at_its_limit() {
    let cluster = cluster().await;
    cluster.apply(job(json!({"backoffLimit": 0}), json!({"testkit/exit-code": "1"}))).await;
    let job = ended(&cluster, "Failed").await;
    let status = job.status.expect("a status");
    assert_eq!(status.failed, Some(1));
    let conditions = status.conditions.unwrap_or_default();
    let failed = conditions.iter().find(|c| c.type_ == "Failed").expect("the condition");
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    cluster.stop().await;
}

/// The newest revision of the whole store.
async fn revision(cluster: &Cluster) -> String {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client.clone());
    let list = pods.list(&ListParams::default()).await.expect("a list");
    list.metadata.resource_version.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_when_nothing_changes() {
    let cluster = cluster().await;
    cluster.apply(deployment(2, "v1")).await;
    cluster.apply(job(json!({}), json!({}))).await;
    ended(&cluster, "Complete").await;
    cluster
        .eventually("two ready pods", || async {
            (pods(&cluster, "app=web").await.len() == 2).then_some(())
        })
        .await;
    // Calm: one second in which the revision stands still.
    let calm = || async {
        let before = revision(&cluster).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        (before == revision(&cluster).await).then_some(())
    };
    cluster.eventually("calm", calm).await;
    for second in 0..3 {
        assert!(calm().await.is_some(), "something was written in second {second} of calm");
    }
    cluster.stop().await;
}
