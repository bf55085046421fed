//! Sandboxes: what the containers of one pod share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Identifies a sandbox: 32 lower-case hexadecimal digits, chosen by the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SandboxId(pub String);

impl std::fmt::Display for SandboxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a sandbox shall be. The strings that name it are opaque to the runtime and are handed
/// back as they came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxConfig {
    /// The caller's name for it.
    pub name: String,
    /// The caller's namespace for it.
    pub namespace: String,
    /// The caller's unique id for it; the default cgroup is named after it.
    pub uid: String,
    /// Counts the sandboxes that served this `uid` before.
    pub attempt: u32,
    /// Host name inside (at most 64 bytes); empty keeps the machine's.
    pub hostname: String,
    /// Share the machine's network: no network namespace is made.
    pub host_network: bool,
    /// Share the machine's process ids.
    pub host_pid: bool,
    /// Share the machine's System V IPC and POSIX queues.
    pub host_ipc: bool,
    /// All containers see one another's processes (one PID namespace for the sandbox).
    pub shared_pid: bool,
    /// Kernel settings of the sandbox's own namespaces, `net.ipv4.ip_forward` style.
    pub sysctls: BTreeMap<String, String>,
    /// Cgroup of the sandbox, relative to the runtime's prefix and without leading `/`
    /// (`burstable/pod<uid>`); empty means the uid.
    pub cgroup: String,
    /// Limits of the sandbox as a whole; only set ones are applied.
    pub resources: crate::Resources,
    /// Folder that holds the containers' log files; made if missing.
    pub log_directory: PathBuf,
    /// Kept and handed back.
    pub labels: BTreeMap<String, String>,
    /// Kept and handed back.
    pub annotations: BTreeMap<String, String>,
    /// Size of `/dev/shm`, in bytes; 0 means 64 MiB.
    pub shm_bytes: u64,
}

/// Whether a sandbox can hold containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// Its shim lives and holds its namespaces.
    Ready,
    /// Stopped, or its shim is gone; nothing runs in it and nothing can be started.
    NotReady,
}

/// A sandbox in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxInfo {
    /// Its id.
    pub id: SandboxId,
    /// Ready or not.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it was made from.
    pub config: SandboxConfig,
}

/// Everything known of one sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxStatus {
    /// Its id.
    pub id: SandboxId,
    /// Ready or not.
    pub state: SandboxState,
    /// The shim's process id; none once the shim is gone.
    pub pid: Option<u32>,
    /// A path that enters its network namespace; none with the host's network. Stays valid
    /// until the sandbox is removed, even if the shim dies.
    pub netns: Option<PathBuf>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it was made from.
    pub config: SandboxConfig,
}

/// Which sandboxes to list; an empty filter means all.
#[derive(Clone, Debug, Default)]
pub struct SandboxFilter {
    /// Only this one.
    pub id: Option<SandboxId>,
    /// Only those in this state.
    pub state: Option<SandboxState>,
    /// Only those that carry all of these labels.
    pub labels: BTreeMap<String, String>,
}
