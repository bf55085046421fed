//! What to do next for one pod: a pure decision over a snapshot. Waking up means deciding
//! again, so a lost signal costs time and never correctness; what is under way is marked
//! busy in the snapshot and left alone.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::resize;
use super::restart::{next_delay, not_before, policy, restarts, restarts_all};
use super::view::{
    Resize, Run, RunState, Slot, View, Volumes, Waiting, init_containers, is_sidecar, spec,
};

/// One thing to be done for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's directories and mount its volumes.
    PrepareVolumes,
    /// Make a sandbox, after unmaking a dead one.
    CreateSandbox {
        /// How many went before.
        attempt: u32,
        /// The dead one.
        replaces: Option<String>,
    },
    /// Pull the image if needed, make a container and start it.
    Start {
        /// Name of the container.
        container: String,
        /// How many runs went before.
        attempt: u32,
        /// Seconds to wait after its end.
        delay_s: u32,
    },
    /// Give containers that run other limits, in place.
    Resize,
    /// End a run, gracefully.
    Kill {
        /// Name of the container.
        container: String,
        /// The runtime's id.
        id: String,
        /// Message of the event.
        message: String,
        /// Another run follows, however this one ends.
        again: bool,
    },
    /// Unmake the sandbox; every container in it has ended.
    StopSandbox {
        /// The runtime's id.
        id: String,
    },
}

/// What to do and what to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done now; actions on different things may run at once.
    pub actions: Vec<Action>,
    /// Containers that wait for a restart, with what their status says.
    pub waiting: Vec<(String, Waiting)>,
    /// Decide again then, even if nothing happens.
    pub wake: Option<Timestamp>,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// What to do for a pod that is to run.
pub fn plan(pod: &Pod, view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if view.ready_sandbox().is_none() && !wanted(pod, view) {
        return plan;
    }
    match view.volumes {
        Volumes::Ready => {}
        Volumes::Doing => return plan,
        Volumes::Failed(retry) if retry > now => {
            plan.wake_at(retry);
            return plan;
        }
        Volumes::Todo | Volumes::Failed(_) => {
            plan.actions.push(Action::PrepareVolumes);
            // Containers that run already go on: an agent that restarts finds them so.
            if view.sandbox.is_none() {
                return plan;
            }
        }
    }
    if view.sandbox_busy {
        return plan;
    }
    if view.ready_sandbox().is_none() {
        if let Some(retry) = view.sandbox_retry_at.filter(|retry| *retry > now) {
            plan.wake_at(retry);
        } else if view.volumes == Volumes::Ready {
            plan.actions.push(Action::CreateSandbox {
                attempt: view.sandbox.as_ref().map_or(0, |s| s.attempt + 1),
                replaces: view.sandbox.as_ref().map(|s| s.id.clone()),
            });
        }
        return plan;
    }
    if end_round(pod, view, &mut plan) {
        return plan;
    }
    if init(pod, view, now, &mut plan) {
        for container in &spec(pod).containers {
            consider(pod, container, false, view, now, &mut plan);
        }
    }
    ephemeral(pod, view, &mut plan);
    resize(pod, view, now, &mut plan);
    if view.volumes != Volumes::Ready {
        plan.actions.retain(|action| !matches!(action, Action::Start { .. }));
    }
    plan
}

/// Whether a pod without a living sandbox has anything left to run.
fn wanted(pod: &Pod, view: &View) -> bool {
    spec(pod).containers.iter().any(|container| match view.run(&container.name) {
        None => true,
        Some(run) => run.round != view.round || restarts(pod, container, false, run),
    }) && !(view.sandbox.is_some() && init_failed(pod, view))
}

/// Init containers and plain ones with their newest runs.
fn runs<'a>(pod: &'a Pod, view: &'a View) -> impl Iterator<Item = (&'a Container, &'a Run)> {
    let all = init_containers(pod).iter().chain(&spec(pod).containers);
    all.filter_map(|container| Some((container, view.run(&container.name)?)))
}

/// How often all containers of the pod have begun anew, or are to, by their rules.
pub fn round(pod: &Pod, view: &View) -> u32 {
    let next =
        |(container, run): (&Container, &Run)| run.round + u32::from(restarts_all(container, run));
    runs(pod, view).map(next).max().unwrap_or(0)
}

/// Whether some container has yet to begin anew with all others.
pub fn begins_anew(pod: &Pod, view: &View) -> bool {
    runs(pod, view).any(|(_, run)| run.round != view.round)
}

