//! Affinity and anti-affinity between pods.

use std::collections::HashMap;

use client::Pod;
use k8s_openapi::api::core::v1::{PodAffinityTerm, WeightedPodAffinityTerm};
use kube::ResourceExt;

use crate::matching;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

/// A topology key and its value on some node.
type Domain = (String, String);

/// Where the pod must and must not go because of other pods.
pub struct InterPod {
    /// For each required affinity term the domains with a pod that matches all of them.
    affinity: Vec<PodAffinityTerm>,
    affine: HashMap<Domain, u32>,
    /// The pod matches its own terms: the first of a group may go anywhere.
    is_first: bool,
    anti_affinity: Vec<PodAffinityTerm>,
    /// Domains with a pod that the pod avoids.
    avoided: HashMap<Domain, u32>,
    /// Domains with a pod that avoids the pod.
    avoiding: HashMap<Domain, u32>,
}

impl InterPod {
    /// Looks at the pods of all nodes for one pod.
    pub fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let (affinity, anti_affinity) = (required(&pod.pod, false), required(&pod.pod, true));
        let mut this = InterPod {
            is_first: false,
            affine: HashMap::new(),
            avoided: HashMap::new(),
            avoiding: HashMap::new(),
            affinity,
            anti_affinity,
        };
        for (_, node) in snapshot.nodes() {
            for other in node.pods.values() {
                this.count(pod, other, node, snapshot);
            }
        }
        let matches_itself = this.affinity.iter().all(|term| applies(term, pod, pod, snapshot));
        this.is_first = this.affine.is_empty() && matches_itself;
        this
    }

    fn count(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) {
        let domain = |term: &PodAffinityTerm| {
            Some((term.topology_key.clone(), node.label(&term.topology_key)?.to_owned()))
        };
        let wanted = !self.affinity.is_empty()
            && self.affinity.iter().all(|term| applies(term, pod, other, snapshot));
        if wanted {
            for domain in self.affinity.iter().filter_map(domain) {
                *self.affine.entry(domain).or_default() += 1;
            }
        }
        for term in self.anti_affinity.iter().filter(|t| applies(t, pod, other, snapshot)) {
            if let Some(domain) = domain(term) {
                *self.avoided.entry(domain).or_default() += 1;
            }
        }
        for term in required(&other.pod, true).iter().filter(|t| applies(t, other, pod, snapshot)) {
            if let Some(domain) = domain(term) {
                *self.avoiding.entry(domain).or_default() += 1;
            }
        }
    }

    /// Whether the node is in no avoided domain and in all wanted ones.
    pub fn admits(&self, node: &NodeInfo) -> Result<(), (Vec<String>, bool)> {
        let within = |key: &str, domains: &HashMap<Domain, u32>| {
            node.label(key)
                .is_some_and(|value| domains.contains_key(&(key.to_owned(), value.to_owned())))
        };
        let refuse = |reason: &str, preemptible| Err((vec![reason.to_owned()], preemptible));
        let labelled = self.affinity.iter().all(|t| node.label(&t.topology_key).is_some());
        let affine = self.affinity.iter().all(|term| within(&term.topology_key, &self.affine));
        if !labelled || !(affine || self.is_first) {
            return refuse("node(s) didn't match pod affinity rules", false);
        }
        if self.anti_affinity.iter().any(|term| within(&term.topology_key, &self.avoided)) {
            return refuse("node(s) didn't match pod anti-affinity rules", true);
        }
        if self.avoiding.keys().any(|(key, value)| node.label(key) == Some(value.as_str())) {
            return refuse("node(s) didn't satisfy existing pods anti-affinity rules", true);
        }
        Ok(())
    }
}

/// The pod's preferred terms with their weights, those of anti-affinity negative; what a
/// node is worth by them is worked out for all nodes at once.
pub fn preferences(pod: &PodInfo, snapshot: &Snapshot) -> HashMap<Domain, i64> {
    let mut worth: HashMap<Domain, i64> = HashMap::new();
    for (_, node) in snapshot.nodes() {
        for other in node.pods.values() {
            let mine = preferred(&pod.pod).into_iter().map(|(t, w)| (t, w, pod, other.as_ref()));
            let theirs =
                preferred(&other.pod).into_iter().map(|(t, w)| (t, w, other.as_ref(), pod));
            // A pod that must be beside such pods would be glad of this one.
            let must = required(&other.pod, false).into_iter().map(|t| (t, 1, other.as_ref(), pod));
            for (term, weight, holder, subject) in mine.chain(theirs).chain(must) {
                if let Some(value) = node.label(&term.topology_key)
                    && applies(&term, holder, subject, snapshot)
                {
                    let domain = (term.topology_key.clone(), value.to_owned());
                    *worth.entry(domain).or_default() += weight;
                }
            }
        }
    }
    worth
}

fn required(pod: &Pod, anti: bool) -> Vec<PodAffinityTerm> {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else {
        return Vec::new();
    };
    let terms = match anti {
        false => affinity
            .pod_affinity
            .as_ref()
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.clone()),
        true => affinity
            .pod_anti_affinity
            .as_ref()
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.clone()),
    };
    terms.unwrap_or_default()
}

fn preferred(pod: &Pod) -> Vec<(PodAffinityTerm, i64)> {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else {
        return Vec::new();
    };
    let signed = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| {
        let terms = terms.into_iter().flatten();
        terms.map(|t| (t.pod_affinity_term.clone(), sign * i64::from(t.weight))).collect::<Vec<_>>()
    };
    let near = affinity.pod_affinity.as_ref();
    let far = affinity.pod_anti_affinity.as_ref();
    let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let far = far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    [signed(near, 1), signed(far, -1)].concat()
}

/// Whether `term` of `holder` means `subject`.
fn applies(
    term: &PodAffinityTerm,
    holder: &PodInfo,
    subject: &PodInfo,
    snapshot: &Snapshot,
) -> bool {
    let namespace = subject.namespace();
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = match &term.namespace_selector {
        None if listed.is_empty() => holder.namespace() == namespace,
        None => listed.iter().any(|n| n == namespace),
        Some(selector) => {
            let labels = snapshot.namespaces.get(namespace).cloned().unwrap_or_default();
            listed.iter().any(|n| n == namespace) || matching::selects(Some(selector), &labels)
        }
    };
    let same = |key: &String| holder.pod.labels().get(key) == subject.pod.labels().get(key);
    // What the API has merged into the selector holds there.
    let merged = |key: &String| {
        term.label_selector.as_ref().is_some_and(|s| matching::has_expression(s, key))
    };
    let held = |key: &&String| holder.pod.labels().contains_key(*key) && !merged(key);
    in_namespace
        && matching::selects(term.label_selector.as_ref(), subject.pod.labels())
        && term.match_label_keys.iter().flatten().filter(held).all(same)
        && !term.mismatch_label_keys.iter().flatten().filter(held).any(same)
}
