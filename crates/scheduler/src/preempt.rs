//! Room for an important pod: which less important ones would have to go, and where the
//! fewest and least important do. Pure; the driver deletes them. As upstream, a disruption budget
//! is broken only where there is no other choice.

use std::cmp::Reverse;
use std::sync::Arc;

use client::Key;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;

use crate::decide::{Unschedulable, fits};
use crate::matching;
use crate::snapshot::{PodInfo, Snapshot};

/// Makes every victim weigh, also one of a negative priority.
const PRIORITY_OFFSET: i64 = 1 << 31;

/// Where an important pod can go once others have gone.
#[derive(Debug)]
pub struct Preemption {
    /// The node.
    pub node: String,
    /// The pods that have to go, most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget would have kept.
    pub broken: usize,
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
    candidates.filter_map(|(node, _)| on_node(pod, snapshot, node)).min_by_key(|preemption| {
        let victims = &preemption.victims;
        let priorities = victims.iter().map(|victim| i64::from(victim.priority()));
        let highest = priorities.clone().max();
        let sum: i64 = priorities.map(|priority| priority + PRIORITY_OFFSET).sum();
        // The first is the oldest of the most important ones: the longer it runs, the better it is.
        let oldest = victims.first().map(|victim| Reverse(started(victim)));
        (preemption.broken, highest, sum, oldest, preemption.node.clone())
    })
}

/// When a pod began to run; one that has not is the youngest.
fn started(pod: &PodInfo) -> Timestamp {
    let started = pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    started.map_or(Timestamp::MAX, |time| time.0)
}

/// Sorts the most important pod first.
fn importance(pod: &Arc<PodInfo>) -> (Reverse<i32>, Timestamp, Option<String>) {
    (Reverse(pod.priority()), started(pod), pod.pod.metadata.name.clone())
}

/// Which of these pods would break a budget, if all left, the first first.
fn breaking(pods: &[Arc<PodInfo>], snapshot: &Snapshot) -> Vec<bool> {
    let allowed = |budget: &PodDisruptionBudget| {
        budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0)
    };
    let mut left: Vec<_> =
        snapshot.budgets.values().map(|budget| (budget.as_ref(), allowed(budget))).collect();
    let breaks = |pod: &Arc<PodInfo>| {
        let mut breaks = false;
        for (_, left) in left.iter_mut().filter(|(budget, _)| spends(pod, budget)) {
            *left -= 1;
            breaks |= *left < 0;
        }
        breaks
    };
    pods.iter().map(breaks).collect()
}

/// Whether the pod's leaving is one of the budget's disruptions, and not noted there already.
fn spends(pod: &PodInfo, budget: &PodDisruptionBudget) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let noted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    budget.namespace() == pod.pod.namespace()
        && matching::selects(selector, pod.pod.labels())
        && !noted.is_some_and(|noted| noted.contains_key(&pod.pod.name_any()))
}

/// The pods that have to leave the node: all less important ones go, then as many come back,
/// those that would break a budget and the most important and oldest first, as leave room for `pod`.
fn on_node(pod: &PodInfo, snapshot: &Snapshot, name: &str) -> Option<Preemption> {
    let mut without = snapshot.clone();
    let node = snapshot.node(name)?;
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.values().filter(|other| other.priority() < pod.priority()).cloned().collect();
    lower.sort_by_key(importance);
    for other in &lower {
        without.remove_pod(&Key::of(other.pod.as_ref()));
    }
    if lower.is_empty() || !fits(pod, &without, name) {
        return None;
    }
    let breaks = breaking(&lower, snapshot);
    let mut back: Vec<_> = breaks.into_iter().zip(lower).collect();
    back.sort_by_key(|(breaks, _)| !breaks);
    let (mut victims, mut broken) = (Vec::new(), 0);
    for (breaks, other) in back {
        without.place(other.clone(), name);
        if !fits(pod, &without, name) {
            without.remove_pod(&Key::of(other.pod.as_ref()));
            broken += usize::from(breaks);
            victims.push(other);
        }
    }
    victims.sort_by_key(importance);
    Some(Preemption { node: name.to_owned(), victims, broken })
}

#[cfg(test)]
mod tests {
    use client::Pod;
    use k8s_openapi::api::core::v1::Node;

    use super::*;
    use crate::decide::decide;

    fn pod(name: &str, priority: i32, cpu: &str, node: &str) -> PodInfo {
        let text = format!(
            "{{metadata: {{name: {name}, namespace: default, labels: {{name: {name}}}}}, spec: {{priority: {priority}, nodeName: '{node}', containers: [{{name: c, resources: {{requests: {{cpu: '{cpu}'}}}}}}]}}}}"
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

    #[test]
    fn one_of_a_negative_priority_counts_too() {
        let pods = [("a", -2, "4", "n2"), ("b", -2, "2", "n1"), ("c", -2, "2", "n1")];
        assert_eq!(outcome(&cluster(&["n1", "n2"], &pods), 10, "4").as_deref(), Some("n2: a"));
    }

    #[test]
    fn a_budget_is_broken_only_where_nothing_else_helps() {
        let pods = [("a", 1, "2", "n1"), ("b", 5, "2", "n1"), ("c", 7, "4", "n2")];
        let mut snapshot = cluster(&["n1", "n2"], &pods);
        let mut allow = |allowed: i32, names: &str| {
            let text = format!(
                "{{metadata: {{name: b, namespace: default}}, spec: {{selector: {{matchExpressions: [{{key: name, operator: In, values: [{names}]}}]}}}}, status: {{disruptionsAllowed: {allowed}}}}}"
            );
            let budget: PodDisruptionBudget = serde_saphyr::from_str(&text).expect("a budget");
            snapshot.budgets.insert(Key::new("default", "b"), Arc::new(budget));
            outcome(&snapshot, 10, "2").expect("room")
        };
        assert_eq!(allow(0, "c"), "n1: a");
        assert_eq!(allow(0, "a"), "n1: b");
        assert_eq!(allow(0, "a, b"), "n2: c");
        assert_eq!(allow(0, "a, b, c"), "n1: a");
        // The more important one may go, so that the other is kept.
        assert_eq!(allow(1, "a, b"), "n1: b");
    }
}
