use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::certificate::CertificateCommand;
use crate::commands::fleet::FleetCommand;
use crate::commands::token::TokenCommand;
use crate::config::{Agent, Common, Server};
use crate::snapshot::{self, Places};

/// Kubernetes for a stack of small boards.
#[derive(Debug, Parser)]
#[command(
    name = "coracle",
    version,
    about = "Kubernetes for a stack of small boards",
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: Common,
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server: the Kubernetes API, its controllers, and this board's agent
    Server(Box<Server>),
    /// Run an agent: this board's pods, for a cluster whose servers are other boards
    Agent(Box<Agent>),
    /// Make, list, show and replace the tokens that boards join with
    Token {
        #[command(subcommand)]
        #[allow(missing_docs)]
        command: TokenCommand,
    },
    /// Look at certificates, and replace them
    Certificate {
        #[command(subcommand)]
        #[allow(missing_docs)]
        command: CertificateCommand,
    },
    /// Print the admin's kubeconfig
    Kubeconfig(Kubeconfig),
    /// Look at, fetch, import and remove images
    Image {
        #[command(subcommand)]
        #[allow(missing_docs)]
        command: Image,
    },
    /// Save the whole cluster to a file, and bring it back from one
    Snapshot(Box<Snapshot>),
    /// Look at where the cluster's objects are stored, and move them elsewhere
    Datastore {
        #[command(subcommand)]
        #[allow(missing_docs)]
        command: DatastoreCommand,
    },
    /// Install the systemd service of a server or an agent, and start it
    Install(Install),
    /// Stop the service and its containers, and remove everything that Coracle has put on this
    /// machine
    Uninstall(Uninstall),
    /// Run a cluster of several boards on this machine, and make trouble for it
    Sandbox(Box<crate::commands::sandbox::Options>),
    /// Take one board after the other out of the live cluster, and measure what was away
    Drill(Box<crate::drill::Options>),
    #[command(flatten)]
    Fleet(FleetCommand),
    /// What a prepared board does at its first start
    #[command(hide = true)]
    FirstStart {
        #[command(subcommand)]
        #[allow(missing_docs)]
        command: FirstStart,
    },
    /// Serve the hello page (what the image coracle.local/hello runs)
    Hello(Hello),
    /// Print the version
    Version,
}

/// Options of `coracle kubeconfig`.
#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// Address of the API server to put in, such as https://board:6443
    #[arg(long)]
    pub server: Option<String>,
}

/// Commands on the datastore.
#[derive(Debug, Subcommand)]
pub enum DatastoreCommand {
    /// Move the cluster to another engine, with everything in it and revisions that go on. The
    /// server must be stopped; the old data are kept
    Move {
        /// etcd (for several servers), sqlite (for one), or the URL of a datastore
        #[arg(long)]
        to: crate::server::Target,
    },
    /// Print the engine, its members, sizes, alarms and latency
    Status,
    /// Remove the old data that moves and repairs have kept
    Forget,
}

/// Commands on images.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// List the images on this board
    Ls {
        /// Print only the references
        #[arg(long, short)]
        quiet: bool,
    },
    /// Pull an image from its registry
    Pull {
        /// Such as docker.io/library/nginx:1.27
        reference: String,
        /// Mirrors and credentials of image registries
        #[arg(
            long,
            env = "CORACLE_PRIVATE_REGISTRY",
            default_value = "/etc/coracle/registries.yaml"
        )]
        private_registry: PathBuf,
    },
    /// Import archives (OCI layout or docker save), or this very binary as the hello image
    Import {
        /// The archives
        #[arg(required_unless_present = "hello")]
        archives: Vec<PathBuf>,
        /// Import coracle.local/hello: this binary as a small web page
        #[arg(long)]
        hello: bool,
    },
    /// Make images of whole systems for the boards of a cluster.yaml, from a stock one of Raspberry
    /// Pi OS, Debian or Ubuntu
    Prepare(Box<crate::commands::fleet::prepare::Options>),
    /// Remove images
    Rm {
        /// References or ids
        #[arg(required = true)]
        references: Vec<String>,
    },
}

/// Options of `coracle snapshot`.
#[derive(Debug, Args)]
pub struct Snapshot {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub places: Places,
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: SnapshotCommand,
}

/// Commands on snapshots.
#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot and read it back
    Save {
        /// How its name begins; node and time follow
        #[arg(default_value = "on-demand", value_parser = snapshot::prefix)]
        name: String,
    },
    /// List the snapshots
    #[command(visible_alias = "ls")]
    List {
        /// As a table or as JSON
        #[arg(long, short, value_enum, default_value = "table")]
        output: Output,
    },
    /// Read a snapshot from beginning to end, and say what it holds
    Check {
        /// Its name or file
        snapshot: String,
    },
    /// Make a snapshot this board's data
    Restore {
        /// Its name or file
        snapshot: String,
        /// Move data that are here already aside
        #[arg(long)]
        replace: bool,
        /// Server token of the cluster; a snapshot that is encrypted holds it
        #[arg(long, env = "CORACLE_TOKEN", hide_env_values = true)]
        token: Option<String>,
        /// File that holds the token
        #[arg(long, env = "CORACLE_TOKEN_FILE", conflicts_with = "token")]
        token_file: Option<PathBuf>,
    },
    /// Remove all but the newest
    Prune {
        /// How many stay
        #[arg(
            long,
            alias = "snapshot-retention",
            env = "CORACLE_SNAPSHOT_RETENTION",
            default_value_t = 5
        )]
        keep: usize,
        /// How the names of those begin that are looked at
        #[arg(long, default_value = "scheduled", value_parser = snapshot::prefix)]
        name: String,
    },
    /// Remove single ones
    Delete {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}
base::hides!(SnapshotCommand);

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Options of `coracle install`.
#[derive(Debug, Args)]
pub struct Install {
    /// Where the binary is put
    #[arg(long, default_value = "/usr/local/bin/coracle")]
    pub binary: PathBuf,
    /// Where the unit is put [default: coracle.service or coracle-agent.service in
    /// /etc/systemd/system]
    #[arg(long)]
    pub unit: Option<PathBuf>,
    /// Do not start the service
    #[arg(long)]
    pub no_start: bool,
    /// What the service runs, `server` (unless told otherwise) or `agent`, and that command's
    /// arguments, such as `agent --server https://board:6443 --token K10...`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "server|agent")]
    pub words: Vec<String>,
}

/// Options of `coracle uninstall`.
#[derive(Debug, Args)]
pub struct Uninstall {
    /// Where the binary was put
    #[arg(long, default_value = "/usr/local/bin/coracle")]
    pub binary: PathBuf,
    /// Where the unit was put [default: wherever `coracle install` puts one]
    #[arg(long)]
    pub unit: Option<PathBuf>,
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
    /// Where the admin's kubeconfig was written
    #[arg(long, env = "CORACLE_WRITE_KUBECONFIG", default_value = "/etc/coracle/coracle.yaml")]
    pub write_kubeconfig: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// What a prepared board does at its first start.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum FirstStart {
    /// Grow and format disks, make host keys
    Disks,
    /// Install packages
    Packages,
}

/// Options of `coracle hello`.
#[derive(Debug, Args)]
pub struct Hello {
    /// Port to serve on
    #[arg(long, env = "PORT", default_value_t = crate::hello::PORT)]
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn options_of_commands_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }
}
