//! Room for an important pod: which less important ones would have to go, and where the
//! fewest and least important do. Pure; the driver deletes them. Disruption budgets are not
//! looked at (upstream too breaks them where it has no other choice).

use std::cmp::Reverse;
use std::sync::Arc;

use client::Key;

use crate::decide::{Unschedulable, fits};
use crate::snapshot::{PodInfo, Snapshot};

/// Where an important pod can go once others have gone.
#[derive(Debug)]
pub struct Preemption {
    /// The node.
    pub node: String,
    /// The pods that have to go, most important first.
    pub victims: Vec<Arc<PodInfo>>,
}

/// Why a pod may not push others out; none: it may.
pub fn refused(pod: &PodInfo, snapshot: &Snapshot) -> Option<&'static str> {
    let policy = pod.pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = pod.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    let going = nominated.and_then(|name| snapshot.node(name)).is_some_and(|node| {
        node.pods.values().any(|other| {
            other.pod.metadata.deletion_timestamp.is_some() && other.priority() < pod.priority()
        })
    });
    going.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The cheapest way to make room for `pod`, if there is one.
pub fn preempt(
    pod: &PodInfo,
    snapshot: &Snapshot,
    unschedulable: &Unschedulable,
) -> Option<Preemption> {
    let candidates = unschedulable.nodes.iter().filter(|(_, rejection)| rejection.preemptible);
    candidates
        .filter_map(|(node, _)| {
            let victims = victims(pod, snapshot, node)?;
            Some(Preemption { node: node.clone(), victims })
        })
        .min_by_key(|preemption| {
            let priorities = preemption.victims.iter().map(|victim| i64::from(victim.priority()));
            let highest = priorities.clone().max();
            let sum: i64 = priorities.sum();
            (highest, sum, preemption.victims.len(), preemption.node.clone())
        })
}

/// The pods that have to leave the node: all less important ones go, then as many come back,
/// the most important and oldest first, as leave room for `pod`.
fn victims(pod: &PodInfo, snapshot: &Snapshot, name: &str) -> Option<Vec<Arc<PodInfo>>> {
    let mut without = snapshot.clone();
    let node = snapshot.node(name)?;
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.values().filter(|other| other.priority() < pod.priority()).cloned().collect();
    lower.sort_by_key(|other| {
        let started = other.pod.status.as_ref().and_then(|s| s.start_time.clone());
        (Reverse(other.priority()), started, other.pod.metadata.name.clone())
    });
    for other in &lower {
        without.remove_pod(&Key::of(other.pod.as_ref()));
    }
    if lower.is_empty() || !fits(pod, &without, name) {
        return None;
    }
    let mut victims = Vec::new();
    for other in lower {
        without.place(other.clone(), name);
        if !fits(pod, &without, name) {
            without.remove_pod(&Key::of(other.pod.as_ref()));
            victims.push(other);
        }
    }
    Some(victims)
}

#[cfg(test)]
mod tests {
    use client::Pod;
    use k8s_openapi::api::core::v1::Node;

    use super::*;
    use crate::decide::decide;

    fn pod(name: &str, priority: i32, cpu: &str, node: &str) -> PodInfo {
        let text = format!(
            "{{metadata: {{name: {name}, namespace: default}}, spec: {{priority: {priority}, nodeName: '{node}', containers: [{{name: c, resources: {{requests: {{cpu: '{cpu}'}}}}}}]}}}}"
        );
        let pod: Pod = serde_saphyr::from_str(&text).expect("a pod");
        PodInfo::new(Arc::new(pod))
    }

    /// Nodes with four cores each and these pods on them.
    fn cluster(nodes: &[&str], pods: &[(&str, i32, &str, &str)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for name in nodes {
            let text = format!(
                "{{metadata: {{name: {name}}}, status: {{allocatable: {{cpu: '4', pods: '10'}}}}}}"
            );
            let node: Node = serde_saphyr::from_str(&text).expect("a node");
            snapshot.set_node(Arc::new(node));
        }
        for (name, priority, cpu, node) in pods {
            snapshot.place(Arc::new(pod(name, *priority, cpu, node)), node);
        }
        snapshot
    }

    /// `node: victims`, or nothing.
    fn outcome(snapshot: &Snapshot, priority: i32, cpu: &str) -> Option<String> {
        let pod = pod("vip", priority, cpu, "");
        let unschedulable = decide(&pod, snapshot, None).expect_err("no room");
        let preemption = preempt(&pod, snapshot, &unschedulable)?;
        let names = preemption.victims.iter().filter_map(|v| v.pod.metadata.name.clone());
        Some(format!("{}: {}", preemption.node, names.collect::<Vec<_>>().join(" ")))
    }

    #[test]
    fn the_least_important_go_and_no_more_than_needed() {
        let pods = [("a", 1, "1", "n1"), ("b", 2, "2", "n1"), ("c", 5, "1", "n1")];
        let snapshot = cluster(&["n1"], &pods);
        assert_eq!(outcome(&snapshot, 10, "1").as_deref(), Some("n1: a"));
        assert_eq!(outcome(&snapshot, 10, "2").as_deref(), Some("n1: b"));
        assert_eq!(outcome(&snapshot, 10, "3").as_deref(), Some("n1: b a"));
        assert_eq!(outcome(&snapshot, 1, "1"), None);
    }

    #[test]
    fn the_node_whose_victims_matter_least() {
        let pods = [("a", 3, "4", "n1"), ("b", 2, "2", "n2"), ("c", 2, "2", "n2")];
        assert_eq!(outcome(&cluster(&["n1", "n2"], &pods), 10, "4").as_deref(), Some("n2: b c"));
        let pods = [("a", 2, "4", "n1"), ("b", 2, "2", "n2"), ("c", 2, "2", "n2")];
        assert_eq!(outcome(&cluster(&["n1", "n2"], &pods), 10, "4").as_deref(), Some("n1: a"));
    }
}
