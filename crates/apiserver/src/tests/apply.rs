//! Server-side apply and managedFields over HTTP.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::ApiServer;
use crate::testing::{create, get, read, send, started};
use crate::user::User;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

async fn patch(server: &Arc<ApiServer>, kind: &str, uri: &str, body: &str) -> (StatusCode, Value) {
    patch_as(&User::admin(), server, kind, uri, body).await
}

async fn patch_as(
    user: &User,
    server: &Arc<ApiServer>,
    kind: &str,
    uri: &str,
    body: &str,
) -> (StatusCode, Value) {
    let request = http::Request::builder()
        .method(Method::PATCH)
        .uri(uri)
        .header(http::header::CONTENT_TYPE, kind)
        .header(http::header::USER_AGENT, "kubectl-patch/v1 (linux)")
        .body(crate::response::full(body.to_owned()))
        .unwrap();
    read(Arc::clone(server).answer(request, Some(user.clone())).await).await
}

async fn apply(server: &Arc<ApiServer>, uri: &str, body: &str) -> (StatusCode, Value) {
    patch(server, APPLY, uri, body).await
}

fn map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {data}\n")
}

/// `manager operation[/subresource]`, sorted: the order in the object depends on the second.
fn managers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["managedFields"].as_array();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let name = |entry: &Value| {
        let subresource = text(entry, "subresource");
        let view = if subresource.is_empty() { subresource } else { format!("/{subresource}") };
        format!("{} {}{view}", text(entry, "manager"), text(entry, "operation"))
    };
    let mut names: Vec<String> = list.into_iter().flatten().map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_apply_creates_changes_conflicts_and_forces() {
    let server = started().await;
    let uri = format!("{MAPS}/m?fieldManager=one");
    let (code, made) = apply(&server, &uri, &map("{x: '1'}")).await;
    assert_eq!((code, managers(&made)), (StatusCode::CREATED, vec!["one Apply".to_owned()]));
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:x": {}}}));
    let (code, again) = apply(&server, &uri, &map("{x: '1'}")).await;
    assert_eq!((code, &again), (StatusCode::OK, &made), "nothing changed, nothing is written");

    let theirs = format!("{MAPS}/m?fieldManager=two");
    let (code, status) = apply(&server, &theirs, &map("{x: '2'}")).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(
        status,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Apply failed with 1 conflict: conflict with \"one\": .data.x",
            "reason": "Conflict", "code": 409,
            "details": {"causes": [{"reason": "FieldManagerConflict",
                "message": "conflict with \"one\"", "field": ".data.x"}]}})
    );
    let force = format!("{theirs}&force=true");
    let (code, dry) = apply(&server, &format!("{force}&dryRun=All"), &map("{x: '2'}")).await;
    assert_eq!((code, managers(&dry)), (StatusCode::OK, vec!["two Apply".to_owned()]));
    let (_, kept) = get(&server, &User::admin(), &format!("{MAPS}/m")).await;
    assert_eq!(kept, made, "a dry run leaves no trace");
    let (code, forced) = apply(&server, &force, &map("{x: '2'}")).await;
    assert_eq!((code, managers(&forced)), (StatusCode::OK, vec!["two Apply".to_owned()]));
    let (_, status) = apply(&server, &uri, &map("{x: '3', y: '1'}")).await;
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"two\": .data.x");
}

