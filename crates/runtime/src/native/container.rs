//! Containers: making, starting, ending.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::record::{CONTAINER_FILE, ContainerRecord};
use super::sandbox::Sandbox;
use super::wire::Connection;
use super::{Native, cgroup::Cgroups, lock, new_id, remove_folder, spec, user};
use crate::images::Image;
use crate::seccomp::Filter;
use crate::shim::protocol::{PIDNS_FILE, Phase, Reply, Request, RootFs, SHM_FOLDER, State};
use crate::shim::write_atomic;
use crate::{
    ContainerConfig, ContainerFilter, ContainerId, ContainerInfo, ContainerState, ContainerStatus,
    Error, Event, Propagation, Reason, Resources, Result, SandboxId, SandboxState,
};

/// After SIGKILL a process is gone within this, unless the kernel hangs in a file system.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// A start is seen in the state within this after the shim's answer.
const SEEN_LIMIT: Duration = Duration::from_secs(5);
const ROOTFS_FILE: &str = "rootfs.json";

/// A container and what is known of its life.
pub struct Container {
    pub id: String,
    pub sandbox: String,
    record: Mutex<ContainerRecord>,
    state: watch::Sender<State>,
}

impl Container {
    pub fn new(record: ContainerRecord, state: State) -> Arc<Self> {
        let (id, sandbox) = (record.id.clone(), record.sandbox.clone());
        Arc::new(Self { id, sandbox, record: Mutex::new(record), state: watch::channel(state).0 })
    }

    pub fn record(&self) -> ContainerRecord {
        lock(&self.record).clone()
    }

    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    fn alive(&self) -> bool {
        alive(&self.state.borrow())
    }

    /// False while it is being made: that may fail, and then it never was.
    pub fn is_made(&self) -> bool {
        let state = self.state.borrow();
        state.phase != Phase::Created || state.pid > 0
    }

    pub fn info(&self) -> ContainerInfo {
        let record = lock(&self.record);
        let config = &record.config;
        ContainerInfo {
            id: ContainerId(self.id.clone()),
            sandbox: SandboxId(self.sandbox.clone()),
            name: config.name.clone(),
            attempt: config.attempt,
            state: public_state(&self.state.borrow()),
            created_at: record.created_at,
            image: config.image.clone(),
            image_ref: config.image_ref.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }
    }

    pub fn status(&self) -> ContainerStatus {
        let record = self.record();
        let state = self.state();
        let ended = !alive(&state);
        let time = |nanoseconds: i64| {
            (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
        };
        let config = record.config;
        ContainerStatus {
            id: ContainerId(self.id.clone()),
            sandbox: SandboxId(self.sandbox.clone()),
            name: config.name,
            attempt: config.attempt,
            state: public_state(&state),
            pid: u32::try_from(state.pid).ok().filter(|p| *p > 0),
            created_at: record.created_at,
            started_at: time(state.started),
            finished_at: time(state.finished),
            exit_code: ended.then_some(state.code),
            signal: (state.signal > 0).then_some(state.signal),
            reason: reason(&state),
            message: match state.phase {
                Phase::Lost => "The container could not be located when the pod was terminated: its shim was lost".to_owned(),
                _ => state.error,
            },
            image: config.image,
            image_digest: record.image_digest,
            image_ref: config.image_ref,
            log_path: record.log_path,
            mounts: config.mounts,
            resources: config.resources,
            uid: record.uid,
            gid: record.gid,
            groups: record.groups,
            labels: config.labels,
            annotations: config.annotations,
        }
    }
}

fn alive(state: &State) -> bool {
    matches!(state.phase, Phase::Created | Phase::Running)
}

fn public_state(state: &State) -> ContainerState {
    match state.phase {
        Phase::Created => ContainerState::Created,
        Phase::Running => ContainerState::Running,
        Phase::Exited | Phase::Lost => ContainerState::Exited,
    }
}

fn reason(state: &State) -> Option<Reason> {
    match state.phase {
        Phase::Created | Phase::Running => None,
        Phase::Lost => Some(Reason::ContainerStatusUnknown),
        Phase::Exited if !state.error.is_empty() => Some(Reason::StartError),
        Phase::Exited if state.oom => Some(Reason::OOMKilled),
        Phase::Exited if state.code == 0 => Some(Reason::Completed),
        Phase::Exited => Some(Reason::Error),
    }
}

pub fn matches(container: &ContainerInfo, filter: &ContainerFilter) -> bool {
    filter.id.as_ref().is_none_or(|id| *id == container.id)
        && filter.sandbox.as_ref().is_none_or(|s| *s == container.sandbox)
        && filter.state.is_none_or(|s| s == container.state)
        && filter.labels.iter().all(|(k, v)| container.labels.get(k) == Some(v))
}

/// Bytes and inodes below a folder, without crossing into other file systems.
pub fn disk_usage(path: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    let Ok(device) = fs::metadata(path).map(|meta| meta.dev()) else { return (0, 0) };
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != device {
                continue;
            }
            bytes += meta.blocks() * 512;
            inodes += 1;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}

impl Native {
    /// Takes a state from a shim and tells about it.
    pub(super) fn accept(&self, container: &Container, state: State) {
        let phase = state.phase;
        if container.state.send_replace(state).phase == phase {
            return;
        }
        let sandbox = SandboxId(container.sandbox.clone());
        let id = ContainerId(container.id.clone());
        match phase {
            Phase::Created => {}
            Phase::Running => self.emit(Event::Started { sandbox, container: id }),
            Phase::Exited | Phase::Lost => self.emit(Event::Exited { sandbox, container: id }),
        }
    }

