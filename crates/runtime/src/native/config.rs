//! Where the built-in runtime keeps things and what it runs.

use std::ffi::OsString;
use std::path::PathBuf;

use super::cgroup::Cgroups;
use crate::images::{Store, Used};
use crate::{Error, Result};

/// Settings of the built-in runtime. Folders are made if missing.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// Images and writable layers (`/var/lib/coracle/agent/runtime`). Must be a file system that
    /// overlayfs accepts below it.
    pub root: PathBuf,
    /// What a reboot may forget: sockets, states, mount points (`/run/coracle`).
    pub state: PathBuf,
    /// The program to run as shim, usually `/proc/self/exe`.
    pub shim: PathBuf,
    /// Its arguments before the folder, usually [`crate::shim::ARGUMENT`].
    pub shim_args: Vec<OsString>,
    /// Cgroup that holds all others, with a leading slash (`/coracle`).
    pub cgroup_prefix: String,
    /// `registries.yaml`; read anew for every pull.
    pub registries: Option<PathBuf>,
    /// A container's log file is rotated past this many bytes.
    pub log_limit_bytes: u64,
    /// Log files kept per container, the current one included.
    pub log_files: u32,
}

impl NativeConfig {
    /// Settings with the usual values for everything but the folders.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
            shim: PathBuf::from("/proc/self/exe"),
            shim_args: vec![OsString::from(crate::shim::ARGUMENT)],
            cgroup_prefix: "/coracle".to_owned(),
            registries: None,
            log_limit_bytes: 10 << 20,
            log_files: 5,
        }
    }

    /// The control group of this name beside those of sandboxes, for processes that neither a
    /// sandbox's limits nor the end of the agent's own group shall reach.
    pub(super) fn group(&self, name: &str) -> String {
        format!("{}/{name}", self.cgroup_prefix.trim_end_matches('/'))
    }

    /// Makes such a group; its folder in each hierarchy.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_group(&self, name: &str) -> Result<Vec<PathBuf>> {
        let (cgroups, group) = (Cgroups::discover(), self.group(name));
        cgroups.make(&group, false).map_err(Error::io(format!("making the cgroup {group}")))?;
        Ok(cgroups.folders(&group))
    }

    /// Kills everything in such a group.
    pub fn kill_group(&self, name: &str) {
        Cgroups::discover().kill(&self.group(name));
    }

    /// Kills everything in such a group and removes it; harmless when there is none.
    ///
    /// # Errors
    /// When processes do not go away.
    pub async fn remove_group(&self, name: &str) -> Result<()> {
        let group = self.group(name);
        let removed = Cgroups::discover().remove(&group).await;
        removed.map_err(Error::io(format!("removing the cgroup {group}")))
    }

    /// Opens the image store alone, as the command line does beside a running agent; opening the
    /// runtime itself is for one process at a time.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn image_store(&self) -> Result<Store> {
        Store::open(&self.root.join("images"))
    }

    /// What containers use by their records, for [`Store::remove`] beside a running agent.
    pub fn used(&self) -> Used {
        super::recover::used(&self.state.join("containers"))
    }
}
