//! Sandboxes: making a shim, following it, ending it.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use nix::mount::{MntFlags, umount2};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::record::{SANDBOX_FILE, SandboxRecord};
use super::wire::Connection;
use super::{Inner, Native, lock, new_id, remove_folder};
use crate::shim::protocol::{
    NETNS_FILE, PIDNS_FILE, PROTOCOL, Phase, Reply, Request, SHIM_FILE, SHM_FOLDER, STATE_FILE,
    ShimConfig,
};
use crate::shim::{self, Ready};
use crate::{
    Error, Event, Result, SandboxConfig, SandboxFilter, SandboxId, SandboxInfo, SandboxState,
    SandboxStatus,
};

/// A shim that is not ready by then never will be.
const READY_LIMIT: Duration = Duration::from_secs(15);
/// A shim kills its containers and leaves within this, or is killed itself.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);
/// A shim that does not greet within this is stuck.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(5);
const SHM_DEFAULT_BYTES: u64 = 64 << 20;
/// Linux's limit for a host name.
const HOSTNAME_LIMIT_BYTES: usize = 64;

/// A sandbox and what is known of its shim.
pub struct Sandbox {
    pub record: SandboxRecord,
    /// The shim's process while it lives.
    pub shim: watch::Sender<Option<u32>>,
}

impl Sandbox {
    pub fn new(record: SandboxRecord, pid: Option<u32>) -> Arc<Self> {
        Arc::new(Self { record, shim: watch::channel(pid).0 })
    }

    pub fn state(&self) -> SandboxState {
        if self.shim.borrow().is_some() { SandboxState::Ready } else { SandboxState::NotReady }
    }

    pub fn id(&self) -> SandboxId {
        SandboxId(self.record.id.clone())
    }

    pub fn info(&self) -> SandboxInfo {
        SandboxInfo {
            id: self.id(),
            state: self.state(),
            created_at: self.record.created_at,
            config: self.record.config.clone(),
        }
    }

    pub fn status(&self, folder: &Path) -> SandboxStatus {
        let host = self.record.config.host_network;
        SandboxStatus {
            id: self.id(),
            state: self.state(),
            pid: *self.shim.borrow(),
            netns: (!host).then(|| folder.join(NETNS_FILE)),
            created_at: self.record.created_at,
            config: self.record.config.clone(),
        }
    }

    pub fn matches(&self, filter: &SandboxFilter) -> bool {
        let labels = &self.record.config.labels;
        filter.id.as_ref().is_none_or(|id| id.0 == self.record.id)
            && filter.state.is_none_or(|s| s == self.state())
            && filter.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
    }
}

impl Native {
    pub(super) async fn make_sandbox(&self, config: SandboxConfig) -> Result<SandboxId> {
        if config.hostname.len() > HOSTNAME_LIMIT_BYTES {
            return Err(Error::Invalid(format!("host name {:?} is too long", config.hostname)));
        }
        let id = new_id();
        let prefix = self.inner.config.cgroup_prefix.trim_end_matches('/');
        let own = [&config.cgroup, &config.uid, &id].into_iter().find(|s| !s.is_empty());
        let own = own.map_or(id.as_str(), |s| s.trim_matches('/'));
        if own.split('/').any(|part| part == "..") {
            return Err(Error::Invalid(format!("cgroup {own:?} leaves its parent")));
        }
        let record = SandboxRecord {
            id: id.clone(),
            cgroup: format!("{prefix}/{own}"),
            created_at: Timestamp::now(),
            config,
        };
        match self.start_shim(&record).await {
            Ok(sandbox) => {
                lock(&self.inner.sandboxes).insert(id.clone(), sandbox);
                Ok(SandboxId(id))
            }
            Err(e) => {
                if let Err(again) = self.clean_sandbox(&record).await {
                    tracing::warn!(sandbox = %id, error = %base::chain(&again), "cannot clean up");
                }
                Err(e)
            }
        }
    }

