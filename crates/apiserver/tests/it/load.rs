//! Figures, not verdicts: `cargo test -p apiserver --release --test it load -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Server, pod};

const PODS: &str = "/api/v1/namespaces/ns/pods";

/// A pod of the usual size, some three kilobytes.
fn big(name: &str) -> serde_json::Value {
    let mut pod = pod(name);
    let env: Vec<_> = (0..20)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "x".repeat(40)}))
        .collect();
    pod["spec"]["containers"][0]["env"] = json!(env);
    pod
}

async fn with_pods(count: usize) -> Server {
    let server = Server::start().await;
    let started = Instant::now();
    let names: Vec<String> = (0..count).map(|n| format!("p{n:04}")).collect();
    for some in names.chunks(16) {
        let all = some.iter().map(|name| server.post(PODS, big(name)));
        futures::future::join_all(all).await.into_iter().for_each(|answer| {
            answer.ok();
        });
    }
    println!("create, 16 writers: {:.0} a second", count as f64 / started.elapsed().as_secs_f64());
    server
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long and proves nothing"]
async fn list_of_a_thousand() {
    let server = with_pods(1000).await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        let bytes = server.read("/api/v1/pods").await;
        times.push(started.elapsed());
        assert!(bytes > 1_000_000);
    }
    times.sort();
    println!("list of 1,000 pods: p50 {:?}, p99 {:?}", times[25], times[49]);
}

/// What a hundred watchers take in when the events are there already: the server's side alone,
/// without the disk.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long and proves nothing"]
async fn fan_out_to_a_hundred() {
    const EVENTS: usize = 2000;
    let server = with_pods(1).await;
    let maps = "/api/v1/namespaces/ns/configmaps";
    let list = server.get(maps).await.ok();
    let since = list["metadata"]["resourceVersion"].as_str().unwrap();
    let names: Vec<String> = (0..EVENTS).map(|n| format!("m{n:04}")).collect();
    for some in names.chunks(50) {
        let body =
            |name: &String| json!({"metadata": {"name": name}, "data": {"text": "x".repeat(600)}});
        futures::future::join_all(some.iter().map(|name| server.post(maps, body(name)))).await;
    }
    let started = Instant::now();
    let mut watchers = Vec::new();
    for _ in 0..100 {
        let mut watch = server.watch(&format!("{maps}?watch=1&resourceVersion={since}")).await;
        watchers.push(tokio::spawn(async move { watch.count_lines(EVENTS).await }));
    }
    for watcher in watchers {
        tokio::time::timeout(Duration::from_secs(60), watcher).await.unwrap().unwrap();
    }
    let rate = (EVENTS * 100) as f64 / started.elapsed().as_secs_f64();
    println!("100 watchers: {rate:.0} events a second");
}
