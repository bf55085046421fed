//! What controllers ask of pods: is it active, ready, available, and which would go first.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use client::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// Annotation that makes a pod cheaper (lower) or dearer to delete when scaling down.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pod's phase; one without a status is pending.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Succeeded or Failed: its containers will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Counts towards the replicas of its owner.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Since when the pod is ready; none: it is not. A condition without a time is as old as
/// the pod.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    let since = ready.last_transition_time.as_ref().or(pod.metadata.creation_timestamp.as_ref());
    Some(since.map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Whether the Ready condition is True.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// When the pod is (or will be) available: ready for `min_ready_seconds`. None: not ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let wait = SignedDuration::from_secs(min_ready_seconds.max(0).into());
    Some(ready_since(pod)?.saturating_add(wait).unwrap_or(Timestamp::MAX))
}

/// Ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// Orders `pods` so that the first are the first to be deleted on scaling down
/// (upstream's ActivePodsWithRanks). `related` are all pods of the same application: of two
/// equal pods the one on the more crowded node goes.
pub fn rank_for_deletion(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        if let Some(node) = node_name(pod) {
            *crowd.entry(node).or_default() += 1;
        }
    }
    let rank = |pod: &Pod| node_name(pod).and_then(|n| crowd.get(n)).copied().unwrap_or(0);
    pods.sort_by(|a, b| {
        node_name(a)
            .is_some()
            .cmp(&node_name(b).is_some())
            .then_with(|| phase_order(a).cmp(&phase_order(b)))
            .then_with(|| is_ready(a).cmp(&is_ready(b)))
            .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
            .then_with(|| rank(b).cmp(&rank(a)))
            .then_with(|| younger_first(ready_since(a), ready_since(b), now))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| younger_first(created(a), created(b), now))
            .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
    });
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn phase_order(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.annotations().get(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.and_then(|all| all.iter().map(|c| c.restart_count).max()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|Time(at)| *at)
}

/// Ages are compared by their power of two, so that pods of about one age go in no
/// predictable order (upstream's LogarithmicScaleDown).
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let bucket = |at: Option<Timestamp>| {
        at.map_or(u32::MAX, |at| (now.as_second() - at.as_second()).max(1).ilog2())
    };
    bucket(a).cmp(&bucket(b))
}
