//! Topology spread constraints: how evenly the pods of an application lie over domains.

use std::collections::{BTreeMap, HashMap};

use client::Pod;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::ResourceExt;

use crate::matching;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

/// Counts of matching pods per domain, for each constraint of one pod.
pub struct Spread {
    constraints: Vec<Counted>,
}

struct Counted {
    constraint: TopologySpreadConstraint,
    /// The pod itself counts where it goes.
    counts_itself: bool,
    domains: HashMap<String, i64>,
}

impl Spread {
    /// The pod's own hard constraints (`DoNotSchedule`).
    pub fn hard(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let constraints = own(&pod.pod).filter(|c| c.when_unsatisfiable != "ScheduleAnyway");
        Spread::count(constraints.cloned().collect(), pod, snapshot)
    }

    /// The pod's own soft constraints, or where it has none at all the cluster's defaults for
    /// what `selector` selects (pods of the same service or set).
    pub fn soft(pod: &PodInfo, snapshot: &Snapshot, selector: Option<&LabelSelector>) -> Self {
        let mut constraints: Vec<_> =
            own(&pod.pod).filter(|c| c.when_unsatisfiable == "ScheduleAnyway").cloned().collect();
        if let Some(selector) = selector
            && own(&pod.pod).next().is_none()
        {
            let default = |key: &str, max_skew| TopologySpreadConstraint {
                label_selector: Some(selector.clone()),
                max_skew,
                topology_key: key.into(),
                when_unsatisfiable: "ScheduleAnyway".into(),
                ..Default::default()
            };
            let keys = [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)];
            // A default for a label that no node has would only shut nodes out.
            let known = |key: &str| snapshot.nodes().any(|(_, node)| node.label(key).is_some());
            constraints.extend(
                keys.into_iter()
                    .filter(|(key, _)| known(key))
                    .map(|(key, skew)| default(key, skew)),
            );
        }
        Spread::count(constraints, pod, snapshot)
    }

    fn count(
        constraints: Vec<TopologySpreadConstraint>,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Self {
        let keys: Vec<String> = constraints.iter().map(|c| c.topology_key.clone()).collect();
        let constraints = constraints.into_iter().map(|mut constraint| {
            constraint.label_selector = with_match_keys(&constraint, &pod.pod);
            let mut domains = HashMap::new();
            for (_, node) in snapshot.nodes().filter(|(_, n)| counts(n, &constraint, pod, &keys)) {
                let Some(domain) = node.label(&constraint.topology_key) else { continue };
                let matching = node.pods.values().filter(|other| {
                    other.namespace() == pod.namespace()
                        && other.pod.metadata.deletion_timestamp.is_none()
                        && matching::selects(constraint.label_selector.as_ref(), other.pod.labels())
                });
                *domains.entry(domain.to_owned()).or_default() += matching.count() as i64;
            }
            let own_labels = pod.pod.labels();
            let counts_itself = matching::selects(constraint.label_selector.as_ref(), own_labels);
            Counted { constraint, counts_itself, domains }
        });
        Spread { constraints: constraints.collect() }
    }

    /// Whether the pod on this node leaves no domain too far ahead of the emptiest.
    pub fn admits(&self, node: &NodeInfo) -> Result<(), (Vec<String>, bool)> {
        let message = "node(s) didn't match pod topology spread constraints";
        for counted in &self.constraints {
            let constraint = &counted.constraint;
            let Some(domain) = node.label(&constraint.topology_key) else {
                return Err((vec![format!("{message} (missing required label)")], false));
            };
            let enough_domains = i64::from(constraint.min_domains.unwrap_or(1))
                <= i64::try_from(counted.domains.len()).unwrap_or(i64::MAX);
            let emptiest = match enough_domains {
                true => counted.domains.values().min().copied().unwrap_or(0),
                false => 0,
            };
            let there = counted.domains.get(domain).copied().unwrap_or(0);
            let skew = there + i64::from(counted.counts_itself) - emptiest;
            if skew > i64::from(constraint.max_skew) {
                return Err((vec![message.to_owned()], true));
            }
        }
        Ok(())
    }

    /// How crowded the node's domains are (less is better); none where nothing is to spread.
    pub fn crowding(&self, node: &NodeInfo) -> Option<f64> {
        if self.constraints.is_empty() {
            return None;
        }
        let crowding = self.constraints.iter().map(|counted| {
            let domain = node.label(&counted.constraint.topology_key).unwrap_or_default();
            let there = counted.domains.get(domain).copied().unwrap_or(0) as f64;
            // Many domains: a pod more or less in one says less, so that it is weighed more.
            let weight = (counted.domains.len() as f64 + 2.0).ln();
            there * weight + f64::from(counted.constraint.max_skew - 1)
        });
        Some(crowding.sum())
    }
}

fn own(pod: &Pod) -> impl Iterator<Item = &TopologySpreadConstraint> {
    pod.spec.iter().flat_map(|s| s.topology_spread_constraints.iter().flatten())
}

/// Whether the node is one whose pods count.
fn counts(
    node: &NodeInfo,
    constraint: &TopologySpreadConstraint,
    pod: &PodInfo,
    keys: &[String],
) -> bool {
    let has_keys = keys.iter().all(|key| node.label(key).is_some());
    let by_affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore")
        || node.node.as_ref().is_some_and(|n| matching::node_matches(&pod.pod, n));
    let by_taints = constraint.node_taints_policy.as_deref() != Some("Honor")
        || matching::tolerates_all(&pod.pod, node.taints());
    has_keys && by_affinity && by_taints
}

/// The constraint's selector, narrowed to pods that share the pod's own values of
/// `matchLabelKeys`, which the API has merged into it unless the pod is older than that.
fn with_match_keys(constraint: &TopologySpreadConstraint, pod: &Pod) -> Option<LabelSelector> {
    let mut selector = constraint.label_selector.clone()?;
    let labels: &BTreeMap<String, String> = pod.labels();
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = labels.get(key).filter(|_| !matching::has_expression(&selector, key)) {
            let requirement = LabelSelectorRequirement {
                key: key.clone(),
                operator: "In".into(),
                values: Some(vec![value.clone()]),
            };
            selector.match_expressions.get_or_insert_default().push(requirement);
        }
    }
    Some(selector)
}
