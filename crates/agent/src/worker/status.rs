//! Writing a pod's status, and deleting its object when all is over.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::{Shared, State};
use crate::context::Context;
use crate::pod::conditions::own_name;
use crate::pod::plan::Plan;
use crate::pod::status::{Facts, Life, Verdict, status};

/// Pause before a status that could not be written is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(1);

/// The status that the pod should have.
pub(super) fn compute(
    ctx: &Context,
    pod: &Pod,
    state: &State,
    pending: Option<Verdict>,
    plan: &Plan,
    life: Life,
    now: Timestamp,
) -> PodStatus {
    let facts = Facts {
        view: &state.view,
        plan,
        life,
        verdict: state.verdict.as_ref(),
        pending: pending.as_ref(),
        host_ips: &ctx.config.node_ips,
        start_time: state.started_at,
        now,
    };
    // What we wrote last is newer than what the watch has shown; others' conditions are not.
    let mut known = pod.clone();
    if let Some(ours) = &state.status {
        let own = ours.conditions.iter().flatten();
        let own: Vec<_> = own.filter(|c| own_name(&c.type_)).cloned().collect();
        let seen = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let foreign = seen.filter(|c| !own_name(&c.type_)).cloned();
        let conditions = Some(own.into_iter().chain(foreign).collect());
        known.status = Some(PodStatus { conditions, ..ours.clone() });
    }
    status(&known, &facts)
}

/// True when writing `new` over `old` would change nothing.
pub(super) fn same(old: Option<&PodStatus>, new: &PodStatus) -> bool {
    old == Some(new)
}

/// What the API has come to say of the conditions that are ours to say, where somebody has changed
/// them since our last write: the node controller calls the pods of a silent node not ready, and
/// a node that speaks again must take that back.
pub(super) fn overruled(ours: &PodStatus, written: u64, seen: &Pod) -> Option<Vec<PodCondition>> {
    let revision = seen.metadata.resource_version.as_deref()?.parse::<u64>().ok()?;
    if revision <= written {
        return None;
    }
    let seen = seen.status.as_ref()?.conditions.as_ref()?;
    let mut conditions = ours.conditions.clone()?;
    let mut changed = false;
    for condition in conditions.iter_mut().filter(|c| own_name(&c.type_)) {
        let now = seen.iter().find(|c| c.type_ == condition.type_);
        if let Some(now) = now.filter(|now| now.status != condition.status) {
            *condition = now.clone();
            changed = true;
        }
    }
    changed.then_some(conditions)
}

/// Writes the status.
pub(super) async fn write(shared: Arc<Shared>, pod: Arc<Pod>, new: PodStatus) {
    let api = api(&shared, &pod);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {"uid": shared.uid}, "status": new});
    let result = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    let mut state = shared.state();
    state.writing = false;
    match result {
        Ok(written) => {
            state.status = Some(new);
            let revision = written.metadata.resource_version;
            state.written = revision.and_then(|r| r.parse().ok()).unwrap_or(state.written);
            state.write_retry_at = None;
        }
        // The pod is gone, or another one has its name: the watch will say so.
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => {
            state.write_retry_at = Some(Timestamp::now() + RETRY);
        }
        Err(error) => {
            tracing::warn!(pod = name, error = %base::chain(&error), "status not written");
            state.write_retry_at = Some(Timestamp::now() + RETRY);
        }
    }
    drop(state);
    shared.look_again();
}

/// Deletes the object of a pod that has ended here.
pub(super) async fn delete(shared: Arc<Shared>, pod: Arc<Pod>) {
    let api = api(&shared, &pod);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let uid = Some(shared.uid.clone());
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    };
    let result = api.delete(name, &params).await;
    let mut state = shared.state();
    state.writing = false;
    match result {
        Ok(_) => state.deleted = true,
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => state.deleted = true,
        Err(error) => {
            tracing::warn!(pod = name, error = %base::chain(&error), "pod not deleted");
            state.write_retry_at = Some(Timestamp::now() + RETRY);
        }
    }
    drop(state);
    shared.look_again();
}

fn api(shared: &Shared, pod: &Pod) -> Api<Pod> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Api::namespaced(shared.ctx.client.clone(), namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(revision: &str, ready: &str) -> Pod {
        let conditions = json!([
            {"type": "Ready", "status": ready}, {"type": "Initialized", "status": "True"},
            {"type": "example.com/theirs", "status": ready},
        ]);
        serde_json::from_value(json!({
            "metadata": {"resourceVersion": revision}, "status": {"conditions": conditions},
        }))
        .expect("a pod")
    }

    #[test]
    fn what_somebody_else_said_later_is_noticed_once() {
        let ours = pod("7", "True").status.expect("a status");
        let ready = |revision: &str, ready: &str| {
            let overruled = overruled(&ours, 7, &pod(revision, ready))?;
            overruled.into_iter().find(|c| c.type_ == "Ready").map(|c| c.status)
        };
        assert_eq!(ready("9", "False").as_deref(), Some("False"));
        // Older than our own write, or the same as we say.
        assert_eq!(ready("6", "False"), None);
        assert_eq!(ready("9", "True"), None);
        let kept = overruled(&ours, 7, &pod("9", "False")).expect("a change");
        let theirs = kept.iter().find(|c| c.type_ == "example.com/theirs").expect("theirs");
        assert_eq!(theirs.status, "True");
    }
}
