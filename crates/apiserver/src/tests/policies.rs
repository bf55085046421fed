//! Admission policies at work.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::testing::{create, request, send, started};
use crate::user::User;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Makes a policy about new and changed ConfigMaps, bound everywhere.
async fn policy(server: &Arc<ApiServer>, kind: &str, mut spec: Value, binding: Value) {
    let rule = json!({"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["*"],
        "resources": ["configmaps"]});
    spec["matchConstraints"] = json!({"resourceRules": [rule]});
    let path = format!("{GROUP}/{kind}admissionpolicies");
    create(server, &path, json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let mut bound = json!({"policyName": "p"});
    if kind == "validating" {
        bound["validationActions"] = json!(["Deny"]);
    }
    for (field, value) in binding.as_object().unwrap() {
        bound[field] = value.clone();
    }
    let path = format!("{GROUP}/{kind}admissionpolicybindings");
    create(server, &path, json!({"metadata": {"name": "b"}, "spec": bound})).await;
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

async fn post(server: &Arc<ApiServer>, body: Value) -> String {
    let (code, answer) = send(server, &User::admin(), Method::POST, MAPS, body).await;
    format!("{} {}", code.as_u16(), answer["message"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn expressions_decide_with_variables_conditions_and_messages() {
    let server = started().await;
    let spec = json!({
        "matchConditions": [{"name": "not-free", "expression": "object.metadata.name != 'free'"}],
        "variables": [{"name": "count", "expression": "size(object.data)"},
            {"name": "twice", "expression": "variables.count * 2"}],
        "validations": [
            {"expression": "variables.twice < 6", "messageExpression": "'too many: ' + string(variables.count)"},
            {"expression": "!has(object.data.odd)", "message": "odd is odd", "reason": "Forbidden"},
            {"expression": "object.data.must == 'be'"},
        ],
    });
    policy(&server, "validating", spec, json!({})).await;
    let denied = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request:";
    for (name, data, expected) in [
        ("good", json!({"must": "be"}), "201 ".to_owned()),
        ("free", json!({"a": "1", "b": "2", "c": "3"}), "201 ".to_owned()),
        (
            "many",
            json!({"must": "be", "b": "2", "c": "3"}),
            format!("422 configmaps \"many\" is forbidden: {denied} too many: 3"),
        ),
        (
            "odd",
            json!({"must": "be", "odd": "1"}),
            format!("403 configmaps \"odd\" is forbidden: {denied} odd is odd"),
        ),
        (
            "not",
            json!({"must": "not"}),
            format!(
                "422 configmaps \"not\" is forbidden: {denied} failed expression: object.data.must == 'be'"
            ),
        ),
        (
            "none",
            json!({"a": "1"}),
            format!(
                "422 configmaps \"none\" is forbidden: {denied} expression 'object.data.must == 'be'' resulted in error: no such key: must"
            ),
        ),
    ] {
        assert_eq!(post(&server, map(name, data)).await, expected);
    }
}

#[tokio::test]
async fn parameters_are_found_or_missed() {
    let server = started().await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "others", "expression": "object.metadata.name != 'limits'"}],
        "validations": [{"expression": "size(object.data) <= int(params.data.max)"}]});
    let reference = json!({"name": "limits", "parameterNotFoundAction": "Deny"});
    policy(&server, "validating", spec, json!({"paramRef": reference})).await;
    let missed = post(&server, map("a", json!({"k": "v"}))).await;
    assert!(missed.ends_with("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"), "{missed}");
    let path = format!("{GROUP}/validatingadmissionpolicybindings/b");
    let allow = json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}});
    send(&server, &User::admin(), Method::PATCH, &path, allow).await;
    assert_eq!(post(&server, map("limits", json!({"max": "1"}))).await, "201 ");
    assert_eq!(post(&server, map("one", json!({"k": "v"}))).await, "201 ");
    assert!(post(&server, map("two", json!({"k": "v", "l": "v"}))).await.starts_with("422 "));
}

#[tokio::test]
async fn bindings_may_warn_and_expressions_ask_what_a_user_may() {
    let server = started().await;
    let asked = "authorizer.group('').resource('nodes').check('delete').allowed()";
    let spec = json!({"validations": [
        {"expression": format!("!{asked}"), "message": "an administrator"},
        {"expression": "request.operation == 'CREATE' && namespaceObject.metadata.name == 'default'"}]});
    policy(&server, "validating", spec, json!({"validationActions": ["Warn"]})).await;
    let request = request(Method::POST, MAPS, &map("m", json!({})));
    let answer = Arc::clone(&server).answer(request, Some(User::admin())).await;
    assert_eq!(answer.status().as_u16(), 201);
    let warnings: Vec<_> = answer.headers().get_all("warning").iter().collect();
    assert_eq!(
        warnings,
        [
            "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': an administrator\""
        ]
    );
}

#[tokio::test]
async fn policies_change_objects_by_configuration_and_by_patch() {
    let server = started().await;
    let spec = json!({"reinvocationPolicy": "Never", "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'made': object.metadata.name}}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a.b'), value: object.metadata.labels['made']}]"}},
    ]});
    policy(&server, "mutating", spec, json!({})).await;
    let made = create(&server, MAPS, map("m", json!({"k": "v"}))).await;
    assert_eq!(made["metadata"]["labels"], json!({"made": "m"}));
    assert_eq!(made["data"], json!({"k": "v", "a.b": "m"}));
    let owners = made["metadata"]["managedFields"].as_array().map_or(0, Vec::len);
    assert_eq!(owners, 1, "{made}");
}
