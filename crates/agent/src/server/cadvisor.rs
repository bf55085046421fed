//! `/metrics/cadvisor`: what containers, pods and the machine use, under the names of cAdvisor, by which
//! the usual dashboards and alerts ask. Only what the runtime counts anyway: a figure that nobody
//! keeps is left out, since 0 would be a claim.

use http::Response;
use jiff::Timestamp;
use runtime::Stats;

use super::Body;
use super::metrics::{gauge, labels, metric, prometheus};
use super::stats::{ContainerUsage, Usage, node_cpu_nanoseconds, usage};
use crate::manager::Manager;
use crate::node::machine::{self, Machine};

const NANOS_PER_SECOND: f64 = 1e9;

/// The page.
pub async fn answer(manager: &Manager) -> Response<Body> {
    let ctx = manager.context();
    let set = ctx.memory_bytes.saturating_sub(machine::memory_available());
    let whole = Stats {
        at: Timestamp::now(),
        cpu_nanoseconds: node_cpu_nanoseconds(),
        memory_usage: set,
        memory_working_set: set,
        ..Stats::default()
    };
    let pods = usage(manager).await;
    prometheus(page(Machine::read().cpus, ctx.memory_bytes, &whole, &pods))
}

/// What a line is about.
enum Of<'a> {
    /// The machine, of which not all is counted.
    Machine,
    /// A pod as a whole, with its network.
    Pod(&'a Usage),
    /// One container.
    Container(&'a Usage, &'a ContainerUsage),
}

struct Row<'a> {
    of: Of<'a>,
    stats: &'a Stats,
}

impl Row<'_> {
    /// The labels that every line has: empty ones too, as cAdvisor's, with ids as its control groups
    /// are named below upstream's kubelet.
    fn labels(&self, more: &[(&str, &str)]) -> String {
        let (id, pod, container) = match &self.of {
            Of::Machine => ("/".to_owned(), None, None),
            Of::Pod(pod) => (format!("/kubepods/{}", pod.cgroup), Some(pod), None),
            Of::Container(pod, c) => {
                (format!("/kubepods/{}/{}", pod.cgroup, c.id), Some(pod), Some(c))
            }
        };
        let own = [
            ("container", container.map_or("", |c| c.name.as_str())),
            ("id", &id),
            ("image", container.map_or("", |c| c.image.as_str())),
            ("name", container.map_or("", |c| c.id.as_str())),
            ("namespace", pod.map_or("", |p| p.namespace.as_str())),
            ("pod", pod.map_or("", |p| p.pod.as_str())),
        ];
        labels(&[&own, more].concat())
    }

    fn container(&self) -> Option<&ContainerUsage> {
        if let Of::Container(_, container) = self.of { Some(container) } else { None }
    }

    fn in_pod(&self) -> Option<&Stats> {
        (!matches!(self.of, Of::Machine)).then_some(self.stats)
    }

    fn traffic(&self) -> Option<&net::Traffic> {
        if let Of::Pod(pod) = self.of { pod.traffic.as_ref() } else { None }
    }
}

/// A metric: name, meaning, type, labels of its own, and its value where there is one.
type Metric = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    fn(&Row) -> Option<f64>,
);