    async fn start_shim(&self, record: &SandboxRecord) -> Result<Arc<Sandbox>> {
        let folder = self.sandbox_folder(&record.id);
        let making = |p: &Path| Error::io(format!("making {}", p.display()));
        fs::create_dir_all(&folder).map_err(making(&folder))?;
        let logs = &record.config.log_directory;
        if !logs.as_os_str().is_empty() {
            fs::create_dir_all(logs).map_err(making(logs))?;
        }
        let cgroups = &self.inner.cgroups;
        cgroups.make(&record.cgroup, true).map_err(Error::io("making the sandbox's cgroup"))?;
        cgroups
            .apply(&record.cgroup, &record.config.resources)
            .map_err(Error::io(format!("setting limits of sandbox {}", record.id)))?;
        // Shims live beside the sandboxes: neither a sandbox's limits nor the end of the agent's
        // own cgroup shall reach them.
        let shims = self.inner.config.group("shims");
        cgroups.make(&shims, false).map_err(Error::io("making the shims' cgroup"))?;
        let config = self.shim_config(record, &shims);
        let writing = |name: &str| Error::io(format!("writing {name} of sandbox {}", record.id));
        shim::write_atomic(&folder.join(SHIM_FILE), &config).map_err(writing(SHIM_FILE))?;
        shim::write_atomic(&folder.join(SANDBOX_FILE), record).map_err(writing(SANDBOX_FILE))?;
        self.spawn_shim(&record.id, &folder).await?;
        self.follow(record.clone())
            .await
            .map_err(Error::io(format!("connecting to the shim of sandbox {}", record.id)))
    }

    fn shim_config(&self, record: &SandboxRecord, cgroup: &str) -> ShimConfig {
        let config = &record.config;
        let own = &self.inner.config;
        let shm = if config.shm_bytes == 0 { SHM_DEFAULT_BYTES } else { config.shm_bytes };
        ShimConfig {
            protocol: PROTOCOL,
            hostname: config.hostname.clone(),
            host_network: config.host_network,
            host_ipc: config.host_ipc,
            shared_pid: config.shared_pid && !config.host_pid,
            sysctls: config.sysctls.clone().into_iter().collect(),
            cgroups: self.inner.cgroups.folders(cgroup),
            shm_bytes: if config.host_ipc { 0 } else { shm },
            log_limit_bytes: own.log_limit_bytes,
            log_files: own.log_files,
            oci_root: self.oci_root(),
            layers: self.inner.images.layers(),
        }
    }