#[tokio::test]
async fn several_conflicts_are_told_by_manager() {
    let server = started().await;
    let uri = |manager: &str| format!("{MAPS}/m?fieldManager={manager}");
    apply(&server, &uri("b"), &map("{x: '1', y: '1'}")).await;
    patch(&server, "application/merge-patch+json", &uri("a"), r#"{"data": {"z": "1"}}"#).await;
    let (_, status) = apply(&server, &uri("c"), &map("{x: '2', y: '2', z: '2'}")).await;
    assert_eq!(
        status["message"],
        "Apply failed with 3 conflicts: conflicts with \"a\" using v1:\n- .data.z\nconflicts with \"b\":\n- .data.x\n- .data.y"
    );
    assert_eq!(status["details"]["causes"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn requests_that_cannot_be_applied_are_refused() {
    let server = started().await;
    create(&server, MAPS, json!({"metadata": {"name": "m"}})).await;
    let merge = "application/merge-patch+json";
    for (kind, query, body, code, message) in [
        (
            APPLY,
            "",
            map("{}"),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            merge,
            "?force=true",
            "{}".to_owned(),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        ),
        (
            APPLY,
            "?fieldManager=a%0A",
            map("{}"),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\n\": should only contain printable characters (error position: 1)",
        ),
        (
            APPLY,
            "?fieldManager=a",
            map("{}").replace("v1", "v2"),
            400,
            "incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
        (
            APPLY,
            "?fieldManager=a",
            map("{}").replace("name: m", "name: m, managedFields: [{manager: x}]"),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            APPLY,
            "?fieldManager=a",
            format!("{}date: {{}}\n", map("{}")),
            500,
            "failed to create typed patch object (default/m; /v1, Kind=ConfigMap): .date: field not declared in schema",
        ),
    ] {
        let (found, status) = patch(&server, kind, &format!("{MAPS}/m{query}"), &body).await;
        assert_eq!((found.as_u16(), &status["message"]), (code, &json!(message)), "{status}");
    }
    let cbor = "application/apply-patch+cbor";
    let (code, _) = patch(&server, cbor, &format!("{MAPS}/m?fieldManager=a"), "").await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

fn deployment(replicas: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  {replicas}\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    metadata: {{labels: {{a: b}}}}\n    spec: {{containers: [{{name: c, image: i}}]}}\n"
    )
}

#[tokio::test]
async fn views_and_defaults_have_the_owners_that_upstream_records() {
    let server = started().await;
    let (admin, web) = (User::admin(), format!("{DEPLOYMENTS}/web"));
    let uri = format!("{web}?fieldManager=me");
    let (_, made) = apply(&server, &uri, &deployment("replicas: 1")).await;
    assert_eq!(
        made["spec"]["template"]["spec"]["restartPolicy"], "Always",
        "defaults are filled in"
    );
    assert_eq!(
        made["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}, "f:selector": {},
            "f:template": {"f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );
    let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 2}});
    send(&server, &admin, Method::PUT, &format!("{web}/scale"), scale.clone()).await;
    let (_, object) = get(&server, &admin, &web).await;
    assert_eq!(managers(&object), ["me Apply", "unknown Update/scale"]);
    assert_eq!(
        object["metadata"]["managedFields"][1]["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}}})
    );
    let mut more = scale;
    more["spec"]["replicas"] = json!(3);
    let to_scale = format!("{web}/scale?fieldManager=auto");
    let (_, status) = apply(&server, &to_scale, &more.to_string()).await;
    assert_eq!(
        status["message"],
        "Apply failed with 1 conflict: conflict with \"unknown\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let (code, scale) = apply(&server, &format!("{to_scale}&force=true"), &more.to_string()).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (StatusCode::OK, &json!(3)), "{scale}");
    let status = json!({"status": {"replicas": 3, "observedGeneration": 1}}).to_string();
    let merge = "application/merge-patch+json";
    patch(&server, merge, &format!("{web}/status"), &status).await;
    let (_, object) = get(&server, &admin, &web).await;
    assert_eq!(managers(&object), ["auto Apply/scale", "kubectl-patch Update/status", "me Apply"]);
    // Left to the autoscaler, the replicas stay.
    let (code, object) = apply(&server, &uri, &deployment("paused: false")).await;
    assert_eq!((code, &object["spec"]["replicas"]), (StatusCode::OK, &json!(3)), "{object}");
}

#[tokio::test]
async fn writes_are_tracked_and_owners_can_be_thrown_away() {
    let server = started().await;
    let made = create(&server, MAPS, json!({"metadata": {"name": "m"}, "data": {"x": "1"}})).await;
    assert_eq!(managers(&made), ["unknown Update"]);
    let uri = format!("{MAPS}/m");
    let merge = "application/merge-patch+json";
    let (_, same) = patch(&server, merge, &uri, r#"{"data": {"x": "1"}}"#).await;
    assert_eq!(same, made, "no change, no owner, no write");
    let (_, object) = patch(&server, merge, &uri, r#"{"data": {"x": "2"}}"#).await;
    assert_eq!(managers(&object), ["kubectl-patch Update", "unknown Update"]);
    let (_, object) = patch(&server, merge, &uri, r#"{"metadata": {"managedFields": [{}]}}"#).await;
    assert!(object["metadata"].get("managedFields").is_none(), "{object}");
    let (_, object) = apply(&server, &format!("{uri}?fieldManager=me"), &map("{x: '2'}")).await;
    assert_eq!(managers(&object), ["before-first-apply Update", "me Apply"]);
}

#[tokio::test]
async fn an_apply_that_creates_takes_the_right_to_create() {
    let server = started().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]});
    create(&server, &format!("{roles}/roles"), json!({"metadata": {"name": "r"}, "rules": [rule]}))
        .await;
    let binding = json!({"metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    create(&server, &format!("{roles}/rolebindings"), binding).await;
    let (ann, uri) = (User::new("ann", []), format!("{MAPS}/m?fieldManager=ann"));
    let (code, status) = patch_as(&ann, &server, APPLY, &uri, &map("{}")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status["message"],
        "configmaps \"m\" is forbidden: User \"ann\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    create(&server, MAPS, json!({"metadata": {"name": "m"}})).await;
    let (code, status) = patch_as(&ann, &server, APPLY, &uri, &map("{x: '1'}")).await;
    assert_eq!(code, StatusCode::OK, "{status}");
}

#[tokio::test]
async fn the_clusters_own_parts_are_managers_by_name() {
    let server = started().await;
    for (user, manager) in [
        ("system:kube-scheduler", "kube-scheduler"),
        ("system:node:n1", "kubelet"),
        ("system:admin", "unknown"),
    ] {
        let user = User::new(user, ["system:masters"]);
        let body = json!({"metadata": {"generateName": "m-"}, "data": {"a": "b"}});
        let (_, made) = send(&server, &user, Method::POST, MAPS, body).await;
        assert_eq!(managers(&made), [format!("{manager} Update")]);
    }
}
