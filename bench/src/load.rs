//! The API under load: pods that no scheduler touches, so that the API server alone works.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::api::{Api, Connection};
use crate::figures::Figures;
use crate::processes::Processes;
use crate::watchers::{Watchers, mark};

const NAMESPACE: &str = "bench-load";
const ALONE: usize = 1000;
const TOGETHER: usize = 4000;
const WRITERS: usize = 16;
const GETS: usize = 2000;
const LISTS: usize = 30;
const WATCHERS: usize = 100;
const WATCHED_WRITES: usize = 2000;
/// Replays are short, so they are repeated and the median is taken.
const REPLAYS: usize = 5;
/// How long a new namespace may take before it takes pods.
const READY_LIMIT: Duration = Duration::from_secs(30);
const WATCH_LIMIT: Duration = Duration::from_secs(120);

/// Runs the whole load, in an order in which each step finds what it needs.
pub async fn run(figures: &mut Figures, kubeconfig: &str, pid: &str, run_dir: &str) -> Outcome {
    let api = Api::from_kubeconfig(kubeconfig)?;
    let mut connection = api.connect().await?;
    let namespace = json!({ "metadata": { "name": NAMESPACE } });
    connection.create("/api/v1/namespaces", &namespace).await?;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    // The namespace's account comes a moment later, and upstream 1.20 waits for a token of it, too.
    let (trial, deadline) = (format!("{pods}?dryRun=All"), Instant::now() + READY_LIMIT);
    while let Err(error) = connection.create(&trial, &pod("trial")).await {
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    creates(figures, "create_1", &api, &pods, 1, ALONE, pod).await?;
    reads(figures, &mut connection, &pods).await?;
    let processes = Processes::find(pid, run_dir)?;
    let cpu = processes.cpu_seconds();
    creates(figures, "create_16", &api, &pods, WRITERS, TOGETHER, pod).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    figures.set("create_16_cpu", (processes.cpu_seconds() - cpu) / TOGETHER as f64 * 1e3)?;
    processes.server_memory().note(figures, "pods_5000_server")?;
    updates(figures, &api, &pods).await?;
    watch(figures, &api).await?;
    processes.server_memory().note(figures, "after_load_server")
}

/// Creates `count` objects from `writers` connections; notes the rate and the time of one.
async fn creates(
    figures: &mut Figures,
    name: &str,
    api: &Api,
    path: &str,
    writers: usize,
    count: usize,
    object: fn(&str) -> Value,
) -> Outcome {
    let prefix = name.replace('_', "-");
    let path = path.to_owned();
    let request = move |number| {
        let object = object(&format!("{prefix}-{number}"));
        (Method::POST, path.clone(), object.to_string())
    };
    writes(figures, name, api, (writers, count), Arc::new(request)).await
}

/// Changes a label of each of the pods that one writer has made.
async fn updates(figures: &mut Figures, api: &Api, path: &str) -> Outcome {
    let list = api.connect().await?.get(path).await?;
    let is_old = |pod: &&Value| {
        pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("create-1-"))
    };
    let pods = list["items"].as_array().into_iter().flatten().filter(is_old);
    let pods: Vec<(String, String)> = pods.map(|pod| changed(path, pod)).collect();
    let count = pods.len();
    let request = move |number: usize| {
        let (path, body) = &pods[number];
        (Method::PUT, path.clone(), body.clone())
    };
    writes(figures, "update_16", api, (WRITERS, count), Arc::new(request)).await
}

/// Where a pod is, and what is to be written there: whatever its version is now.
fn changed(path: &str, pod: &Value) -> (String, String) {
    let mut pod = pod.clone();
    pod["metadata"]["labels"]["changed"] = "yes".into();
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    (format!("{path}/{name}"), pod.to_string())
}

/// Sends `count` requests from `writers` connections; notes the rate and the time of one.
async fn writes(
    figures: &mut Figures,
    name: &str,
    api: &Api,
    (writers, count): (usize, usize),
    request: Arc<dyn Fn(usize) -> (Method, String, String) + Send + Sync>,
) -> Outcome {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for _ in 0..writers {
        connections.push(api.connect().await?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let (next, request) = (next.clone(), request.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Outcome::Ok(took);
                }
                let (method, path, body) = request(number);
                let sent = Instant::now();
                connection.body(method, &path, body).await?;
                took.push(sent.elapsed());
            }
        });
    }
    let mut took = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        took.extend(ended??);
    }
    figures.set(&format!("{name}_rate"), count as f64 / start.elapsed().as_secs_f64())?;
    figures.set_quantiles(name, took)
}

async fn reads(figures: &mut Figures, connection: &mut Connection, pods: &str) -> Outcome {
    let mut took = Vec::new();
    let start = Instant::now();
    for number in 0..GETS {
        let path = format!("{pods}/create-1-{}", number % ALONE);
        let sent = Instant::now();
        connection.body(Method::GET, &path, "").await?;
        took.push(sent.elapsed());
    }
    figures.set("get_rate", GETS as f64 / start.elapsed().as_secs_f64())?;
    figures.set_quantiles("get", took)?;
    let mut took = Vec::new();
    for _ in 0..LISTS {
        let sent = Instant::now();
        let body = connection.body(Method::GET, pods, "").await?;
        took.push(sent.elapsed());
        check_list(&body)?;
    }
    figures.set_quantiles("list_1000", took)
}

fn check_list(body: &[u8]) -> Outcome {
    let list: Value = serde_json::from_slice(body)?;
    match list["items"].as_array().map(Vec::len) {
        Some(ALONE) => Ok(()),
        other => Err(format!("the list has {other:?} items instead of {ALONE}").into()),
    }
}

/// Watchers while 16 writers write, then watchers that catch up with the same events.
async fn watch(figures: &mut Figures, api: &Api) -> Outcome {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let list = api.connect().await?.get(&path).await?;
    let from = list["metadata"]["resourceVersion"].as_str().ok_or("a list without a version")?;
    let watchers = Watchers::start(api, &path, from, WATCHERS, WATCHED_WRITES).await?;
    let start = Instant::now();
    creates(figures, "watched", api, &path, WRITERS, WATCHED_WRITES, config_map).await?;
    let delays = watchers.finish(WATCH_LIMIT).await?;
    let events = (WATCHERS * WATCHED_WRITES) as f64;
    figures.set("fan_out_rate", events / start.elapsed().as_secs_f64())?;
    figures.set_quantiles("fan_out", delays)?;
    let mut rates = Vec::new();
    for _ in 0..REPLAYS {
        let start = Instant::now();
        let watchers = Watchers::start(api, &path, from, WATCHERS, WATCHED_WRITES).await?;
        watchers.finish(WATCH_LIMIT).await?;
        rates.push(events / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    figures.set("replay_rate", rates[REPLAYS / 2])
}

/// A pod of ordinary size that stays Pending: its scheduler does not exist.
fn pod(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "bench", "tier": "load" } },
        "spec": { "schedulerName": "nobody", "containers": [{
            "name": "main", "image": "coracle.local/hello",
            "ports": [{ "containerPort": 8080 }],
            "env": [{ "name": "GREETING", "value": "hello" }],
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 } } }] } })
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name }, "data": { "mark": mark() } })
}
