//! Giving running containers other limits, in place, and telling of it.

use std::sync::Arc;

use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerId, Resources, SandboxId};

use super::{Shared, State};
use crate::pod::resizing::Stand;
use crate::pod::view::Resize;
use crate::pod::{plan, resize, resources};

/// Pause after limits could not be set.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// Brings all containers of the pod that need no restart for it to their resources.
pub(super) async fn resize(shared: Arc<Shared>, pod: Arc<Pod>) {
    let outcome = apply(&shared, &pod).await;
    shared.state().view.resize = match outcome {
        Ok(()) => Resize::Idle,
        Err(message) => Resize::Failed { message, retry_at: Timestamp::now() + RETRY },
    };
    shared.look_again();
}

/// Writes events of what is new about the pod's resources.
pub(super) fn tell(shared: &Shared, pod: &Arc<Pod>) {
    let wanted = shared.wanted.borrow();
    let pending = wanted.pending.as_ref().map(|pending| (&*pending.wished, &pending.verdict));
    let mut state = shared.state();
    let State { view, resizing, .. } = &mut *state;
    let failed = match &view.resize {
        Resize::Failed { message, .. } => Some(message.as_str()),
        Resize::Idle | Resize::Doing => None,
    };
    let stand = Stand { pod, pending, resizing: plan::is_resizing(pod, view), failed };
    let notes = resizing.news(&stand);
    drop(state);
    for note in notes {
        let kind = if note.is_warning() { EventKind::Warning } else { EventKind::Normal };
        shared.ctx.event(pod, None, kind, note.reason, &note.message);
    }
}

/// An error in the words of the pod's condition.
async fn apply(shared: &Shared, pod: &Pod) -> Result<(), String> {
    let (due, before, sandbox) = {
        let state = shared.state();
        let before = resize::actual(pod, &state.view);
        let due: Vec<(Container, ContainerId)> = plan::resizable(pod, &state.view)
            .map(|(container, run)| (container.clone(), ContainerId(run.id.clone())))
            .collect();
        (due, before, state.view.ready_sandbox().map(|sandbox| SandboxId(sandbox.id.clone())))
    };
    let Some(sandbox) = sandbox else { return Ok(()) };
    let (runtime, memory_bytes) = (&shared.ctx.runtime, shared.ctx.memory_bytes);
    let failed = |error: runtime::Error| base::chain(&error).to_string();
    let due = due.into_iter().map(|(container, id)| {
        // Whom the kernel kills first is settled when a process starts.
        let wanted = resources::container(pod, &container, memory_bytes);
        (container, id, Resources { oom_score_adj: None, ..wanted })
    });
    let due: Vec<_> = due.collect();
    for (container, id, wanted) in &due {
        let usage = runtime.stats(id).await.map_err(failed)?.memory_usage;
        if let Some(limit) = wanted.memory_limit
            && u64::try_from(limit).is_ok_and(|limit| limit < usage)
        {
            return Err(format!(
                "attempting to set memory limit ({limit}) of container {} below current usage ({usage})",
                container.name
            ));
        }
    }
    // A container is never given more than the pod has at that moment.
    let (old, new) = (resources::pod(&before), resources::pod(pod));
    runtime.update_sandbox_resources(&sandbox, either(&old, &new)).await.map_err(failed)?;
    for (container, id, wanted) in due {
        runtime.update_resources(&id, wanted).await.map_err(failed)?;
        let mut state = shared.state();
        let slot = state.view.slots.entry(container.name.clone()).or_default();
        slot.resources = container.resources;
    }
    runtime.update_sandbox_resources(&sandbox, new).await.map_err(failed)
}

/// Gives the pod as a whole what it needs with a container that is about to start, where it was ever
/// changed. What stands against it is told by the container's own start.
pub(super) async fn make_room(shared: &Shared, pod: &Pod, sandbox: &SandboxId) {
    if pod.metadata.generation == Some(1) {
        return;
    }
    let now = resize::actual(pod, &shared.state().view);
    let room = either(&resources::pod(&now), &resources::pod(pod));
    if let Err(error) = shared.ctx.runtime.update_sandbox_resources(sandbox, room).await {
        tracing::debug!(%sandbox, error = %base::chain(&error), "limits of a pod not set");
    }
}

/// Limits that hold neither the old nor the new ones back.
fn either(old: &Resources, new: &Resources) -> Resources {
    let larger = |a: Option<i64>, b: Option<i64>| Some(a?.max(b?));
    Resources {
        cpu_shares: old.cpu_shares.max(new.cpu_shares),
        cpu_quota: larger(old.cpu_quota, new.cpu_quota),
        cpu_period: new.cpu_period,
        memory_limit: larger(old.memory_limit, new.memory_limit),
        ..Resources::default()
    }
}