/// Ends what is left of the round before: all end before any begins anew. True while there is any.
fn end_round(pod: &Pod, view: &View, plan: &mut Plan) -> bool {
    let mut left = false;
    for (container, run) in runs(pod, view).filter(|(_, r)| r.alive() && r.round != view.round) {
        left = true;
        if !view.slots.get(&container.name).is_some_and(|slot| slot.busy) {
            plan.actions.push(Action::Kill {
                container: container.name.clone(),
                id: run.id.clone(),
                message: format!("Stopping container {}", container.name),
                again: true,
            });
        }
    }
    left
}

/// True when an init container has failed for good.
pub fn init_failed(pod: &Pod, view: &View) -> bool {
    init_containers(pod).iter().any(|container| {
        view.run(&container.name).is_some_and(|run| {
            !run.alive() && !run.succeeded() && !restarts(pod, container, true, run)
        })
    })
}

/// True when a pod has done its work, or failed at it: no container runs again.
pub fn done(pod: &Pod, view: &View) -> bool {
    let containers = &spec(pod).containers;
    let ended = |container: &Container| {
        let run = view.run(&container.name);
        run.is_some_and(|run| {
            run.round == view.round && !run.alive() && !restarts(pod, container, false, run)
        })
    };
    init_failed(pod, view) || (!containers.is_empty() && containers.iter().all(ended))
}

/// Walks the init containers; true when the plain containers may run.
fn init(pod: &Pod, view: &View, now: Timestamp, plan: &mut Plan) -> bool {
    let initialized =
        spec(pod).containers.iter().any(|container| view.run_here(&container.name).is_some());
    for container in init_containers(pod) {
        let here = view.run_here(&container.name);
        if is_sidecar(container) {
            consider(pod, container, true, view, now, plan);
            let running = here.is_some_and(|run| run.state == RunState::Running);
            let started = view.slots.get(&container.name).is_some_and(|slot| slot.started);
            let up = running && started;
            if !(initialized || up) {
                return false;
            }
        } else if !initialized && !here.is_some_and(Run::succeeded) {
            let failed =
                here.is_some_and(|run| !run.alive() && !restarts(pod, container, true, run));
            if !failed {
                consider(pod, container, true, view, now, plan);
            }
            return false;
        }
    }
    true
}

/// Starts, restarts or ends one container, or leaves it.
fn consider(
    pod: &Pod,
    container: &Container,
    init: bool,
    view: &View,
    now: Timestamp,
    plan: &mut Plan,
) {
    let empty = Slot::default();
    let name = &container.name;
    let slot = view.slots.get(name).unwrap_or(&empty);
    if slot.busy {
        return;
    }
    let here = view.run_here(name);
    if let Some(run) = here.filter(|run| run.alive()) {
        if let Some((message, again)) = doom(pod, container, slot, run) {
            let (container, id) = (name.clone(), run.id.clone());
            plan.actions.push(Action::Kill { container, id, message, again });
        }
        return;
    }
    // An ended run is followed by another by policy; an init container does its work in a new sandbox
    // again, and all do in a new round.
    let begun = slot.current.as_ref();
    let anew = here.is_none() && begun.is_some_and(|run| init || run.round != view.round);
    if !anew && begun.is_some_and(|run| !restarts(pod, container, init, run)) {
        return;
    }
    // A crash loop goes on in a new sandbox as well: only there the delay does not hold. Of those who
    // begin anew together, who has them do so waits.
    let waits = here.or(begun.filter(|run| restarts_all(container, run)));
    if let Some((at, delay)) = waits.and_then(|run| not_before(run, now)) {
        plan.wake_at(at);
        let message = back_off_message(pod, name, delay);
        let waiting = Waiting { reason: "CrashLoopBackOff".into(), message, retry_at: Some(at) };
        plan.waiting.push((name.clone(), waiting));
        return;
    }
    if let Some(at) = slot.waiting.as_ref().and_then(|w| w.retry_at).filter(|at| *at > now) {
        plan.wake_at(at);
        return;
    }
    plan.actions.push(Action::Start {
        container: name.clone(),
        attempt: slot.current.as_ref().map_or(0, |run| run.attempt + 1),
        delay_s: next_delay(slot.current.as_ref()),
    });
}

/// Why a living run must end, if it must, and whether another one follows however it ends.
fn doom(pod: &Pod, container: &Container, slot: &Slot, run: &Run) -> Option<(String, bool)> {
    let name = &container.name;
    if run.hash != hash(container) {
        return Some((format!("Container {name} definition changed, will be restarted"), true));
    }
    if let Some((id, message)) = &slot.condemned
        && *id == run.id
    {
        return Some((message.clone(), policy(pod, container) != "Never"));
    }
    resize::restarts(container, slot.resources.as_ref())
        .then(|| (format!("Container {name} resize requires restart"), true))
}