const PAGE_FAULT: &[(&str, &str)] = &[("failure_type", "pgfault"), ("scope", "container")];
const MAJOR_FAULT: &[(&str, &str)] = &[("failure_type", "pgmajfault"), ("scope", "container")];
const INTERFACE: &[(&str, &str)] = &[("interface", net::POD_INTERFACE)];
const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// Rows of one name stand together: they are one family.
const METRICS: &[Metric] = &[
    (
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed in seconds.",
        COUNTER,
        &[("cpu", "total")],
        |row| Some(row.stats.cpu_nanoseconds as f64 / NANOS_PER_SECOND),
    ),
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        GAUGE,
        &[],
        |row| Some(row.stats.memory_usage as f64),
    ),
    ("container_memory_working_set_bytes", "Current working set in bytes.", GAUGE, &[], |row| {
        Some(row.stats.memory_working_set as f64)
    }),
    ("container_memory_rss", "Size of RSS in bytes.", GAUGE, &[], |row| {
        Some(row.in_pod()?.memory_rss as f64)
    }),
    (
        "container_memory_failures_total",
        "Cumulative count of memory allocation failures.",
        COUNTER,
        PAGE_FAULT,
        |row| Some(row.in_pod()?.page_faults as f64),
    ),
    ("container_memory_failures_total", "", COUNTER, MAJOR_FAULT, |row| {
        Some(row.in_pod()?.major_page_faults as f64)
    }),
    ("container_threads", "Number of threads running inside the container", GAUGE, &[], |row| {
        Some(row.in_pod()?.pids as f64)
    }),
    (
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
        GAUGE,
        &[],
        |row| Some(row.container()?.stats.writable_bytes as f64),
    ),
    (
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        GAUGE,
        &[],
        |row| Some(row.container()?.started?.as_millisecond() as f64 / 1000.0),
    ),
    ("container_last_seen", "Last time a container was seen by the exporter", GAUGE, &[], |row| {
        Some(row.stats.at.as_second() as f64)
    }),
    ("container_spec_cpu_period", "CPU period of the container.", GAUGE, &[], |row| {
        Some(row.container()?.limits.cpu_period? as f64)
    }),
    ("container_spec_cpu_quota", "CPU quota of the container.", GAUGE, &[], |row| {
        Some(row.container()?.limits.cpu_quota? as f64)
    }),
    ("container_spec_cpu_shares", "CPU share of the container.", GAUGE, &[], |row| {
        Some(row.container()?.limits.cpu_shares? as f64)
    }),
    (
        "container_spec_memory_limit_bytes",
        "Memory limit for the container.",
        GAUGE,
        &[],
        // 0 says that there is none.
        |row| Some(row.container()?.limits.memory_limit.unwrap_or(0) as f64),
    ),
    (
        "container_network_receive_bytes_total",
        "Cumulative count of bytes received",
        COUNTER,
        INTERFACE,
        |row| Some(row.traffic()?.received.bytes as f64),
    ),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        COUNTER,
        INTERFACE,
        |row| Some(row.traffic()?.received.errors as f64),
    ),
    (
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        COUNTER,
        INTERFACE,
        |row| Some(row.traffic()?.received.dropped as f64),
    ),
    (
        "container_network_receive_packets_total",
        "Cumulative count of packets received",
        COUNTER,
        INTERFACE,
        |row| Some(row.traffic()?.received.packets as f64),
    ),
    (
        "container_network_transmit_bytes_total",
        "Cumulative count of bytes transmitted",
        COUNTER,
        INTERFACE,
        |row| Some(row.traffic()?.sent.bytes as f64),
    ),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        COUNTER,
        INTERFACE,
        |row| Some(row.traffic()?.sent.errors as f64),
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        COUNTER,
        INTERFACE,
        |row| Some(row.traffic()?.sent.dropped as f64),
    ),
    (
        "container_network_transmit_packets_total",
        "Cumulative count of packets transmitted",
        COUNTER,
        INTERFACE,
        |row| Some(row.traffic()?.sent.packets as f64),
    ),
];

