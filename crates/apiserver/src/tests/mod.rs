//! The server from its own door: no network, a store in memory.

mod access;
mod aggregated;
mod apply;
mod authorizers;
mod chain;
mod definitions;
mod fairness;
mod nodes;
mod plugins;
mod policies;
mod quotas;
mod secure;
mod signing;
mod tokens;
mod webhooks;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::testing::{create, empty, get, send, started, until};
use crate::user::User;

#[tokio::test]
async fn a_first_start_writes_what_every_cluster_has_and_a_second_nothing() {
    let server = empty(crate::testing::config()).await;
    let admin = User::admin();
    let (code, text) = get(&server, &admin, "/readyz").await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    for name in crate::health::STARTED.into_iter().chain([crate::health::SYNCED]) {
        assert!(text.as_str().unwrap().contains(&format!("[-]{name} failed")), "{text}");
    }
    server.bootstrap().await.unwrap();
    for path in [
        "/api/v1/namespaces/kube-node-lease",
        "/api/v1/namespaces/default/services/kubernetes",
        "/api/v1/namespaces/default/endpoints/kubernetes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt",
        "/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
    ] {
        let (code, object) = get(&server, &admin, path).await;
        assert_eq!(code, StatusCode::OK, "{path}: {object}");
    }
    let (_, service) = get(&server, &admin, "/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
    let (_, edit) =
        get(&server, &admin, "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin").await;
    let rules = edit["rules"].to_string();
    assert!(rules.contains("localsubjectaccessreviews") && rules.contains("pods/log"), "{rules}");
    assert_eq!(get(&server, &admin, "/readyz").await, (StatusCode::OK, json!("ok")));

    let before = server.context.store.revision();
    server.bootstrap().await.unwrap();
    assert_eq!(server.context.store.revision(), before, "nothing was due, so nothing is written");
}

#[tokio::test]
async fn default_roles_get_back_what_they_lost_unless_forbidden() {
    let server = started().await;
    let admin = User::admin();
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:kube-dns";
    let own = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]});
    send(&server, &admin, Method::PATCH, path, json!({"rules": [own]})).await;
    server.bootstrap().await.unwrap();
    let (_, role) = get(&server, &admin, path).await;
    assert_eq!(role["rules"].as_array().unwrap().len(), 2, "{role}");
    let forbid = json!({"rules": null, "metadata": {"annotations": {
        "rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    send(&server, &admin, Method::PATCH, path, forbid).await;
    server.bootstrap().await.unwrap();
    let (_, role) = get(&server, &admin, path).await;
    assert!(role["rules"].as_array().is_none_or(Vec::is_empty), "{role}");
}

#[tokio::test]
async fn bindings_decide_at_once_and_name_themselves() {
    let server = started().await;
    let ann = User::new("ann", ["devs"]);
    let pods = "/api/v1/namespaces/default/pods";
    let (code, status) = get(&server, &ann, pods).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
            "reason": "Forbidden", "details": {"kind": "pods"}, "code": 403})
    );
    let (_, status) = get(&server, &ann, "/apis/apps/v1/deployments").await;
    assert_eq!(
        status["message"],
        "deployments.apps is forbidden: User \"ann\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope"
    );
    let (_, status) = get(&server, &User::anonymous(), "/metrics").await;
    assert_eq!(
        status["message"],
        "forbidden: User \"system:anonymous\" cannot get path \"/metrics\""
    );
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = create(&server, bindings, binding("devs-view", "ClusterRole", "view")).await;
    assert_eq!(binding["roleRef"]["name"], "view");
    until("the binding holds", async || get(&server, &ann, pods).await.0 == StatusCode::OK).await;
    let review = access(
        &server,
        &ann,
        json!({"namespace": "default", "verb": "get", "resource": "pods", "subresource": "log"}),
    )
    .await;
    assert_eq!(
        review,
        json!({"allowed": true, "reason":
            "RBAC: allowed by RoleBinding \"devs-view/default\" of ClusterRole \"view\" to Group \"devs\""})
    );
    let review = access(
        &server,
        &ann,
        json!({"namespace": "default", "verb": "get", "resource": "secrets"}),
    )
    .await;
    assert_eq!(review, json!({"allowed": false}));
    let admin = User::admin();
    let path = format!("{bindings}/devs-view");
    send(&server, &admin, Method::DELETE, &path, Value::Null).await;
    until("it is gone", async || get(&server, &ann, pods).await.0 == StatusCode::FORBIDDEN).await;
}

