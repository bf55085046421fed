//! The built-in runtime: one shim per sandbox, libcontainer, overlayfs, our own image store.
//!
//! What has to survive a restart of the agent stands in files below `state`; what has to
//! survive a reboot (images) below `root`. The agent learns of ends by a subscription to each
//! shim; a subscription that breaks means that the shim is dead.

mod cgroup;
mod config;
mod container;
mod exec;
mod record;
mod recover;
mod sandbox;
mod session;
mod spec;
mod user;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use config::NativeConfig;
pub use container::disk_usage;

use crate::images::{Registries, Store, Used};
use crate::{
    ContainerConfig, ContainerFilter, ContainerId, ContainerInfo, ContainerStatus, Error, Event,
    ExecOutput, ExecRequest, FsUsage, ImageId, ImageInfo, ProgressSink, RegistryAuth, Resources,
    Result, Runtime, RuntimeStatus, SandboxConfig, SandboxFilter, SandboxId, SandboxInfo,
    SandboxStatus, Session, Stats, VersionInfo,
};
use cgroup::Cgroups;
use container::Container;
use sandbox::Sandbox;

/// Events kept for a receiver that is busy.
const EVENT_QUEUE: usize = 1024;

/// The built-in runtime. Cheap to clone.
#[derive(Clone)]
pub struct Native {
    inner: Arc<Inner>,
}

struct Inner {
    config: NativeConfig,
    images: Store,
    cgroups: Cgroups,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    events: broadcast::Sender<Event>,
    /// Capabilities this process may hand on, a bit each.
    capabilities: u64,
    oom_score_min: i64,
}

/// 32 random lower-case hexadecimal digits.
pub(crate) fn new_id() -> String {
    base::names::uuid().replace('-', "")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Native {
    /// Opens the runtime and takes over what earlier processes left running. What a reboot or a
    /// lost shim left is cleaned up.
    ///
    /// # Errors
    /// Folders that cannot be written; a damaged registries file.
    pub async fn open(config: NativeConfig) -> Result<Self> {
        for folder in [
            config.root.join("containers"),
            config.state.join("sandboxes"),
            config.state.join("containers"),
            config.state.join("oci"),
        ] {
            std::fs::create_dir_all(&folder)
                .map_err(Error::io(format!("making {}", folder.display())))?;
        }
        Registries::load(config.registries.as_deref())?;
        let opened = config.clone();
        let images = tokio::task::spawn_blocking(move || opened.image_store())
            .await
            .map_err(|e| Error::Invalid(e.to_string()))??;
        let inner = Inner {
            images,
            cgroups: Cgroups::discover(),
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::channel(EVENT_QUEUE).0,
            capabilities: own_capabilities(),
            oom_score_min: oom_score_min(),
            config,
        };
        let native = Self { inner: Arc::new(inner) };
        native.recover().await?;
        Ok(native)
    }

    /// The image store, for the command line.
    pub fn images(&self) -> &Store {
        &self.inner.images
    }

    fn sandbox_folder(&self, id: &str) -> PathBuf {
        self.inner.config.state.join("sandboxes").join(id)
    }

    fn container_folder(&self, id: &str) -> PathBuf {
        self.inner.config.state.join("containers").join(id)
    }

    fn oci_root(&self) -> PathBuf {
        self.inner.config.state.join("oci")
    }

    fn layer_folder(&self, id: &str) -> PathBuf {
        self.inner.config.root.join("containers").join(id)
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        lock(&self.inner.sandboxes)
            .get(id)
            .cloned()
            .ok_or_else(|| Error::NotFound { kind: "sandbox", id: id.to_owned() })
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        lock(&self.inner.containers)
            .get(id)
            .cloned()
            .ok_or_else(|| Error::NotFound { kind: "container", id: id.to_owned() })
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let all = lock(&self.inner.containers);
        all.values().filter(|c| c.sandbox == sandbox).cloned().collect()
    }

    fn used(&self) -> Used {
        let mut used = Used::default();
        for container in lock(&self.inner.containers).values() {
            let record = container.record();
            used.images.insert(record.config.image.0);
            used.layers.extend(record.lower);
        }
        used
    }

    fn emit(&self, event: Event) {
        // Nobody may be listening, which is no failure.
        let _ = self.inner.events.send(event);
    }

    async fn with_images<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.inner.images.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|e| Error::Invalid(format!("image store: {e}")))?
    }
}

