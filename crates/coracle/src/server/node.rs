//! This board's agent: runtime, network and DNS opened, and joined to the API.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::NodeNetwork;
use client::Informers;
use k8s_openapi::api::core::v1::Taint;
use net::{PodNetwork, PodNetworkConfig, ProxyConfig, ServiceAddress, ServiceProxy, VxlanConfig};
use nix::mount::{MntFlags, umount2};
use runtime::{Native, NativeConfig, Runtime, SandboxFilter};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Common, Node};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::{cli, dns};

/// Where the runtime keeps images and containers.
pub fn runtime_config(common: &Common, cgroup_root: &str) -> NativeConfig {
    let mut config =
        NativeConfig::new(common.data_dir.join("agent/runtime"), common.run_dir.join("runtime"));
    config.cgroup_prefix = cgroup_root.to_owned();
    config
}

/// Where containers log to: upstream's folder, unless this is one of several on the machine.
fn log_dir(common: &Common) -> PathBuf {
    match common.data_dir == Path::new("/var/lib/coracle") {
        true => PathBuf::from("/var/log/pods"),
        false => common.data_dir.join("agent/logs"),
    }
}

/// What the whole cluster has in common, as every node must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of pods.
    pub cluster_cidr: net::Cidr,
    /// Addresses of services.
    pub service_cidr: net::Cidr,
    /// Address of the cluster's DNS, among those of services.
    pub cluster_dns: IpAddr,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Number of the VXLAN network between nodes; clusters of before it was kept do not say it.
    pub vxlan_vni: Option<u32>,
    /// UDP port of that.
    pub vxlan_port: Option<u16>,
}

impl Facts {
    /// Refuses flags of an agent that say something else than its cluster.
    pub fn must_hold_for(&self, node: &Node) -> Outcome {
        let hint = "leave it out: servers tell agents".to_owned();
        for (flag, own, theirs) in [
            ("--vxlan-vni", node.vxlan_vni, self.vxlan_vni),
            ("--vxlan-port", node.vxlan_port.map(u32::from), self.vxlan_port.map(u32::from)),
        ] {
            if let (Some(own), Some(theirs)) = (own, theirs)
                && own != theirs
            {
                return Err(Failure::new(format!(
                    "{flag} is {own} here, but {theirs} in the cluster"
                ))
                .hint(hint));
            }
        }
        Ok(())
    }
}

/// A node to be: what this board was told, and what its cluster has said.
pub struct Board {
    /// Folders and log.
    pub common: Common,
    /// What this board was told about its node.
    pub options: Node,
    /// The name of the Node.
    pub name: String,
    /// The address of the Node.
    pub ip: IpAddr,
    /// What the cluster has in common.
    pub facts: Facts,
    /// TLS of the kubelet's API: must demand a certificate of the client authority.
    pub tls: rustls::ServerConfig,
}

/// Opens what pods need and starts the agent.
pub async fn start(
    board: Board,
    informers: Informers,
    parts: &mut JoinSet<Outcome>,
    stop: &CancellationToken,
) -> Outcome {
    let node = &board.options;
    let mut config = runtime_config(&board.common, &node.cgroup_root);
    config.registries = Some(node.private_registry.clone());
    let runtime =
        Native::open(config).await.doing(|| "opening the container runtime".into()).hint(|| {
            format!(
                "see that {} is writable and is no overlay itself",
                board.common.data_dir.display()
            )
        })?;
    let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    let config = agent_config(&board)?;
    agent::register(&config, informers.client(), runtime.clone()).await;
    let cidrs = agent::pod_cidrs(informers.client(), &board.name).await;
    let network = open_network(&board, &cidrs).await?;
    let stop = stop.clone();
    parts.spawn(async move {
        agent::run(config, informers, runtime, network, stop)
            .await
            .doing(|| "running this board's agent".into())
    });
    Ok(())
}

