//! The one trait by which pods are run.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::{
    ContainerConfig, ContainerFilter, ContainerId, ContainerInfo, ContainerStatus, ExecOutput,
    ExecRequest, FsUsage, ImageId, ImageInfo, ProgressSink, RegistryAuth, Resources, Result,
    SandboxConfig, SandboxFilter, SandboxId, SandboxInfo, SandboxStatus, Session, Stats,
};

/// Who implements the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// `coracle` for the built-in one.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Whether the runtime can work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Containers can be run.
    pub ready: bool,
    /// What keeps it from working, or works less well than it could (a missing cgroup
    /// controller); one line each, for people.
    pub messages: Vec<String>,
}

/// Something happened that nobody asked for just now, or a call's effect became visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A container's first process runs.
    Started {
        /// Its sandbox.
        sandbox: SandboxId,
        /// Which one.
        container: ContainerId,
    },
    /// A container's first process ended; its status says how.
    Exited {
        /// Its sandbox.
        sandbox: SandboxId,
        /// Which one.
        container: ContainerId,
    },
    /// A sandbox is not ready any more: stopped, or its shim died (its containers are then
    /// killed and their state is unknown).
    SandboxGone {
        /// Which one.
        sandbox: SandboxId,
    },
}

/// Runs pods: sandboxes, the containers in them, and images. Calls may be made from many tasks at
/// once. Stopping and removing are idempotent: what does not exist is removed already.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Who this is.
    async fn version(&self) -> Result<VersionInfo>;
    /// Whether it can work.
    async fn status(&self) -> Result<RuntimeStatus>;

    /// Makes a sandbox: namespaces, cgroup, log folder. It is ready when this returns.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId>;
    /// Kills what runs in it and lets its namespaces go; status and logs stay.
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<()>;
    /// Stops it if need be and removes it with all its containers.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<()>;
    /// Sandboxes that pass the filter, oldest first.
    async fn list_sandboxes(&self, filter: SandboxFilter) -> Result<Vec<SandboxInfo>>;
    /// One sandbox.
    async fn sandbox_status(&self, id: &SandboxId) -> Result<SandboxStatus>;
    /// What the whole sandbox uses.
    async fn sandbox_stats(&self, id: &SandboxId) -> Result<Stats>;
    /// Changes the sandbox's own limits.
    async fn update_sandbox_resources(&self, id: &SandboxId, resources: Resources) -> Result<()>;

    /// Makes a container without starting its process.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId>;
    /// Starts a created container. A failure ([`crate::Error::Start`]) leaves it exited with
    /// reason `StartError`.
    async fn start_container(&self, id: &ContainerId) -> Result<()>;
    /// Sends the stop signal, after `timeout` SIGKILL, and waits for the end. Zero kills at once.
    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()>;
    /// Kills it if it runs, and removes it and its own layer. The log file stays.
    async fn remove_container(&self, id: &ContainerId) -> Result<()>;
    /// Containers that pass the filter, oldest first.
    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<ContainerInfo>>;
    /// One container.
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus>;
    /// Changes limits; what is none stays as it is.
    async fn update_resources(&self, id: &ContainerId, resources: Resources) -> Result<()>;
    /// What it uses.
    async fn stats(&self, id: &ContainerId) -> Result<Stats>;
    /// Opens the log file anew after someone has moved it away.
    async fn reopen_log(&self, id: &ContainerId) -> Result<()>;

    /// Runs a command to its end and collects its output. Past `timeout` the command is killed and
    /// [`crate::Error::Timeout`] comes back; zero means no limit.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        argv: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput>;
    /// Starts a command and hands over its streams.
    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Session>;
    /// Joins the streams of the container's first process; output starts now, not at its start.
    async fn attach(&self, id: &ContainerId) -> Result<Session>;

    /// Events from now on. A receiver that lags more than the channel holds is told so and has
    /// to list again.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Fetches an image (always asks the registry; layers already here are not fetched again) and
    /// unpacks it.
    async fn pull_image(
        &self,
        reference: &str,
        auth: RegistryAuth,
        progress: Option<ProgressSink>,
    ) -> Result<ImageId>;
    /// An image by reference or id; none if it is not here.
    async fn image_status(&self, reference: &str) -> Result<Option<ImageInfo>>;
    /// All images.
    async fn list_images(&self) -> Result<Vec<ImageInfo>>;
    /// Removes an image given by id with all its references, or one reference, and what then
    /// nobody needs. Nothing happens if it is not here.
    async fn remove_image(&self, reference: &str) -> Result<()>;
    /// What the images take.
    async fn image_fs_usage(&self) -> Result<FsUsage>;
    /// Takes images out of an OCI-layout or docker-save tar archive (plain, gzip or zstd) and
    /// gives their references.
    async fn import_archive(&self, path: &Path) -> Result<Vec<String>>;
}
