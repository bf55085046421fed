//! Fills a worker's snapshot from the runtime.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerStatus as ApiStatus, ContainerUser, LinuxContainerUser, Pod,
};
use runtime::{
    ContainerFilter, ContainerInfo, ContainerState, ContainerStatus, SandboxFilter, SandboxState,
};

use super::{Shared, State, containers};
use crate::context::LABEL_POD_UID;
use crate::pod::plan;
use crate::pod::status::ID_SCHEME;
use crate::pod::view::{Run, RunState, Sandbox, container, spec};

/// Asks the runtime for the pod's sandboxes and containers and notes what is new.
pub(super) async fn observe(shared: &Shared) -> runtime::Result<()> {
    let labels = BTreeMap::from([(LABEL_POD_UID.to_owned(), shared.uid.clone())]);
    let runtime = &shared.ctx.runtime;
    let filter = SandboxFilter { labels: labels.clone(), ..SandboxFilter::default() };
    let sandboxes = runtime.list_sandboxes(filter).await?;
    let filter = ContainerFilter { labels, ..ContainerFilter::default() };
    let infos = runtime.list_containers(filter).await?;
    let runs = newest_two(shared, infos).await?;
    let pod = shared.pod();
    let mut state = shared.state();
    if let Some(newest) = sandboxes.into_iter().max_by_key(|s| s.config.attempt) {
        let ips = shared.ctx.network.addresses(&newest.id.0);
        // A sandbox that was made but never attached (the agent died in between) is of no use.
        let attached = newest.config.host_network || !ips.is_empty();
        state.view.sandbox = Some(Sandbox {
            ready: newest.state == SandboxState::Ready && attached,
            ips,
            id: newest.id.0,
            attempt: newest.config.attempt,
        });
    } else {
        state.view.sandbox = None;
    }
    state.view.forget_vanished(|name| runs.contains_key(name));
    for (name, (current, previous)) in runs {
        note(&mut state, &pod, name, current, previous);
    }
    let round = plan::round(&pod, &state.view);
    state.view.round = round;
    remember_lost(&mut state, &pod);
    Ok(())
}

/// The two newest runs of each container, ended ones out of memory.
async fn newest_two(
    shared: &Shared,
    mut infos: Vec<ContainerInfo>,
) -> runtime::Result<HashMap<String, (Run, Option<Run>)>> {
    infos.sort_by_key(|info| (info.attempt, info.created_at));
    let mut by_name: HashMap<String, Vec<ContainerInfo>> = HashMap::new();
    for info in infos {
        by_name.entry(info.name.clone()).or_default().push(info);
    }
    let pod = shared.pod();
    let mut out = HashMap::new();
    for (name, mut list) in by_name {
        let Some(newest) = list.pop() else { continue };
        let current = run_of(shared, &pod, &newest).await?;
        let previous = match list.pop() {
            Some(info) => Some(run_of(shared, &pod, &info).await?),
            None => None,
        };
        out.insert(name, (current, previous));
    }
    let known: Vec<_> = out.values().flat_map(|(c, p)| [Some(c), p.as_ref()]).flatten().collect();
    let keep: std::collections::HashSet<&str> = known.iter().map(|run| run.id.as_str()).collect();
    shared.state().ended.retain(|id, _| keep.contains(id.0.as_str()));
    Ok(out)
}

async fn run_of(shared: &Shared, pod: &Pod, info: &ContainerInfo) -> runtime::Result<Run> {
    if let Some(run) = shared.state().ended.get(&info.id) {
        return Ok(run.clone());
    }
    let status = shared.ctx.runtime.container_status(&info.id).await?;
    let mut run = translate(&status);
    if !run.alive() {
        if let Some(text) = containers::termination_message(&shared.ctx, pod, &status) {
            run.message = text;
        }
        shared.state().ended.insert(info.id.clone(), run.clone());
    }
    Ok(run)
}

fn translate(status: &ContainerStatus) -> Run {
    let note = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let state = match status.state {
        ContainerState::Created => RunState::Created,
        ContainerState::Running => RunState::Running,
        ContainerState::Exited => RunState::Exited,
        ContainerState::Unknown => RunState::Unknown,
    };
    let lost = state == RunState::Unknown;
    Run {
        id: status.id.0.clone(),
        sandbox: status.sandbox.0.clone(),
        attempt: status.attempt,
        round: note(containers::NOTE_ROUND).parse().unwrap_or(0),
        state,
        created: status.created_at,
        started: status.started_at,
        finished: status.finished_at.or(lost.then_some(status.created_at)),
        exit_code: status.exit_code.unwrap_or(if lost { 137 } else { 0 }),
        reason: match status.reason {
            Some(reason) => reason.as_str().to_owned(),
            None if lost => "ContainerStatusUnknown".to_owned(),
            None => String::new(),
        },
        message: status.message.clone(),
        image: status.image_ref.clone(),
        image_id: status.image_digest.clone(),
        user: Some(ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: status.uid.into(),
                gid: status.gid.into(),
                supplemental_groups: Some(status.groups.iter().copied().map(i64::from).collect()),
            }),
        }),
        hash: note(containers::NOTE_HASH),
        resources: serde_json::from_str(&note(containers::NOTE_RESOURCES)).unwrap_or_default(),
        delay_s: note(containers::NOTE_DELAY).parse().unwrap_or(0),
        replaced: false,
    }
}

