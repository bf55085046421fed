//! Deletions: at once, after a while, after others.

use serde_json::{Value, json};

use crate::harness::{Server, configmap, pod};

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";
const PODS: &str = "/api/v1/namespaces/ns/pods";

#[tokio::test]
async fn gone_at_once() {
    let server = Server::start().await;
    let made = server.post(MAPS, configmap("a", json!({}))).await.ok();
    let path = format!("{MAPS}/a");
    let wrong = json!({"preconditions": {"uid": "other"}});
    let refused = server.delete(&path, wrong).await.short();
    assert!(refused.starts_with("409 Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) does not match"), "{refused}");
    let answer =
        server.delete(&path, json!({"preconditions": {"uid": made["metadata"]["uid"]}})).await.ok();
    assert_eq!(
        answer,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}})
    );
    assert_eq!(server.delete(&path, Value::Null).await.short(), "404 configmaps \"a\" not found");
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = Server::start().await;
    let mut body = configmap("a", json!({}));
    body["metadata"]["finalizers"] = json!(["x.y/z"]);
    server.post(MAPS, body).await.ok();
    let path = format!("{MAPS}/a");
    let held = server.delete(&path, Value::Null).await.ok();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    let more = r#"{"metadata":{"finalizers":["x.y/z","n.m/o"]}}"#;
    let refused = server.patch(&path, "merge-patch+json", more).await.short();
    assert!(
        refused.contains("no new finalizers can be added if the object is being deleted"),
        "{refused}"
    );
    let last = server.patch(&path, "merge-patch+json", r#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!(last.code, 200);
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_job_leaves_its_pods_and_says_so() {
    const JOBS: &str = "/apis/batch/v1/namespaces/ns/jobs";
    let server = Server::start().await;
    let job = |name: &str| {
        let containers = json!([{"name": "c", "image": "i"}]);
        json!({"metadata": {"name": name}, "spec": {"template": {"spec":
            {"restartPolicy": "Never", "containers": containers}}}})
    };
    server.post(JOBS, job("a")).await.ok();
    let answer = server.delete(&format!("{JOBS}/a"), Value::Null).await;
    assert_eq!(answer.body["metadata"]["finalizers"], json!(["orphan"]));
    let told = answer.headers["warning"].to_str().unwrap();
    assert!(told.contains("child pods are preserved by default when jobs are deleted"), "{told}");
    server.post(JOBS, job("b")).await.ok();
    let answer =
        server.delete(&format!("{JOBS}/b"), json!({"propagationPolicy": "Background"})).await;
    assert!(answer.headers.get("warning").is_none());
    assert_eq!(server.get(&format!("{JOBS}/b")).await.code, 404);
}

#[tokio::test]
async fn policies_wait_for_the_collector() {
    let server = Server::start().await;
    for (name, policy, code, finalizer) in
        [("f", "Foreground", 202, "foregroundDeletion"), ("o", "Orphan", 200, "orphan")]
    {
        server.post(MAPS, configmap(name, json!({}))).await.ok();
        let answer =
            server.delete(&format!("{MAPS}/{name}"), json!({"propagationPolicy": policy})).await;
        assert_eq!(answer.code, code);
        assert_eq!(answer.body["metadata"]["finalizers"], json!([finalizer]));
    }
    assert_eq!(
        server.delete(&format!("{MAPS}/f?propagationPolicy=Slow"), Value::Null).await.code,
        422
    );
}

#[tokio::test]
async fn pods_end_in_their_own_time() {
    let server = Server::start().await;
    let path = format!("{PODS}/p");
    server.post(PODS, pod("p")).await.ok();
    assert_eq!(server.delete(&path, Value::Null).await.ok()["kind"], "Pod");
    assert_eq!(server.get(&path).await.code, 404, "an unscheduled pod goes at once");

    let mut placed = pod("p");
    placed["spec"]["nodeName"] = json!("n");
    placed["spec"]["terminationGracePeriodSeconds"] = json!(30);
    server.post(PODS, placed).await.ok();
    let ending = server.delete(&path, Value::Null).await.ok();
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = server.delete(&path, json!({"gracePeriodSeconds": 5})).await.ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = server.delete(&path, json!({"gracePeriodSeconds": 50})).await.ok();
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    server.delete(&format!("{path}?gracePeriodSeconds=0"), Value::Null).await.ok();
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn collections_go_by_selector() {
    let server = Server::start().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        server.post(MAPS, configmap(name, json!({"tier": tier}))).await.ok();
    }
    let gone = server.delete(&format!("{MAPS}?labelSelector=tier%3Dx"), Value::Null).await.ok();
    assert_eq!(
        (&gone["kind"], gone["items"].as_array().unwrap().len()),
        (&json!("ConfigMapList"), 2)
    );
    let left = server.get(MAPS).await.ok();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn namespaces_end_when_finalized() {
    let server = Server::start().await;
    let made = server.get("/api/v1/namespaces/ns").await.ok();
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "ns");
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "kube-system"}})).await.ok();
    assert_eq!(
        server.delete("/api/v1/namespaces/kube-system", Value::Null).await.short(),
        "403 namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
    let mut ending = server.delete("/api/v1/namespaces/ns", Value::Null).await.ok();
    assert_eq!(ending["status"]["phase"], "Terminating");
    assert_eq!(
        server.post(MAPS, configmap("late", json!({}))).await.short(),
        "403 configmaps \"late\" is forbidden: unable to create new content in namespace ns because it is being terminated"
    );
    ending["spec"] = json!({"finalizers": []});
    server.put("/api/v1/namespaces/ns/finalize", &ending).await.ok();
    assert_eq!(server.get("/api/v1/namespaces/ns").await.code, 404);
}
