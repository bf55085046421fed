//! Requests as clients send them.

use api::protobuf::{MEDIA_TYPE, encode};
use serde_json::{Value, json};

use crate::harness::{configmap, pod};

/// A sound request: method, path, content type, body.
pub type Sound = (&'static str, String, &'static str, Vec<u8>);

pub const JSON: &str = "application/json";

/// An object that is made by a POST.
pub fn sound_objects() -> Vec<(&'static str, Value)> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]});
    vec![
        ("/api/v1/namespaces/ns/pods", pod("p")),
        ("/api/v1/namespaces/ns/configmaps", configmap("c", json!({"a": "b"}))),
        (
            "/api/v1/namespaces/ns/secrets",
            json!({"metadata": {"name": "s"}, "data": {"k": "AP8="}}),
        ),
        (
            "/api/v1/namespaces/ns/services",
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
        ),
        (
            "/apis/apps/v1/namespaces/ns/deployments",
            json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ),
        (
            "/apis/batch/v1/namespaces/ns/cronjobs",
            json!({"metadata": {"name": "j"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles",
            json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies",
            json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}}),
        ),
        (
            "/apis/autoscaling/v2/namespaces/ns/horizontalpodautoscalers",
            json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}}),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"metadata": {"name": "tests.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "tests", "kind": "Test"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object", "x-kubernetes-validations": [{"rule": "has(self.a)"}]}}}}}]}}),
        ),
        (
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            json!({"metadata": {}, "spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        ),
        (
            "/apis/authentication.k8s.io/v1/tokenreviews",
            json!({"metadata": {}, "spec": {"token": "eyJhbGciOiJSUzI1NiJ9.e30.AA"}}),
        ),
        (
            "/api/v1/namespaces/ns/serviceaccounts/default/token",
            json!({"spec": {"audiences": ["a"], "expirationSeconds": 700}}),
        ),
        (
            "/api/v1/namespaces/ns/pods/kept/eviction",
            json!({"metadata": {"name": "kept"}, "deleteOptions": {"dryRun": ["All"]}}),
        ),
    ]
}

/// All sound requests that are then damaged; dry runs, so that each meets the same state.
pub fn sound(objects: &[Value]) -> Vec<Sound> {
    let mut all: Vec<Sound> = Vec::new();
    for ((path, _), object) in sound_objects().into_iter().zip(objects) {
        let target = format!("{path}?dryRun=All&fieldValidation=Strict");
        all.push(("POST", target.clone(), JSON, object.to_string().into_bytes()));
        all.push(("POST", target.clone(), "application/yaml", object.to_string().into_bytes()));
        if let Ok(message) = encode(object) {
            all.push(("POST", target, MEDIA_TYPE, message));
        }
    }
    let kept = "/api/v1/namespaces/ns/pods/kept";
    let dry = format!("{kept}?dryRun=All");
    let patches: [(&str, &str); 4] = [
        (
            "application/merge-patch+json",
            r#"{"metadata":{"labels":{"x":"y"}},"spec":{"activeDeadlineSeconds":5}}"#,
        ),
        (
            "application/strategic-merge-patch+json",
            r#"{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"name":"c","image":"j","env":[{"name":"E","$patch":"delete"}]}],"$retainKeys":["containers"]}}"#,
        ),
        (
            "application/json-patch+json",
            r#"[{"op":"test","path":"/metadata/name","value":"kept"},{"op":"add","path":"/metadata/labels","value":{"a":"b"}},{"op":"move","from":"/metadata/labels","path":"/metadata/annotations"}]"#,
        ),
        (
            "application/apply-patch+yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: kept, labels: {a: b}}\nspec: {containers: [{name: c, image: j}]}\n",
        ),
    ];
    for (kind, body) in patches {
        let path = match kind {
            "application/apply-patch+yaml" => format!("{dry}&fieldManager=m&force=true"),
            _ => dry.clone(),
        };
        all.push(("PATCH", path, kind, body.as_bytes().to_vec()));
    }
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"], "gracePeriodSeconds": 1,
        "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan"});
    all.push(("DELETE", kept.to_owned(), JSON, options.to_string().into_bytes()));
    all.push(("DELETE", kept.to_owned(), MEDIA_TYPE, encode(&options).unwrap_or_default()));
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJucy9hXHUwMDAwIn0";
    for query in [
        "labelSelector=a%20in%20(b,c),!d,e!=f".to_owned(),
        "fieldSelector=metadata.name%3Da,spec.nodeName!%3Db".to_owned(),
        format!("limit=1&continue={token}"),
        "resourceVersion=1&resourceVersionMatch=Exact".to_owned(),
        "timeoutSeconds=1&includeObject=None&pretty=true".to_owned(),
    ] {
        all.push(("GET", format!("/api/v1/namespaces/ns/pods?{query}"), JSON, Vec::new()));
    }
    all
}
