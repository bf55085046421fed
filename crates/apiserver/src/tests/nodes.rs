//! What agents may do.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::testing::{create, get, send, started};
use crate::user::User;

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to_and_no_more() {
    let server = started().await;
    let account = json!({"metadata": {"name": "default"}});
    create(&server, "/api/v1/namespaces/default/serviceaccounts", account).await;
    for name in ["mounted", "env", "pull", "other"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        create(&server, "/api/v1/namespaces/default/secrets", secret).await;
    }
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}});
    create(&server, "/api/v1/namespaces/default/configmaps", settings).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "nodeName": "pi-1",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "mounted"}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": "cm"}}]}}],
        "containers": [{"name": "c", "image": "i", "env": [
            {"name": "E", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}]}]}});
    create(&server, "/api/v1/namespaces/default/pods", pod).await;
    let (own, other) = (User::node("pi-1"), User::node("pi-2"));
    for (path, expected) in [
        ("secrets/mounted", StatusCode::OK),
        ("secrets/env", StatusCode::OK),
        ("secrets/pull", StatusCode::OK),
        ("configmaps/cm", StatusCode::OK),
        ("secrets?fieldSelector=metadata.name%3Dmounted", StatusCode::OK),
        ("secrets/other", StatusCode::FORBIDDEN),
        ("secrets", StatusCode::FORBIDDEN),
        ("pods/p", StatusCode::OK),
        ("pods?fieldSelector=spec.nodeName%3Dpi-1", StatusCode::OK),
        ("pods?fieldSelector=spec.nodeName%3Dpi-2", StatusCode::FORBIDDEN),
        ("pods", StatusCode::FORBIDDEN),
        ("services", StatusCode::OK),
    ] {
        let uri = format!("/api/v1/namespaces/default/{path}");
        assert_eq!(get(&server, &own, &uri).await.0, expected, "{path}");
    }
    assert_eq!(
        get(&server, &other, "/api/v1/namespaces/default/pods/p").await.0,
        StatusCode::FORBIDDEN
    );
    let (code, status) = get(&server, &other, "/api/v1/namespaces/default/secrets/mounted").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status["message"],
        "secrets \"mounted\" is forbidden: User \"system:node:pi-2\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\": no relationship found between node 'pi-2' and this object"
    );
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    for (name, expected) in [("pi-1", StatusCode::CREATED), ("pi-2", StatusCode::FORBIDDEN)] {
        let (code, answer) = send(&server, &own, Method::POST, leases, lease(name)).await;
        assert_eq!(code, expected, "{answer}");
    }
    assert_eq!(get(&server, &own, &format!("{leases}/pi-1")).await.0, StatusCode::OK);
    assert_eq!(get(&server, &other, &format!("{leases}/pi-1")).await.0, StatusCode::FORBIDDEN);
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    for (name, expected) in [("pi-1", StatusCode::CREATED), ("pi-3", StatusCode::FORBIDDEN)] {
        let (code, answer) = send(&server, &own, Method::POST, "/api/v1/nodes", node(name)).await;
        assert_eq!(code, expected, "{answer}");
    }
    let status = json!({"status": {"phase": "Running"}});
    let uri = "/api/v1/namespaces/default/pods/p/status";
    assert_eq!(send(&server, &own, Method::PATCH, uri, status.clone()).await.0, StatusCode::OK);
    let (code, answer) = send(&server, &other, Method::PATCH, uri, status).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        answer["message"],
        "pods \"p\" is forbidden: node \"pi-2\" can only update pod status for pods with spec.nodeName set to itself"
    );
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(get(&server, &own, deployments).await.0, StatusCode::FORBIDDEN);
    assert_eq!(
        send(&server, &own, Method::DELETE, "/api/v1/nodes/pi-1", Value::Null).await.0,
        StatusCode::FORBIDDEN
    );
}