fn agent_config(board: &Board) -> Outcome<agent::Config> {
    let node = &board.options;
    Ok(agent::Config {
        labels: labels(node)?,
        taints: node.node_taint.iter().map(|text| taint(text)).collect::<Outcome<_>>()?,
        data_dir: board.common.data_dir.join("agent"),
        run_dir: board.common.run_dir.clone(),
        log_dir: log_dir(&board.common),
        listen: SocketAddr::from(([0, 0, 0, 0], node.kubelet_port)),
        cluster_dns: Some(board.facts.cluster_dns),
        cluster_domain: board.facts.cluster_domain.clone(),
        resolv_conf: node.resolv_conf.clone(),
        version: super::version(),
        max_pods: node.max_pods,
        runtime_handlers: node.runtime_handler.clone(),
        unsafe_sysctls: node.allowed_unsafe_sysctls.clone(),
        seccomp_default: node.seccomp_default,
        tunnel: node.network_backend == net::Backend::Vxlan,
        eviction: node.eviction_hard,
        pressure_lasts: node.eviction_pressure_transition_period.duration(),
        drill_bridge: (!node.disable_drill).then(|| node.bridge.clone()),
        shutdown: agent::ShutdownPeriods {
            grace: node.shutdown_grace_period.duration(),
            critical: node.shutdown_grace_period_critical_pods.duration(),
        },
        ..agent::Config::new(&board.name, vec![board.ip], Arc::new(board.tls.clone()))
    })
}

async fn open_network(board: &Board, cidrs: &[String]) -> Outcome<NodeNetwork> {
    let (facts, node) = (&board.facts, &board.options);
    let vxlan = VxlanConfig::default();
    let pod_cidrs = cidrs
        .iter()
        .map(|cidr| cidr.parse().doing(|| format!("reading this node's pod addresses {cidr}")))
        .collect::<Outcome<_>>()?;
    let pods = PodNetwork::open(PodNetworkConfig {
        pod_cidrs,
        service_cidrs: vec![facts.service_cidr],
        node_ips: vec![board.ip],
        backend: node.network_backend,
        vxlan: VxlanConfig {
            vni: facts.vxlan_vni.or(node.vxlan_vni).unwrap_or(vxlan.vni),
            port: facts.vxlan_port.or(node.vxlan_port).unwrap_or(vxlan.port),
            ..vxlan
        },
        ..pod_network_config(&board.common, facts.cluster_cidr, &node.bridge, &node.nft_table)
    })
    .await
    .doing(|| format!("making the pod network on {}", node.bridge))?;
    let proxy = ServiceProxy::open(ProxyConfig {
        table: node.nft_table.clone(),
        cluster_cidrs: vec![facts.cluster_cidr],
        ..ProxyConfig::default()
    })
    .await
    .doing(|| format!("making the rules of services in the table {}", node.nft_table))?;
    ServiceAddress::open(&node.dns_device, &[facts.cluster_dns])
        .await
        .doing(|| "giving this board the address of the cluster's DNS".into())?;
    let groups = runtime_config(&board.common, &node.cgroup_root);
    let dns = dns::open(&board.common, facts, node.resolv_conf.clone(), &groups).await?;
    let services = agent::NetworkParts {
        proxy: Some(proxy),
        proxy_health: node.proxy_healthz_bind_address.0,
        proxy_metrics: node.proxy_metrics_bind_address.0,
        dns: Some(dns),
        own_addresses: vec![facts.cluster_dns],
    };
    Ok(NodeNetwork { pods: Arc::new(pods), services })
}

fn pod_network_config(
    common: &Common,
    cluster_cidr: net::Cidr,
    bridge: &str,
    nft_table: &str,
) -> PodNetworkConfig {
    PodNetworkConfig {
        bridge: bridge.to_owned(),
        cluster_cidrs: vec![cluster_cidr],
        state_dir: common.data_dir.join("agent/network"),
        table: format!("{nft_table}-pods"),
        ..PodNetworkConfig::default()
    }
}

fn labels(node: &Node) -> Outcome<BTreeMap<String, String>> {
    let pair = |text: &String| {
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(
            || Failure::new(format!("{text:?} is no label")).hint("write --node-label key=value"),
        )
    };
    node.node_label.iter().map(pair).collect()
}

/// Domains whose labels say what the cluster has decided, and the few that a node says itself.
const RESERVED_DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const OWN_LABELS: [&str; 10] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
];

