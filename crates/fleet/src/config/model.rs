use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A whole `cluster.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cluster {
    /// Name of the cluster: its context in kubeconfig files, and the prefix of what is named after it.
    pub name: String,
    /// The boards, in the order in which they are set up.
    pub boards: Vec<Board>,
    /// The network that the boards are on.
    #[serde(default)]
    pub network: Network,
    /// How boards are reached.
    #[serde(default)]
    pub ssh: Ssh,
    /// The token that boards join with. Without one the first server makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Where the cluster's objects are kept.
    #[serde(default)]
    pub datastore: Datastore,
    /// Further keys of `/etc/coracle/config.yaml` on servers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub server: BTreeMap<String, serde_json::Value>,
    /// Further keys of `/etc/coracle/config.yaml` on agents.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agent: BTreeMap<String, serde_json::Value>,
    /// What all boards have in common; a board's own settings come first.
    #[serde(default)]
    pub defaults: Settings,
    /// Power supplies and what electricity costs.
    #[serde(default)]
    pub power: Power,
    /// Boards and parts that `coracle plan --models` does not list, by the name that `model` and
    /// `parts` call them by; one of a known name replaces it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hardware: BTreeMap<String, Hardware>,
    /// Folder that relative paths begin in: the one that the file is in.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// One board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Board {
    /// Host name and name of its Node: a DNS label.
    pub name: String,
    /// What it is for: `agent` unless told otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// Its address on the cluster's network.
    pub address: IpAddr,
    /// Hardware address of its Ethernet port, for reservations of a router board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Model, such as `raspberry-pi-4-4gb`; `coracle plan --models` lists those that are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Parts that it carries, such as `poe-hat` or `usb-stick-64gb`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// The supply or PoE port of [`Power::supplies`] that feeds it, such as `switch` or `switch/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub powered_by: Option<String>,
    /// Whether it switches other boards' power.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub switches_power: bool,
    /// Labels of its Node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints of its Node, as kubectl writes them: `key=value:NoSchedule`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// Further keys of its `/etc/coracle/config.yaml`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, serde_json::Value>,
    /// How this board is reached, where it differs from [`Cluster::ssh`].
    #[serde(default)]
    pub ssh: Ssh,
    /// Its own settings, written beside its other keys; what they leave out comes from
    /// [`Cluster::defaults`].
    #[serde(flatten)]
    pub settings: Settings,
}

/// What a board does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the control plane, and pods.
    Server,
    /// Runs pods.
    Agent,
    /// Gives the cluster a network of its own: DHCP, DNS and NAT towards an uplink.
    Router,
}

/// What may be set for each board or for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Swap stays on; it is switched off otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<bool>,
    /// Where `/var/lib/coracle` lies, if not on the system's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataDisk>,
    /// What Coracle writes to, for `coracle plan`: the disk of `data` where there is one, and the
    /// system's card or disk otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Wi-Fi, where the board uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Wifi>,
    /// IANA time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// NTP servers; the distribution's where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<String>,
    /// Kernel settings beyond those that Coracle needs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Packages of the distribution beyond those that Coracle needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Most that the system's journal may take on disk, such as `64M`; `0` keeps it in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
}

/// Instead of a device: a partition of the system's own disk.
pub const CARD: &str = "card";

/// A disk for `/var/lib/coracle`, found and mounted by its label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DataDisk {
    /// Such as `/dev/sda1` or `/dev/disk/by-id/...`; a whole disk gets one partition. `card` is a
    /// partition behind the system's on its own disk, which `coracle image prepare` makes.
    pub device: String,
    /// File system label.
    #[serde(default = "data_label")]
    pub label: String,
    /// May be formatted where it holds no file system. One that holds something is never formatted.
    #[serde(default)]
    pub format: bool,
}

fn data_label() -> String {
    "coracle".into()
}

/// A card, stick or disk and what its maker says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Storage {
    /// What sort it is.
    pub kind: StorageKind,
    /// Its size, such as `32GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// What may be written to it over its life, such as `20TB`; a careful guess by kind and size without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endurance: Option<String>,
}

