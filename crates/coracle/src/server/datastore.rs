//! Where the cluster's objects are stored: which engine the flags and the data on disk ask for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::moving::ASIDE;
use crate::config::{self, Server};
use crate::etcd::{self, Aside};
use crate::failure::{Failure, Outcome};

/// Flags that choose the datastore, named as k3s' are.
#[derive(Clone, Args)]
pub struct DatastoreOptions {
    /// Start a cluster of several servers: this one supervises an etcd, further ones join it
    #[arg(long, env = "CORACLE_CLUSTER_INIT", conflicts_with = "server")]
    pub cluster_init: bool,
    /// Forget all other servers and go on alone with this one's data; then stop
    #[arg(long, env = "CORACLE_CLUSTER_RESET")]
    pub cluster_reset: bool,
    /// Datastore that is there already: postgres://, mysql://, or a list of etcd's endpoints
    #[arg(
        long,
        env = "CORACLE_DATASTORE_ENDPOINT",
        value_name = "URL",
        hide_env_values = true,
        conflicts_with_all = ["cluster_init", "cluster_reset"]
    )]
    pub datastore_endpoint: Option<String>,
    /// Authority that the datastore's certificate must come from
    #[arg(long, env = "CORACLE_DATASTORE_CAFILE", value_name = "FILE")]
    pub datastore_cafile: Option<PathBuf>,
    /// Certificate to show to the datastore
    #[arg(long, env = "CORACLE_DATASTORE_CERTFILE", value_name = "FILE")]
    pub datastore_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, env = "CORACLE_DATASTORE_KEYFILE", value_name = "FILE")]
    pub datastore_keyfile: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub etcd: EtcdOptions,
}
base::hides!(DatastoreOptions);

impl DatastoreOptions {
    /// The engine behind an endpoint.
    pub fn elsewhere(&self, endpoint: &str, data_dir: &Path) -> Outcome<store::Datastore> {
        let files = store::TlsFiles {
            ca: self.datastore_cafile.clone(),
            cert: self.datastore_certfile.clone(),
            key: self.datastore_keyfile.clone(),
        };
        store::Datastore::parse(endpoint, files, &sqlite_folder(data_dir)).map_err(|error| {
            let hint = error.hint;
            Failure::new(error.to_string()).hint(hint)
        })
    }
}

/// Flags of the etcd that this server supervises.
#[derive(Debug, Clone, Args)]
pub struct EtcdOptions {
    /// The etcd to run [default: the one in PATH]
    #[arg(long, env = "CORACLE_ETCD_BINARY", value_name = "FILE")]
    pub etcd_binary: Option<PathBuf>,
    /// Port on which servers ask their etcd
    #[arg(long, env = "CORACLE_ETCD_CLIENT_PORT", default_value_t = 2379)]
    pub etcd_client_port: u16,
    /// Port on which the etcds of all servers talk to each other
    #[arg(long, env = "CORACLE_ETCD_PEER_PORT", default_value_t = 2380)]
    pub etcd_peer_port: u16,
    /// Port of etcd's health and metrics, on loopback
    #[arg(long, env = "CORACLE_ETCD_METRICS_PORT", default_value_t = 2381)]
    pub etcd_metrics_port: u16,
    /// How often etcd's leader says that it lives, in milliseconds
    #[arg(long, env = "CORACLE_ETCD_HEARTBEAT_INTERVAL", default_value_t = 250)]
    pub etcd_heartbeat_interval: u32,
    /// How long it may be silent before another takes over, in milliseconds
    #[arg(long, env = "CORACLE_ETCD_ELECTION_TIMEOUT", default_value_t = 2000)]
    pub etcd_election_timeout: u32,
    /// How large etcd's database may grow, in MiB
    #[arg(long, env = "CORACLE_ETCD_QUOTA", default_value_t = 2048)]
    pub etcd_quota: u32,
    /// Further flag for etcd, as name=value; may be given several times
    #[arg(long, env = "CORACLE_ETCD_ARG", value_delimiter = ',')]
    pub etcd_arg: Vec<String>,
}

/// Where the cluster's objects are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datastore {
    /// In a file of this server, which is the only one.
    Sqlite,
    /// In an etcd that this server supervises, a member of the cluster's.
    Etcd(Membership),
    /// In a datastore that somebody else runs.
    External(String),
}

/// How this server comes to be a member of the cluster's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// It is one already: its data are on this disk.
    Present,
    /// It is the first.
    Init,
    /// It joins the cluster of the server at this URL.
    Join(String),
    /// It was one, and joins again by the members that it knew.
    Rejoin,
    /// It is the only one that is left.
    Reset,
}

/// What of a datastore is on a server's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDisk {
    /// A folder of sqlite's.
    pub sqlite: bool,
    /// A member's folder of etcd's.
    pub etcd: bool,
    /// A member's folder that was set aside, since it was removed or damaged.
    pub aside: bool,
    /// What the cluster was moved from, kept until it is forgotten.
    pub moved: bool,
}

impl OnDisk {
    /// Looks at a data folder.
    pub fn look(data_dir: &Path) -> Self {
        let there = std::fs::read_dir(data_dir.join("server")).into_iter().flatten().flatten();
        let is_moved = |name: OsString| name.to_string_lossy().starts_with(ASIDE);
        OnDisk {
            moved: there.map(|entry| entry.file_name()).any(is_moved),
            sqlite: sqlite_folder(data_dir).exists(),
            etcd: etcd::folder(data_dir).join("member").exists(),
            aside: [Aside::Damaged, Aside::Removed].iter().any(|a| a.folder(data_dir).exists()),
        }
    }
}

