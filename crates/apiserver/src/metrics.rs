//! `/metrics` in Prometheus' text format 0.0.4, under upstream's names.
//!
//! Written by hand instead of with a metrics crate: request series are looked up by their
//! rendered labels without an allocation, and the text form is what upstream's dashboards read.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::StatusCode;

use crate::request::{RequestInfo, Response};
use crate::response;
use crate::server::ApiServer;

/// Series of requests kept; what is asked for beyond them is not counted one by one.
const REQUEST_SERIES_MAX: usize = 4096;
/// Upper bounds of request durations in seconds, upstream's.
const DURATION_BOUNDS_SECONDS: [f64; 24] = [
    0.005,
    0.025,
    0.05,
    0.1,
    0.2,
    0.4,
    0.6,
    0.8,
    1.0,
    1.25,
    1.5,
    2.0,
    3.0,
    4.0,
    5.0,
    6.0,
    8.0,
    10.0,
    15.0,
    20.0,
    30.0,
    45.0,
    60.0,
    f64::INFINITY,
];
/// Ticks a second in /proc/self/stat; USER_HZ is 100 on every architecture built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a metric is, for its TYPE line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// The page under construction; what collectors write to.
#[derive(Debug, Default)]
pub struct MetricsPage {
    text: String,
}

impl MetricsPage {
    /// Begins a metric: its HELP and TYPE lines.
    pub fn metric(&mut self, name: &str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // Writing to a String cannot fail; likewise below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value of a metric under labels.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut rendered = String::new();
        render_labels(&mut rendered, labels);
        self.line(name, &rendered, value);
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            labels => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    /// A metric with one value and no labels.
    fn single(&mut self, name: &str, kind: MetricKind, help: &str, value: f64) {
        self.metric(name, kind, help);
        self.line(name, "", value);
    }
}

fn render_labels(into: &mut String, labels: &[(&str, &str)]) {
    for (name, value) in labels {
        if !into.is_empty() {
            into.push(',');
        }
        let _ = write!(into, "{name}=\"");
        for c in value.chars() {
            match c {
                '"' => into.push_str("\\\""),
                '\\' => into.push_str("\\\\"),
                '\n' => into.push_str("\\n"),
                c => into.push(c),
            }
        }
        into.push('"');
    }
}

#[derive(Default)]
struct Durations {
    buckets: [AtomicU64; DURATION_BOUNDS_SECONDS.len()],
    micros: AtomicU64,
}

type Series<T> = RwLock<HashMap<Box<str>, Arc<T>>>;
type Collector = Box<dyn Fn(&mut MetricsPage) + Send + Sync>;

/// The server's counters, and the collectors that other parts of the process add.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Series<AtomicU64>,
    durations: Series<Durations>,
    collectors: RwLock<Vec<Collector>>,
}

impl Metrics {
    /// Counts an answered request.
    pub(crate) fn request(&self, info: &RequestInfo, code: u16, took: Duration) {
        let mut labels = String::with_capacity(160);
        let (verb, scope) = (metric_verb(info), metric_scope(info));
        render_labels(
            &mut labels,
            &[
                ("component", "apiserver"),
                ("group", &info.group),
                ("resource", &info.resource),
                ("scope", scope),
                ("subresource", if info.is_resource { &info.subresource } else { &info.path }),
                ("verb", verb),
                ("version", &info.version),
            ],
        );
        // A watch lasts as long as its client likes: that says nothing of the server.
        let timed = info.is_resource && !info.is_long_running() && code < 404;
        if timed && let Some(durations) = series(&self.durations, &labels) {
            let seconds = took.as_secs_f64();
            let bucket = DURATION_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
            durations.buckets[bucket].fetch_add(1, Ordering::Relaxed);
            durations.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        }
        // Unknown paths must not become series of their own.
        if !info.is_resource && code == 404 {
            return;
        }
        let _ = write!(labels, ",code=\"{code}\"");
        if let Some(count) = series(&self.requests, &labels) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds a collector, which writes metrics of its own to every page.
    pub(crate) fn collect(&self, collector: impl Fn(&mut MetricsPage) + Send + Sync + 'static) {
        let mut collectors = self.collectors.write().unwrap_or_else(PoisonError::into_inner);
        collectors.push(Box::new(collector));
    }

    fn write(&self, page: &mut MetricsPage) {
        let name = "apiserver_request_total";
        page.metric(name, MetricKind::Counter, "Requests answered, by verb, resource and code.");
        for (labels, count) in sorted(&self.requests) {
            page.line(name, &labels, count.load(Ordering::Relaxed) as f64);
        }
        let name = "apiserver_request_duration_seconds";
        page.metric(name, MetricKind::Histogram, "Time to answer, by verb and resource.");
        for (labels, durations) in sorted(&self.durations) {
            let mut below = 0;
            for (bound, count) in DURATION_BOUNDS_SECONDS.iter().zip(&durations.buckets) {
                below += count.load(Ordering::Relaxed);
                let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
                let labels = format!("{labels},le=\"{bound}\"");
                page.line(&format!("{name}_bucket"), &labels, below as f64);
            }
            let sum = durations.micros.load(Ordering::Relaxed) as f64 / 1e6;
            page.line(&format!("{name}_sum"), &labels, sum);
            page.line(&format!("{name}_count"), &labels, below as f64);
        }
        for collector in self.collectors.read().unwrap_or_else(PoisonError::into_inner).iter() {
            collector(page);
        }
    }
}

/// The series of these labels; `None` where a new one would be one too many.
fn series<T: Default>(all: &Series<T>, labels: &str) -> Option<Arc<T>> {
    if let Some(known) = all.read().unwrap_or_else(PoisonError::into_inner).get(labels) {
        return Some(Arc::clone(known));
    }
    let mut all = all.write().unwrap_or_else(PoisonError::into_inner);
    (all.len() < REQUEST_SERIES_MAX).then(|| Arc::clone(all.entry(labels.into()).or_default()))
}

fn sorted<T>(all: &Series<T>) -> Vec<(Box<str>, Arc<T>)> {
    let all = all.read().unwrap_or_else(PoisonError::into_inner);
    let mut list: Vec<_> =
        all.iter().map(|(labels, value)| (labels.clone(), Arc::clone(value))).collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn metric_verb(info: &RequestInfo) -> &'static str {
    if matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy") {
        return "CONNECT";
    }
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    }
}

