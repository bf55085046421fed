//! A Deployment's history: revision annotations, and the removal of old ReplicaSets.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;

use super::Rollout;
use super::numbers::{self, DESIRED_REPLICAS, MAX_REPLICAS, replicas, wanted};

/// Annotation with the revision of a template, what `kubectl rollout history` counts by.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with the earlier revisions of a ReplicaSet that has come back.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Upstream's limit for the annotation above.
const MAX_HISTORY_CHARS: usize = 2000;

/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The revision of an object; zero where it has none.
pub fn revision(annotations: &std::collections::BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Records the Deployment's size on a set that is being scaled.
pub fn annotate_size(set: &mut ReplicaSet, deployment: &Deployment) {
    let desired = wanted(deployment);
    let most = desired + numbers::max_surge(deployment);
    let annotations = set.annotations_mut();
    annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
    annotations.insert(MAX_REPLICAS.into(), most.to_string());
}

impl Rollout<'_> {
    /// Gives the new set the next revision and the Deployment's annotations (change-cause
    /// among them), and the Deployment the set's revision.
    pub(super) fn annotate_new_set(&mut self, index: usize, exists: bool) {
        let newest_old =
            self.old().map(|i| revision(self.sets[i].now.annotations())).max().unwrap_or(0);
        let next = newest_old + 1;
        let inherited: Vec<_> = self
            .deployment
            .annotations()
            .iter()
            .filter(|(name, _)| !NOT_INHERITED.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let set = &mut self.sets[index].now;
        let present = set.annotations().get(REVISION).cloned();
        set.annotations_mut().extend(inherited);
        if present.as_deref().and_then(|r| r.parse().ok()).unwrap_or(0) < next {
            set.annotations_mut().insert(REVISION.into(), next.to_string());
            if let Some(previous) = present {
                remember(set, &previous);
            }
        }
        if !exists {
            annotate_size(set, &self.deployment);
        }
        let revision = set.annotations().get(REVISION).cloned().unwrap_or_default();
        if self.deployment.annotations().get(REVISION) != Some(&revision) {
            self.deployment.annotations_mut().insert(REVISION.into(), revision);
        }
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    pub(super) fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut old: Vec<usize> = self
            .old()
            .filter(|i| self.sets[*i].now.metadata.deletion_timestamp.is_none())
            .collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|index| revision(self.sets[*index].now.annotations()));
        for index in old.into_iter().take(surplus) {
            let set = &mut self.sets[index];
            let status = set.now.status.clone().unwrap_or_default();
            let settled = status.observed_generation >= set.now.metadata.generation;
            set.delete = settled && status.replicas == 0 && replicas(&set.now) == 0;
        }
    }
}

fn remember(set: &mut ReplicaSet, previous: &str) {
    let history = set.annotations().get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut all: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    all.push(previous);
    while all.iter().map(|r| r.len() + 1).sum::<usize>() > MAX_HISTORY_CHARS {
        all.remove(0);
    }
    let history = all.join(",");
    set.annotations_mut().insert(REVISION_HISTORY.into(), history);
}