impl OnDisk {
    /// Whether a move to etcd is what `--cluster-init` means.
    pub fn only_sqlite(self) -> bool {
        self.sqlite && !self.etcd
    }
}

/// Where sqlite's files are.
pub fn sqlite_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("server/db")
}

impl Datastore {
    /// The engine in a word.
    pub fn engine(&self) -> &str {
        match self {
            Datastore::Sqlite => "sqlite",
            Datastore::Etcd(_) => "etcd",
            Datastore::External(endpoint) => match endpoint.split_once("://") {
                Some(("http" | "https", _)) | None => "etcd",
                Some((scheme, _)) => scheme,
            },
        }
    }

    /// What the flags ask for, beside the data that are there already.
    pub fn new(data_dir: &Path, options: &Server) -> Outcome<Self> {
        Self::decide(OnDisk::look(data_dir), &options.membership, &options.datastore)
    }

    /// Data on disk beat the flags that made them: a board that restarts must find its cluster
    /// with or without `--cluster-init` or `--server`.
    fn decide(
        disk: OnDisk,
        joining: &config::Membership,
        options: &DatastoreOptions,
    ) -> Outcome<Self> {
        if let Some(endpoint) = &options.datastore_endpoint {
            return Ok(Datastore::External(endpoint.clone()));
        }
        if options.cluster_reset {
            return match disk.etcd {
                true => Ok(Datastore::Etcd(Membership::Reset)),
                false => Err(Failure::new("there is no etcd on this server to reset").hint(
                    "--cluster-reset is for a server whose companions are lost for good; use it \
                     on one that has been a member",
                )),
            };
        }
        if disk.etcd {
            return Ok(Datastore::Etcd(Membership::Present));
        }
        if disk.moved && !disk.sqlite {
            return Err(Failure::new("this cluster's objects were moved to a datastore elsewhere")
                .hint(
                    "name it with --datastore-endpoint; `coracle datastore forget` removes what was \
                     moved, and what comes then begins anew",
                ));
        }
        let wanted = match (&joining.server, options.cluster_init) {
            (Some(url), _) => Membership::Join(url.clone()),
            (None, _) if disk.aside && !disk.sqlite => Membership::Rejoin,
            (None, true) => Membership::Init,
            (None, false) => return Ok(Datastore::Sqlite),
        };
        if !disk.sqlite {
            return Ok(Datastore::Etcd(wanted));
        }
        Err(match wanted {
            Membership::Join(url) => {
                Failure::new(format!("this board has a cluster of its own; it cannot join {url}"))
                    .hint("`coracle uninstall` removes the old cluster; then join")
            }
            _ => Failure::new("this cluster's objects are in sqlite, --cluster-init takes etcd")
                .hint("`coracle datastore move --to etcd` moves them; nothing is lost"),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        joining: config::Membership,
        #[command(flatten)]
        options: DatastoreOptions,
    }

    /// What comes of flags on a board whose disk holds `disk`.
    fn decided(disk: &str, flags: &str) -> String {
        let line = Line::parse_from(["server"].into_iter().chain(flags.split_whitespace()));
        let disk = OnDisk {
            sqlite: disk.contains("sqlite"),
            etcd: disk.contains("etcd"),
            aside: disk.contains("aside"),
            moved: disk.contains("moved"),
        };
        match Datastore::decide(disk, &line.joining, &line.options) {
            Ok(datastore) => format!("{datastore:?}"),
            Err(failure) => format!("refused: {failure}"),
        }
    }

    #[test]
    fn data_on_disk_beat_flags() {
        for (disk, flags, expected) in [
            ("", "", "Sqlite"),
            ("sqlite", "", "Sqlite"),
            ("", "--cluster-init", "Etcd(Init)"),
            ("", "--server https://a:6443", "Etcd(Join(\"https://a:6443\"))"),
            ("etcd", "", "Etcd(Present)"),
            ("etcd", "--cluster-init", "Etcd(Present)"),
            ("etcd", "--server https://a:6443", "Etcd(Present)"),
            ("etcd", "--cluster-reset", "Etcd(Reset)"),
            ("aside", "", "Etcd(Rejoin)"),
            ("aside", "--cluster-init", "Etcd(Rejoin)"),
            ("aside", "--server https://a:6443", "Etcd(Join(\"https://a:6443\"))"),
            ("etcd aside", "", "Etcd(Present)"),
            ("sqlite aside", "", "Sqlite"),
            ("sqlite moved", "", "Sqlite"),
            ("etcd moved", "", "Etcd(Present)"),
            ("moved", "--datastore-endpoint postgres://db/x", "External(\"postgres://db/x\")"),
            ("moved", "", "refused: this cluster's objects were moved to a datastore elsewhere"),
            (
                "moved",
                "--cluster-init",
                "refused: this cluster's objects were moved to a datastore elsewhere",
            ),
            ("", "--cluster-reset", "refused: there is no etcd on this server to reset"),
            (
                "sqlite",
                "--cluster-init",
                "refused: this cluster's objects are in sqlite, --cluster-init takes etcd",
            ),
            (
                "sqlite",
                "--server https://a:6443",
                "refused: this board has a cluster of its own; it cannot join https://a:6443",
            ),
            ("sqlite", "--datastore-endpoint postgres://db/x", "External(\"postgres://db/x\")"),
        ] {
            assert_eq!(decided(disk, flags), expected, "{disk:?} {flags}");
        }
    }
}
