use std::net::IpAddr;

use super::config::{self, Keys};
use super::{After, File, fstab, paths, unit};
use crate::config::{Addressing, Board, Cluster, DataDisk, Settings};
use crate::image::{Ip, Radio, fixed};
use crate::router;

/// What the journal may take on disk unless told otherwise: a card is worn by what is written to it.
const JOURNAL: &str = "64M";
/// What logind waits for pods: the agent's grace period (30 s) and five for the last report.
const LOGIND_SECONDS: u64 = 35;
/// The package with etcd.
const ETCD: &str = "etcd-server";
/// Kernel settings that pods and the board's own recovery need.
const SYSCTL: [(&str, &str); 6] = [
    ("fs.inotify.max_user_instances", "1024"),
    ("fs.inotify.max_user_watches", "524288"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("net.ipv4.ip_forward", "1"),
    ("vm.overcommit_memory", "1"),
];

/// The service that a board runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `coracle server`, which runs pods too.
    Server,
    /// `coracle agent`.
    Agent,
}

impl Service {
    /// What a board of these roles runs; a router alone runs neither.
    pub fn of(board: &Board) -> Option<Self> {
        if board.is_server() {
            return Some(Service::Server);
        }
        board.is_agent().then_some(Service::Agent)
    }

    /// The command.
    pub fn command(self) -> &'static str {
        match self {
            Service::Server => "server",
            Service::Agent => "agent",
        }
    }

    /// The unit's name.
    pub fn unit(self) -> &'static str {
        match self {
            Service::Server => "coracle.service",
            Service::Agent => "coracle-agent.service",
        }
    }

    /// Where the unit lies.
    pub fn path(self) -> String {
        format!("{}/{}", paths::UNITS, self.unit())
    }
}

/// What a board should be. Of the token and the binary only that they are needed stands here.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Host name, and name of its Node.
    pub hostname: String,
    /// All boards, for `/etc/hosts`.
    pub hosts: Vec<(IpAddr, String)>,
    /// Packages of the distribution.
    pub packages: Vec<String>,
    /// Services of those packages that must not run by themselves.
    pub masked: Vec<&'static str>,
    /// Whether swap stays on.
    pub swap: bool,
    /// Its address, where that is to be set on the board itself. A router's ports are its owner's.
    pub address: Option<Ip>,
    /// The interface of a router's way out and the Wi-Fi network there, where `up` knows its passphrase.
    pub uplink: Option<(String, Radio)>,
    /// Time zone, where one is named.
    pub timezone: Option<String>,
    /// Where the data lie, if not on the system's disk.
    pub data: Option<DataDisk>,
    /// Lines for the login's `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// Files, in the order in which they are written.
    pub files: Vec<File>,
    /// The configuration of the service; it is a file too, written when the board joins.
    pub config: Keys,
    /// What runs.
    pub service: Option<Service>,
}

/// What the cluster knows when a board is to join it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joining {
    /// URL of a server that is there already.
    pub server: Option<String>,
    /// Whether the board gets a token.
    pub token: bool,
    /// URL of the datastore, where it is somebody else's.
    pub endpoint: Option<String>,
}

/// What a board should be.
pub fn desired(
    cluster: &Cluster,
    board: &Board,
    settings: &Settings,
    joining: &Joining,
) -> Desired {
    let service = Service::of(board);
    let mut files = files(settings, service);
    if board.is_router() {
        files.extend(router::files(cluster, board));
    }
    let packages = packages(cluster, board, settings);
    // Coracle runs a member of its own.
    let has_etcd = packages.iter().any(|package| package == ETCD);
    let masked = if has_etcd { vec!["etcd.service"] } else { Vec::new() };
    let config = match service {
        Some(_) => config::config(
            cluster,
            board,
            joining.server.as_deref(),
            joining.token,
            joining.endpoint.as_deref(),
        ),
        None => Keys::new(),
    };
    let vip = cluster.network.vip.map(|vip| (vip, cluster.name.clone()));
    let boards = cluster.boards.iter().map(|board| (board.address, board.name.clone()));
    let is_static = cluster.network.addressing == Addressing::Static && !board.is_router();
    Desired {
        hostname: board.name.clone(),
        hosts: boards.chain(vip).collect(),
        packages,
        masked,
        swap: settings.swap.unwrap_or(false),
        address: is_static.then(|| fixed(cluster, board, true).ok()).flatten(),
        uplink: None,
        timezone: settings.timezone.clone(),
        data: settings.data.clone(),
        authorized_keys: Vec::new(),
        files,
        config,
        service,
    }
}

/// The packages that a board needs, in order.
pub fn packages(cluster: &Cluster, board: &Board, settings: &Settings) -> Vec<String> {
    let mut packages = settings.packages.clone();
    if Service::of(board) == Some(Service::Server) && cluster.runs_etcd() {
        packages.push(ETCD.into());
    }
    if board.is_router() {
        packages.extend(["dnsmasq".into(), "nftables".into()]);
    }
    // What a disk is divided and formatted by; small systems come without.
    if settings.data.as_ref().is_some_and(|disk| disk.format) {
        packages.extend(["e2fsprogs".into(), "fdisk".into()]);
    }
    packages.sort();
    packages.dedup();
    packages
}

/// The files that do not depend on the cluster.
fn files(settings: &Settings, service: Option<Service>) -> Vec<File> {
    let mut files = vec![
        File::new(paths::SYSCTL, sysctl(settings), After::Sysctl),
        File::new(paths::JOURNALD, journald(settings), After::Journald),
    ];
    if !settings.ntp.is_empty() {
        let text = format!("[Time]\nNTP={}\n", settings.ntp.join(" "));
        files.push(File::new(paths::TIMESYNCD, text, After::Timesync));
    }
    if let Some(service) = service {
        files.push(File::new(paths::LOGIND, unit::logind(LOGIND_SECONDS), After::Logind));
        let text = unit::unit(paths::BINARY, service.command(), &[]);
        files.push(File::new(service.path(), text, After::Unit));
        if settings.data.is_some() {
            let path = format!("{}.d/data.conf", service.path());
            files.push(File::new(path, fstab::requires(), After::Unit));
        }
    }
    files
}

fn sysctl(settings: &Settings) -> String {
    let mut all: std::collections::BTreeMap<&str, &str> = SYSCTL.into_iter().collect();
    all.extend(settings.sysctl.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    all.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

fn journald(settings: &Settings) -> String {
    match settings.journal.as_deref().unwrap_or(JOURNAL) {
        "0" => "[Journal]\nStorage=volatile\n".into(),
        most => format!("[Journal]\nSystemMaxUse={most}\n"),
    }
}
