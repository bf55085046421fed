//! What an agent is told about its node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::security::Filters;
use crate::shutdown::Periods as ShutdownPeriods;

/// How the agent of one node is set up.
#[derive(Clone)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// Whether the node's pods reach all others through the tunnel, as it tells them.
    pub tunnel: bool,
    /// Addresses of the node, first the preferred one.
    pub node_ips: Vec<IpAddr>,
    /// Further labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// Taints the Node object gets when it is first made.
    pub taints: Vec<Taint>,
    /// What must last: pods' directories (`/var/lib/coracle/agent`).
    pub data_dir: PathBuf,
    /// What may go at a reboot (`/run/coracle`).
    pub run_dir: PathBuf,
    /// Where containers log to: a folder per pod (`/var/log/pods`).
    pub log_dir: PathBuf,
    /// Address and port of the kubelet's HTTPS API (port 10250).
    pub listen: SocketAddr,
    /// TLS of that API; must demand client certificates of the cluster's client CA.
    pub tls: Arc<rustls::ServerConfig>,
    /// Who may call that API: common names of client certificates, beside `system:masters`.
    pub api_clients: Vec<String>,
    /// Address of cluster DNS, for pods' resolver files.
    pub cluster_dns: Option<IpAddr>,
    /// The cluster's domain (`cluster.local`).
    pub cluster_domain: String,
    /// The host's resolver file, for pods with the host's DNS.
    pub resolv_conf: PathBuf,
    /// Version of the kubelet and of the proxy that the node reports (`v1.36.0+coracle0.1.0`).
    pub version: String,
    /// Most pods that may run here.
    pub max_pods: u32,
    /// Handlers of RuntimeClasses that the runtime stands for.
    pub runtime_handlers: Vec<String>,
    /// Settings of the kernel that pods may change beside the safe ones, or patterns `net.core.*`.
    pub unsafe_sysctls: Vec<String>,
    /// Containers that name no filter of system calls get the runtime's own.
    pub seccomp_default: bool,
    /// What is kept from pods for the system, by resource name.
    pub reserved: BTreeMap<String, Quantity>,
    /// When the node counts as under pressure.
    pub eviction: Eviction,
    /// How long the node counts as under pressure after it was last short of something.
    pub pressure_lasts: Duration,
    /// When images are collected.
    pub image_gc: ImageGc,
    /// The bridge of the pods, where the board may be cut off by `coracle drill`; none: it refuses.
    pub drill_bridge: Option<String>,
    /// How long pods may delay a shutdown of the board.
    pub shutdown: ShutdownPeriods,
}

/// Below these amounts the node counts as under pressure.
#[derive(Clone, Copy, Debug)]
pub struct Eviction {
    /// Memory, in bytes.
    pub memory_available_bytes: u64,
    /// Free share of the node's file system, in percent.
    pub disk_available_percent: u64,
    /// Free share of its inodes, in percent.
    pub inodes_free_percent: u64,
}

impl Default for Eviction {
    fn default() -> Self {
        Eviction {
            memory_available_bytes: 100 << 20,
            disk_available_percent: 10,
            inodes_free_percent: 5,
        }
    }
}

/// When images that nobody uses are removed.
#[derive(Clone, Copy, Debug)]
pub struct ImageGc {
    /// Begin above this use of the disk, in percent.
    pub high_percent: u64,
    /// Stop below this use of the disk, in percent.
    pub low_percent: u64,
    /// Never remove an image that was used or pulled more recently.
    pub min_age: Duration,
}

impl Default for ImageGc {
    fn default() -> Self {
        ImageGc { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) }
    }
}

impl Config {
    /// The usual settings for a node; what a cluster decides must be given.
    pub fn new(node_name: &str, node_ips: Vec<IpAddr>, tls: Arc<rustls::ServerConfig>) -> Self {
        Config {
            node_name: node_name.to_owned(),
            node_ips,
            tunnel: false,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            data_dir: PathBuf::from("/var/lib/coracle/agent"),
            run_dir: PathBuf::from("/run/coracle"),
            log_dir: PathBuf::from("/var/log/pods"),
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            tls,
            api_clients: vec!["kube-apiserver-kubelet-client".to_owned()],
            cluster_dns: None,
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            version: "v1.36.0".to_owned(),
            max_pods: 110,
            runtime_handlers: vec!["runc".to_owned()],
            unsafe_sysctls: Vec::new(),
            seccomp_default: false,
            reserved: BTreeMap::new(),
            eviction: Eviction::default(),
            pressure_lasts: Duration::from_secs(300),
            image_gc: ImageGc::default(),
            drill_bridge: None,
            shutdown: ShutdownPeriods::default(),
        }
    }

    /// Where filters of system calls come from; kubelets have the folder at this place of theirs.
    pub(crate) fn filters(&self) -> Filters {
        Filters { folder: self.data_dir.join("seccomp"), by_default: self.seccomp_default }
    }
}