/// The bounding set; all if the kernel does not say.
fn own_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|l| l.strip_prefix("CapBnd:"));
    set.and_then(|s| u64::from_str_radix(s.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// A process without this capability may not get a lower OOM score than its maker's.
const CAP_SYS_RESOURCE: u32 = 24;

fn oom_score_min() -> i64 {
    const LOWEST: i64 = -1000;
    if own_capabilities() & 1 << CAP_SYS_RESOURCE != 0 {
        return LOWEST;
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    own.trim().parse().unwrap_or(LOWEST)
}

/// Removes a folder; one that is not there is removed.
fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()))(e))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Runtime for Native {
    async fn version(&self) -> Result<VersionInfo> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(VersionInfo { name: "coracle".to_owned(), version })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let mut messages = self.inner.cgroups.warnings();
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let overlay =
            filesystems.lines().any(|l| l.trim_start_matches("nodev").trim() == "overlay");
        if !overlay {
            messages
                .push("the kernel has no overlayfs: load it with `modprobe overlay`".to_owned());
        }
        Ok(RuntimeStatus { ready: overlay, messages })
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId> {
        self.make_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        match self.sandbox(&id.0) {
            Ok(sandbox) => self.end_sandbox(&sandbox).await,
            Err(_) => Ok(()),
        }
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        match self.sandbox(&id.0) {
            Ok(sandbox) => self.delete_sandbox(&sandbox).await,
            Err(_) => Ok(()),
        }
    }

    async fn list_sandboxes(&self, filter: SandboxFilter) -> Result<Vec<SandboxInfo>> {
        let all: Vec<_> = lock(&self.inner.sandboxes).values().cloned().collect();
        let mut all: Vec<_> = all.iter().filter(|s| s.matches(&filter)).map(|s| s.info()).collect();
        all.sort_by_key(|s| s.created_at);
        Ok(all)
    }

    async fn sandbox_status(&self, id: &SandboxId) -> Result<SandboxStatus> {
        Ok(self.sandbox(&id.0)?.status(&self.sandbox_folder(&id.0)))
    }

    async fn sandbox_stats(&self, id: &SandboxId) -> Result<Stats> {
        Ok(self.inner.cgroups.stats(&self.sandbox(&id.0)?.record.cgroup))
    }

    async fn update_sandbox_resources(&self, id: &SandboxId, resources: Resources) -> Result<()> {
        let sandbox = self.sandbox(&id.0)?;
        self.inner
            .cgroups
            .apply(&sandbox.record.cgroup, &resources)
            .map_err(Error::io(format!("setting limits of sandbox {id}")))
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        self.make_container(sandbox, config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.begin_container(&*self.container(&id.0)?).await
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        match self.container(&id.0) {
            Ok(container) => self.end_container(&container, timeout).await,
            Err(_) => Ok(()),
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        match self.container(&id.0) {
            Ok(container) => self.delete_container(&container).await,
            Err(_) => Ok(()),
        }
    }

    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<ContainerInfo>> {
        let all: Vec<_> = lock(&self.inner.containers).values().cloned().collect();
        let mut all: Vec<_> = all.iter().filter(|c| c.is_made()).map(|c| c.info()).collect();
        all.retain(|c| container::matches(c, &filter));
        all.sort_by_key(|c| c.created_at);
        Ok(all)
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        Ok(self.container(&id.0)?.status())
    }

    async fn update_resources(&self, id: &ContainerId, resources: Resources) -> Result<()> {
        self.change_limits(&*self.container(&id.0)?, resources)
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let container = self.container(&id.0)?;
        let mut stats = self.inner.cgroups.stats(&container.record().cgroup);
        let upper = self.layer_folder(&id.0).join("upper");
        let (bytes, inodes) = tokio::task::spawn_blocking(move || container::disk_usage(&upper))
            .await
            .unwrap_or_default();
        stats.writable_bytes = bytes;
        stats.writable_inodes = inodes;
        Ok(stats)
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        self.anew_log(&*self.container(&id.0)?).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        argv: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput> {
        self.collect_exec(&*self.container(&id.0)?, argv, timeout).await
    }

    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Session> {
        Ok(self.begin_exec(&*self.container(&id.0)?, request).await?.0)
    }

    async fn attach(&self, id: &ContainerId) -> Result<Session> {
        self.begin_attach(&*self.container(&id.0)?).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    async fn pull_image(
        &self,
        reference: &str,
        auth: RegistryAuth,
        progress: Option<ProgressSink>,
    ) -> Result<ImageId> {
        let registries = Registries::load(self.inner.config.registries.as_deref())?;
        self.inner.images.pull(&registries, reference, auth, progress).await
    }

    async fn image_status(&self, reference: &str) -> Result<Option<ImageInfo>> {
        self.inner.images.info(reference)
    }

    async fn list_images(&self) -> Result<Vec<ImageInfo>> {
        self.inner.images.list()
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        let (used, reference) = (self.used(), reference.to_owned());
        self.with_images(move |store| store.remove(&reference, &used)).await
    }

    async fn image_fs_usage(&self) -> Result<FsUsage> {
        self.inner.images.usage()
    }

    async fn import_archive(&self, path: &Path) -> Result<Vec<String>> {
        let path = path.to_owned();
        self.with_images(move |store| store.import(&path)).await
    }
}
