//! Flags, variables and the configuration file, in k3s' way: a key of the file is a flag without
//! its dashes. A flag beats a variable, a variable beats the file, the file beats the default.

mod file;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use controllers::NODE_CIDR_PREFIX_BITS;
use net::Cidr;

use crate::server::{AccessOptions, DatastoreOptions, EvictionOptions};
use crate::snapshot::{Places, ScheduleOptions};
use crate::vip::VipOptions;
use file::DEFAULT_CONFIG;
pub use file::{parsed, refused, server_options, with_file};

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Folder that holds everything the cluster must not forget
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle", global = true)]
    pub data_dir: PathBuf,
    /// Folder for sockets and other state that a reboot may clear
    #[arg(long, env = "CORACLE_RUN_DIR", default_value = "/run/coracle", global = true)]
    pub run_dir: PathBuf,
    /// Configuration file; its keys are the flags without dashes in front
    #[arg(long, short, env = "CORACLE_CONFIG", default_value = DEFAULT_CONFIG, global = true)]
    pub config: PathBuf,
    /// What to log, such as `info` or `info,store=debug`
    #[arg(long, env = "CORACLE_LOG", default_value = "info", global = true)]
    pub log: String,
}

/// What `coracle server` can be told.
#[derive(Clone, Args)]
pub struct Server {
    /// Address that the API server listens on
    #[arg(long, env = "CORACLE_BIND_ADDRESS", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port that the API server listens on
    #[arg(long, env = "CORACLE_HTTPS_LISTEN_PORT", default_value_t = 6443)]
    pub https_listen_port: u16,
    /// Address that the API server tells others to reach it at [default: the node's address]
    #[arg(long, env = "CORACLE_ADVERTISE_ADDRESS")]
    pub advertise_address: Option<IpAddr>,
    /// Further name or address for the API server's certificate; may be given several times
    #[arg(long, env = "CORACLE_TLS_SAN", value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// Addresses for pods
    #[arg(long, env = "CORACLE_CLUSTER_CIDR", default_value = "10.42.0.0/16", value_parser = pod_network)]
    pub cluster_cidr: Cidr,
    /// Addresses for services
    #[arg(long, env = "CORACLE_SERVICE_CIDR", default_value = "10.43.0.0/16", value_parser = network)]
    pub service_cidr: Cidr,
    /// Ports for services of type NodePort
    #[arg(long, env = "CORACLE_SERVICE_NODE_PORT_RANGE", default_value = "30000-32767")]
    pub service_node_port_range: PortRange,
    /// Address of the cluster's DNS service [default: the tenth of the service addresses]
    #[arg(long, env = "CORACLE_CLUSTER_DNS")]
    pub cluster_dns: Option<IpAddr>,
    /// Domain of the cluster
    #[arg(long, env = "CORACLE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where the admin's kubeconfig is written
    #[arg(long, env = "CORACLE_WRITE_KUBECONFIG", default_value = "/etc/coracle/coracle.yaml")]
    pub write_kubeconfig: PathBuf,
    /// Folder whose manifests are applied and kept applied
    /// [default: server/manifests in the data folder]
    #[arg(long, env = "CORACLE_MANIFESTS_DIR")]
    pub manifests_dir: Option<PathBuf>,
    /// Leave out this board's own agent: no pods run here
    #[arg(long, env = "CORACLE_DISABLE_AGENT")]
    pub disable_agent: bool,
    /// How long a node may be silent before it counts as not ready, such as 50s
    #[arg(long, env = "CORACLE_NODE_MONITOR_GRACE_PERIOD", default_value = "50s")]
    pub node_monitor_grace_period: Span,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub eviction: EvictionOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessOptions,
    /// How long pods that say nothing stay on a node that is not ready, in seconds
    #[arg(
        long,
        env = "CORACLE_DEFAULT_NOT_READY_TOLERATION_SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(i64).range(0..)
    )]
    pub default_not_ready_toleration_seconds: i64,
    /// How long pods that say nothing stay on a node that is not heard of, in seconds
    #[arg(
        long,
        env = "CORACLE_DEFAULT_UNREACHABLE_TOLERATION_SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(i64).range(0..)
    )]
    pub default_unreachable_toleration_seconds: i64,
    /// Longest life of a certificate that is signed for a node, such as 8760h
    #[arg(long, env = "CORACLE_CLUSTER_SIGNING_DURATION", default_value = "8760h")]
    pub cluster_signing_duration: Span,
    /// Secret that agents join with [default: made at the first start]
    #[arg(long, env = "CORACLE_AGENT_TOKEN", hide_env_values = true)]
    pub agent_token: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub membership: Membership,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub datastore: DatastoreOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub vip: VipOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub snapshots: ScheduleOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub snapshot_places: Places,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub node: Node,
}
base::hides!(Server, bind_address, https_listen_port);

