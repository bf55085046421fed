//! The status of a pod as the API shows it: a pure function of the pod, the snapshot of its
//! parts and what is under way. Phase rules, reasons and wording are the kubelet's.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodIP, PodStatus, VolumeMount,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Plan, init_failed};
use super::qos::Qos;
use super::restart::restarts;
use super::view::{Run, RunState, Slot, View, init_containers, is_sidecar, restart_policy, spec};
use super::{conditions, resize};

/// Prefix of container ids in the status.
pub const ID_SCHEME: &str = "coracle://";

/// Where in its life the agent has the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is to run.
    Running,
    /// It is being ended; its containers may still run.
    Ending,
    /// All its containers are gone for good.
    Ended,
}

/// A verdict over the whole pod that its containers do not show: a deadline, an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `DeadlineExceeded`, `Evicted` and the like.
    pub reason: String,
    /// The text beside it.
    pub message: String,
}

/// What the status draws on beside the pod.
pub struct Facts<'a> {
    /// The parts of the pod.
    pub view: &'a View,
    /// What is to be done next.
    pub plan: &'a Plan,
    /// Where in its life it is.
    pub life: Life,
    /// It has been failed as a whole.
    pub verdict: Option<&'a Verdict>,
    /// Why it does not have the resources that it wishes.
    pub pending: Option<&'a Verdict>,
    /// Addresses of the node.
    pub host_ips: &'a [IpAddr],
    /// When the agent first saw the pod.
    pub start_time: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// The status of `pod`.
pub fn status(pod: &Pod, facts: &Facts) -> PodStatus {
    let empty = PodStatus::default();
    let old = pod.status.as_ref().unwrap_or(&empty);
    if refused(old, facts) {
        return of_refused(pod, old, facts);
    }
    let statuses = |list: &[Container], init| -> Vec<ContainerStatus> {
        list.iter().map(|container| one(pod, container, init, facts)).collect()
    };
    let init = statuses(init_containers(pod), true);
    let plain = statuses(&spec(pod).containers, false);
    let ephemeral = ephemeral(pod, facts);
    let phase = match facts.verdict {
        Some(_) => "Failed".to_owned(),
        None => phase(pod, &init, &plain, facts),
    };
    // A phase that is never left is reached once nothing runs any more, and not before: whoever
    // sees it may take the pod's place.
    let running = facts.view.slots.values().any(|s| s.current.as_ref().is_some_and(Run::alive));
    let early = terminal(Some(&phase)) && running;
    let verdict = facts.verdict.filter(|_| !early);
    let phase = match &old.phase {
        Some(known) if early || terminal(Some(known)) => known.clone(),
        _ => phase,
    };
    let sandbox_ips = facts.view.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default();
    let ips: Vec<IpAddr> = match (spec(pod).host_network, facts.view.sandbox.is_some()) {
        (Some(true), true) => facts.host_ips.to_vec(),
        _ => sandbox_ips,
    };
    let conditions = conditions::conditions(pod, old, &phase, &init, &plain, facts);
    PodStatus {
        phase: Some(phase),
        conditions: Some(conditions),
        reason: verdict.map(|v| v.reason.clone()).or_else(|| old.reason.clone()),
        message: verdict.map(|v| v.message.clone()).or_else(|| old.message.clone()),
        host_ip: facts.host_ips.first().map(IpAddr::to_string),
        host_ips: list(facts.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() })),
        pod_ip: ips.first().map(IpAddr::to_string).or_else(|| old.pod_ip.clone()),
        pod_ips: list(ips.iter().map(|ip| PodIP { ip: ip.to_string() }))
            .or_else(|| old.pod_ips.clone()),
        start_time: Some(old.start_time.clone().unwrap_or(Time(facts.start_time))),
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| Qos::of(pod).name().into())),
        init_container_statuses: list(init),
        container_statuses: list(plain),
        ephemeral_container_statuses: list(ephemeral),
        observed_generation: pod.metadata.generation,
        allocated_resources: resize::allocated(pod),
        resources: resize::given(pod, facts.view),
        ..old.clone()
    }
}

