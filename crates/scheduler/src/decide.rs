//! The decision for one pod: a node, or why none.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::filters::{self, Rejection};
use crate::scores;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

/// Why no node can take the pod. Prints upstream's sentence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unschedulable {
    /// What each node said, by name.
    pub nodes: BTreeMap<String, Rejection>,
}

impl Unschedulable {
    /// The sentence without its part on preemption.
    pub fn reasons(&self) -> String {
        if self.nodes.is_empty() {
            return "no nodes available to schedule pods".to_owned();
        }
        let reasons = self.nodes.values().flat_map(|r| r.reasons.iter().map(String::as_str));
        format!("0/{} nodes are available: {}.", self.nodes.len(), histogram(reasons))
    }

    /// The filters that turned nodes down.
    pub fn filters(&self) -> Vec<&'static str> {
        let mut filters: Vec<_> = self.nodes.values().map(|rejection| rejection.filter).collect();
        filters.sort_unstable();
        filters.dedup();
        filters
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons())?;
        if self.nodes.is_empty() {
            return Ok(());
        }
        let total = self.nodes.len();
        let preemption = self.nodes.values().map(|rejection| match rejection.preemptible {
            true => "No preemption victims found for incoming pod",
            false => "Preemption is not helpful for scheduling",
        });
        write!(f, " preemption: 0/{total} nodes are available: {}.", histogram(preemption))
    }
}

/// `2 this, 1 that`, sorted as text.
fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
    let mut parts: Vec<_> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    parts.sort_unstable();
    parts.join(", ")
}

/// Chooses a node for `pod`. `siblings` selects the pods of its service or set, over which it
/// is to be spread.
pub fn decide(
    pod: &PodInfo,
    snapshot: &Snapshot,
    siblings: Option<&LabelSelector>,
) -> Result<String, Unschedulable> {
    let prepared = filters::Prepared::new(pod, snapshot);
    let mut unschedulable = Unschedulable::default();
    let mut feasible: Vec<(&str, &NodeInfo)> = Vec::new();
    for (name, node) in snapshot.nodes() {
        match filters::check(pod, node, &prepared) {
            Ok(()) => feasible.push((name, node)),
            Err(rejection) => drop(unschedulable.nodes.insert(name.to_owned(), rejection)),
        }
    }
    match feasible.as_slice() {
        [] => Err(unschedulable),
        [(name, _)] => Ok((*name).to_owned()),
        _ => Ok(best(pod, snapshot, siblings, &feasible)),
    }
}

/// Whether this one node can take the pod.
pub fn fits(pod: &PodInfo, snapshot: &Snapshot, node: &str) -> bool {
    let prepared = filters::Prepared::new(pod, snapshot);
    snapshot.node(node).is_some_and(|node| filters::check(pod, node, &prepared).is_ok())
}

fn best(
    pod: &PodInfo,
    snapshot: &Snapshot,
    siblings: Option<&LabelSelector>,
    feasible: &[(&str, &NodeInfo)],
) -> String {
    let nodes: Vec<&NodeInfo> = feasible.iter().map(|(_, node)| *node).collect();
    let prepared = scores::Prepared::new(pod, snapshot, siblings);
    let totals = scores::total(pod, &nodes, &prepared);
    // Of equal nodes the pod's UID picks one: spread like chance, but the same on every run.
    let tie = |name: &str| {
        let mut hasher = DefaultHasher::new();
        (pod.pod.metadata.uid.as_deref(), name).hash(&mut hasher);
        hasher.finish()
    };
    feasible
        .iter()
        .zip(totals)
        .max_by(|((a, _), score_a), ((b, _), score_b)| {
            score_a.total_cmp(score_b).then_with(|| tie(a).cmp(&tie(b)))
        })
        .map(|((name, _), _)| (*name).to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