/// What `coracle agent` can be told.
#[derive(Debug, Clone, Args)]
pub struct Agent {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub membership: Membership,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub node: Node,
}

/// The cluster to join, and how this board proves that it may.
#[derive(Clone, Args)]
pub struct Membership {
    /// Server of the cluster to join, such as https://board:6443
    #[arg(long, env = "CORACLE_SERVER")]
    pub server: Option<String>,
    /// Token of the cluster (a server keeps it in server/token and server/agent-token)
    #[arg(long, env = "CORACLE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, env = "CORACLE_TOKEN_FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
}
base::hides!(Membership, server, token_file);

/// What this board's agent can be told.
#[derive(Debug, Clone, Args)]
pub struct Node {
    /// Name of this node [default: the host name]
    #[arg(long, env = "CORACLE_NODE_NAME")]
    pub node_name: Option<String>,
    /// Address of this node [default: the one that the default route leaves from]
    #[arg(long, env = "CORACLE_NODE_IP")]
    pub node_ip: Option<IpAddr>,
    /// Label for this node, as key=value; may be given several times
    #[arg(long, env = "CORACLE_NODE_LABEL", value_delimiter = ',')]
    pub node_label: Vec<String>,
    /// Taint for this node at its registration, as key=value:effect; may be given several times
    #[arg(long, env = "CORACLE_NODE_TAINT", value_delimiter = ',')]
    pub node_taint: Vec<String>,
    /// Port of this node's own API (logs, exec)
    #[arg(long, env = "CORACLE_KUBELET_PORT", default_value_t = 10250)]
    pub kubelet_port: u16,
    /// How many pods may run here
    #[arg(long, env = "CORACLE_MAX_PODS", default_value_t = 110)]
    pub max_pods: u32,
    /// Handlers of RuntimeClasses whose pods run here as all others do
    #[arg(
        long,
        env = "CORACLE_RUNTIME_HANDLER",
        value_delimiter = ',',
        default_value = "runc,crun"
    )]
    pub runtime_handler: Vec<String>,
    /// Settings of the kernel that pods may change here beside the safe ones, such as
    /// net.core.somaxconn or net.ipv4.*
    #[arg(
        long,
        env = "CORACLE_ALLOWED_UNSAFE_SYSCTLS",
        value_delimiter = ',',
        value_parser = namespaced_sysctl
    )]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Containers whose pods name no seccomp profile get RuntimeDefault, as kubelet's flag of this
    /// name; privileged ones have none
    #[arg(long, env = "CORACLE_SECCOMP_DEFAULT")]
    pub seccomp_default: bool,
    /// What must be left free before the node counts as under pressure, as kubelet's flag of
    /// this name: signal<amount, with memory.available, nodefs.available and nodefs.inodesFree
    #[arg(
        long,
        env = "CORACLE_EVICTION_HARD",
        default_value = "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%",
        value_parser = eviction
    )]
    pub eviction_hard: agent::Eviction,
    /// How long the node counts as under pressure after it was last short of something, as
    /// kubelet's flag of this name
    #[arg(long, env = "CORACLE_EVICTION_PRESSURE_TRANSITION_PERIOD", default_value = "5m")]
    pub eviction_pressure_transition_period: Span,
    /// How pods of other nodes are reached: `auto` takes plain routes to nodes on this segment and
    /// VXLAN to those beyond a router, `host-gw` plain routes only, `vxlan` VXLAN to all
    #[arg(
        long,
        env = "CORACLE_NETWORK_BACKEND",
        default_value_t,
        value_name = "auto|host-gw|vxlan"
    )]
    pub network_backend: net::Backend,
    /// Where the service proxy tells load balancers whether they may send here, as kube-proxy's
    /// --healthz-bind-address; empty: nowhere
    #[arg(long, env = "CORACLE_PROXY_HEALTHZ_BIND_ADDRESS", default_value = "0.0.0.0:10256")]
    pub proxy_healthz_bind_address: BindAddress,
    /// Where the service proxy shows figures, as kube-proxy's --metrics-bind-address; empty:
    /// nowhere
    #[arg(long, env = "CORACLE_PROXY_METRICS_BIND_ADDRESS", default_value = "127.0.0.1:10249")]
    pub proxy_metrics_bind_address: BindAddress,
    /// Number of the VXLAN network; the same on all servers, which tell agents [default: 1]
    #[arg(long, env = "CORACLE_VXLAN_VNI", value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    pub vxlan_vni: Option<u32>,
    /// UDP port of VXLAN; the same on all servers, which tell agents [default: 8472]
    #[arg(long, env = "CORACLE_VXLAN_PORT")]
    pub vxlan_port: Option<u16>,
    /// Have this board refuse to be cut off by `coracle drill`
    #[arg(long, env = "CORACLE_DISABLE_DRILL")]
    pub disable_drill: bool,
    /// How long pods may delay the board's going off, all together, such as 30s; 0s: not at all
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD", default_value = "30s")]
    pub shutdown_grace_period: Span,
    /// The part of it that is kept for critical pods, at the end
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS", default_value = "10s")]
    pub shutdown_grace_period_critical_pods: Span,
    /// Bridge that the pods are joined by
    #[arg(long, env = "CORACLE_BRIDGE", default_value = "coracle0")]
    pub bridge: String,
    /// Table of nftables that holds our rules
    #[arg(long, env = "CORACLE_NFT_TABLE", default_value = "coracle")]
    pub nft_table: String,
    /// Device that carries the address of the cluster's DNS
    #[arg(long, env = "CORACLE_DNS_DEVICE", default_value = "coracle-dns")]
    pub dns_device: String,
    /// Control group that the pods' groups are made in
    #[arg(long, env = "CORACLE_CGROUP_ROOT", default_value = "/coracle")]
    pub cgroup_root: String,
    /// File that names the DNS servers for everything outside the cluster
    #[arg(long, env = "CORACLE_RESOLV_CONF", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Mirrors and credentials of image registries
    #[arg(long, env = "CORACLE_PRIVATE_REGISTRY", default_value = "/etc/coracle/registries.yaml")]
    pub private_registry: PathBuf,
}

