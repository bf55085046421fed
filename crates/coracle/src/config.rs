//! Flags, variables and the configuration file, in k3s' way: a key of the file is a flag without
//! its dashes. A flag beats a variable, a variable beats the file, the file beats the default.

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Command, CommandFactory, FromArgMatches};
use controllers::NODE_CIDR_PREFIX_BITS;
use net::Cidr;
use serde_json::Value;

use crate::cli::Cli;
use crate::failure::{Failure, Hint, Outcome, While};
use crate::server::{AccessOptions, DatastoreOptions, EvictionOptions};
use crate::snapshot::{Places, ScheduleOptions};
use crate::vip::VipOptions;

/// Where the configuration file is looked for when none is named.
const DEFAULT_CONFIG: &str = "/etc/coracle/config.yaml";
/// A configuration is a page of text; more is a mistake.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

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
    /// What must be left free before the node counts as under pressure, as kubelet's flag of
    /// this name: signal<amount, with memory.available, nodefs.available and nodefs.inodesFree
    #[arg(
        long,
        env = "CORACLE_EVICTION_HARD",
        default_value = "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%",
        value_parser = eviction
    )]
    pub eviction_hard: agent::Eviction,
    /// How pods of other nodes are reached: `auto` takes plain routes to nodes on this segment and
    /// VXLAN to those beyond a router, `host-gw` plain routes only, `vxlan` VXLAN to all
    #[arg(
        long,
        env = "CORACLE_NETWORK_BACKEND",
        default_value_t,
        value_name = "auto|host-gw|vxlan"
    )]
    pub network_backend: net::Backend,
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

/// Puts the configuration file's keys into the arguments as flags, behind the subcommand, unless
/// a flag or a variable says the same thing already.
pub fn with_file(command: &Command, mut arguments: Vec<OsString>) -> Outcome<Vec<OsString>> {
    let Some((position, subcommand)) = find_subcommand(command, &arguments) else {
        return Ok(arguments);
    };
    let takes = |id: &str| subcommand.get_arguments().any(|argument| argument.get_id() == id);
    if !takes("node_name") && !takes("snapshot_dir") {
        return Ok(arguments);
    }
    let given: Vec<String> = arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let named = named_config(&given);
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    let flags = match read(&path)? {
        Some(keys) => flags_of(&path, keys, command, subcommand, &given)?,
        None if named.is_some() => {
            return Err(Failure::new(format!("there is no configuration file {}", path.display()))
                .hint("make the file, or leave out --config"));
        }
        None => Vec::new(),
    };
    arguments.splice(position + 1..position + 1, flags.into_iter().map(OsString::from));
    Ok(arguments)
}

/// What the server of this board is told by the configuration file and the environment; what its
/// command line says besides is not known here.
pub fn server_options(common: &Common) -> Outcome<Server> {
    let mut line: Vec<OsString> = vec!["coracle".into(), "server".into()];
    if common.config.exists() {
        line.extend(["--config".into(), common.config.clone().into()]);
    }
    let doing = || "reading the server's configuration".to_owned();
    match parsed(line).doing(doing)?.command {
        crate::cli::Command::Server(options) => Ok(*options),
        _ => Err(Failure::new(doing())),
    }
}

/// What a command line means, together with the configuration file and the environment.
pub fn parsed(line: Vec<OsString>) -> Outcome<Cli> {
    let command = Cli::command();
    let line = with_file(&command, line)?;
    let matches = command.try_get_matches_from(line).and_then(|m| Cli::from_arg_matches(&m));
    matches.map_err(|error| {
        let told = error.to_string();
        let first = told.lines().next().unwrap_or_default();
        Failure::new(first.trim_start_matches("error: "))
    })
}

fn find_subcommand<'a>(
    command: &'a Command,
    arguments: &[OsString],
) -> Option<(usize, &'a Command)> {
    arguments.iter().enumerate().skip(1).find_map(|(position, argument)| {
        let name = argument.to_str()?;
        command.find_subcommand(name).map(|subcommand| (position, subcommand))
    })
}

fn named_config(given: &[String]) -> Option<PathBuf> {
    let flag = given.iter().enumerate().find_map(|(i, argument)| match argument.as_str() {
        "--config" | "-c" => given.get(i + 1).cloned(),
        other => other.strip_prefix("--config=").map(str::to_owned),
    });
    flag.or_else(|| std::env::var("CORACLE_CONFIG").ok()).map(PathBuf::from)
}

