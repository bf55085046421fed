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
