//! From the creation of a pod to its being Running, as a client sees it in a watch.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::api::{Api, Connection};
use crate::figures::Figures;
use crate::processes::Processes;

const NAMESPACE: &str = "bench-pods";
const LIMIT: Duration = Duration::from_secs(120);

/// Pods one by one, their memory, then as many at once.
pub async fn run(
    figures: &mut Figures,
    kubeconfig: &str,
    pid: &str,
    run_dir: &str,
    count: usize,
) -> Outcome {
    let api = Api::from_kubeconfig(kubeconfig)?;
    let mut connection = api.connect().await?;
    let namespace = json!({ "metadata": { "name": NAMESPACE } });
    connection.create("/api/v1/namespaces", &namespace).await?;
    let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
    while !connection.is_ok(&account).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut watch = PodWatch::start(&api).await?;

    let before = Processes::find(pid, run_dir)?.server_memory();
    let mut took = Vec::new();
    for number in 0..count {
        let name = format!("single-{number}");
        let sent = Instant::now();
        create(&mut connection, &name).await?;
        took.push(watch.until_running(&name).await? - sent);
    }
    figures.set_quantiles("pod_single", took)?;
    let processes = Processes::find(pid, run_dir)?;
    let (shims, shim_count) = processes.shim_memory();
    let server = processes.server_memory();
    let per = |total: f64, pods: usize| total / pods.max(1) as f64 / (1024.0 * 1024.0);
    figures.set("pod_shim_rss", per(shims.rss, shim_count))?;
    figures.set("pod_shim_pss", per(shims.pss, shim_count))?;
    figures.set("pod_server_rss", per(server.rss - before.rss, count))?;
    server.note(figures, "pods_50_server")?;
    figures.set("pods_stop_seconds", remove_all(&api, &mut watch).await?)?;

    let mut sent = HashMap::new();
    let mut creations = JoinSet::new();
    for number in 0..count {
        let name = format!("burst-{number}");
        let api = api.clone();
        sent.insert(name.clone(), Instant::now());
        creations.spawn(async move {
            let mut connection = api.connect().await?;
            create(&mut connection, &name).await
        });
    }
    while let Some(created) = creations.join_next().await {
        created??;
    }
    let mut took = Vec::new();
    for (name, sent) in sent {
        took.push(watch.until_running(&name).await? - sent);
    }
    figures.set_quantiles("pod_burst", took)?;
    remove_all(&api, &mut watch).await?;
    Ok(())
}

async fn create(connection: &mut Connection, name: &str) -> Outcome {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "main", "image": "coracle.local/hello",
            "imagePullPolicy": "IfNotPresent" }] } });
    connection.create(&format!("/api/v1/namespaces/{NAMESPACE}/pods"), &pod).await?;
    Ok(())
}

async fn remove_all(api: &Api, watch: &mut PodWatch) -> Outcome<f64> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?gracePeriodSeconds=2");
    let start = Instant::now();
    api.connect().await?.body(Method::DELETE, &path, "").await?;
    watch.until_none().await?;
    Ok(start.elapsed().as_secs_f64())
}

/// A watch of the pods, and when each was first seen Running.
struct PodWatch {
    body: Incoming,
    buffer: BytesMut,
    running: HashMap<String, Instant>,
    present: usize,
    _connection: Connection,
}

impl PodWatch {
    async fn start(api: &Api) -> Outcome<Self> {
        let mut connection = api.connect().await?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?watch=true");
        let body = connection.send(Method::GET, &path, "").await?.into_body();
        let (buffer, running) = (BytesMut::new(), HashMap::new());
        Ok(PodWatch { body, buffer, running, present: 0, _connection: connection })
    }

    async fn until_running(&mut self, name: &str) -> Outcome<Instant> {
        loop {
            if let Some(&at) = self.running.get(name) {
                return Ok(at);
            }
            self.next(&format!("pod {name} does not run")).await?;
        }
    }

    async fn until_none(&mut self) -> Outcome {
        while self.present > 0 {
            self.next("pods do not end").await?;
        }
        Ok(())
    }

    async fn next(&mut self, otherwise: &str) -> Outcome {
        let frame = tokio::time::timeout(LIMIT, self.body.frame()).await;
        let frame = frame.map_err(|_| otherwise.to_owned())?.ok_or("the watch ended")??;
        let now = Instant::now();
        if let Ok(data) = frame.into_data() {
            self.buffer.extend_from_slice(&data);
        }
        while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
            let line = self.buffer.split_to(end + 1);
            self.take(&serde_json::from_slice(&line)?, now);
        }
        Ok(())
    }

    fn take(&mut self, event: &Value, now: Instant) {
        match event["type"].as_str() {
            Some("ADDED") => self.present += 1,
            Some("DELETED") => self.present = self.present.saturating_sub(1),
            _ => {}
        }
        let object = &event["object"];
        if object["status"]["phase"] == "Running" {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            self.running.entry(name.to_owned()).or_insert(now);
        }
    }
}
