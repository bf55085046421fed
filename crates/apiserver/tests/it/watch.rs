//! Watches.

use serde_json::{Value, json};

use crate::harness::{Server, configmap};

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

#[tokio::test]
async fn what_is_there_then_what_happens() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    let mut watch = server.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(watch.lines(1).await, ["ADDED a"]);
    server.post(MAPS, configmap("b", json!({}))).await.ok();
    server.patch(&format!("{MAPS}/b"), "merge-patch+json", r#"{"data":{"x":"y"}}"#).await.ok();
    let last = server.delete(&format!("{MAPS}/b"), Value::Null).await;
    assert_eq!(last.code, 200);
    assert_eq!(watch.lines(2).await, ["ADDED b", "MODIFIED b"]);
    let gone = watch.next().await.unwrap();
    assert_eq!((&gone["type"], &gone["object"]["data"]["x"]), (&json!("DELETED"), &json!("y")));

    let since = gone["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    let mut later =
        server.watch(&format!("/api/v1/configmaps?watch=true&resourceVersion={since}")).await;
    server.post(MAPS, configmap("c", json!({}))).await.ok();
    assert_eq!(later.lines(1).await, ["ADDED c"]);
    assert_eq!(watch.lines(1).await, ["ADDED c"]);
}

#[tokio::test]
async fn objects_move_in_and_out_of_a_selection() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({"on": "no"}))).await.ok();
    let mut watch = server.watch(&format!("{MAPS}?watch=1&labelSelector=on%3Dyes")).await;
    let path = format!("{MAPS}/a");
    let set = async |on: &str, data: &str| {
        let body =
            format!(r#"{{"metadata":{{"labels":{{"on":"{on}"}}}},"data":{{"d":"{data}"}}}}"#);
        server.patch(&path, "merge-patch+json", &body).await.ok()
    };
    set("yes", "1").await;
    set("yes", "2").await;
    let out = set("no", "3").await;
    set("no", "4").await;
    set("yes", "5").await;
    server.delete(&path, Value::Null).await.ok();
    assert_eq!(watch.lines(2).await, ["ADDED a", "MODIFIED a"]);
    let left = watch.next().await.unwrap();
    assert_eq!((&left["type"], &left["object"]["data"]["d"]), (&json!("DELETED"), &json!("2")));
    assert_eq!(left["object"]["metadata"]["resourceVersion"], out["metadata"]["resourceVersion"]);
    assert_eq!(watch.lines(2).await, ["ADDED a", "DELETED a"]);
}

#[tokio::test]
async fn streamed_lists_end_with_a_mark() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    let query =
        "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.lines(1).await, ["ADDED a"]);
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    assert_eq!(server.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.code, 422);
}

#[tokio::test]
async fn quiet_watches_tell_how_far_they_are_and_end_in_time() {
    let server = Server::start().await;
    let query = "watch=1&resourceVersion=0&timeoutSeconds=3&allowWatchBookmarks=true";
    let began = std::time::Instant::now();
    let mut watch = server.watch(&format!("{MAPS}?{query}")).await;
    // Another collection moves the store on; the bookmark says so.
    let other = json!({"metadata": {"name": "other"}});
    let other = server.post("/api/v1/namespaces", other).await.ok();
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    let (seen, moved) = (&mark["object"]["metadata"], &other["metadata"]);
    assert_eq!(seen["resourceVersion"], moved["resourceVersion"]);
    assert_eq!(watch.next().await, None);
    assert!(began.elapsed().as_millis() >= 2900, "{:?}", began.elapsed());
}

#[tokio::test]
async fn one_object_by_name() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    server.post(MAPS, configmap("b", json!({}))).await.ok();
    assert_eq!(watch.lines(1).await, ["ADDED b"]);
}

#[tokio::test]
async fn tables_name_their_columns_once() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    server.post(MAPS, configmap("b", json!({}))).await.ok();
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut watch = server.watch_as(&format!("{MAPS}?watch=1"), accept).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let event = watch.next().await.unwrap();
        let table = &event["object"];
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        seen.push(format!("{} {columns}", table["rows"][0]["cells"][0]));
    }
    assert_eq!(seen, ["\"a\" 3", "\"b\" 0"]);
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_so() {
    let options = store::Options { window_max_events: 4, ..store::Options::default() };
    let server = Server::with(options).await;
    let now = server.post(MAPS, configmap("a", json!({}))).await.ok();
    let now = now["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={now}")).await;
    for n in 0..8 {
        let body = format!(r#"{{"data":{{"n":"{n}"}}}}"#);
        server.patch(&format!("{MAPS}/a"), "merge-patch+json", &body).await.ok();
    }
    let error = watch.next().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(error["object"]["reason"], "Expired");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn the_old_form_names_its_object_in_the_path() {
    let server = Server::start().await;
    let mut watch = server.watch("/api/v1/watch/namespaces/ns/configmaps/b").await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    server.post(MAPS, configmap("b", json!({}))).await.ok();
    assert_eq!(watch.lines(1).await, ["ADDED b"]);
}

#[tokio::test]
async fn a_watch_may_ask_for_longer_than_clocks_go() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    for seconds in [u64::from(u32::MAX), i64::MAX.unsigned_abs()] {
        let path = format!("{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}");
        assert_eq!(server.watch(&path).await.lines(1).await, ["ADDED a"]);
        assert_eq!(server.get(&format!("{MAPS}?limit={seconds}")).await.code, 200);
    }
}
