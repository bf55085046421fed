//! The command line of `coracle sandbox`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Options of `coracle sandbox`.
#[derive(Debug, Args)]
pub struct Sandbox {
    /// Folder that sandboxes are kept in
    #[arg(long, env = "CORACLE_SANDBOX_DIR", default_value = sandbox::BASE_FOLDER, global = true)]
    pub dir: PathBuf,
    /// Which sandbox [default: the only one there is]
    #[arg(long, short, env = "CORACLE_SANDBOX", global = true)]
    pub name: Option<String>,
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Command,
}

/// What can be done with a sandbox.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a cluster of several boards on this machine, or bring it up again
    Up(Up),
    /// Take a sandbox away; nothing is left
    Down {
        /// Its name [default: the only one there is]
        sandbox: Option<String>,
    },
    /// List the sandboxes
    Ls,
    /// Show the boards of a sandbox and what is wrong with them
    Status,
    /// Print the admin's kubeconfig for use on this machine
    Kubeconfig,
    /// Run kubectl against the sandbox: coracle sandbox kubectl -- get nodes
    Kubectl {
        /// Arguments of kubectl
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run a program on a board: coracle sandbox exec server-1 -- ip route
    Exec {
        /// The board
        node: String,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        line: Vec<String>,
    },
    /// Print what a board's server or agent has logged
    Logs {
        /// The board
        node: String,
    },
    /// Pull a board's plug (NODE), or keep two boards from each other (A:B; the name `machine`
    /// stands for this machine)
    Cut {
        /// The board, or two
        what: String,
        /// Only what NODE sends, or what A sends to B, is lost
        #[arg(long)]
        one_way: bool,
    },
    /// Make a board's cable slow: round trips take so much longer
    Slow {
        /// The board
        node: String,
        /// Such as 200ms
        delay: String,
        /// By how much the delay varies, up and down
        #[arg(long, default_value = "0ms")]
        jitter: String,
    },
    /// Let a board's cable lose packets
    Lose {
        /// The board
        node: String,
        /// The share of packets, each way, such as 5%
        share: String,
    },
    /// Take away what is wrong with a board's network and disk, or with everybody's
    Heal {
        /// The board
        node: Option<String>,
    },
    /// Cut the power of boards: everything on them ends at once, only the disks stay
    Kill {
        /// The boards
        #[arg(required_unless_present = "all")]
        nodes: Vec<String>,
        /// All boards, in one moment
        #[arg(long)]
        all: bool,
    },
    /// Shut a board down in order
    Stop {
        /// The board
        node: String,
    },
    /// Give boards their power back
    Restore {
        /// The boards [default: all that are off]
        nodes: Vec<String>,
    },
    /// Restart a board's server or agent, and leave its pods alone
    RestartProcess {
        /// The board
        node: String,
        /// Kill it instead of asking it to stop
        #[arg(long)]
        kill: bool,
    },
    /// Set a board's clock wrong, by +1h or -10m (0s: right again)
    Clock {
        /// The board
        node: String,
        /// By how much
        #[arg(allow_hyphen_values = true)]
        offset: String,
    },
    /// Fill a board's disk (the sandbox must have been made with --disk)
    Fill {
        /// The board
        node: String,
    },
}

/// Options of `coracle sandbox up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Its name
    #[arg(default_value = "lab")]
    pub sandbox: String,
    /// Boards that are servers, and run pods too
    #[arg(long, default_value_t = 3)]
    pub servers: u8,
    /// Boards that run pods only
    #[arg(long, default_value_t = 2)]
    pub agents: u8,
    /// Segments that the boards are spread over, with a router between them; servers are in the
    /// first
    #[arg(long, default_value_t = 1)]
    pub subnets: u8,
    /// Give the servers a virtual address
    #[arg(long, value_name = "auto")]
    pub vip: Option<Vip>,
    /// What servers keep the cluster in [default: etcd for several servers, sqlite for one]
    #[arg(long)]
    pub datastore: Option<Datastore>,
    /// Give each board a disk of its own of so many MiB, so that it can be filled
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..))]
    pub disk: Option<u32>,
    /// Image archive to import on every board; may be given several times
    #[arg(long, value_name = "ARCHIVE")]
    pub image: Vec<PathBuf>,
    /// Import coracle.local/hello, this binary as a small web page, on every board
    #[arg(long)]
    pub hello: bool,
    /// Key of the servers' configuration file, as KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub server_arg: Vec<String>,
    /// Key of the agents' configuration file, as KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub agent_arg: Vec<String>,
    /// How long the nodes may take to be ready
    #[arg(long, default_value = "120s")]
    pub wait: String,
}

/// How the virtual address is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Vip {
    /// An address of the sandbox's own network.
    Auto,
}

/// What the first server keeps the cluster in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Datastore {
    /// etcd, which the servers start and supervise.
    Etcd,
    /// A file, for one server.
    Sqlite,
}
