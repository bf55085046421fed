//! Images as callers see them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Identifies an image: the digest of its configuration, `sha256:...`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageId(pub String);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInfo {
    /// Its id.
    pub id: ImageId,
    /// Normalised references with a tag (`docker.io/library/nginx:1.27`).
    pub tags: Vec<String>,
    /// References by digest (`docker.io/library/nginx@sha256:...`).
    pub digests: Vec<String>,
    /// Bytes of its compressed layers and its configuration.
    pub size: u64,
    /// User of its configuration as written (`nonroot`, `65532:65532`); empty means root.
    pub user: String,
    /// The user's number if it is one, or if empty (0).
    pub uid: Option<u32>,
    /// Labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// Ports it says it listens on (`8080/tcp`).
    pub exposed_ports: Vec<String>,
    /// Never removed by garbage collection.
    pub pinned: bool,
}

/// Credentials for one pull.
#[derive(Clone, Default, PartialEq)]
pub enum RegistryAuth {
    /// None; what the runtime's registries file says still applies.
    #[default]
    Anonymous,
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password or token.
        password: String,
    },
    /// A ready bearer token.
    Bearer(String),
}

impl fmt::Debug for RegistryAuth {
    /// Says which kind it is and nothing of the secret: it may end in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username})"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// How far a pull has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of layers fetched, those already present included.
    pub done: u64,
    /// Bytes of layers altogether; 0 until the manifest is known.
    pub total: u64,
    /// Layers unpacked.
    pub layers_done: u32,
    /// Layers altogether.
    pub layers: u32,
}

/// Told now and then how far a pull has come.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// What the image store takes of a file system.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FsUsage {
    /// Where the store lies.
    pub path: PathBuf,
    /// Bytes the store uses.
    pub used_bytes: u64,
    /// Files and folders the store uses.
    pub used_inodes: u64,
    /// Size of the file system.
    pub capacity_bytes: u64,
    /// Bytes still free in it for unprivileged users.
    pub available_bytes: u64,
    /// Inodes of the file system.
    pub capacity_inodes: u64,
    /// Inodes still free.
    pub available_inodes: u64,
}