    async fn spawn_shim(&self, id: &str, folder: &Path) -> Result<()> {
        let own = &self.inner.config;
        let bad = |reason: String| Error::Shim { id: id.to_owned(), reason };
        let mut child = tokio::process::Command::new(&own.shim)
            .args(&own.shim_args)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io(format!("running {} as shim", own.shim.display())))?;
        let mut said = Vec::new();
        let stdout = child.stdout.take();
        let reading = async {
            if let Some(mut stdout) = stdout {
                stdout.read_to_end(&mut said).await.map_err(Error::io("reading from the shim"))?;
            }
            child.wait().await.map_err(Error::io("waiting for the shim"))
        };
        tokio::time::timeout(READY_LIMIT, reading)
            .await
            .map_err(|_| bad(format!("not ready within {} s", READY_LIMIT.as_secs())))??;
        match serde_json::from_slice::<Ready>(&said) {
            Ok(Ready::Pid(_)) => Ok(()),
            Ok(Ready::Failed(reason)) => Err(bad(reason)),
            Err(_) => Err(bad("it ended without a word".to_owned())),
        }
    }

    /// Subscribes to a shim and keeps what it says.
    ///
    /// # Errors
    /// When there is no shim, or it is stuck (it is then killed).
    pub(super) async fn follow(&self, record: SandboxRecord) -> std::io::Result<Arc<Sandbox>> {
        let connection = subscribe(&self.sandbox_folder(&record.id)).await?;
        let sandbox = Sandbox::new(record, connection.peer().or(Some(0)));
        // A weak hold: the runtime's end must not wait for a shim's.
        tokio::spawn(listen(Arc::downgrade(&self.inner), sandbox.clone(), connection));
        Ok(sandbox)
    }

    /// Reads what the shim has recorded while nobody listened.
    fn catch_up(&self, sandbox: &Sandbox) {
        for container in self.containers_of(&sandbox.record.id) {
            let file = self.container_folder(&container.id).join(STATE_FILE);
            if let Some(state) = super::recover::read(&file) {
                self.accept(&container, state);
            }
        }
    }

    /// The shim is gone. What it left behind is killed; its containers' ends are unknown.
    fn lost(&self, sandbox: &Arc<Sandbox>) {
        self.inner.cgroups.kill(&sandbox.record.cgroup);
        for container in self.containers_of(&sandbox.record.id) {
            let mut state = container.state();
            if matches!(state.phase, Phase::Created | Phase::Running) {
                tracing::warn!(container = %container.id, "the shim was lost; its container was killed");
                state.phase = Phase::Lost;
                state.pid = 0;
                state.code = LOST_CODE;
                state.signal = libc::SIGKILL;
                state.finished = shim::now();
                let file = self.container_folder(&container.id).join(STATE_FILE);
                let _ = shim::write_atomic(&file, &state);
                self.accept(&container, state);
            }
        }
        sandbox.shim.send_replace(None);
        self.emit(Event::SandboxGone { sandbox: sandbox.id() });
    }

    pub(super) fn mark_lost(&self, sandbox: &Arc<Sandbox>) {
        self.lost(sandbox);
    }

    /// Asks the shim to leave and waits until it has.
    pub(super) async fn end_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        let mut gone = sandbox.shim.subscribe();
        let Some(pid) = *gone.borrow_and_update() else { return Ok(()) };
        if let Ok(connection) = Connection::open(&self.sandbox_folder(&sandbox.record.id)) {
            let _ = connection.send(&Request::Shutdown {}, &[]);
        }
        if tokio::time::timeout(LEAVE_LIMIT, gone.wait_for(Option::is_none)).await.is_err() {
            tracing::warn!(sandbox = %sandbox.record.id, "the shim does not leave and is killed");
            if let Ok(pid @ 2..) = i32::try_from(pid) {
                // SAFETY: the process answered on this sandbox's socket and has not closed it.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            let waited = tokio::time::timeout(LEAVE_LIMIT, gone.wait_for(Option::is_none)).await;
            waited
                .map_err(|_| Error::Timeout {
                    what: format!("stopping sandbox {}", sandbox.record.id),
                    seconds: 2 * LEAVE_LIMIT.as_secs(),
                })?
                .ok();
        }
        Ok(())
    }

    pub(super) async fn delete_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        self.end_sandbox(sandbox).await?;
        for container in self.containers_of(&sandbox.record.id) {
            self.delete_container(&container).await?;
        }
        self.clean_sandbox(&sandbox.record).await?;
        lock(&self.inner.sandboxes).remove(&sandbox.record.id);
        Ok(())
    }

    /// Removes mounts, cgroup and folder of a sandbox that has no shim.
    pub(super) async fn clean_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        let folder = self.sandbox_folder(&record.id);
        for name in [NETNS_FILE, PIDNS_FILE, SHM_FOLDER] {
            // Not mounted, or not there: both are what is wanted.
            let _ = umount2(&folder.join(name), MntFlags::MNT_DETACH);
        }
        self.inner
            .cgroups
            .remove(&record.cgroup)
            .await
            .map_err(Error::io(format!("sandbox {}", record.id)))?;
        remove_folder(&folder)
    }
}

/// The exit code of a container whose shim was lost; a kubelet reports the same.
const LOST_CODE: i32 = 137;

async fn subscribe(folder: &Path) -> std::io::Result<Connection> {
    let connection = Connection::open(folder)?;
    connection.send(&Request::Subscribe {}, &[])?;
    match tokio::time::timeout(SUBSCRIBE_LIMIT, connection.receive()).await {
        Ok(Ok(Some((Reply::Done {}, _)))) => Ok(connection),
        Ok(_) => Err(std::io::ErrorKind::ConnectionRefused.into()),
        Err(_) => {
            if let Some(Ok(pid @ 2..)) = connection.peer().map(i32::try_from) {
                tracing::warn!(pid, folder = %folder.display(), "a shim is stuck and is killed");
                // SAFETY: the process has opened the socket of this sandbox and holds it still.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            Err(std::io::ErrorKind::TimedOut.into())
        }
    }
}

async fn listen(runtime: Weak<Inner>, sandbox: Arc<Sandbox>, mut connection: Connection) {
    loop {
        let packet = connection.receive().await;
        let Some(inner) = runtime.upgrade() else { return };
        let native = Native { inner };
        match packet {
            Ok(Some((Reply::Changed { id, state }, _))) => {
                if let Ok(container) = native.container(&id) {
                    native.accept(&container, state);
                }
            }
            Ok(Some(_)) => {}
            // A shim cuts a listener off that does not keep up; only one that cannot be reached
            // again is dead.
            Ok(None) | Err(_) => {
                match subscribe(&native.sandbox_folder(&sandbox.record.id)).await {
                    Ok(again) => {
                        connection = again;
                        native.catch_up(&sandbox);
                    }
                    Err(_) => {
                        native.lost(&sandbox);
                        return;
                    }
                }
            }
        }
    }
}