fn read(path: &Path) -> Outcome<Option<serde_json::Map<String, Value>>> {
    let doing = || format!("reading the configuration file {}", path.display());
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(doing),
        Ok(metadata) if metadata.len() > MAX_CONFIG_BYTES => {
            return Err(Failure::new(format!("{} is larger than 1 MiB", path.display()))
                .hint("a configuration file holds flags, one a line"));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).doing(doing)?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
        return Ok(Some(serde_json::Map::new()));
    }
    let value: Value = serde_saphyr::from_str(&text)
        .doing(doing)
        .hint(|| "it is YAML, one `flag: value` a line".into())?;
    match value {
        Value::Object(keys) => Ok(Some(keys)),
        _ => Err(Failure::new(format!("{} is no list of keys", path.display()))
            .hint("it is YAML, one `flag: value` a line")),
    }
}

fn flags_of(
    path: &Path,
    keys: serde_json::Map<String, Value>,
    command: &Command,
    subcommand: &Command,
    given: &[String],
) -> Outcome<Vec<String>> {
    let known = || subcommand.get_arguments().chain(command.get_arguments());
    let is_node = subcommand.get_arguments().any(|argument| argument.get_id() == "node_name");
    let mut flags = Vec::new();
    for (key, value) in keys {
        let Some(argument) = known().find(|a| a.get_long() == Some(key.as_str())) else {
            // The file is the server's; other commands take from it what is theirs.
            if !is_node {
                continue;
            }
            let names = fleet::nearest::by_likeness(&key, known().filter_map(|a| a.get_long()));
            return Err(Failure::new(format!("{} has an unknown key {key:?}", path.display()))
                .hint(format!(
                    "did you mean {:?}? `coracle {} --help` lists all keys",
                    names[0],
                    subcommand.get_name()
                )));
        };
        let flag = format!("--{key}");
        let says =
            |flag: &str| given.iter().any(|a| a == flag || a.starts_with(&format!("{flag}=")));
        let aliases = argument.get_all_aliases().unwrap_or_default();
        let by_flag = says(&flag) || aliases.iter().any(|alias| says(&format!("--{alias}")));
        let by_variable = argument.get_env().is_some_and(|name| std::env::var_os(name).is_some());
        if by_flag || by_variable {
            continue;
        }
        let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
        match value {
            Value::Bool(on) if is_switch => flags.extend(on.then(|| flag.clone())),
            Value::Null => {}
            Value::Array(items) => {
                for item in items {
                    flags.push(format!("{flag}={}", scalar(path, &key, item)?));
                }
            }
            value => flags.push(format!("{flag}={}", scalar(path, &key, value)?)),
        }
    }
    Ok(flags)
}

fn scalar(path: &Path, key: &str, value: Value) -> Outcome<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(on) => Ok(on.to_string()),
        other => Err(Failure::new(format!("{}: the value of {key:?} is {other}", path.display()))
            .hint("a text, a number, true or false, or a list of these is needed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(yaml: &str, arguments: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("config.yaml");
        fs::write(&path, yaml).expect("written");
        let config = format!("--config={}", path.display());
        let first = ["coracle", "server", config.as_str()];
        let arguments = first.iter().chain(arguments);
        with_file(&Cli::command(), arguments.map(OsString::from).collect())
            .map(|merged| {
                let shown = merged.iter().map(|a| a.to_string_lossy().into_owned());
                shown.filter(|a| !a.starts_with("--config")).collect::<Vec<_>>().join(" ")
            })
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn keys_become_flags_and_a_flag_beats_the_file() {
        let yaml = "https-listen-port: 7443\nnode-label: [a=b, c=d]\ndisable-agent: true\n";
        assert_eq!(
            merged(yaml, &["--https-listen-port", "8443"]).expect("merged"),
            "coracle server --node-label=a=b --node-label=c=d --disable-agent \
             --https-listen-port 8443"
        );
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = merged("node-nmae: x\n", &[]).expect_err("refused");
        assert!(error.ends_with("has an unknown key \"node-nmae\""), "{error}");
    }

    #[test]
    fn a_command_on_snapshots_takes_what_is_its_own() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("config.yaml");
        fs::write(&path, "node-name: pi\ns3: true\nsnapshot-dir: /a\n").expect("written");
        let config = format!("--config={}", path.display());
        let line = ["coracle", config.as_str(), "snapshot", "list", "--dir=/b"];
        let line = line.iter().map(OsString::from).collect();
        let merged = with_file(&Cli::command(), line).expect("merged");
        let shown: Vec<_> = merged[2..].iter().map(|a| a.to_string_lossy()).collect();
        assert_eq!(shown.join(" "), "snapshot --s3 list --dir=/b");
    }

    #[test]
    fn an_empty_file_changes_nothing() {
        assert_eq!(merged("# nothing yet\n", &[]).expect("merged"), "coracle server");
    }

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
