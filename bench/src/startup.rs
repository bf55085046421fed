//! From exec to an API server that is ready and a node that is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use crate::Outcome;
use crate::api::{Api, Connection};
use crate::figures::Figures;

/// A start that takes longer has failed.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often is looked; adds as much to the figures.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// Notes `NAME_usable` and `NAME_node_ready`, in seconds since `since` (nanoseconds of the epoch).
pub async fn run(
    figures: &mut Figures,
    name: &str,
    kubeconfig: &str,
    pid: &str,
    (node, since): (&str, u64),
) -> Outcome {
    let since = UNIX_EPOCH + Duration::from_nanos(since);
    let deadline = Instant::now() + START_LIMIT;
    let passed = || SystemTime::now().duration_since(since).map(|d| d.as_secs_f64());
    let mut connection = ready(kubeconfig, pid).await?;
    figures.set(&format!("{name}_usable"), passed()?)?;
    while !is_ready(&mut connection, node, since).await {
        if Instant::now() > deadline {
            return Err("the node does not become Ready".into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    figures.set(&format!("{name}_node_ready"), passed()?)
}

/// A connection to the API server once it says that it is ready.
pub async fn ready(kubeconfig: &str, pid: &str) -> Outcome<Connection> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Some(mut connection) = try_connect(kubeconfig).await
            && connection.is_ok("/readyz").await
        {
            return Ok(connection);
        }
        if !std::path::Path::new("/proc").join(pid).exists() {
            return Err("the server has ended".into());
        }
        if Instant::now() > deadline {
            return Err("the API server does not become ready".into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn try_connect(kubeconfig: &str) -> Option<Connection> {
    Api::from_kubeconfig(kubeconfig).ok()?.connect().await.ok()
}

/// Ready, and said so since then: what an earlier start has left in the store does not count.
async fn is_ready(connection: &mut Connection, node: &str, since: SystemTime) -> bool {
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}");
    let Ok(lease) = connection.get(&lease).await else { return false };
    let renewed = lease["spec"]["renewTime"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    if renewed.is_none_or(|at| SystemTime::from(at) < since) {
        return false;
    }
    let Ok(node) = connection.get(&format!("/api/v1/nodes/{node}")).await else { return false };
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}