/// Refuses labels that the API would not take from a node: kubelet's own rule.
pub fn check_labels(node: &Node) -> Outcome {
    let within = |domain: &str, of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    for key in labels(node)?.keys() {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let reserved = RESERVED_DOMAINS.iter().any(|reserved| within(domain, reserved));
        let own = OWN_DOMAINS.iter().any(|own| within(domain, own));
        if reserved && !own && !OWN_LABELS.contains(&key.as_str()) {
            return Err(Failure::new(format!("a node may not give itself the label {key}"))
                .hint("set it from a server: `kubectl label node NAME KEY=VALUE`"));
        }
    }
    Ok(())
}

fn taint(text: &str) -> Outcome<Taint> {
    let parsed = text
        .rsplit_once(':')
        .filter(|(_, effect)| matches!(*effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute"));
    let Some((pair, effect)) = parsed else {
        return Err(Failure::new(format!("{text:?} is no taint")).hint(
            "write --node-taint key=value:effect, with NoSchedule, PreferNoSchedule or NoExecute",
        ));
    };
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    Ok(Taint {
        key: key.to_owned(),
        value: (!value.is_empty()).then(|| value.to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

/// Ends all pods of this board and takes back what they needed of the machine: network devices,
/// rules, mounts and control groups. For a board whose server has stopped.
pub async fn remove_node_state(common: &Common, options: &cli::Uninstall) -> Outcome {
    let config = runtime_config(common, &options.cgroup_root);
    if config.state.exists() {
        let runtime =
            Native::open(config).await.doing(|| "opening the container runtime".into())?;
        let doing = || "ending the pods".to_owned();
        for sandbox in runtime.list_sandboxes(SandboxFilter::default()).await.doing(doing)? {
            runtime.stop_sandbox(&sandbox.id).await.doing(doing)?;
            runtime.remove_sandbox(&sandbox.id).await.doing(doing)?;
        }
    }
    dns::remove(&runtime_config(common, &options.cgroup_root)).await?;
    let anywhere = net::Cidr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
    if let Some(cidr) = anywhere {
        PodNetwork::purge(pod_network_config(common, cidr, &options.bridge, &options.nft_table))
            .await
            .doing(|| "removing the pod network".into())?;
    }
    let proxy = ProxyConfig { table: options.nft_table.clone(), ..ProxyConfig::default() };
    match ServiceProxy::open(proxy).await {
        Ok(proxy) => proxy.uninstall().await.doing(|| "removing the rules of services".into())?,
        Err(error) => tracing::debug!(error = %base::chain(&error), "no rules to remove"),
    }
    ServiceAddress::purge(&options.dns_device)
        .await
        .doing(|| "removing the address of the cluster's DNS".into())?;
    unmount_below(&[&common.data_dir, &common.run_dir])?;
    remove_groups(&options.cgroup_root);
    if common.data_dir == Path::new("/var/lib/coracle") {
        let _ = std::fs::remove_dir_all(log_dir(common));
    }
    Ok(())
}

fn unmount_below(folders: &[&PathBuf]) -> Outcome {
    let mounts = std::fs::read_to_string("/proc/self/mounts")
        .doing(|| "listing the mounts of this machine".into())?;
    let points: Vec<&str> =
        mounts.lines().filter_map(|line| line.split_ascii_whitespace().nth(1)).collect();
    // The last one mounted lies on top.
    for point in points.iter().rev() {
        if folders.iter().any(|folder| Path::new(point).starts_with(folder)) {
            umount2(*point, MntFlags::MNT_DETACH).doing(|| format!("unmounting {point}"))?;
        }
    }
    Ok(())
}

/// Removes our empty control groups, in every hierarchy there is.
fn remove_groups(cgroup_root: &str) {
    let relative = cgroup_root.trim_start_matches('/');
    if relative.is_empty() {
        return;
    }
    let top = Path::new("/sys/fs/cgroup");
    remove_group(&top.join(relative));
    for hierarchy in std::fs::read_dir(top).into_iter().flatten().flatten() {
        remove_group(&hierarchy.path().join(relative));
    }
}

fn remove_group(group: &Path) {
    for inner in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if inner.path().is_dir() {
            remove_group(&inner.path());
        }
    }
    // A group that still has processes stays; they are not ours.
    let _ = std::fs::remove_dir(group);
}