fn metric_scope(info: &RequestInfo) -> &'static str {
    match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (_, false, _) => "resource",
        (_, _, false) => "namespace",
        _ => "cluster",
    }
}

impl ApiServer {
    /// Adds a collector: it writes metrics of its own to every `/metrics` page.
    pub fn add_metrics(&self, collector: impl Fn(&mut MetricsPage) + Send + Sync + 'static) {
        self.context.metrics.collect(collector);
    }

    pub(crate) fn metrics_page(&self) -> Response {
        let mut page = MetricsPage::default();
        let name = "apiserver_current_inflight_requests";
        page.metric(name, MetricKind::Gauge, "Requests under way, by kind.");
        let [reads, writes] = self.flow.current();
        page.sample(name, &[("request_kind", "readOnly")], reads as f64);
        page.sample(name, &[("request_kind", "mutating")], writes as f64);
        self.flow.metrics(&mut page);
        self.storage_metrics(&mut page);
        if let Some(audit) = &self.context.audit {
            audit.metrics(&mut page);
        }
        self.context.metrics.write(&mut page);
        process_metrics(&mut page);
        response::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page.text)
    }

    fn storage_metrics(&self, page: &mut MetricsPage) {
        let counts = self.context.store.counts();
        type Column = fn(&store::Count) -> usize;
        let columns: [(&str, &str, Column); 3] = [
            ("apiserver_storage_objects", "Stored objects, by resource.", |c| c.objects),
            ("coracle_store_bytes", "Bytes of stored values, by resource.", |c| c.bytes),
            ("coracle_store_window_events", "Events kept for watchers.", |c| c.window_events),
        ];
        for (name, help, column) in columns {
            page.metric(name, MetricKind::Gauge, help);
            for count in &counts {
                let resource = match count.collection.split_once('/') {
                    Some((group, plural)) => format!("{plural}.{group}"),
                    None => count.collection.to_string(),
                };
                page.sample(name, &[("resource", &resource)], column(count) as f64);
            }
        }
        let stats = self.context.store.stats();
        for (name, help, value) in [
            ("coracle_store_commits_total", "Transactions committed.", stats.commits),
            ("coracle_store_fsyncs_total", "Waits for the disk.", stats.fsyncs),
            ("coracle_store_written_bytes_total", "Bytes handed to the disk.", stats.bytes_written),
            ("coracle_store_durable_writes_total", "Durable writes.", stats.durable_writes),
            ("coracle_store_volatile_writes_total", "Volatile writes.", stats.volatile_writes),
            ("coracle_store_checkpoints_total", "Checkpoints.", stats.checkpoints),
            ("coracle_store_failures_total", "Batches that failed.", stats.failures),
        ] {
            page.single(name, MetricKind::Counter, help, value as f64);
        }
        let revision = self.context.store.revision() as f64;
        page.single("coracle_store_revision", MetricKind::Gauge, "Newest revision.", revision);
    }
}

/// What Prometheus' client libraries say of every process, from /proc.
fn process_metrics(page: &mut MetricsPage) {
    use MetricKind::{Counter, Gauge};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
    };
    if let (Some(resident), Some(virt)) = (kib("VmRSS:"), kib("VmSize:")) {
        let help = "Resident memory size in bytes.";
        page.single("process_resident_memory_bytes", Gauge, help, resident * 1024.0);
        let help = "Virtual memory size in bytes.";
        page.single("process_virtual_memory_bytes", Gauge, help, virt * 1024.0);
    }
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        let help = "Number of open file descriptors.";
        page.single("process_open_fds", Gauge, help, fds.count() as f64);
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command name, in brackets, may itself hold spaces: fields count from behind it.
    let fields: Vec<f64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').map(|field| field.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    if let (Some(user), Some(system), Some(start)) =
        (fields.get(11), fields.get(12), fields.get(19))
    {
        let help = "Total user and system CPU time spent in seconds.";
        let seconds = (user + system) / TICKS_PER_SECOND;
        page.single("process_cpu_seconds_total", Counter, help, seconds);
        if let Some(boot) = boot_time_seconds() {
            let help = "Start time of the process since unix epoch in seconds.";
            let at = boot + start / TICKS_PER_SECOND;
            page.single("process_start_time_seconds", Gauge, help, at);
        }
    }
}

fn boot_time_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}