#[tokio::test]
async fn a_binding_to_a_missing_role_says_so() {
    let server = started().await;
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    create(&server, bindings, binding("lost", "Role", "nowhere")).await;
    let ann = User::new("ann", ["devs"]);
    until("the binding is known", async || {
        let (_, status) = get(&server, &ann, "/api/v1/namespaces/default/pods").await;
        status["message"].as_str().unwrap().ends_with(
            "in the namespace \"default\": RBAC: role.rbac.authorization.k8s.io \"nowhere\" not found",
        )
    })
    .await;
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    let server = started().await;
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    create(&server, bindings, binding("devs-admin", "ClusterRole", "admin")).await;
    let ann = User::new("ann", ["devs"]);
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let role = |name: &str, resource: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get", "list"]}]})
    };
    until("a held rule may be granted", async || {
        send(&server, &ann, Method::POST, roles, role("fine", "pods")).await.0
            == StatusCode::CREATED
    })
    .await;
    let (code, status) = send(&server, &ann, Method::POST, roles, role("more", "nodes")).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
    assert_eq!(
        status["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"ann\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}"
    );
    let all = binding("all", "ClusterRole", "cluster-admin");
    let (code, status) = send(&server, &ann, Method::POST, bindings, all).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"), "{message}");
    assert!(message.contains("{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"), "{message}");
}

#[tokio::test]
async fn reviews_answer_as_upstream_does() {
    let server = started().await;
    let ann = User::new("ann", []);
    let (code, review) = send(
        &server,
        &ann,
        Method::POST,
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        json!({"spec": {"namespace": "default"}}),
    )
    .await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(review["status"]["incomplete"], false);
    let text = review["status"].to_string();
    assert!(text.contains("selfsubjectreviews") && text.contains("/openapi/*"), "{text}");
    let (_, review) = send(
        &server,
        &ann,
        Method::POST,
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        json!({}),
    )
    .await;
    assert_eq!(
        review["status"],
        json!({"userInfo": {"username": "ann", "groups": ["system:authenticated"]}})
    );
    let admin = User::admin();
    let spec = json!({"user": "bob", "groups": ["system:masters"],
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let (_, review) = send(&server, &admin, Method::POST, path, json!({"spec": spec})).await;
    assert_eq!(review["status"], json!({"allowed": true}));
    let (code, status) =
        send(&server, &admin, Method::POST, path, json!({"spec": {"user": "bob"}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
}

#[tokio::test]
async fn reviews_look_at_selectors() {
    let server = started().await;
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let ask = async |selector: Value| {
        let spec = json!({"user": "system:node:a", "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": selector}});
        send(&server, &User::admin(), Method::POST, path, json!({"spec": spec})).await
    };
    for (selector, allowed) in [
        (json!({"rawSelector": "spec.nodeName=a"}), true),
        (
            json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["a"]}]}),
            true,
        ),
        (
            json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["b"]}]}),
            false,
        ),
    ] {
        let (_, review) = ask(selector).await;
        assert_eq!(review["status"]["allowed"], allowed, "{review}");
    }
    let (code, status) = ask(json!({})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
    assert!(
        status["message"].as_str().unwrap().contains("requirements or rawSelector is required")
    );
}

#[tokio::test]
async fn discovery_lists_the_table() {
    let server = started().await;
    let ann = User::new("ann", []);
    let (_, versions) = get(&server, &ann, "/api").await;
    assert_eq!(versions["versions"], json!(["v1"]));
    let (_, groups) = get(&server, &ann, "/apis").await;
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"apps") && !names.contains(&""), "{names:?}");
    let (_, group) = get(&server, &ann, "/apis/autoscaling").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "autoscaling/v2");
    let (code, _) = get(&server, &ann, "/apis/nothing.example").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    let (_, version) = get(&server, &User::anonymous(), "/version").await;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
}

fn binding(name: &str, kind: &str, role: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "devs"}]})
}

async fn access(
    server: &std::sync::Arc<crate::ApiServer>,
    user: &User,
    attributes: Value,
) -> Value {
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let body = json!({"spec": {"resourceAttributes": attributes}});
    send(server, user, Method::POST, path, body).await.1["status"].clone()
}

#[tokio::test]
async fn events_of_both_groups_are_found_by_who_reports() {
    let server = started().await;
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"}, "eventTime": "2026-11-29T00:00:00.000000Z",
        "reportingController": "test-controller", "reportingInstance": "i", "action": "Do",
        "reason": "Test", "type": "Normal", "note": "n",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    create(&server, events, event).await;
    let core = "/api/v1/namespaces/default/events";
    for (path, selector) in [
        (events, "reportingController=test-controller"),
        (events, "regarding.name=p"),
        (core, "source=test-controller"),
        (core, "involvedObject.name=p"),
    ] {
        let (code, list) =
            get(&server, &User::admin(), &format!("{path}?fieldSelector={selector}")).await;
        assert_eq!(code, StatusCode::OK, "{list}");
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{selector}");
    }
}
