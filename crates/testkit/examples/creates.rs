//! Creates pods in this process, from JSON to the durable write and back, and nothing else: for
//! counting instructions, which no busy machine falsifies.
//!
//! ```text
//! cargo build --release -p testkit --example creates
//! valgrind --tool=callgrind --callgrind-out-file=/tmp/creates.out target/release/examples/creates 500
//! ```
//!
//! The difference between 500 and 1,500 pods by a thousand is what one costs.

use http::Request;
use serde_json::json;
use testkit::Cluster;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(500);
    let cluster = Cluster::start().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "default"}});
    cluster.apply(account).await;
    for number in 0..count {
        let pod = pod(&format!("creates-{number}"));
        let request = Request::post("/api/v1/namespaces/default/pods")
            .header("content-type", "application/json")
            .body(pod.to_string().into_bytes())
            .expect("a request of constant parts");
        cluster.client.request_text(request).await.expect("a pod that is valid");
    }
    cluster.stop().await;
}

/// The pod of `bench`.
fn pod(name: &str) -> serde_json::Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "bench", "tier": "load" } },
        "spec": { "schedulerName": "nobody", "containers": [{
            "name": "main", "image": "coracle.local/hello",
            "ports": [{ "containerPort": 8080 }],
            "env": [{ "name": "GREETING", "value": "hello" }],
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 } } }] } })
}
