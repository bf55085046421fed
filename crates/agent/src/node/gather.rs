//! The status of the node, from what is measured.

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use runtime::{ImageInfo, Runtime};

use super::machine::{self, Machine};
use super::{Resources, condition};
use crate::config::Config;
use crate::evict::{self, Scarce};
use crate::quantity;
use crate::shutdown::Leaving;

/// Images that the status lists at most, the largest first.
const MAX_IMAGES: usize = 50;
/// The node is short of processes below this free share, in percent.
const PIDS_FREE_PERCENT: u64 = 5;

/// What the node has.
pub fn capacity(config: &Config, machine: &Machine) -> Resources {
    let disk = machine::space(&config.data_dir).unwrap_or_default();
    let bytes = |n: u64| quantity::from_bytes(i64::try_from(n).unwrap_or(i64::MAX));
    Resources::from([
        ("cpu".to_owned(), Quantity(machine.cpus.to_string())),
        ("memory".to_owned(), bytes(machine.memory_bytes)),
        ("ephemeral-storage".to_owned(), bytes(disk.capacity)),
        ("pods".to_owned(), Quantity(config.max_pods.to_string())),
    ])
}

/// What of it pods may have: less what is reserved and what must stay free.
pub fn allocatable(config: &Config, machine: &Machine) -> Resources {
    let mut out = capacity(config, machine);
    let less = |out: &mut Resources, name: &str, amount: i64| {
        let Some(have) = out.get_mut(name) else { return };
        *have = match name {
            "cpu" => quantity::from_millis((quantity::millis(have) - amount).max(0)),
            "memory" | "ephemeral-storage" => {
                quantity::from_bytes((quantity::units(have) - amount).max(0))
            }
            _ => Quantity((quantity::units(have) - amount).max(0).to_string()),
        };
    };
    for (name, amount) in &config.reserved {
        let amount = if name == "cpu" { quantity::millis(amount) } else { quantity::units(amount) };
        less(&mut out, name, amount);
    }
    let memory = i64::try_from(config.eviction.memory_available_bytes).unwrap_or(i64::MAX);
    less(&mut out, "memory", memory);
    if let Some(disk) = out.get("ephemeral-storage").map(quantity::units) {
        let percent = i64::try_from(config.eviction.disk_available_percent).unwrap_or(0);
        less(&mut out, "ephemeral-storage", disk / 100 * percent);
    }
    out
}

/// The whole status.
pub async fn status(
    config: &Config,
    runtime: &dyn Runtime,
    machine: &Machine,
    leaving: &Leaving,
) -> NodeStatus {
    let version = runtime.version().await.ok();
    let images = runtime.list_images().await.unwrap_or_default();
    NodeStatus {
        addresses: Some(addresses(config)),
        capacity: Some(capacity(config, machine)),
        allocatable: Some(allocatable(config, machine)),
        conditions: Some(conditions(config, runtime, leaving).await),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.listen.port()) }),
        }),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        images: Some(list(images)),
        node_info: Some(NodeSystemInfo {
            architecture: machine::arch().to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: version
                .map(|v| format!("{}://{}", v.name, v.version))
                .unwrap_or_default(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: config.version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            swap: (machine.swap_bytes > 0)
                .then(|| NodeSwapStatus { capacity: i64::try_from(machine.swap_bytes).ok() }),
            system_uuid: machine.system_uuid.clone(),
        }),
        runtime_handlers: Some(handlers(config)),
        ..NodeStatus::default()
    }
}

/// The one without a name is for pods without a RuntimeClass. All are the same runtime.
fn handlers(config: &Config) -> Vec<NodeRuntimeHandler> {
    let names = std::iter::once("").chain(config.runtime_handlers.iter().map(String::as_str));
    let features = NodeRuntimeHandlerFeatures {
        recursive_read_only_mounts: Some(true),
        user_namespaces: Some(false),
    };
    let one = |name: &str| NodeRuntimeHandler {
        name: Some(name.to_owned()),
        features: Some(features.clone()),
    };
    names.map(one).collect()
}

fn addresses(config: &Config) -> Vec<NodeAddress> {
    let ips = config.node_ips.iter().map(|ip| ("InternalIP", ip.to_string()));
    ips.chain([("Hostname", config.node_name.clone())])
        .map(|(kind, address)| NodeAddress { type_: kind.to_owned(), address })
        .collect()
}

fn list(mut images: Vec<ImageInfo>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images.truncate(MAX_IMAGES);
    let entry = |image: ImageInfo| ContainerImage {
        names: Some(image.digests.into_iter().chain(image.tags).collect()),
        size_bytes: i64::try_from(image.size).ok(),
    };
    images.into_iter().map(entry).collect()
}

async fn conditions(
    config: &Config,
    runtime: &dyn Runtime,
    leaving: &Leaving,
) -> Vec<NodeCondition> {
    let disk = machine::space(&config.data_dir).unwrap_or_default();
    let short = evict::shortages(&config.eviction, machine::memory_available(), &disk);
    let is_short = |of: &[Scarce]| short.iter().any(|short| of.contains(&short.of));
    let (max, running) = machine::pids();
    let pids_low = max.saturating_sub(running) * 100 < max * PIDS_FREE_PERCENT;
    let pressure = |kind: &str, low: bool, what: &str| {
        let reason = if low { format!("KubeletHas{what}") } else { enough(what) };
        let verb = if low { "has" } else { has_enough(what) };
        let words = match what {
            "InsufficientMemory" => {
                if low {
                    "insufficient memory available"
                } else {
                    "sufficient memory available"
                }
            }
            "DiskPressure" => "disk pressure",
            _ => {
                if low {
                    "insufficient PID available"
                } else {
                    "sufficient PID available"
                }
            }
        };
        condition(kind, low, &reason, &format!("kubelet {verb} {words}"))
    };
    let status = runtime.status().await;
    let ready = match &status {
        _ if leaving.is_announced() => {
            condition("Ready", false, "KubeletNotReady", "node is shutting down")
        }
        Ok(status) if status.ready => {
            condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
        }
        Ok(status) => {
            let message = format!("container runtime is not ready: {}", status.messages.join("; "));
            condition("Ready", false, "KubeletNotReady", &message)
        }
        Err(error) => {
            let message = format!(
                "container runtime status check may not have completed yet: {}",
                base::chain(error)
            );
            condition("Ready", false, "KubeletNotReady", &message)
        }
    };
    vec![
        pressure("MemoryPressure", is_short(&[Scarce::Memory]), "InsufficientMemory"),
        pressure("DiskPressure", is_short(&[Scarce::Disk, Scarce::Inodes]), "DiskPressure"),
        pressure("PIDPressure", pids_low, "InsufficientPID"),
        ready,
    ]
}

fn enough(what: &str) -> String {
    match what {
        "DiskPressure" => "KubeletHasNoDiskPressure".to_owned(),
        other => format!("KubeletHas{}", other.replace("Insufficient", "Sufficient")),
    }
}

fn has_enough(what: &str) -> &'static str {
    if what == "DiskPressure" { "has no" } else { "has" }
}
