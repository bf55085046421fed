//! LimitRanges and ResourceQuotas at work.

use std::sync::Arc;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::testing::{create, get, send, started, until};
use crate::user::User;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn used(server: &Arc<ApiServer>) -> Value {
    get(server, &User::admin(), &format!("{QUOTAS}/q")).await.1["status"]["used"].clone()
}

async fn quota(server: &Arc<ApiServer>, hard: Value) {
    create(server, QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    until("the quota is counted", async || used(server).await.is_object()).await;
}

#[tokio::test]
async fn what_comes_into_a_scope_is_charged() {
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let server = started().await;
    let admin = User::admin();
    let account = json!({"metadata": {"name": "default"}});
    create(&server, "/api/v1/namespaces/default/serviceaccounts", account).await;
    for (name, scope) in [("ending", "Terminating"), ("lasting", "NotTerminating")] {
        let spec = json!({"hard": {"pods": "1"}, "scopes": [scope]});
        create(&server, QUOTAS, json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let pods = async || {
        let mut all = Vec::new();
        for name in ["ending", "lasting"] {
            let (_, quota) = get(&server, &admin, &format!("{QUOTAS}/{name}")).await;
            all.push(quota["status"]["used"]["pods"].as_str().unwrap_or_default().to_owned());
        }
        all.join(" ")
    };
    until("the quotas are counted", async || pods().await == "0 0").await;
    let pod = |name: &str| {
        let container = json!({"name": "c", "image": "i"});
        json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
    };
    create(&server, PODS, pod("p")).await;
    assert_eq!(pods().await, "0 1");
    let limit = json!({"spec": {"activeDeadlineSeconds": 3600}});
    let (code, answer) =
        send(&server, &admin, Method::PATCH, &format!("{PODS}/p"), limit.clone()).await;
    assert!(code.is_success(), "{answer}");
    assert!(pods().await.starts_with("1 "), "charged before anything is counted");
    let mut second = pod("q");
    second["spec"]["activeDeadlineSeconds"] = 3600.into();
    let (code, answer) = send(&server, &admin, Method::POST, PODS, second).await;
    assert_eq!(code, http::StatusCode::FORBIDDEN, "{answer}");
    until("what left a scope is free in it", async || pods().await == "1 0").await;
}

#[tokio::test]
async fn what_is_counted_is_charged_and_given_back() {
    let server = started().await;
    let hard = json!({"count/configmaps": "3", "pods": "5", "requests.cpu": "1"});
    quota(&server, hard.clone()).await;
    let before = used(&server).await;
    assert_eq!(before, json!({"count/configmaps": "0", "pods": "0", "requests.cpu": "0"}));
    let map = |name: String| json!({"metadata": {"name": name}});
    let admin = User::admin();
    let made =
        join_all((0..8).map(|n| send(&server, &admin, Method::POST, MAPS, map(format!("m{n}")))))
            .await;
    let refused: Vec<&Value> =
        made.iter().filter(|(code, _)| !code.is_success()).map(|(_, status)| status).collect();
    assert_eq!(refused.len(), 5, "{refused:?}");
    let message = refused[0]["message"].as_str().unwrap();
    assert!(message.ends_with("is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=3, limited: count/configmaps=3"), "{message}");
    assert_eq!(used(&server).await["count/configmaps"], "3");
    let path = format!("{MAPS}?labelSelector=!x");
    send(&server, &admin, Method::DELETE, &path, Value::Null).await;
    until("what is gone is free", async || used(&server).await["count/configmaps"] == "0").await;

    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "600m"}}}]}});
    let pods = "/api/v1/namespaces/default/pods";
    create(
        &server,
        "/api/v1/namespaces/default/serviceaccounts",
        json!({"metadata": {"name": "default"}}),
    )
    .await;
    create(&server, pods, pod).await;
    assert_eq!(used(&server).await["requests.cpu"], "600m");
    let done = json!({"status": {"phase": "Succeeded"}});
    send(&server, &admin, Method::PATCH, &format!("{pods}/p/status"), done).await;
    until("a pod that is done is free", async || used(&server).await["pods"] == "0").await;
    let (_, quota) = get(&server, &admin, &format!("{QUOTAS}/q")).await;
    assert_eq!(quota["status"]["hard"], hard);
}
