//! Ending containers: `preStop`, the stop signal, the grace period, SIGKILL.

use std::sync::Arc;
use std::time::Duration;

use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use runtime::ContainerId;

use super::{Shared, until};
use crate::lifecycle;
use crate::pod::view::{container as by_name, spec};

/// Grace of a container when the pod does not say.
const DEFAULT_GRACE_S: i64 = 30;
/// What a container has left after its `preStop` hook took all its grace.
const MIN_AFTER_HOOK: Duration = Duration::from_secs(2);
/// Pause before a container that could not be stopped is tried again.
const RETRY: Duration = Duration::from_secs(2);

pub(super) fn grace(pod: &Pod) -> i64 {
    let own = spec(pod).termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_S);
    pod.metadata.deletion_grace_period_seconds.unwrap_or(own).max(0)
}

/// Notes by when the pod's containers must have ended. A second deletion may shorten that and
/// never lengthens it.
pub(super) fn set_deadline(shared: &Shared, pod: &Pod) {
    // Counted from when the agent learnt of it: boards have no battery clock, so the API's own
    // time stamp may be far from ours. Of many calls the first, and a shorter grace, hold.
    shorten(shared, SignedDuration::from_secs(grace(pod)));
}

/// Sees that the pod's containers have ended after `left` at the latest.
pub(super) fn shorten(shared: &Shared, left: SignedDuration) {
    let from = Timestamp::now() + left;
    shared.deadline.send_if_modified(|deadline| {
        let earlier = deadline.is_none_or(|known| from < known);
        if earlier {
            *deadline = Some(from);
        }
        earlier
    });
}

/// Ends one container. A shorter grace that comes while it ends takes effect at once.
pub(super) async fn kill(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    name: String,
    id: String,
    message: String,
) {
    let ctx = &shared.ctx;
    ctx.event(&pod, Some(&name), EventKind::Normal, "Killing", &message);
    let id = ContainerId(id);
    let mut deadlines = shared.deadline.subscribe();
    // A liveness kill has the pod's own grace, unless the probe brings one of its own.
    let own = Timestamp::now() + SignedDuration::from_secs(kill_grace(&shared, &pod, &name));
    let limit = |set: Option<Timestamp>| set.map_or(own, |at| at.min(own));
    let deadline = limit(*deadlines.borrow_and_update());
    pre_stop(&shared, &pod, &name, &id, deadline).await;
    let mut hook_over = has_hook(&pod, &name);
    loop {
        let deadline = limit(*deadlines.borrow_and_update());
        let mut left = until(deadline);
        if std::mem::take(&mut hook_over) && grace(&pod) > 0 {
            left = left.max(MIN_AFTER_HOOK);
        }
        tokio::select! {
            result = ctx.runtime.stop_container(&id, left) => {
                if let Err(error) = result {
                    tracing::warn!(container = %id, error = %base::chain(&error), "not stopped");
                    tokio::time::sleep(RETRY).await;
                }
                break;
            }
            // Whoever asked again wants it faster.
            Ok(()) = deadlines.changed() => {}
        }
    }
    shared.state().view.slots.entry(name).or_default().busy = false;
    shared.look_again();
}

fn has_hook(pod: &Pod, name: &str) -> bool {
    let container = by_name(pod, name).and_then(|c| c.lifecycle.as_ref());
    container.is_some_and(|l| l.pre_stop.is_some())
}

/// The grace of a kill that the pod's deletion did not cause.
fn kill_grace(shared: &Shared, pod: &Pod, name: &str) -> i64 {
    let condemned = shared.state().view.slots.get(name).is_some_and(|s| s.condemned.is_some());
    let probe = by_name(pod, name).filter(|_| condemned).and_then(|c| {
        let probe =
            c.startup_probe.as_ref().filter(|p| p.termination_grace_period_seconds.is_some());
        probe.or(c.liveness_probe.as_ref())?.termination_grace_period_seconds
    });
    let own = spec(pod).termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_S);
    probe.unwrap_or(own).max(0)
}

async fn pre_stop(shared: &Shared, pod: &Pod, name: &str, id: &ContainerId, deadline: Timestamp) {
    let Some(container) = by_name(pod, name) else { return };
    let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return };
    let left = until(deadline);
    if left.is_zero() {
        return;
    }
    let ip = shared.ips().first().copied();
    let hook = lifecycle::run(&shared.ctx, container, id, hook, ip);
    let mut deadlines = shared.deadline.subscribe();
    let shortened = async {
        while deadlines.changed().await.is_ok() {
            let earlier = deadlines.borrow_and_update().is_some_and(|at| at < deadline);
            if earlier {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        result = hook => {
            if let Err(error) = result {
                let note = format!("PreStopHook failed: {error}");
                shared.ctx.event(pod, Some(name), EventKind::Warning, "FailedPreStopHook", &note);
            }
        }
        () = tokio::time::sleep(left) => {
            tracing::debug!(container = name, "preStop took all of the grace period");
        }
        () = shortened => {}
    }
}