    pub(super) fn connect(&self, container: &Container) -> Result<Connection> {
        Connection::open(&self.sandbox_folder(&container.sandbox)).map_err(|e| Error::Shim {
            id: container.sandbox.clone(),
            reason: format!("connecting: {e}"),
        })
    }

    pub(super) fn refuse(&self, container: &Container, action: &'static str) -> Error {
        let state = format!("{:?}", public_state(&container.state())).to_lowercase();
        Error::State { kind: "container", id: container.id.clone(), state, action }
    }

    pub(super) async fn make_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let sandbox = self.sandbox(&sandbox.0)?;
        if sandbox.state() != SandboxState::Ready {
            return Err(Error::State {
                kind: "sandbox",
                id: sandbox.record.id.clone(),
                state: "not ready".to_owned(),
                action: "create a container in it",
            });
        }
        let wanted = if config.image.0.is_empty() { &config.image_ref } else { &config.image.0 };
        let image = self.inner.images.image(wanted)?;
        let id = new_id();
        let record = self.describe(&id, &sandbox, config, &image)?;
        // Known from here on, so that its image's layers are kept.
        let container = Container::new(record.clone(), State::default());
        lock(&self.inner.containers).insert(id.clone(), container.clone());
        let made = self.place_container(&sandbox, &record, &image).await;
        match made {
            Ok(pid) => {
                container.state.send_modify(|s| {
                    // The shim may have told of its end already.
                    if alive(s) {
                        s.pid = pid;
                    }
                });
                Ok(ContainerId(id))
            }
            Err(e) => {
                if let Err(again) = self.clean_container(&record).await {
                    tracing::warn!(container = %id, error = %base::chain(&again), "cannot clean up");
                }
                lock(&self.inner.containers).remove(&id);
                Err(e)
            }
        }
    }

    fn describe(
        &self,
        id: &str,
        sandbox: &Sandbox,
        mut config: ContainerConfig,
        image: &Image,
    ) -> Result<ContainerRecord> {
        config.image = image.id.clone();
        let layers = self.inner.images.layers();
        let run = &image.config.config;
        let passwd = user::read_from_layers(&layers, &image.lower, "etc/passwd");
        let group = user::read_from_layers(&layers, &image.lower, "etc/group");
        let identity = user::resolve(&config.security, &run.user, &passwd, &group)?;
        let named = [&config.stop_signal, &run.stop_signal].into_iter().find(|s| !s.is_empty());
        let stop_signal = match named {
            None => libc::SIGTERM,
            Some(name) => spec::signal(name)
                .ok_or_else(|| Error::Invalid(format!("unknown stop signal {name:?}")))?,
        };
        let logs = &sandbox.record.config.log_directory;
        let log_path =
            (!config.log_path.as_os_str().is_empty()).then(|| logs.join(&config.log_path));
        let name = config.image_ref.rsplit_once(':').map_or(config.image_ref.as_str(), |(n, _)| n);
        let image_digest = image
            .digests
            .iter()
            .find(|d| d.contains(name))
            .or(image.digests.first())
            .cloned()
            .unwrap_or_else(|| image.id.0.clone());
        Ok(ContainerRecord {
            id: id.to_owned(),
            sandbox: sandbox.record.id.clone(),
            created_at: Timestamp::now(),
            cgroup: format!("{}/{id}", sandbox.record.cgroup),
            lower: image.lower.clone(),
            image_digest,
            log_path,
            stop_signal,
            process: self.build_spec(id, sandbox, &config, image, &identity)?,
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
            config,
        })
    }

