//! Failures counted for each index by itself (`backoffLimitPerIndex`, KEP-3850).
//!
//! How often an index has failed stands on its pods: each is told by an annotation what its
//! predecessors came to. So the last pod that failed is kept until another takes its index over, or
//! none will.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::Pod;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use super::policy::{self, Verdict};
use super::{Round, indexes, is_tracked, pause, pods};
use crate::action::Action;
use crate::pods::is_active;
use crate::replicaset::count;

/// Annotation: how often pods of the index have failed before this one.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation: how many more failures the Job's policy has ignored.
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What the pods of an index have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Failures {
    counted: i32,
    ignored: i32,
}

impl Failures {
    /// Before this pod.
    fn before(pod: &Pod) -> Self {
        let number = |name| pod.annotations().get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
        Self { counted: number(FAILURES), ignored: number(IGNORED) }
    }

    /// With this pod, which has failed.
    fn after(job: &Job, pod: &Pod) -> Self {
        let Self { counted, ignored } = Self::before(pod);
        match policy::judge(job, pod) {
            Verdict::Ignore => Self { counted, ignored: ignored.saturating_add(1) },
            _ => Self { counted: counted.saturating_add(1), ignored },
        }
    }

    fn all(self) -> i32 {
        self.counted.saturating_add(self.ignored)
    }

    /// Writes them on a successor.
    pub fn note(self, pod: &mut k8s_openapi::api::core::v1::Pod) {
        let annotations = pod.annotations_mut();
        annotations.insert(FAILURES.into(), self.counted.to_string());
        if self.ignored > 0 {
            annotations.insert(IGNORED.into(), self.ignored.to_string());
        }
    }
}

impl Round<'_> {
    /// How often an index may fail, where that is limited.
    fn limit_per_index(&self) -> Option<i32> {
        self.spec.backoff_limit_per_index.filter(|_| self.is_indexed())
    }

    pub(super) fn is_per_index(&self) -> bool {
        self.limit_per_index().is_some()
    }

    /// The pod's index, if it is one of the Job's.
    pub(super) fn index(&self, pod: &Pod) -> Option<i32> {
        pods::index(pod).filter(|index| (0..self.completions().unwrap_or(0)).contains(index))
    }

    /// Finds out which indexes have failed for good, and which failed pods wait for a successor.
    pub(super) fn note_failed_indexes(&mut self) {
        let Some(limit) = self.limit_per_index() else { return };
        let known = self.status.failed_indexes.as_deref().unwrap_or_default();
        let mut failed = indexes::parse(known, self.completions().unwrap_or(0));
        let uncounted = self.status.uncounted_terminated_pods.clone().unwrap_or_default().failed;
        let uncounted = uncounted.unwrap_or_default();
        let pods: Vec<_> =
            self.pods.iter().filter(|p| is_tracked(p) && self.has_failed(p)).collect();
        let spent = |pod: &Pod| match policy::judge(self.job, pod) {
            Verdict::Ignore => false,
            Verdict::FailIndex => true,
            Verdict::Count | Verdict::FailJob(_) => Failures::before(pod).counted >= limit,
        };
        failed.extend(pods.iter().filter(|pod| spent(pod)).filter_map(|pod| self.index(pod)));
        let ends = self.job.metadata.deletion_timestamp.is_some()
            || self.has_condition("FailureTarget")
            || self.has_condition("SuccessCriteriaMet");
        let taken: BTreeSet<i32> =
            self.pods.iter().filter(|pod| is_active(pod)).filter_map(|p| self.index(p)).collect();
        let rank = |pod: &Pod| (Failures::before(pod).all(), pods::finished_at(pod));
        for pod in pods.into_iter().filter(|_| !ends) {
            let Some(index) = self.index(pod) else { continue };
            let settled = [&taken, &self.succeeded_indexes, &failed];
            if settled.iter().any(|set| set.contains(&index))
                || pod.uid().is_some_and(|uid| uncounted.contains(&uid))
            {
                continue;
            }
            let last = self.replaced.entry(index).or_insert_with(|| pod.clone());
            if rank(pod) > rank(last) {
                *last = pod.clone();
            }
        }
        self.status.failed_indexes = Some(indexes::format(&failed));
        self.failed_indexes = failed;
    }

    /// Whether the pod has to stay until another has its index.
    pub(super) fn waits_for_successor(&self, pod: &Pod) -> bool {
        let waiting = self.index(pod).and_then(|index| self.replaced.get(&index));
        waiting.is_some_and(|waiting| waiting.uid() == pod.uid())
    }

    /// Why the Job fails because of its indexes.
    pub(super) fn judge_indexes(&self) -> Option<(&'static str, String)> {
        let failed = count(self.failed_indexes.len());
        if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
            let text = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", text.into()));
        }
        let ended = failed + count(self.succeeded_indexes.len());
        (failed > 0 && ended >= self.completions().unwrap_or(0))
            .then(|| ("FailedIndexes", "Job has failed indexes".into()))
    }

    /// Makes pods for the first of these indexes that need not wait after a failure of theirs.
    pub(super) fn create_per_index(
        &mut self,
        free: impl Iterator<Item = i32>,
        most: usize,
    ) -> Vec<Action> {
        let now = self.cx.now;
        let (mut made, mut next) = (Vec::new(), None::<Timestamp>);
        for index in free.take(most) {
            let last: Option<&Arc<Pod>> = self.replaced.get(&index);
            let until = last.and_then(|pod| {
                let before = u32::try_from(Failures::before(pod).all()).unwrap_or(u32::MAX);
                pause(before, pods::finished_at(pod).unwrap_or(now))
            });
            if let Some(until) = until.filter(|until| *until > now) {
                next = Some(next.map_or(until, |next| next.min(until)));
                continue;
            }
            let failures = last.map(|pod| Failures::after(self.job, pod)).unwrap_or_default();
            made.push(pods::create(self.job, &self.spec, Some(index), Some(failures)));
        }
        if let Some(next) = next {
            self.plan.look_again(next);
        }
        made
    }
}
