//! Ending pods before the kernel does it blindly: when memory runs out, the pod that takes most
//! beyond what it asked for goes first.

use client::EventKind;
use k8s_openapi::api::core::v1::Pod;

use crate::manager::Manager;
use crate::node::machine;
use crate::pod::status::{Verdict, terminal};
use crate::pod::view::spec;
use crate::quantity;

/// A pod as eviction sees it.
#[derive(Clone, Debug)]
struct Candidate {
    pod: Pod,
    used: i64,
    requested: i64,
}

impl Candidate {
    fn excess(&self) -> i64 {
        self.used - self.requested
    }
}

/// The pod to go first: one that takes more than it asked for before one that does not, a less
/// important one before a more important one, then whoever exceeds its request the most.
fn first(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().max_by_key(|candidate| {
        let priority = spec(&candidate.pod).priority.unwrap_or(0);
        (candidate.excess() > 0, std::cmp::Reverse(priority), candidate.excess())
    })
}

/// Evicts one pod if the board is short of memory; the next look decides about another.
pub async fn relieve_memory(manager: &Manager) {
    let ctx = manager.context();
    let (available, threshold) =
        (machine::memory_available(), ctx.config.eviction.memory_available_bytes);
    if available >= threshold {
        return;
    }
    let mut candidates = Vec::new();
    for usage in crate::server::stats::usage(manager).await {
        let pod = manager.with(&usage.namespace, &usage.pod, |_, pod| pod.clone());
        let (Some(pod), Some(total)) = (pod, usage.total) else { continue };
        let critical = spec(&pod).priority.is_some_and(|p| p >= 2_000_000_000);
        let over = terminal(pod.status.as_ref().and_then(|s| s.phase.as_deref()));
        if critical || over || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let used = i64::try_from(total.memory_working_set).unwrap_or(i64::MAX);
        candidates.push(Candidate { requested: requested(&pod), used, pod });
    }
    let Some(Candidate { pod, used, requested }) = first(candidates) else { return };
    let message = format!(
        "The node was low on resource: memory. Threshold quantity: {}Ki, available: {}Ki. Pod was \
         using {}Ki, request is {}Ki.",
        threshold / 1024,
        available / 1024,
        used / 1024,
        requested / 1024
    );
    ctx.event(&pod, None, EventKind::Warning, "Evicted", &message);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    let verdict = Verdict { reason: "Evicted".to_owned(), message };
    manager.with(&namespace, &name, |handle, _| handle.condemn(verdict.clone()));
}

/// Bytes of memory that the containers of a pod ask for.
fn requested(pod: &Pod) -> i64 {
    let of = |c: &k8s_openapi::api::core::v1::Container| {
        let resources = c.resources.as_ref();
        let list = resources.and_then(|r| r.requests.as_ref().or(r.limits.as_ref()));
        list.and_then(|l| l.get("memory")).map_or(0, quantity::units)
    };
    spec(pod).containers.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_greediest_of_the_least_important_goes_first() {
        let candidate = |name: &str, priority: i32, used: i64, requested: i64| Candidate {
            pod: serde_json::from_value(json!({"metadata": {"name": name},
                "spec": {"priority": priority, "containers": []}}))
            .unwrap(),
            used,
            requested,
        };
        let pick = |list: &[Candidate]| first(list.to_vec()).unwrap().pod.metadata.name.unwrap();
        let modest = candidate("modest", 0, 50, 100);
        let greedy = candidate("greedy", 0, 90, 10);
        let greedier = candidate("greedier", 5, 190, 10);
        assert_eq!(pick(&[modest.clone(), greedier.clone()]), "greedier");
        assert_eq!(pick(&[modest, greedier, greedy]), "greedy");
    }
}
