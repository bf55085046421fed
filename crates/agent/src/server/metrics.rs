//! `/metrics` and `/metrics/resource` in Prometheus' text form. The second has the names that
//! metrics-server reads.

use std::fmt::Write;

use http::{HeaderValue, Response, StatusCode, header};

use super::stats::{node_cpu_nanoseconds, usage};
use super::{Body, text};
use crate::manager::Manager;
use crate::node::machine;

/// Figures of the agent itself.
pub fn plain(manager: &Manager) -> Response<Body> {
    let pods = manager.pods();
    let running = pods
        .iter()
        .filter(|pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"));
    let mut out = String::new();
    gauge(&mut out, "kubelet_running_pods", "Number of pods that run.", running.count() as f64);
    let node = &manager.context().config.node_name;
    metric(
        &mut out,
        "kubelet_node_name",
        "The node's name.",
        "gauge",
        &[(labels(&[("node", node)]), 1.0)],
    );
    prometheus(out)
}

/// What pods and containers use.
pub async fn resource(manager: &Manager) -> Response<Body> {
    const NANOS: f64 = 1e9;
    let usage = usage(manager).await;
    let available = machine::memory_available();
    let memory = manager.context().memory_bytes.saturating_sub(available);
    let mut out = String::new();
    let counter = "counter";
    let cpu = node_cpu_nanoseconds() as f64 / NANOS;
    metric(
        &mut out,
        "node_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the node in core-seconds",
        counter,
        &[(String::new(), cpu)],
    );
    gauge(
        &mut out,
        "node_memory_working_set_bytes",
        "Current working set of the node in bytes",
        memory as f64,
    );
    let of_containers = |value: fn(&runtime::Stats) -> f64| -> Vec<(String, f64)> {
        let all = usage.iter().flat_map(|u| u.containers.iter().map(move |c| (u, c)));
        all.map(|(u, c)| {
            let labels =
                labels(&[("container", &c.name), ("namespace", &u.namespace), ("pod", &u.pod)]);
            (labels, value(&c.stats))
        })
        .collect()
    };
    let of_pods = |value: fn(&runtime::Stats) -> f64| -> Vec<(String, f64)> {
        let all = usage.iter().filter_map(|u| Some((u, u.total.as_ref()?)));
        all.map(|(u, stats)| {
            (labels(&[("namespace", &u.namespace), ("pod", &u.pod)]), value(stats))
        })
        .collect()
    };
    let cpu: fn(&runtime::Stats) -> f64 = |s| s.cpu_nanoseconds as f64 / NANOS;
    let set: fn(&runtime::Stats) -> f64 = |s| s.memory_working_set as f64;
    metric(
        &mut out,
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the container in core-seconds",
        counter,
        &of_containers(cpu),
    );
    metric(
        &mut out,
        "container_memory_working_set_bytes",
        "Current working set of the container in bytes",
        "gauge",
        &of_containers(set),
    );
    metric(
        &mut out,
        "pod_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the pod in core-seconds",
        counter,
        &of_pods(cpu),
    );
    metric(
        &mut out,
        "pod_memory_working_set_bytes",
        "Current working set of the pod in bytes",
        "gauge",
        &of_pods(set),
    );
    let starts: Vec<(String, f64)> = usage
        .iter()
        .flat_map(|u| u.containers.iter().map(move |c| (u, c)))
        .filter_map(|(u, c)| {
            let labels =
                labels(&[("container", &c.name), ("namespace", &u.namespace), ("pod", &u.pod)]);
            Some((labels, c.started.as_ref()?.as_millisecond() as f64 / 1000.0))
        })
        .collect();
    metric(
        &mut out,
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds",
        "gauge",
        &starts,
    );
    gauge(
        &mut out,
        "scrape_error",
        "1 if there was an error while getting container metrics, 0 otherwise",
        0.0,
    );
    prometheus(out)
}

/// A gauge without labels.
pub(crate) fn gauge(out: &mut String, name: &str, help: &str, value: f64) {
    metric(out, name, help, "gauge", &[(String::new(), value)]);
}

/// One metric with all its values, which have to stand together.
pub(crate) fn metric(
    out: &mut String,
    name: &str,
    help: &str,
    kind: &str,
    values: &[(String, f64)],
) {
    // Writing into a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in values {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

/// Labels in braces, quoted.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let quoted =
        |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let inner: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
    format!("{{{}}}", inner.join(","))
}

/// The page as an answer.
pub(super) fn prometheus(out: String) -> Response<Body> {
    let mut response = text(StatusCode::OK, &out);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