/// Whether the pod was over before anything of it began: nothing is told of its containers.
fn refused(old: &PodStatus, facts: &Facts) -> bool {
    let over = facts.verdict.is_some() || terminal(old.phase.as_deref());
    let begun = facts.view.slots.values().any(|slot| slot.current.is_some());
    over && !begun && old.container_statuses.is_none()
}

fn of_refused(pod: &Pod, old: &PodStatus, facts: &Facts) -> PodStatus {
    let verdict = facts.verdict;
    let known = old.phase.clone().filter(|phase| terminal(Some(phase)));
    PodStatus {
        phase: Some(known.unwrap_or_else(|| "Failed".to_owned())),
        reason: verdict.map(|v| v.reason.clone()).or_else(|| old.reason.clone()),
        message: verdict.map(|v| v.message.clone()).or_else(|| old.message.clone()),
        start_time: Some(old.start_time.clone().unwrap_or(Time(facts.start_time))),
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| Qos::of(pod).name().into())),
        observed_generation: pod.metadata.generation,
        ..old.clone()
    }
}

/// True for phases that are never left.
pub fn terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn list<T>(items: impl IntoIterator<Item = T>) -> Option<Vec<T>> {
    let items: Vec<T> = items.into_iter().collect();
    (!items.is_empty()).then_some(items)
}

fn ephemeral(pod: &Pod, facts: &Facts) -> Vec<ContainerStatus> {
    let containers = spec(pod).ephemeral_containers.iter().flatten();
    containers
        .map(|e| {
            let plain = Container {
                name: e.name.clone(),
                image: e.image.clone(),
                restart_policy: Some("Never".into()),
                ..Container::default()
            };
            ContainerStatus { ready: false, started: None, ..one(pod, &plain, false, facts) }
        })
        .collect()
}

/// The status of one container.
fn one(pod: &Pod, container: &Container, init: bool, facts: &Facts) -> ContainerStatus {
    let empty = Slot::default();
    let slot = facts.view.slots.get(&container.name).unwrap_or(&empty);
    let run = slot.current.as_ref();
    let state = state(pod, container, init, slot, facts);
    let running = state.running.is_some();
    let started = running && (slot.started || (init && !is_sidecar(container)));
    let ready = match (init && !is_sidecar(container), &state.terminated) {
        (true, Some(end)) => end.exit_code == 0,
        (true, None) => false,
        (false, _) => running && slot.ready && slot.started,
    };
    // Of a run that is shown as ended the former one is told; of a waiting container its last.
    let last = if state.waiting.is_some() { run } else { slot.previous.as_ref() };
    ContainerStatus {
        name: container.name.clone(),
        image: match run.filter(|run| !run.image.is_empty()) {
            Some(run) => run.image.clone(),
            None => container.image.clone().unwrap_or_default(),
        },
        image_id: run.map(|run| run.image_id.clone()).unwrap_or_default(),
        user: run.and_then(|run| run.user.clone()),
        container_id: run.map(|run| format!("{ID_SCHEME}{}", run.id)),
        restart_count: run.map_or(0, |run| i32::try_from(run.attempt).unwrap_or(i32::MAX)),
        ready,
        started: Some(started),
        last_state: last.filter(|run| !run.alive()).map(|run| ContainerState {
            terminated: Some(terminated(run)),
            ..ContainerState::default()
        }),
        state: Some(state),
        resources: match run {
            Some(run) if run.alive() => slot.resources.clone(),
            _ => container.resources.clone(),
        }
        .filter(|r| r.limits.is_some() || r.requests.is_some()),
        allocated_resources: run
            .and(container.resources.as_ref())
            .and_then(|resources| resources.requests.clone()),
        volume_mounts: run.and(container.volume_mounts.as_deref()).map(mounted),
        ..ContainerStatus::default()
    }
}

/// How volumes are there: what is asked for is done, or the container does not start.
fn mounted(mounts: &[VolumeMount]) -> Vec<VolumeMountStatus> {
    let shown = |mount: &VolumeMount| {
        let read_only = mount.read_only == Some(true);
        let below = mount.recursive_read_only.as_deref();
        let below = matches!(below, Some("Enabled" | "IfPossible"));
        let below = if below { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| below.to_owned()),
            volume_status: None,
        }
    };
    mounts.iter().map(shown).collect()
}