    /// Writes `config.json` and the filter of system calls, and gives the former's process.
    fn build_spec(
        &self,
        id: &str,
        sandbox: &Sandbox,
        config: &ContainerConfig,
        image: &Image,
        identity: &user::Identity,
    ) -> Result<serde_json::Value> {
        let own = self.sandbox_folder(&sandbox.record.id);
        let pidns = self.pid_namespace(sandbox, config)?;
        let folder = self.container_folder(id);
        let capabilities = spec::capabilities(&config.security, self.inner.capabilities)?;
        let filter = Filter::of(&config.security.seccomp, &capabilities)?;
        let spec = spec::build(&spec::Inputs {
            config,
            sandbox: &sandbox.record.config,
            image: &image.config.config,
            identity,
            rootfs: &folder.join("rootfs"),
            shm: &own.join(SHM_FOLDER),
            cgroup: &format!("{}/{id}", sandbox.record.cgroup),
            pid_namespace: pidns.as_deref(),
            unified: matches!(self.inner.cgroups, Cgroups::V2(..)),
            capabilities: &capabilities,
            loads_filter: filter.is_some(),
            oom_score_min: self.inner.oom_score_min,
        })?;
        let making = |e| Error::io(format!("making {}", folder.display()))(e);
        fs::create_dir_all(folder.join("rootfs")).map_err(making)?;
        write_atomic(&folder.join("config.json"), &spec).map_err(making)?;
        filter.map_or(Ok(()), |filter| filter.save(&folder)).map_err(making)?;
        Ok(spec["process"].clone())
    }

    /// The PID namespace that a container enters instead of having its own.
    fn pid_namespace(
        &self,
        sandbox: &Sandbox,
        config: &ContainerConfig,
    ) -> Result<Option<PathBuf>> {
        let of = &sandbox.record.config;
        match &config.target {
            _ if of.host_pid => Ok(None),
            _ if of.shared_pid => {
                Ok(Some(self.sandbox_folder(&sandbox.record.id).join(PIDNS_FILE)))
            }
            None => Ok(None),
            Some(target) => {
                let target = self.container(&target.0)?;
                let state = target.state();
                if target.sandbox != sandbox.record.id || state.phase != Phase::Running {
                    return Err(self.refuse(&target, "share the processes of"));
                }
                Ok(Some(PathBuf::from(format!("/proc/{}/ns/pid", state.pid))))
            }
        }
    }

    async fn place_container(
        &self,
        sandbox: &Sandbox,
        record: &ContainerRecord,
        image: &Image,
    ) -> Result<i32> {
        let folder = self.container_folder(&record.id);
        let layer = self.layer_folder(&record.id);
        for path in [layer.join("upper"), layer.join("work")] {
            fs::create_dir_all(&path).map_err(Error::io(format!("making {}", path.display())))?;
        }
        if let Some(parent) = record.log_path.as_deref().and_then(Path::parent) {
            fs::create_dir_all(parent)
                .map_err(Error::io(format!("making {}", parent.display())))?;
        }
        let rootfs = RootFs {
            lower: image.lower.clone(),
            upper: layer.join("upper"),
            work: layer.join("work"),
            target: folder.join("rootfs"),
            shared: record
                .config
                .mounts
                .iter()
                .any(|m| m.propagation == Propagation::Bidirectional),
            cwd: PathBuf::from(record.process["cwd"].as_str().unwrap_or("/")),
        };
        let writing = || Error::io(format!("writing files of container {}", record.id));
        write_atomic(&folder.join(ROOTFS_FILE), &rootfs).map_err(writing())?;
        write_atomic(&folder.join(CONTAINER_FILE), record).map_err(writing())?;
        let cgroups = &self.inner.cgroups;
        cgroups.make(&record.cgroup, false).map_err(Error::io("making the container's cgroup"))?;
        cgroups
            .apply(&record.cgroup, &record.config.resources)
            .map_err(Error::io(format!("setting limits of container {}", record.config.name)))?;
        let connection = Connection::open(&self.sandbox_folder(&sandbox.record.id))
            .map_err(Error::io(format!("connecting to the shim of {}", sandbox.record.id)))?;
        let request = Request::Create {
            id: record.id.clone(),
            bundle: folder.clone(),
            rootfs: folder.join(ROOTFS_FILE),
            log: record.log_path.clone(),
            tty: record.config.tty,
            stdin: record.config.stdin,
            stdin_once: record.config.stdin_once,
            cgroups: cgroups.folders(&record.cgroup),
        };
        match connection.call(&request, &[]).await? {
            (Reply::Pid { pid }, _) => Ok(pid),
            (other, _) => Err(Error::Shim {
                id: sandbox.record.id.clone(),
                reason: format!("unexpected answer {other:?}"),
            }),
        }
    }

    pub(super) async fn begin_container(&self, container: &Container) -> Result<()> {
        if container.state().phase != Phase::Created {
            return Err(self.refuse(container, "start it"));
        }
        let started =
            self.connect(container)?.call(&Request::Start { id: container.id.clone() }, &[]).await;
        // The news comes on another connection; whoever asks next shall see it.
        let mut state = container.state.subscribe();
        let seen = state.wait_for(|s| s.phase != Phase::Created);
        if started.is_ok() || matches!(started, Err(Error::Start { .. })) {
            let _ = tokio::time::timeout(SEEN_LIMIT, seen).await;
        }
        started.map(|_| ())
    }

