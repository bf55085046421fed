//! `/stats/summary`: what node, pods and containers use, in the shape of upstream's summary API.

use jiff::Timestamp;
use net::{POD_INTERFACE, Traffic};
use runtime::{ContainerId, Resources, SandboxId, Stats};
use serde_json::{Value, json};

use crate::manager::Manager;
use crate::node::machine::{self, Space};
use crate::pod::resources;
use crate::pod::view::{RunState, init_containers, spec};

/// A pod that runs and what it uses.
pub struct Usage {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// Its control group below the node's.
    pub cgroup: String,
    /// What the pod uses as a whole.
    pub total: Option<Stats>,
    /// What it received and sent; none on the node's own network.
    pub traffic: Option<Traffic>,
    /// Its running containers.
    pub containers: Vec<ContainerUsage>,
}

/// A container that runs and what it uses.
pub struct ContainerUsage {
    /// Its name within the pod.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// The image as the pod names it.
    pub image: String,
    /// When its process started.
    pub started: Option<Timestamp>,
    /// What it may use.
    pub limits: Resources,
    /// What it uses.
    pub stats: Stats,
}

/// What all running pods use.
pub async fn usage(manager: &Manager) -> Vec<Usage> {
    let ctx = manager.context();
    let mut traffic = ctx.network.traffic();
    let mut out = Vec::new();
    for pod in manager.pods() {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        let all = init_containers(&pod).iter().chain(&spec(&pod).containers);
        let asked = manager.with(&namespace, &name, |handle, _| {
            let runs = all.clone().filter_map(|c| Some((c, handle.run(&c.name, false)?)));
            let runs = runs.filter(|(_, run)| run.state == RunState::Running);
            (handle.sandbox(), runs.collect::<Vec<_>>())
        });
        let Some((Some(sandbox), runs)) = asked else { continue };
        let mut containers = Vec::new();
        for (container, run) in runs {
            if let Ok(stats) = ctx.runtime.stats(&ContainerId(run.id.clone())).await {
                containers.push(ContainerUsage {
                    name: container.name.clone(),
                    id: run.id,
                    image: run.image,
                    started: run.started,
                    limits: resources::container(&pod, container, ctx.memory_bytes),
                    stats,
                });
            }
        }
        out.push(Usage {
            namespace,
            pod: name,
            uid: text(&pod.metadata.uid),
            cgroup: resources::cgroup(&pod),
            traffic: traffic.remove(&sandbox.id),
            total: ctx.runtime.sandbox_stats(&SandboxId(sandbox.id)).await.ok(),
            containers,
        });
    }
    out
}

/// The whole summary.
pub async fn summary(manager: &Manager) -> Value {
    let ctx = manager.context();
    let now = Timestamp::now();
    let usage = usage(manager).await;
    let disk = machine::space(&ctx.config.data_dir).unwrap_or_default();
    let images = ctx.runtime.image_fs_usage().await.unwrap_or_default();
    let available = machine::memory_available();
    let pods: Vec<Value> = usage.iter().map(|u| pod(u, now)).collect();
    let image_fs = Space {
        capacity: images.capacity_bytes,
        available: images.available_bytes,
        inodes: images.capacity_inodes,
        inodes_free: images.available_inodes,
    };
    json!({
        "node": {
            "nodeName": ctx.config.node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": node_cpu_nanoseconds()},
            "memory": {"time": now, "availableBytes": available,
                "usageBytes": ctx.memory_bytes.saturating_sub(available),
                "workingSetBytes": ctx.memory_bytes.saturating_sub(available)},
            "fs": fs(&disk, disk.capacity.saturating_sub(disk.available), now),
            "runtime": {"imageFs": fs(&image_fs, images.used_bytes, now)},
        },
        "pods": pods,
    })
}

fn fs(space: &Space, used: u64, now: Timestamp) -> Value {
    json!({"time": now, "availableBytes": space.available, "capacityBytes": space.capacity,
        "usedBytes": used, "inodesFree": space.inodes_free, "inodes": space.inodes,
        "inodesUsed": space.inodes.saturating_sub(space.inodes_free)})
}

fn cpu_and_memory(stats: &Stats) -> Value {
    json!({
        "cpu": {"time": stats.at, "usageCoreNanoSeconds": stats.cpu_nanoseconds},
        "memory": {"time": stats.at, "usageBytes": stats.memory_usage,
            "workingSetBytes": stats.memory_working_set, "rssBytes": stats.memory_rss,
            "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults},
    })
}

fn pod(usage: &Usage, now: Timestamp) -> Value {
    let containers: Vec<Value> = usage
        .containers
        .iter()
        .map(|container| {
            let stats = &container.stats;
            let mut out = cpu_and_memory(stats);
            out["name"] = json!(container.name);
            out["startTime"] = json!(container.started);
            out["rootfs"] = json!({"time": now, "usedBytes": stats.writable_bytes,
                "inodesUsed": stats.writable_inodes});
            out
        })
        .collect();
    let mut out = usage.total.as_ref().map(cpu_and_memory).unwrap_or_else(|| json!({}));
    out["podRef"] = json!({"name": usage.pod, "namespace": usage.namespace, "uid": usage.uid});
    out["containers"] = json!(containers);
    if let Some(traffic) = &usage.traffic {
        out["network"] = network(traffic, now);
    }
    if let Some(total) = &usage.total {
        out["process_stats"] = json!({"process_count": total.pids});
    }
    out
}

/// A pod's one interface, which is also the list of all that it has.
fn network(traffic: &Traffic, now: Timestamp) -> Value {
    let (received, sent) = (traffic.received, traffic.sent);
    let interface = json!({"name": POD_INTERFACE, "rxBytes": received.bytes, "rxErrors": received.errors,
        "txBytes": sent.bytes, "txErrors": sent.errors});
    let mut out = interface.clone();
    out["time"] = json!(now);
    out["interfaces"] = json!([interface]);
    out
}

/// CPU time of the whole machine since its start, from /proc/stat.
pub fn node_cpu_nanoseconds() -> u64 {
    /// The kernel counts in hundredths of a second, whatever its own tick.
    const NANOS_PER_TICK: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal: all but the two idle ones.
    let busy = ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    busy.map(|(_, ticks)| ticks).sum::<u64>() * NANOS_PER_TICK
}