fn state(
    pod: &Pod,
    container: &Container,
    init: bool,
    slot: &Slot,
    facts: &Facts,
) -> ContainerState {
    let waiting = |reason: &str, message: &str| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    };
    let run = slot.current.as_ref();
    if let Some(run) = run.filter(|run| run.state == RunState::Running) {
        let started_at = run.started.map(Time);
        let running = Some(ContainerStateRunning { started_at });
        return ContainerState { running, ..ContainerState::default() };
    }
    if let Some(run) = run.filter(|run| !run.alive()) {
        let back_off = facts.plan.waiting.iter().find(|(name, _)| *name == container.name);
        let again = facts.life == Life::Running && restarts(pod, container, init, run);
        if let Some((_, wait)) = back_off.filter(|_| again) {
            return waiting(&wait.reason, &wait.message);
        }
        if let Some(wait) = slot.waiting.as_ref().filter(|_| again) {
            return waiting(&wait.reason, &wait.message);
        }
        // The API takes no restart of what it was told has ended for good by the pod's policy.
        if run.replaced && again {
            return waiting(default_reason(pod), "");
        }
        let terminated = Some(terminated(run));
        return ContainerState { terminated, ..ContainerState::default() };
    }
    match &slot.waiting {
        Some(wait) if !wait.reason.is_empty() => waiting(&wait.reason, &wait.message),
        _ => waiting(default_reason(pod), ""),
    }
}

fn default_reason(pod: &Pod) -> &'static str {
    if init_containers(pod).is_empty() { "ContainerCreating" } else { "PodInitializing" }
}

fn terminated(run: &Run) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(format!("{ID_SCHEME}{}", run.id)),
        exit_code: run.exit_code,
        reason: Some(run.reason.clone()).filter(|r| !r.is_empty()),
        message: Some(run.message.clone()).filter(|m| !m.is_empty()),
        started_at: run.started.map(Time),
        finished_at: run.finished.map(Time),
        signal: None,
    }
}

/// How many plain containers are in which state.
#[derive(Default)]
struct Count {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

fn count(statuses: &[ContainerStatus]) -> Count {
    let mut count = Count::default();
    for status in statuses {
        let Some(state) = &status.state else { continue };
        let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        match (&state.running, &state.terminated, last) {
            (Some(_), ..) => count.running += 1,
            (_, Some(end), _) => {
                count.stopped += 1;
                count.succeeded += usize::from(end.exit_code == 0);
            }
            (_, _, Some(_)) => count.stopped += 1,
            _ => count.waiting += 1,
        }
    }
    count
}

fn phase(pod: &Pod, init: &[ContainerStatus], plain: &[ContainerStatus], facts: &Facts) -> String {
    let count = count(plain);
    let ended = facts.life == Life::Ended;
    let name = if init_failed(pod, facts.view) && restart_policy(pod) == "Never" {
        "Failed"
    } else if !ended && (initializing(pod, init, facts.view) || count.waiting > 0) {
        "Pending"
    } else if count.running > 0 {
        "Running"
    } else if ended && (count.stopped < plain.len() || count.succeeded < count.stopped) {
        "Failed"
    } else if ended {
        "Succeeded"
    } else {
        stopped(pod, &count, facts)
    };
    name.to_owned()
}

/// The phase of a pod none of whose containers runs.
fn stopped(pod: &Pod, count: &Count, facts: &Facts) -> &'static str {
    let again = spec(pod).containers.iter().any(|container| {
        let run = facts.view.run(&container.name);
        run.is_none_or(|run| run.alive() || restarts(pod, container, false, run))
    });
    match (again, count.succeeded == count.stopped) {
        (true, _) => "Running",
        (false, true) => "Succeeded",
        (false, false) => "Failed",
    }
}

/// True while an init container has not done its part.
fn initializing(pod: &Pod, init: &[ContainerStatus], view: &View) -> bool {
    if spec(pod).containers.iter().any(|c| view.run(&c.name).is_some()) {
        return false;
    }
    init_containers(pod).iter().zip(init).any(|(container, status)| {
        if is_sidecar(container) { status.started != Some(true) } else { !status.ready }
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