    pub(super) async fn end_container(
        &self,
        container: &Container,
        timeout: Duration,
    ) -> Result<()> {
        let mut state = container.state.subscribe();
        if !container.alive() {
            return Ok(());
        }
        let id = container.id.clone();
        let running = container.state().phase == Phase::Running;
        if running && !timeout.is_zero() {
            let signal = container.record().stop_signal;
            self.signal(container, signal).await?;
            if tokio::time::timeout(timeout, state.wait_for(|s| !alive(s))).await.is_ok() {
                return Ok(());
            }
        }
        self.signal(container, libc::SIGKILL).await?;
        tokio::time::timeout(KILL_LIMIT, state.wait_for(|s| !alive(s)))
            .await
            .map_err(|_| Error::Timeout {
                what: format!("killing container {id}"),
                seconds: KILL_LIMIT.as_secs(),
            })
            .map(|_| ())
    }

    async fn signal(&self, container: &Container, signal: i32) -> Result<()> {
        let request = Request::Kill { id: container.id.clone(), signal };
        let sent = match self.connect(container) {
            Ok(connection) => connection.call(&request, &[]).await.map(|_| ()),
            Err(e) => Err(e),
        };
        match sent {
            // Its making was cut short by the end of an earlier process.
            Err(Error::NotFound { .. }) => {
                self.accept(container, State { phase: Phase::Lost, ..State::default() });
                Ok(())
            }
            // A shim that is gone has taken its containers along.
            Err(Error::Shim { .. }) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn delete_container(&self, container: &Container) -> Result<()> {
        self.end_container(container, Duration::ZERO).await?;
        if let Ok(connection) = self.connect(container) {
            // A shim that has forgotten it, or is gone, has nothing to remove.
            let _ = connection.call(&Request::Remove { id: container.id.clone() }, &[]).await;
        }
        self.clean_container(&container.record()).await?;
        lock(&self.inner.containers).remove(&container.id);
        Ok(())
    }

    /// Removes a container's cgroup and folders. The record goes first: whatever is left after
    /// a cut is swept up at the next start.
    async fn clean_container(&self, record: &ContainerRecord) -> Result<()> {
        let folder = self.container_folder(&record.id);
        self.inner
            .cgroups
            .remove(&record.cgroup)
            .await
            .map_err(Error::io(format!("container {}", record.id)))?;
        let _ = fs::remove_file(folder.join(CONTAINER_FILE));
        // Only mounted here if mounts inside had to reach the machine.
        let _ = nix::mount::umount2(&folder.join("rootfs"), nix::mount::MntFlags::MNT_DETACH);
        remove_folder(&folder)?;
        remove_folder(&self.oci_root().join(&record.id))?;
        remove_folder(&self.layer_folder(&record.id))
    }

    pub(super) fn change_limits(&self, container: &Container, new: Resources) -> Result<()> {
        let record = container.record();
        self.inner
            .cgroups
            .apply(&record.cgroup, &new)
            .map_err(Error::io(format!("setting limits of container {}", container.id)))?;
        let mut record = lock(&container.record);
        merge(&mut record.config.resources, new);
        write_atomic(&self.container_folder(&container.id).join(CONTAINER_FILE), &*record)
            .map_err(Error::io(format!("recording limits of container {}", container.id)))
    }

    pub(super) async fn anew_log(&self, container: &Container) -> Result<()> {
        if !container.alive() {
            return Err(self.refuse(container, "reopen its log"));
        }
        let request = Request::ReopenLog { id: container.id.clone() };
        self.connect(container)?.call(&request, &[]).await.map(|_| ())
    }
}

/// Lays given limits over those in force.
fn merge(old: &mut Resources, new: Resources) {
    let over = |old: &mut String, new: String| {
        if !new.is_empty() {
            *old = new;
        }
    };
    old.cpu_shares = new.cpu_shares.or(old.cpu_shares);
    old.cpu_quota = new.cpu_quota.or(old.cpu_quota);
    old.cpu_period = new.cpu_period.or(old.cpu_period);
    old.memory_limit = new.memory_limit.or(old.memory_limit);
    old.pids_limit = new.pids_limit.or(old.pids_limit);
    old.oom_score_adj = new.oom_score_adj.or(old.oom_score_adj);
    over(&mut old.cpuset_cpus, new.cpuset_cpus);
    over(&mut old.cpuset_mems, new.cpuset_mems);
    if !new.hugepages.is_empty() {
        old.hugepages = new.hugepages;
    }
}
