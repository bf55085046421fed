//! Admission plugins that are off unless somebody asks for them, in a whole server.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::{kubeconfig, reviewer};
use crate::testing::{config, create, empty, send};
use crate::user::User;
use crate::{AdmissionPlugins, ApiServer};

async fn with(plugins: AdmissionPlugins) -> Arc<ApiServer> {
    let mut config = config();
    config.admission = plugins;
    let server = empty(config).await;
    server.bootstrap().await.unwrap();
    server
}

fn switched(on: &[&str], off: &[&str]) -> AdmissionPlugins {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut plugins = AdmissionPlugins::default();
    plugins.switch(&names(on), &names(off)).unwrap();
    plugins
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_namespace_is_made_where_something_is_first_made_in_it() {
    let server = with(switched(&["NamespaceAutoProvision"], &[])).await;
    let path = "/api/v1/namespaces/fresh/configmaps";
    let map = json!({"metadata": {"name": "a"}});
    let dry = format!("{path}?dryRun=All");
    let (code, _) = send(&server, &User::admin(), Method::POST, &dry, map.clone()).await;
    assert_eq!(code, StatusCode::NOT_FOUND, "a dry run makes nothing");
    create(&server, path, map).await;
    let (_, made) =
        send(&server, &User::admin(), Method::GET, "/api/v1/namespaces/fresh", Value::Null).await;
    assert_eq!(made["status"]["phase"], "Active", "{made}");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "fresh", "{made}");
}

#[tokio::test]
async fn nothing_is_written_where_everything_is_denied() {
    // The objects of a first start are among what is denied.
    let mut config = config();
    config.admission = switched(&["AlwaysDeny"], &[]);
    let server = empty(config).await;
    let path = "/api/v1/namespaces";
    let (code, answer) =
        send(&server, &User::admin(), Method::POST, path, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{answer}");
}

#[tokio::test]
async fn owners_are_named_by_who_may_delete_and_hold_up() {
    let server = with(switched(&["OwnerReferencesPermissionEnforcement"], &[])).await;
    let group = "rbac.authorization.k8s.io";
    let maps = "/api/v1/namespaces/default/configmaps";
    for (user, rules) in [
        ("maker", json!([["configmaps", "create", ""]])),
        ("remover", json!([["configmaps", "create", ""], ["configmaps", "delete", ""]])),
        (
            "owner",
            json!([
                ["configmaps", "create", ""],
                ["configmaps", "delete", ""],
                ["pods/finalizers", "update", ""]
            ]),
        ),
    ] {
        let rules: Vec<Value> = rules
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| json!({"apiGroups": [rule[2]], "resources": [rule[0]], "verbs": [rule[1]]}))
            .collect();
        create(
            &server,
            &format!("/apis/{group}/v1/clusterroles"),
            json!({"metadata": {"name": user}, "rules": rules}),
        )
        .await;
        let binding = json!({"metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}]});
        create(&server, &format!("/apis/{group}/v1/clusterrolebindings"), binding).await;
    }
    let owned = |name: &str, kind: &str, blocks: bool| {
        let owner = json!({"apiVersion": "v1", "kind": kind, "name": "p", "uid": "u", "blockOwnerDeletion": blocks});
        json!({"metadata": {"name": name, "ownerReferences": [owner]}})
    };
    let plain = json!({"metadata": {"name": "plain"}});
    for (user, object, expected) in [
        ("maker", plain, ""),
        (
            "maker",
            owned("a", "Pod", false),
            "configmaps \"a\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>",
        ),
        ("remover", owned("b", "Pod", false), ""),
        (
            "remover",
            owned("c", "Pod", true),
            "configmaps \"c\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>",
        ),
        ("owner", owned("d", "Pod", true), ""),
        (
            "owner",
            owned("e", "Odd", true),
            "configmaps \"e\" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion v1 Kind Odd: no matches for kind \"Odd\" in version \"v1\"",
        ),
    ] {
        let (_, answer) = send(&server, &User::new(user, []), Method::POST, maps, object).await;
        assert_eq!(message(&answer), expected, "{user}: {answer}");
    }
}

#[tokio::test]
async fn another_server_says_which_images_run() {
    let (there, asked) = reviewer().await;
    let url = format!("{there:?}");
    let url = url.split('"').nth(1).unwrap().to_owned();
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{name: ImagePolicyWebhook, configuration: {imagePolicy: {kubeConfigFile: k}}}]";
    let mut plugins = switched(&["ImagePolicyWebhook"], &["ServiceAccount"]);
    assert!(plugins.check().is_err(), "it needs to be told whom to ask");
    plugins.configure(text, |_| Ok(kubeconfig(&url))).unwrap();
    plugins.check().unwrap();
    let server = with(plugins).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, image: &str| {
        json!({"metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": image}]}})
    };
    create(&server, pods, pod("a", "good")).await;
    create(&server, pods, pod("b", "good")).await;
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1, "the answer is remembered");
    let (code, answer) = send(&server, &User::admin(), Method::POST, pods, pod("c", "bad")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        message(&answer),
        "pods \"c\" is forbidden: image policy webhook backend denied one or more images: it is bad"
    );
}