/// Notes the runs of one container; a run seen for the first time resets its probes.
fn note(state: &mut State, pod: &Pod, name: String, current: Run, previous: Option<Run>) {
    let known = state.status.as_ref();
    let reported = reported(known, &name, &current.id);
    let slot = state.view.slots.entry(name.clone()).or_default();
    let fresh = slot.current.as_ref().is_none_or(|run| run.id != current.id);
    if fresh {
        let container = container(pod, &name);
        let has = |probe: fn(&k8s_openapi::api::core::v1::Container) -> bool| {
            container.is_some_and(probe)
        };
        // What was ready before a restart of the agent stays ready until a probe says no.
        let (ready, started) =
            reported.as_ref().map_or((false, false), |r| (r.ready, r.started == Some(true)));
        slot.resources = match reported {
            Some(reported) => reported.resources,
            None => current.resources.clone(),
        };
        slot.started = started || !has(|c| c.startup_probe.is_some());
        slot.ready = ready || !has(|c| c.readiness_probe.is_some());
        slot.condemned = None;
    }
    let replaced = slot.replaced.as_ref() == Some(&current.id);
    slot.current = Some(Run { replaced, ..current });
    slot.previous = previous;
}

/// What the API's status says of this very run.
fn reported(
    status: Option<&k8s_openapi::api::core::v1::PodStatus>,
    name: &str,
    id: &str,
) -> Option<ApiStatus> {
    let lists = status.map(|s| [&s.container_statuses, &s.init_container_statuses]);
    let found = lists.into_iter().flatten().flatten().flatten().find(|s| s.name == name)?;
    let same = found.container_id.as_deref().and_then(|c| c.strip_prefix(ID_SCHEME)) == Some(id);
    same.then(|| found.clone())
}

/// Containers that the API knows and the runtime does not (the machine has started anew, its
/// data was lost) count as ended, so that restart counts go on.
fn remember_lost(state: &mut State, pod: &Pod) {
    let Some(status) = state.status.clone() else { return };
    let names: Vec<&str> = spec(pod)
        .containers
        .iter()
        .chain(spec(pod).init_containers.iter().flatten())
        .map(|c| c.name.as_str())
        .collect();
    let lists = [&status.container_statuses, &status.init_container_statuses];
    for known in lists.into_iter().flatten().flatten() {
        let absent = state.view.slots.get(&known.name).is_none_or(|slot| slot.current.is_none());
        if absent
            && names.contains(&known.name.as_str())
            && let Some(run) = lost(known, state.view.round)
        {
            state.view.slots.entry(known.name.clone()).or_default().current = Some(run);
        }
    }
}

fn lost(known: &ApiStatus, round: u32) -> Option<Run> {
    let id = known.container_id.as_deref()?.strip_prefix(ID_SCHEME)?.to_owned();
    let state = known.state.as_ref();
    let last = known.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let end = state.and_then(|s| s.terminated.as_ref()).or(last);
    if end.is_none() && state.is_none_or(|s| s.running.is_none()) {
        // It never began: there is nothing to remember, and it is made anew.
        return None;
    }
    let now = Timestamp::now();
    let started = end.and_then(|e| e.started_at.as_ref()).map(|t| t.0);
    let unknown = "The container could not be located when the pod was terminated";
    Some(Run {
        id,
        sandbox: String::new(),
        attempt: u32::try_from(known.restart_count).unwrap_or(0),
        round,
        state: if end.is_some() { RunState::Exited } else { RunState::Unknown },
        created: started.unwrap_or(now),
        started,
        finished: end.and_then(|e| e.finished_at.as_ref()).map(|t| t.0),
        exit_code: end.map_or(137, |e| e.exit_code),
        reason: end
            .map_or("ContainerStatusUnknown".into(), |e| e.reason.clone().unwrap_or_default()),
        message: end.map_or(unknown.into(), |e| e.message.clone().unwrap_or_default()),
        image: known.image.clone(),
        image_id: known.image_id.clone(),
        user: known.user.clone(),
        hash: String::new(),
        resources: None,
        delay_s: 0,
        replaced: false,
    })
}