/// Containers that run with other resources than they should.
fn outgrown<'a>(
    pod: &'a Pod,
    view: &'a View,
) -> impl Iterator<Item = (&'a Container, &'a Slot, &'a Run)> {
    let all =
        spec(pod).containers.iter().chain(init_containers(pod).iter().filter(|c| is_sidecar(c)));
    all.filter_map(|container| {
        let slot = view.slots.get(&container.name)?;
        let run = view.run_here(&container.name).filter(|run| run.state == RunState::Running)?;
        let due = !resize::same(slot.resources.as_ref(), container.resources.as_ref());
        due.then_some((container, slot, run))
    })
}

/// Whether a container of the pod has yet to get its resources, in place or by a restart.
pub fn is_resizing(pod: &Pod, view: &View) -> bool {
    outgrown(pod, view).next().is_some()
}

/// Containers that can get their resources in place.
pub fn resizable<'a>(
    pod: &'a Pod,
    view: &'a View,
) -> impl Iterator<Item = (&'a Container, &'a Run)> {
    outgrown(pod, view)
        .filter(|(container, slot, _)| {
            !slot.busy && !resize::restarts(container, slot.resources.as_ref())
        })
        .map(|(container, _, run)| (container, run))
}

fn resize(pod: &Pod, view: &View, now: Timestamp, plan: &mut Plan) {
    if resizable(pod, view).next().is_none() {
        return;
    }
    match &view.resize {
        Resize::Doing => {}
        Resize::Failed { retry_at, .. } if *retry_at > now => plan.wake_at(*retry_at),
        Resize::Idle | Resize::Failed { .. } => plan.actions.push(Action::Resize),
    }
}

/// Message of the back-off state, as upstream words it.
pub fn back_off_message(pod: &Pod, container: &str, delay_s: u32) -> String {
    let delay = match (delay_s / 60, delay_s % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    };
    let (name, namespace, uid) = (&pod.metadata.name, &pod.metadata.namespace, &pod.metadata.uid);
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "back-off {delay} restarting failed container={container} pod={}_{}({})",
        part(name),
        part(namespace),
        part(uid)
    )
}

/// Ephemeral containers are started once each and never again.
fn ephemeral(pod: &Pod, view: &View, plan: &mut Plan) {
    for container in spec(pod).ephemeral_containers.iter().flatten() {
        let slot = view.slots.get(&container.name);
        if slot.is_none_or(|s| s.current.is_none() && !s.busy && s.waiting.is_none()) {
            let container = container.name.clone();
            plan.actions.push(Action::Start { container, attempt: 0, delay_s: 0 });
        }
    }
}

/// Hash of what a running container cannot take over: only its image may change in place.
pub fn hash(container: &Container) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    // `DefaultHasher::new` has fixed keys, so the value lasts as long as the container.
    let mut hasher = DefaultHasher::new();
    (&container.name, &container.image).hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

/// What to do for a pod that is to end: plain containers first, then sidecars in reverse
/// order, then the sandbox. Empty when all is gone.
pub fn end(pod: &Pod, view: &View) -> Plan {
    let mut plan = Plan::default();
    let alive = |name: &str| view.run(name).filter(|run| run.alive());
    let message = |name: &str| format!("Stopping container {name}");
    let mut kill = |name: &str, id: &str| {
        if !view.slots.get(name).is_some_and(|slot| slot.busy) {
            plan.actions.push(Action::Kill {
                container: name.to_owned(),
                id: id.to_owned(),
                message: message(name),
                again: false,
            });
        }
    };
    let sidecars: Vec<&str> =
        init_containers(pod).iter().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let mut left = false;
    for (name, slot) in &view.slots {
        left |= slot.busy && !sidecars.contains(&name.as_str());
        if let Some(run) = alive(name).filter(|_| !sidecars.contains(&name.as_str())) {
            left = true;
            kill(name, &run.id);
        }
    }
    if left {
        return plan;
    }
    for name in sidecars.iter().rev() {
        if let Some(run) = alive(name) {
            kill(name, &run.id);
            return plan;
        }
        if view.slots.get(*name).is_some_and(|slot| slot.busy) {
            return plan;
        }
    }
    if let Some(sandbox) = view.ready_sandbox().filter(|_| !view.sandbox_busy) {
        plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
    }
    plan
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
