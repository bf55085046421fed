//! scale, binding, eviction, approval.

use serde_json::json;

use crate::harness::{Server, pod};

const PODS: &str = "/api/v1/namespaces/ns/pods";

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let server = Server::start().await;
    let deployments = "/apis/apps/v1/namespaces/ns/deployments";
    let body = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    server.post(deployments, body).await.ok();
    let path = format!("{deployments}/web/scale");
    let mut scale = server.get(&path).await.ok();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!(2), &json!("a=b"))
    );
    scale["spec"]["replicas"] = json!(5);
    assert_eq!(server.put(&path, &scale).await.ok()["spec"]["replicas"], 5);
    assert_eq!(
        server.put(&path, &scale).await.code,
        409,
        "the scale carries the version it was read at"
    );
    server.patch(&path, "merge-patch+json", r#"{"spec":{"replicas":7}}"#).await.ok();
    let object = server.get(&format!("{deployments}/web")).await.ok();
    assert_eq!(
        (&object["spec"]["replicas"], &object["metadata"]["generation"]),
        (&json!(7), &json!(3))
    );
    let refused =
        server.patch(&path, "merge-patch+json", r#"{"spec":{"replicas":-1}}"#).await.short();
    assert_eq!(
        refused,
        "422 Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
}

#[tokio::test]
async fn binding_places_a_pod_once() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await.ok();
    let binding =
        |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let answer = server.post(&format!("{PODS}/p/binding"), binding("n")).await;
    assert_eq!((answer.code, &answer.body["status"]), (201, &json!("Success")));
    let placed = server.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(placed["spec"]["nodeName"], "n");
    assert_eq!(
        (&placed["status"]["conditions"][0]["type"], &placed["status"]["phase"]),
        (&json!("PodScheduled"), &json!("Pending"))
    );
    assert_eq!(
        server.post("/api/v1/namespaces/ns/bindings", binding("m")).await.short(),
        "409 Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
    );
}

#[tokio::test]
async fn eviction_asks_the_budget() {
    let server = Server::start().await;
    let mut body = pod("p");
    body["metadata"]["labels"] = json!({"app": "a"});
    body["spec"]["nodeName"] = json!("n");
    server.post(PODS, body).await.ok();
    server
        .patch(&format!("{PODS}/p/status"), "merge-patch+json", r#"{"status":{"phase":"Running"}}"#)
        .await
        .ok();
    let budgets = "/apis/policy/v1/namespaces/ns/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    server.post(budgets, budget).await.ok();
    let evict = || {
        server.post(
            "/api/v1/namespaces/ns/pods/p/eviction",
            json!({"metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 0}}),
        )
    };
    let refused = evict().await;
    assert_eq!(
        refused.short(),
        "429 Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert!(refused.headers.contains_key("retry-after"));
    let status = r#"{"status":{"observedGeneration":1,"disruptionsAllowed":1}}"#;
    server.patch(&format!("{budgets}/b/status"), "merge-patch+json", status).await.ok();
    assert_eq!(evict().await.code, 201);
    assert_eq!(server.get(&format!("{PODS}/p")).await.code, 404);
    assert_eq!(server.get(&format!("{budgets}/b")).await.ok()["status"]["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn an_eviction_holds_for_the_version_that_it_names() {
    let server = Server::start().await;
    let made = server.post(PODS, pod("p")).await.ok();
    let evict = |version: &str| {
        let preconditions = json!({"resourceVersion": version});
        let options = json!({"gracePeriodSeconds": 0, "preconditions": preconditions});
        let body = json!({"metadata": {"name": "p"}, "deleteOptions": options});
        server.post("/api/v1/namespaces/ns/pods/p/eviction", body)
    };
    assert_eq!(evict("1").await.code, 409);
    let untouched = server.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(untouched["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let version = made["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    assert_eq!(evict(&version).await.code, 201);
    assert_eq!(server.get(&format!("{PODS}/p")).await.code, 404);
}

#[tokio::test]
async fn views_that_are_not_there() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await.ok();
    assert_eq!(server.get(&format!("{PODS}/p/nonsense")).await.code, 404);
    assert_eq!(server.get(&format!("{PODS}/p/scale")).await.code, 404);
    assert_eq!(server.get("/api/v1/namespaces/ns/nodes").await.code, 404);
    assert_eq!(server.get("/api/v1/unknowns").await.code, 404);
    assert_eq!(server.get(&format!("{PODS}/p/binding")).await.code, 405);
}