/// Reads an IPv4 network that is large enough to hand out addresses from.
fn network(text: &str) -> Result<Cidr, String> {
    if text.contains([',', ':']) {
        return Err("pods and services have IPv4 addresses only: name one IPv4 network (IPv6 and \
                    dual stack are not there yet)"
            .into());
    }
    let cidr: Cidr = text.parse().map_err(|error: net::CidrParseError| error.to_string())?;
    match (cidr.is_ipv4(), cidr.prefix(), cidr.to_string() == text) {
        (true, 8..=28, true) => Ok(cidr),
        (true, 8..=28, false) => Err(format!("that is inside the network {cidr}; name this")),
        _ => Err("an IPv4 network with a prefix of 8 to 28 bits is needed".into()),
    }
}

/// A network with room for at least one board's pods.
fn pod_network(text: &str) -> Result<Cidr, String> {
    let cidr = network(text)?;
    match cidr.prefix() <= NODE_CIDR_PREFIX_BITS {
        true => Ok(cidr),
        false => Err(format!(
            "each board gets a /{NODE_CIDR_PREFIX_BITS} for its pods: a network of that size or larger \
             is needed"
        )),
    }
}

/// A setting, or a pattern of settings, that each pod has for itself.
fn namespaced_sysctl(text: &str) -> Result<String, String> {
    let name = api::sysctl::normalized(text);
    match api::sysctl::namespace(&name) {
        Some(_) => Ok(name),
        None => Err(format!("{text:?} is the whole board's; no pod can have it for itself")),
    }
}

