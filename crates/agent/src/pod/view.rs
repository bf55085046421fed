//! What a pod worker knows of a pod's parts: the snapshot that `plan` and `status` read.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerUser, Pod, PodSpec, ResourceRequirements};

/// Where a run of a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Made, its process not started yet.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended, or never could start.
    Exited,
    /// The runtime has lost it; treated as ended.
    Unknown,
}

/// One run of a container, as the runtime reports it.
#[derive(Clone, Debug)]
pub struct Run {
    /// The runtime's id.
    pub id: String,
    /// The sandbox it belongs to.
    pub sandbox: String,
    /// How many runs went before: the pod's restart count.
    pub attempt: u32,
    /// How often all containers of the pod had begun anew before it.
    pub round: u32,
    /// Where it stands.
    pub state: RunState,
    /// When it was made.
    pub created: Timestamp,
    /// When its process started.
    pub started: Option<Timestamp>,
    /// When its process ended.
    pub finished: Option<Timestamp>,
    /// The process's exit code, 128 + n for signal n.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled` and the like.
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// The image as the pod names it.
    pub image: String,
    /// The image's digest reference.
    pub image_id: String,
    /// Whom its first process runs as.
    pub user: Option<ContainerUser>,
    /// Hash of the part of the specification whose change needs a new run.
    pub hash: String,
    /// The resources that it was made with.
    pub resources: Option<ResourceRequirements>,
    /// Seconds to wait after this run's end before the next; kept with the container, so that
    /// a restart of the agent does not forget a crash loop.
    pub delay_s: u32,
    /// It was ended so that another one follows, whatever the restart policy says of its end.
    pub replaced: bool,
}

impl Run {
    /// True while its process may still be there.
    pub fn alive(&self) -> bool {
        matches!(self.state, RunState::Created | RunState::Running)
    }

    /// True when it ended and ended well.
    pub fn succeeded(&self) -> bool {
        self.state == RunState::Exited && self.exit_code == 0
    }
}

/// Why a container waits, as `state.waiting` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `ErrImagePull`, `CrashLoopBackOff` and the like.
    pub reason: String,
    /// The text beside the reason.
    pub message: String,
    /// Not to be tried again before; `None`: at once.
    pub retry_at: Option<Timestamp>,
}

/// What a worker remembers of one container of its pod.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// The newest run.
    pub current: Option<Run>,
    /// The run before it.
    pub previous: Option<Run>,
    /// An operation on the container is under way: nothing else may begin.
    pub busy: bool,
    /// The last attempt to start it failed.
    pub waiting: Option<Waiting>,
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// The readiness probe passes, or there is none.
    pub ready: bool,
    /// The run (by id) must end, for this reason: a probe has failed for too long.
    pub condemned: Option<(String, String)>,
    /// The run (by id) that was ended so that another one follows.
    pub replaced: Option<String>,
    /// The resources that the newest run has.
    pub resources: Option<ResourceRequirements>,
}

/// The newest sandbox of a pod.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes went before.
    pub attempt: u32,
    /// Namespaces, shim and network are there.
    pub ready: bool,
    /// Addresses of the pod, first the preferred one.
    pub ips: Vec<IpAddr>,
}

/// How far the pod's volumes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// Not begun.
    Todo,
    /// Under way.
    Doing,
    /// All are there.
    Ready,
    /// Not possible now; try again then.
    Failed(Timestamp),
}

/// How far other resources for running containers are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// Nothing is under way.
    #[default]
    Idle,
    /// Under way.
    Doing,
    /// Not possible now.
    Failed {
        /// Why.
        message: String,
        /// When to try again.
        retry_at: Timestamp,
    },
}

/// The snapshot of a pod on this node.
#[derive(Clone, Debug)]
pub struct View {
    /// The newest sandbox.
    pub sandbox: Option<Sandbox>,
    /// A sandbox is being made or unmade.
    pub sandbox_busy: bool,
    /// The last attempt to make a sandbox failed; not to be tried before.
    pub sandbox_retry_at: Option<Timestamp>,
    /// How often all containers of the pod have begun anew, or are to.
    pub round: u32,
    /// Containers by name, init and ephemeral ones too.
    pub slots: HashMap<String, Slot>,
    /// How far the volumes are.
    pub volumes: Volumes,
    /// How far other resources for what runs already are.
    pub resize: Resize,
}

impl Default for View {
    fn default() -> Self {
        View {
            sandbox: None,
            sandbox_busy: false,
            sandbox_retry_at: None,
            round: 0,
            slots: HashMap::new(),
            volumes: Volumes::Todo,
            resize: Resize::Idle,
        }
    }
}

impl View {
    /// The newest run of a container, whatever sandbox it belongs to.
    pub fn run(&self, name: &str) -> Option<&Run> {
        self.slots.get(name)?.current.as_ref()
    }

    /// Drops living runs of containers of which the runtime knows none: they could neither be
    /// ended nor end. Ended ones stay, since the status tells of them.
    pub fn forget_vanished(&mut self, known: impl Fn(&str) -> bool) {
        for (name, slot) in &mut self.slots {
            if !known(name) && slot.current.as_ref().is_some_and(Run::alive) {
                slot.current = None;
            }
        }
    }

    /// The newest run of a container if it belongs to the present sandbox and round.
    pub fn run_here(&self, name: &str) -> Option<&Run> {
        let sandbox = self.sandbox.as_ref()?;
        self.run(name).filter(|run| run.sandbox == sandbox.id && run.round == self.round)
    }

    /// The sandbox, if it can carry containers.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref().filter(|s| s.ready)
    }
}

/// The specification of a pod, empty when there is none.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Init containers of a pod, sidecars among them.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// True for an init container that stays for the pod's life.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The pod's restart policy, by default `Always`.
pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// A container of the pod by name, be it plain or init.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}