fn page(cpus: u32, memory_bytes: u64, whole: &Stats, pods: &[Usage]) -> String {
    let mut rows = vec![Row { of: Of::Machine, stats: whole }];
    for pod in pods {
        rows.extend(pod.total.iter().map(|stats| Row { of: Of::Pod(pod), stats }));
        let containers = pod.containers.iter();
        rows.extend(containers.map(|c| Row { of: Of::Container(pod, c), stats: &c.stats }));
    }
    let mut out = String::new();
    for family in METRICS.chunk_by(|one, next| one.0 == next.0) {
        let (name, help, kind, ..) = family[0];
        let lines = family.iter().flat_map(|(.., more, value)| {
            rows.iter().filter_map(move |row| Some((row.labels(more), value(row)?)))
        });
        metric(&mut out, name, help, kind, &lines.collect::<Vec<_>>());
    }
    gauge(&mut out, "machine_cpu_cores", "Number of logical CPU cores.", f64::from(cpus));
    let help = "Amount of memory installed on the machine.";
    gauge(&mut out, "machine_memory_bytes", help, memory_bytes as f64);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::{Counts, Traffic};
    use runtime::Resources;

    fn stats(cpu_seconds: u64, bytes: u64) -> Stats {
        Stats {
            cpu_nanoseconds: cpu_seconds * 1_000_000_000,
            memory_usage: bytes,
            memory_working_set: bytes,
            major_page_faults: 3,
            ..Stats::default()
        }
    }

    fn web() -> Usage {
        let one = |bytes| Counts { bytes, ..Counts::default() };
        let container = ContainerUsage {
            name: "nginx".to_owned(),
            id: "c1".to_owned(),
            image: "docker.io/library/nginx:1".to_owned(),
            started: None,
            limits: Resources { cpu_shares: Some(2), ..Resources::default() },
            stats: stats(2, 100),
        };
        Usage {
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            uid: "u".to_owned(),
            cgroup: "besteffort/podu".to_owned(),
            total: Some(stats(3, 150)),
            traffic: Some(Traffic { received: one(7), sent: one(8) }),
            containers: vec![container],
        }
    }

    fn lines<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
        page.lines().filter(|line| line.contains(name)).collect()
    }

    #[test]
    fn the_machine_its_pods_and_their_containers_are_told_apart() {
        let page = page(4, 1024, &stats(90, 900), &[web()]);
        let pod = r#"container="",id="/kubepods/besteffort/podu",image="",name="",namespace="shop",pod="web""#;
        let container = r#"container="nginx",id="/kubepods/besteffort/podu/c1",image="docker.io/library/nginx:1",name="c1",namespace="shop",pod="web""#;
        let machine = r#"container="",id="/",image="",name="",namespace="",pod="""#;
        assert_eq!(
            lines(&page, "container_cpu_usage_seconds_total"),
            [
                "# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed in seconds.",
                "# TYPE container_cpu_usage_seconds_total counter",
                &format!("container_cpu_usage_seconds_total{{{machine},cpu=\"total\"}} 90"),
                &format!("container_cpu_usage_seconds_total{{{pod},cpu=\"total\"}} 3"),
                &format!("container_cpu_usage_seconds_total{{{container},cpu=\"total\"}} 2"),
            ]
        );
        assert_eq!(
            lines(&page, "container_network_transmit_bytes_total{"),
            [format!("container_network_transmit_bytes_total{{{pod},interface=\"eth0\"}} 8")]
        );
        assert_eq!(
            lines(&page, "container_spec_memory_limit_bytes{"),
            [format!("container_spec_memory_limit_bytes{{{container}}} 0")]
        );
        // What is not known is left out.
        assert!(lines(&page, "container_start_time_seconds{").is_empty());
        assert!(lines(&page, "container_spec_cpu_quota{").is_empty());
        assert!(page.ends_with("machine_memory_bytes 1024\n"), "{page}");
    }

    #[test]
    fn a_name_is_explained_once_however_many_sorts_of_lines_it_has() {
        let page = page(4, 1024, &stats(90, 900), &[web()]);
        let faults = lines(&page, "container_memory_failures_total");
        assert_eq!(faults.iter().filter(|line| line.starts_with('#')).count(), 2, "{faults:?}");
        let major = faults.iter().filter(|line| line.contains("pgmajfault"));
        assert_eq!(major.filter(|line| line.ends_with("} 3")).count(), 2, "{faults:?}");
    }
}
