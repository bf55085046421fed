//! What the runtime must know again after a restart, a file per sandbox and container.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ContainerConfig, SandboxConfig};

/// File of a [`SandboxRecord`] in the sandbox's folder.
pub const SANDBOX_FILE: &str = "sandbox.json";
/// File of a [`ContainerRecord`] in the container's folder.
pub const CONTAINER_FILE: &str = "container.json";

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub id: String,
    /// What it was made from.
    pub config: SandboxConfig,
    /// When.
    pub created_at: Timestamp,
    /// Its cgroup, prefix included.
    pub cgroup: String,
}

/// A container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its id.
    pub id: String,
    /// Where it lives.
    pub sandbox: String,
    /// What it was made from.
    pub config: ContainerConfig,
    /// When.
    pub created_at: Timestamp,
    /// Its cgroup, prefix included.
    pub cgroup: String,
    /// Layer folders it is made of.
    pub lower: Vec<String>,
    /// `repository@sha256:...`, or the image's id.
    pub image_digest: String,
    /// Absolute log file.
    pub log_path: Option<PathBuf>,
    /// Signal that asks it to end.
    pub stop_signal: i32,
    /// User, group and further groups of its process.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// See `uid`.
    pub groups: Vec<u32>,
    /// The OCI process; commands run with the same rights and environment.
    pub process: serde_json::Value,
}
