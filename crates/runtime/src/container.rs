//! Containers: how they shall be, and what became of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ImageId, SandboxId};

/// Identifies a container: 32 lower-case hexadecimal digits, chosen by the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(pub String);

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a container shall be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// The caller's name for it.
    pub name: String,
    /// Counts the containers of this name that ran before in the sandbox.
    pub attempt: u32,
    /// The image to run, by its id ([`crate::Runtime::image_status`] resolves references).
    pub image: ImageId,
    /// The reference the user wrote; kept for status.
    pub image_ref: String,
    /// What to run.
    pub process: Process,
    /// Files and folders of the machine to show inside, in this order.
    pub mounts: Vec<Mount>,
    /// Device nodes of the machine to show inside.
    pub devices: Vec<Device>,
    /// Limits.
    pub resources: Resources,
    /// Rights.
    pub security: Security,
    /// A running container of the same sandbox among whose processes it is to be; where all share
    /// theirs, it is anyway.
    pub target: Option<ContainerId>,
    /// Give the process a terminal.
    pub tty: bool,
    /// Keep standard input open for attach.
    pub stdin: bool,
    /// Close standard input for good after the first attached client leaves.
    pub stdin_once: bool,
    /// Log file, relative to the sandbox's log folder (or absolute); empty means no log.
    pub log_path: PathBuf,
    /// Signal that asks it to end (`SIGTERM`, `TERM` or a number); empty means the image's,
    /// and failing that SIGTERM.
    pub stop_signal: String,
    /// Kept and handed back.
    pub labels: BTreeMap<String, String>,
    /// Kept and handed back.
    pub annotations: BTreeMap<String, String>,
}

/// What a container runs, before the image's defaults are merged in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Replaces the image's entrypoint, and with it the image's arguments.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Added to the image's environment; the last one of a name wins.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working directory if not empty.
    pub working_dir: String,
}

/// A file or folder of the machine shown inside a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Where it is on the machine; must exist.
    pub host_path: PathBuf,
    /// Where it shall appear inside; made if missing.
    pub container_path: PathBuf,
    /// Inside it cannot be written.
    pub readonly: bool,
    /// Mounts below it cannot be written either (kernel 5.12 or newer).
    pub recursive_readonly: bool,
    /// Which later mounts cross the border.
    pub propagation: Propagation,
}

/// Which later mounts cross the border between machine and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// The machine's become visible inside.
    HostToContainer,
    /// Both ways; for privileged containers.
    Bidirectional,
}

/// A device node of the machine shown inside a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Where it is on the machine.
    pub host_path: PathBuf,
    /// Where it shall appear inside.
    pub container_path: PathBuf,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// Limits of a container or sandbox; what is none is left alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight, 2 to 262144 (1024 is one CPU's worth).
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU per period; negative means unlimited.
    pub cpu_quota: Option<i64>,
    /// Microseconds; the kernel's default is 100000.
    pub cpu_period: Option<u64>,
    /// CPUs it may run on (`0-2,4`); empty means all.
    pub cpuset_cpus: String,
    /// Memory nodes it may use; empty means all.
    pub cpuset_mems: String,
    /// Bytes of memory (swap is not given on top); negative means unlimited.
    pub memory_limit: Option<i64>,
    /// -1000 to 1000; higher is killed first.
    pub oom_score_adj: Option<i64>,
    /// Processes and threads.
    pub pids_limit: Option<i64>,
    /// Huge page limits.
    pub hugepages: Vec<Hugepage>,
}

/// A limit on huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hugepage {
    /// As the kernel writes it: `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Whom a container's processes run as.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum UserSpec {
    /// What the image says, root failing that.
    #[default]
    Image,
    /// A numeric user id; its group comes from the image's passwd file, or is 0.
    Uid(u32),
    /// A user name (or `name:group`), looked up in the image's passwd and group files.
    Name(String),
}

