//! What our processes take, as the kernel counts it: the server, the process that answers for
//! cluster DNS, the shim of every pod, and what runs in the pods.

use std::fs;
use std::time::Duration;

use http::Method;

use crate::Outcome;
use crate::api::Api;
use crate::figures::Figures;

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * KIB;

/// The processes of one cluster.
pub struct Processes {
    server: Vec<u32>,
    dns: Vec<u32>,
    shims: Vec<u32>,
    workload: Vec<u32>,
}

/// Bytes held: by this process alone or shared (RSS), and with what is shared divided (PSS).
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// Resident.
    pub rss: f64,
    /// Resident, what is shared by several divided among them.
    pub pss: f64,
}

impl Processes {
    /// Finds the server's shims and its process for DNS by their run folder, and the pods' processes
    /// as the shims' children. A server may be several processes, with commas between them.
    pub fn find(server: &str, run_dir: &str) -> Outcome<Self> {
        let server = server.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let mut found = Processes { server, dns: vec![], shims: vec![], workload: vec![] };
        let mut others = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            match line.split('\0').nth(1).filter(|_| line.contains(run_dir)) {
                Some("shim") => found.shims.push(pid),
                Some("dns-holder") => found.dns.push(pid),
                _ => others.push(pid),
            }
        }
        found.workload = others
            .into_iter()
            .filter(|&p| parent(p).is_some_and(|p| found.shims.contains(&p)))
            .collect();
        Ok(found)
    }

    fn all_ours(&self) -> impl Iterator<Item = u32> {
        self.shims.iter().chain(&self.dns).chain(&self.server).copied()
    }

    /// What the server alone holds.
    pub fn server_memory(&self) -> Memory {
        self.server.iter().map(|&pid| memory(pid)).sum()
    }

    /// What the process that answers for cluster DNS holds.
    pub fn dns_memory(&self) -> Memory {
        self.dns.iter().map(|&pid| memory(pid)).sum()
    }

    /// What the shims hold together, and how many there are.
    pub fn shim_memory(&self) -> (Memory, usize) {
        (self.shims.iter().map(|&pid| memory(pid)).sum(), self.shims.len())
    }

    /// What all hold that are there without pods.
    pub fn idle_memory(&self) -> Memory {
        self.all_ours().map(memory).sum()
    }

    /// How often the server's threads have let go of a core by themselves.
    fn context_switches(&self) -> f64 {
        self.server.iter().map(|&pid| context_switches(pid)).sum()
    }

    /// CPU time of all so far; unlike a rate it means something on a machine that is busy.
    pub fn cpu_seconds(&self) -> f64 {
        self.all_ours().map(cpu_seconds).sum()
    }

    fn written_bytes(&self) -> f64 {
        self.all_ours().map(written_bytes).sum()
    }
}

impl std::iter::Sum for Memory {
    fn sum<I: Iterator<Item = Memory>>(all: I) -> Memory {
        all.fold(Memory::default(), |a, b| Memory { rss: a.rss + b.rss, pss: a.pss + b.pss })
    }
}

impl Memory {
    /// Notes `NAME_rss` and `NAME_pss` in MiB.
    pub fn note(self, figures: &mut Figures, name: &str) -> Outcome {
        figures.set(&format!("{name}_rss"), self.rss / MIB)?;
        figures.set(&format!("{name}_pss"), self.pss / MIB)
    }
}

/// Notes what an idle cluster takes.
pub async fn idle(
    figures: &mut Figures,
    kubeconfig: &str,
    pid: &str,
    run_dir: &str,
    seconds: u64,
) -> Outcome {
    let processes = Processes::find(pid, run_dir)?;
    let api = Api::from_kubeconfig(kubeconfig)?;
    let (fsyncs, stored) = store_counters(&api).await?;
    let (cpu, written) = (processes.cpu_seconds(), processes.written_bytes());
    let switches = processes.context_switches();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let minutes = seconds as f64 / 60.0;
    let cpu = processes.cpu_seconds() - cpu;
    let written = processes.written_bytes() - written;
    let switches = processes.context_switches() - switches;
    let (fsyncs, stored) = {
        let now = store_counters(&api).await?;
        (now.0 - fsyncs, now.1 - stored)
    };
    figures.set("idle_cpu_minute", cpu / minutes)?;
    figures.set("idle_switches_second", switches / seconds as f64)?;
    figures.set("idle_written_hour", written / minutes * 60.0 / MIB)?;
    figures.set("idle_stored_hour", stored / minutes * 60.0 / MIB)?;
    figures.set("idle_fsyncs_minute", fsyncs / minutes)?;

    let server = processes.server_memory();
    let dns = processes.dns_memory();
    let (shims, count) = processes.shim_memory();
    server.note(figures, "idle_server")?;
    dns.note(figures, "idle_dns")?;
    shims.note(figures, "idle_shims")?;
    figures.set("idle_shim_count", count as f64)?;
    let workload: Memory = processes.workload.iter().map(|&pid| memory(pid)).sum();
    workload.note(figures, "idle_workload")?;
    [server, dns, shims].into_iter().sum::<Memory>().note(figures, "idle_sum")
}

async fn store_counters(api: &Api) -> Outcome<(f64, f64)> {
    let page = api.connect().await?.body(Method::GET, "/metrics", "").await?;
    let page = String::from_utf8_lossy(&page);
    let value = |name: &str| -> Outcome<f64> {
        let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.ok_or_else(|| format!("/metrics lacks {name}"))?.parse()?)
    };
    Ok((value("coracle_store_fsyncs_total")?, value("coracle_store_written_bytes_total")?))
}

fn parent(pid: u32) -> Option<u32> {
    // The name in parentheses may hold anything, so the fields are counted from its end.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    Memory { rss: number_after(&text, "Rss:") * KIB, pss: number_after(&text, "Pss:") * KIB }
}

fn written_bytes(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    number_after(&text, "write_bytes:")
}

/// CPU time of all threads, by the scheduler's own clock where the kernel keeps it: a tick of
/// 10 ms is coarse for a process that hardly runs.
fn cpu_seconds(pid: u32) -> f64 {
    tasks(pid)
        .filter_map(|task| fs::read_to_string(format!("{task}/schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map(|nanoseconds| nanoseconds / 1e9)
        .sum()
}

fn context_switches(pid: u32) -> f64 {
    tasks(pid)
        .filter_map(|task| fs::read_to_string(format!("{task}/status")).ok())
        .map(|text| number_after(&text, "voluntary_ctxt_switches:"))
        .sum()
}

fn tasks(pid: u32) -> impl Iterator<Item = String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.path().display().to_string())
}

/// The number behind a label at the start of a line; 0 when there is none.
fn number_after(text: &str, label: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