/// Sorts of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StorageKind {
    /// An SD card.
    SdCard,
    /// An SD card made for recording without end.
    EnduranceSdCard,
    /// Flash soldered to the board.
    Emmc,
    /// A USB stick.
    UsbStick,
    /// A solid-state disk at USB or SATA.
    Ssd,
    /// A solid-state disk at PCI Express.
    Nvme,
    /// A disk that turns.
    Hdd,
}

/// A wireless network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Wifi {
    /// Its name.
    pub ssid: String,
    /// Its passphrase.
    pub passphrase: Secret,
    /// Country, in two letters, for the channels that may be used.
    pub country: String,
}

/// The boards' network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Network {
    /// The subnet that boards' addresses are from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", extend("format" = "cidr")))]
    pub subnet: Option<IpNet>,
    /// Way out of it; a router board's address where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers; the gateway where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Whether boards have fixed addresses of their own or are given them by DHCP.
    #[serde(default)]
    pub addressing: Addressing,
    /// One address that is on one server at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
    /// Addresses for pods; `10.42.0.0/16` unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", extend("format" = "cidr")))]
    pub pods: Option<IpNet>,
    /// Addresses for services; `10.43.0.0/16` unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", extend("format" = "cidr")))]
    pub services: Option<IpNet>,
    /// What a router board does beyond passing packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
}

/// Where boards' addresses come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// Reservations by hardware address, at the router.
    #[default]
    Dhcp,
    /// Written into the board's own network configuration.
    Static,
}

/// Settings of the router board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Router {
    /// Interface towards the world, such as `wlan0` or `eth1`.
    pub uplink: String,
    /// Interface towards the boards.
    pub inside: String,
    /// First and last address given to hosts without a reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<(IpAddr, IpAddr)>,
    /// Domain of the boards' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Address inside that ports 80 and 443 of the uplink lead to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IpAddr>,
}

/// How a board is reached. Whatever is not said is left to the `ssh` of this machine, its agent and
/// its configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Ssh {
    /// Account on the boards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Name or address to connect to instead of the board's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// File of the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Host to go through, as `ssh -J` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<String>,
    /// File of known host keys instead of the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<PathBuf>,
    /// Public keys, or files of them, that may log in (for prepared images and `up`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_keys: Vec<String>,
    /// Password of sudo, where it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_password: Option<Secret>,
}

/// Something secret, by where it stands. It is read when it is needed and never printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Secret {
    /// In a file that only its owner can read.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
    /// Printed by a command.
    Command(Vec<String>),
}

/// Where the cluster's objects are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Datastore {
    /// SQLite with one server, etcd with several.
    #[default]
    Auto,
    /// SQLite: one server.
    Sqlite,
    /// An etcd that the servers run themselves.
    Etcd,
    /// An etcd, PostgreSQL, MySQL or MariaDB that is there already; its URL is a secret.
    External(Secret),
}

/// Power.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Power {
    /// What boards are fed from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supplies: Vec<Supply>,
    /// Parts that belong to no board and no supply of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// What a kilowatt hour costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_kwh: Option<f64>,
    /// Of which currency prices are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// What the same would cost a month at a cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_price_per_month: Option<f64>,
}

/// A power supply, USB charger or PoE switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Supply {
    /// What boards call it in `poweredBy`.
    pub name: String,
    /// What it gives in total.
    pub watts: f64,
    /// What each port gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts_per_port: Option<f64>,
    /// How many ports it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<u32>,
    /// Parts that it feeds besides boards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// It gives Power over Ethernet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub poe: bool,
}

/// A board or part of one's own: what `coracle plan` has to know of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Hardware {
    /// What it takes on average.
    pub average_watts: f64,
    /// What it takes at the most.
    pub maximum_watts: f64,
    /// Memory of a board, such as `4Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Cores of a board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Instruction set of a board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// Where these figures are from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Instruction sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit ARM.
    Arm64,
    /// 32-bit ARM of version 7.
    Armv7,
    /// 32-bit ARM of version 6: the first Raspberry Pi and the Zero.
    Armv6,
    /// 64-bit x86.
    Amd64,
}