/// Rights of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Whom it runs as.
    pub user: UserSpec,
    /// Primary group, if not the user's own.
    pub group: Option<u32>,
    /// Further groups, on top of those the image's group file gives the user.
    pub supplemental_groups: Vec<u32>,
    /// Do not take groups from the image's group file.
    pub strict_groups: bool,
    /// All capabilities, all devices, writable /sys, nothing masked, no seccomp.
    pub privileged: bool,
    /// Changes to the default set of capabilities.
    pub capabilities: Capabilities,
    /// Forbid gaining rights by set-uid programs.
    pub no_new_privileges: bool,
    /// The root file system cannot be written.
    pub readonly_rootfs: bool,
    /// Paths hidden inside; none means the usual list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that cannot be written inside; none means the usual list.
    pub readonly_paths: Option<Vec<String>>,
    /// Filter of system calls.
    pub seccomp: Seccomp,
}

/// Capabilities, with or without `CAP_`; `ALL` means all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Given on top of the default set.
    pub add: Vec<String>,
    /// Taken away.
    pub drop: Vec<String>,
}

/// Which system call filter a container gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Seccomp {
    /// None.
    #[default]
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// A profile file on the machine.
    Localhost(PathBuf),
}

/// Where in its life a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process ended, or never could start.
    Exited,
    /// Its shim was lost, and with it what became of it.
    Unknown,
}

/// Why a container is not running; the words a kubelet reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Ended with 0.
    Completed,
    /// Ended with another code or by a signal.
    Error,
    /// The kernel ended a process of it for lack of memory.
    OOMKilled,
    /// It could not be started.
    StartError,
    /// Its shim was lost.
    ContainerStatusUnknown,
}

impl Reason {
    /// The word itself.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OOMKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::ContainerStatusUnknown => "ContainerStatusUnknown",
        }
    }
}

/// A container in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerInfo {
    /// Its id.
    pub id: ContainerId,
    /// Where it lives.
    pub sandbox: SandboxId,
    /// The caller's name for it.
    pub name: String,
    /// As given.
    pub attempt: u32,
    /// Created, running, ...
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its image's id.
    pub image: ImageId,
    /// The reference the user wrote.
    pub image_ref: String,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
}

/// Everything known of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// Where it lives.
    pub sandbox: SandboxId,
    /// The caller's name for it.
    pub name: String,
    /// As given (counts restarts).
    pub attempt: u32,
    /// Created, running, ...
    pub state: ContainerState,
    /// Process id of its first process, on the machine.
    pub pid: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Exit code, 128 + signal for a death by signal; none unless exited.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// More words on that.
    pub message: String,
    /// Its image's id.
    pub image: ImageId,
    /// `repository@sha256:...` where known, else the image's id.
    pub image_digest: String,
    /// The reference the user wrote.
    pub image_ref: String,
    /// Absolute path of the log file; none if it has none.
    pub log_path: Option<PathBuf>,
    /// As given.
    pub mounts: Vec<Mount>,
    /// Limits in force.
    pub resources: Resources,
    /// The user its first process runs as, after the image's defaults.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its further groups.
    pub groups: Vec<u32>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub annotations: BTreeMap<String, String>,
}

/// Which containers to list; an empty filter means all.
#[derive(Clone, Debug, Default)]
pub struct ContainerFilter {
    /// Only this one.
    pub id: Option<ContainerId>,
    /// Only those of this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Only those in this state.
    pub state: Option<ContainerState>,
    /// Only those that carry all of these labels.
    pub labels: BTreeMap<String, String>,
}

/// What a container (or a whole sandbox) uses at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// When it was read.
    pub at: Timestamp,
    /// CPU time since the start, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory in use, page cache included, in bytes.
    pub memory_usage: u64,
    /// The same without what the kernel could drop at once (inactive file pages).
    pub memory_working_set: u64,
    /// Anonymous memory, in bytes.
    pub memory_rss: u64,
    /// Major and minor page faults since the start.
    pub page_faults: u64,
    /// Major page faults since the start.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes that the container wrote into its own layer; 0 for a sandbox.
    pub writable_bytes: u64,
    /// Files in its own layer.
    pub writable_inodes: u64,
}
