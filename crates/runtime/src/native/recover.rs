//! Taking over what an earlier process left.

use std::fs;
use std::path::Path;

use super::container::Container;
use super::record::{CONTAINER_FILE, ContainerRecord, SANDBOX_FILE, SandboxRecord};
use super::sandbox::Sandbox;
use super::{Native, lock, remove_folder};
use crate::images::Used;
use crate::shim::protocol::{STATE_FILE, State};
use crate::{Error, Result};

/// Tells one boot of the machine from another.
const BOOT_FILE: &str = "boot_id";

impl Native {
    pub(super) async fn recover(&self) -> Result<()> {
        self.forget_other_boots().await?;
        for folder in folders(&self.inner.config.state.join("sandboxes")) {
            let path = self.sandbox_folder(&folder);
            match read::<SandboxRecord>(&path.join(SANDBOX_FILE)) {
                Some(record) => self.recover_sandbox(record).await,
                // Cut short before anything was started.
                None => remove_folder(&path)?,
            }
        }
        for id in folders(&self.inner.config.state.join("containers")) {
            let folder = self.container_folder(&id);
            let record = read::<ContainerRecord>(&folder.join(CONTAINER_FILE));
            match record.filter(|r| self.sandbox(&r.sandbox).is_ok()) {
                Some(record) => {
                    let state = read::<State>(&folder.join(STATE_FILE)).unwrap_or_default();
                    let container = Container::new(record, state);
                    lock(&self.inner.containers).insert(id, container);
                }
                None => remove_folder(&folder)?,
            }
        }
        // Now that the containers are known: those of dead shims are lost.
        let sandboxes: Vec<_> = lock(&self.inner.sandboxes).values().cloned().collect();
        for sandbox in sandboxes.iter().filter(|s| s.shim.borrow().is_none()) {
            self.mark_lost(sandbox);
        }
        self.remove_strays()
    }

    async fn recover_sandbox(&self, record: SandboxRecord) {
        let id = record.id.clone();
        let sandbox = match self.follow(record.clone()).await {
            Ok(sandbox) => sandbox,
            Err(_) => Sandbox::new(record, None),
        };
        lock(&self.inner.sandboxes).insert(id, sandbox);
    }

    /// After a reboot nothing that `state` tells of exists any more.
    async fn forget_other_boots(&self) -> Result<()> {
        let state = &self.inner.config.state;
        let file = state.join(BOOT_FILE);
        let now = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let then = fs::read_to_string(&file).unwrap_or_default();
        if now == then {
            return Ok(());
        }
        for kind in ["sandboxes", "containers", "oci"] {
            for name in folders(&state.join(kind)) {
                remove_folder(&state.join(kind).join(name))?;
            }
        }
        fs::write(&file, now).map_err(Error::io(format!("writing {}", file.display())))
    }

    /// Removes what a call that was cut short left without a record.
    fn remove_strays(&self) -> Result<()> {
        let known = |id: &str| lock(&self.inner.containers).contains_key(id);
        for root in [self.inner.config.root.join("containers"), self.oci_root()] {
            for id in folders(&root).iter().filter(|id| !known(id)) {
                remove_folder(&root.join(id))?;
            }
        }
        Ok(())
    }
}

fn folders(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Reads a file of JSON; none if it is missing or damaged.
pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// What the containers below a folder use, by their records.
pub(super) fn used(containers: &Path) -> Used {
    let mut used = Used::default();
    for id in folders(containers) {
        let file = containers.join(id).join(CONTAINER_FILE);
        if let Some(record) = read::<ContainerRecord>(&file) {
            used.images.insert(record.config.image.0);
            used.layers.extend(record.lower);
        }
    }
    used
}