/// Reads thresholds in kubelet's form. A signal that is not named does not count.
fn eviction(text: &str) -> Result<agent::Eviction, String> {
    let mut eviction = agent::Eviction {
        memory_available_bytes: 0,
        disk_available_percent: 0,
        inodes_free_percent: 0,
    };
    let percent = |amount: &str| {
        let number = amount.strip_suffix('%').and_then(|number| number.parse::<u64>().ok());
        number.filter(|n| *n <= 100).ok_or_else(|| format!("{amount:?} is no percentage"))
    };
    for threshold in text.split(',').filter(|threshold| !threshold.is_empty()) {
        let (signal, amount) = threshold
            .split_once('<')
            .ok_or_else(|| format!("{threshold:?} is no threshold; write signal<amount"))?;
        match signal {
            "nodefs.available" => eviction.disk_available_percent = percent(amount)?,
            "nodefs.inodesFree" => eviction.inodes_free_percent = percent(amount)?,
            "memory.available" => {
                let bytes: base::Quantity = amount
                    .parse()
                    .map_err(|error: base::QuantityError| format!("{amount:?}: {error}"))?;
                eviction.memory_available_bytes = bytes.units().max(0).unsigned_abs();
            }
            other => {
                return Err(format!(
                    "{other:?} is none of memory.available, nodefs.available, nodefs.inodesFree"
                ));
            }
        }
    }
    Ok(eviction)
}

/// An address and port to listen at; empty: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindAddress(pub Option<SocketAddr>);

impl std::str::FromStr for BindAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = (!text.is_empty()).then(|| text.parse());
        address.transpose().map(Self)
    }
}

/// A span of time in whole seconds, written as upstream's flags take it (`50s`, `1m30s`, `1h`) or
/// as a plain number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(u32);

impl Span {
    /// Its length.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// Its length.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0.into())
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no span of time; write 50s or 1m30s");
        let mut rest = text;
        let mut seconds = 0u32;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, unit) = rest.split_at(digits);
            let number: u32 = number.parse().map_err(|_| wrong())?;
            let length = match unit.chars().next() {
                Some('h') => 3600,
                Some('m') => 60,
                Some('s') => 1,
                None if digits == text.len() => 1,
                _ => return Err(wrong()),
            };
            let part = number.checked_mul(length);
            seconds = part.and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
            rest = unit.get(1..).unwrap_or_default();
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Span(seconds)) }
    }
}

/// A range of ports as `30000-32767`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('-')
            .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match parsed {
            Some((first, last)) if 0 < first && first <= last => Ok(PortRange { first, last }),
            _ => Err("a range of ports is needed, such as 30000-32767".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_kubelet_reads_them() {
        let read = eviction("memory.available<1Gi,nodefs.available<3%").expect("thresholds");
        assert_eq!((read.memory_available_bytes, read.disk_available_percent), (1 << 30, 3));
        assert_eq!(read.inodes_free_percent, 0);
        for wrong in
            ["memory.available", "memory.available<x", "imagefs.available<5%", "nodefs.available<5"]
        {
            assert!(eviction(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_are_checked() {
        assert_eq!(network("10.42.0.0/16").map(|c| c.to_string()), Ok("10.42.0.0/16".into()));
        for wrong in ["10.42.1.0/16", "10.42.0.0/33", "fd00::/64", "10.42.0.0"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
        for other in ["fd00:42::/56", "10.42.0.0/16,fd00:42::/56"] {
            assert!(network(other).expect_err("refused").contains("dual stack"), "{other}");
        }
        assert!(pod_network("10.42.0.0/24").is_ok());
        assert!(pod_network("10.42.0.0/25").expect_err("refused").contains("/24"));
    }
}
