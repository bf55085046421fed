//! Runs pods to completion.
//!
//! Each pod carries a finalizer until it is counted, so that none is lost or counted twice: a
//! finished pod is first listed in the status as uncounted, then loses its finalizer, then
//! moves from the list to the counter. Each of these is one round of the plan.

mod indexes;
mod per_index;
mod pods;
mod policy;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::core::Selector;

use self::policy::Verdict;
use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::pods::{is_active, is_ready, is_terminal, is_terminating, phase};
use crate::replicaset::count;
use crate::{owner, replicaset};

/// Keeps a pod until it is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// Pods listed as uncounted at once, upstream's MaxUncountedPods.
const MAX_UNCOUNTED_PODS: usize = 500;
/// Pods created in one round, upstream's MaxPodCreateDeletePerSync.
const MAX_CREATED_PODS: usize = 500;
/// Pause after a failure; doubles with each further one.
const FAILURE_PAUSE_SECONDS: i64 = 10;
const MAX_FAILURE_PAUSE_SECONDS: i64 = 600;

/// Jobs.
pub const JOB: Controller =
    Controller { name: "job-controller", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    watches.own::<Job>();
    watches.owned::<Pod, Job>();
    // Pods whose Job is gone still carry the finalizer. Where nothing names it, the key has no name.
    watches.map::<Pod>(|_, pod| {
        let name = pod.labels().get(JOB_NAME).map_or("", String::as_str);
        let orphan = is_tracked(pod) && (!name.is_empty() || owner::controller_of(pod).is_none());
        let key = orphan.then(|| Key::new(pod.namespace().unwrap_or_default(), name));
        key.into_iter().collect()
    });
}

fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == TRACKING)
}

/// What the steps of one plan share.
struct Round<'a> {
    cx: &'a Cx<'a>,
    job: &'a Job,
    spec: JobSpec,
    /// The Job's pods.
    pods: Vec<Arc<Pod>>,
    status: JobStatus,
    /// Why the Job has failed, decided in this round.
    failure: Option<(&'static str, String)>,
    /// Indexes that have succeeded; empty where the Job is not indexed.
    succeeded_indexes: BTreeSet<i32>,
    /// Indexes that have failed for good, where their failures are counted.
    failed_indexes: BTreeSet<i32>,
    /// The last pods of indexes that have failed and are to be tried again.
    replaced: BTreeMap<i32, Arc<Pod>>,
    plan: Plan,
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let Some(job) = cx.world.get::<Job>(&key.namespace, &key.name) else {
        return pods::free_orphans(cx, key);
    };
    let Some(spec) = job.spec.clone() else { return Plan::default() };
    if spec.managed_by.as_deref().is_some_and(|by| by != "kubernetes.io/job-controller") {
        return Plan::default();
    }
    let uid = job.uid().unwrap_or_default();
    let selector =
        spec.selector.as_ref().and_then(owner::selector).unwrap_or_else(|| {
            [(CONTROLLER_UID.to_owned(), uid)].into_iter().collect::<Selector>()
        });
    let all = cx.world.list::<Pod>(&key.namespace);
    let claim = owner::claim_with(job.as_ref(), &selector, all, Some(TRACKING));
    let mut plan = Plan::default();
    plan.push(claim.actions);
    let round = Round {
        cx,
        job: &job,
        spec,
        pods: claim.owned,
        status: job.status.clone().unwrap_or_default(),
        failure: None,
        succeeded_indexes: BTreeSet::new(),
        failed_indexes: BTreeSet::new(),
        replaced: BTreeMap::new(),
        plan,
    };
    round.run()
}

impl Round<'_> {
    fn run(mut self) -> Plan {
        if self.is_finished() {
            self.release_all();
            self.expire();
            return self.plan;
        }
        self.note_suspension();
        let freed = self.count_finished();
        let succeeded = self.succeeded();
        self.decide_failure();
        let mut writes = Vec::new();
        let done = self.has_condition("SuccessCriteriaMet");
        let failed = self.failure.is_some() || self.has_condition("FailureTarget");
        if failed || done || self.is_complete(succeeded) {
            self.mark_target(!failed);
            let remaining: Vec<_> = self.active().cloned().collect();
            writes.extend(remaining.iter().map(|pod| replicaset::delete_pod(self.job, pod)));
            if remaining.is_empty()
                && !self.pods.iter().any(|p| is_terminating(p) && !is_terminal(p))
            {
                self.finish(!failed);
            }
        } else if self.job.metadata.deletion_timestamp.is_none() {
            writes.extend(self.manage(succeeded));
        }
        self.count_present();
        self.write(freed, writes);
        self.plan
    }

    /// The status first: a pod may lose its finalizer only when it is listed there.
    fn write(&mut self, freed: Vec<Arc<Pod>>, writes: Vec<Action>) {
        let wanted = Job { status: Some(self.status.clone()), ..self.job.clone() };
        self.plan.push(Action::change(self.job, &wanted, "status"));
        self.plan.push(freed.iter().filter_map(|pod| pods::release(pod)));
        self.plan.push(writes);
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn completions(&self) -> Option<i32> {
        self.spec.completions
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| is_active(pod))
    }

    /// A pod that was deleted before it ended has failed too, unless the Job waits for its end.
    fn has_failed(&self, pod: &Pod) -> bool {
        let waits = self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some();
        phase(pod) == "Failed" || (!waits && is_terminating(pod) && phase(pod) != "Succeeded")
    }

    /// Moves finished pods on by one step; returns those that may lose their finalizer.
    fn count_finished(&mut self) -> Vec<Arc<Pod>> {
        if self.is_indexed() {
            self.note_succeeded_indexes();
            self.note_failed_indexes();
        }
        let tracked: BTreeSet<String> =
            self.pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.uid()).collect();
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let settle = |list: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
            let all = list.take().unwrap_or_default();
            let (waiting, done): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|uid| tracked.contains(uid));
            if !done.is_empty() {
                *counter = Some(counter.unwrap_or(0) + count(done.len()));
            }
            *list = (!waiting.is_empty()).then_some(waiting);
        };
        settle(&mut uncounted.succeeded, &mut self.status.succeeded);
        settle(&mut uncounted.failed, &mut self.status.failed);
        let mut freed = Vec::new();
        let (indexed, mut failure) = (self.is_indexed(), None);
        for pod in self.pods.iter().filter(|pod| is_tracked(pod)) {
            let uid = pod.uid().unwrap_or_default();
            let list = match () {
                () if phase(pod) == "Succeeded" => {
                    if indexed {
                        freed.push(pod.clone());
                        continue;
                    }
                    &mut uncounted.succeeded
                }
                () if self.has_failed(pod) => {
                    let verdict = policy::judge(self.job, pod);
                    let ignored = verdict == Verdict::Ignore;
                    if let Verdict::FailJob(why) = verdict {
                        failure = failure.or(Some(why));
                    }
                    if self.waits_for_successor(pod) {
                        continue;
                    }
                    if ignored || (indexed && self.index(pod).is_none()) {
                        freed.push(pod.clone());
                        continue;
                    }
                    &mut uncounted.failed
                }
                () => continue,
            };
            let list = list.get_or_insert_default();
            if list.contains(&uid) {
                freed.push(pod.clone());
            } else if list.len() < MAX_UNCOUNTED_PODS {
                list.push(uid);
                freed.push(pod.clone());
            }
        }
        self.failure = failure.map(|why| ("PodFailurePolicy", why));
        self.status.uncounted_terminated_pods = Some(uncounted);
        if indexed {
            let text = indexes::format(&self.succeeded_indexes);
            self.status.completed_indexes = (!text.is_empty()).then_some(text);
            self.status.succeeded = Some(count(self.succeeded_indexes.len())).filter(|n| *n > 0);
        }
        freed
    }

    fn note_succeeded_indexes(&mut self) {
        let known = self.status.completed_indexes.as_deref().unwrap_or_default();
        let mut succeeded = indexes::parse(known, self.completions().unwrap_or(0));
        let pods = self.pods.iter().filter(|pod| is_tracked(pod) && phase(pod) == "Succeeded");
        succeeded.extend(pods.filter_map(|pod| self.index(pod)));
        self.succeeded_indexes = succeeded;
    }

    fn uncounted(&self) -> (i32, i32) {
        let uncounted = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let len = |list: Option<Vec<String>>| count(list.map_or(0, |list| list.len()));
        (len(uncounted.succeeded), len(uncounted.failed))
    }

    fn succeeded(&self) -> i32 {
        self.status.succeeded.unwrap_or(0) + self.uncounted().0
    }

    fn failed(&self) -> i32 {
        self.status.failed.unwrap_or(0) + self.uncounted().1
    }

    fn is_complete(&self, succeeded: i32) -> bool {
        match self.completions() {
            None => succeeded > 0 && self.active().next().is_none(),
            Some(completions) => succeeded >= completions || self.policy_succeeds().is_some(),
        }
    }

    /// The first rule of the success policy that is fulfilled.
    fn policy_succeeds(&self) -> Option<usize> {
        let policy = self.spec.success_policy.as_ref()?;
        let completions = self.completions().unwrap_or(0);
        policy.rules.iter().position(|rule| {
            let wanted = rule.succeeded_indexes.as_deref().map(|t| indexes::parse(t, completions));
            let there = match &wanted {
                Some(wanted) => wanted.intersection(&self.succeeded_indexes).count(),
                None => self.succeeded_indexes.len(),
            };
            let needed = rule
                .succeeded_count
                .and_then(|n| usize::try_from(n).ok())
                .or_else(|| wanted.as_ref().map(BTreeSet::len));
            needed.is_some_and(|needed| there >= needed)
        })
    }

    fn decide_failure(&mut self) {
        if self.failure.is_none() && !self.is_suspended() {
            self.keep_limits();
        }
        if self.failure.is_none() && self.is_per_index() {
            self.failure = self.judge_indexes();
        }
    }

    fn keep_limits(&mut self) {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed() > limit || self.restarts_exceed(limit) {
            let text = "Job has reached the specified backoff limit".to_owned();
            self.failure = Some(("BackoffLimitExceeded", text));
        } else if let (Some(seconds), Some(Time(start))) =
            (self.spec.active_deadline_seconds, &self.status.start_time)
        {
            let deadline = start.saturating_add(SignedDuration::from_secs(seconds));
            let deadline = deadline.unwrap_or(Timestamp::MAX);
            if deadline <= self.cx.now {
                let text = "Job was active longer than specified deadline".to_owned();
                self.failure = Some(("DeadlineExceeded", text));
            } else {
                self.plan.look_again(deadline);
            }
        }
    }

    /// Containers restarted in place count too.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let statuses = self.active().filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
            status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
        });
        let restarts: i32 = statuses.map(|container| container.restart_count).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// Creates and deletes pods so that as many run as should.
    fn manage(&mut self, succeeded: i32) -> Vec<Action> {
        let active: Vec<Arc<Pod>> = self.active().cloned().collect();
        let wanted = self.wanted(succeeded, count(active.len()));
        let doomed = self.doomed(active.clone(), active.len().saturating_sub(wanted));
        if !doomed.is_empty() {
            return doomed.iter().map(|pod| replicaset::delete_pod(self.job, pod)).collect();
        }
        let mut missing = wanted.saturating_sub(active.len()).min(MAX_CREATED_PODS);
        let mut taken: BTreeSet<i32> = active.iter().filter_map(|pod| self.index(pod)).collect();
        if self.spec.pod_replacement_policy.as_deref() == Some("Failed") {
            let going = self.pods.iter().filter(|p| is_terminating(p) && !is_terminal(p));
            missing = missing.saturating_sub(going.clone().count());
            taken.extend(going.filter_map(|pod| self.index(pod)));
        }
        if missing == 0 {
            return Vec::new();
        }
        taken.extend(&self.succeeded_indexes);
        taken.extend(&self.failed_indexes);
        let free = (0..self.completions().unwrap_or(0)).filter(|index| !taken.contains(index));
        if self.is_per_index() {
            return self.create_per_index(free, missing);
        }
        if let Some(until) = self.pause_after_failure().filter(|until| *until > self.cx.now) {
            self.plan.look_again(until);
            return Vec::new();
        }
        if !self.is_indexed() {
            return vec![pods::create(self.job, &self.spec, None, None); missing];
        }
        free.take(missing)
            .map(|index| pods::create(self.job, &self.spec, Some(index), None))
            .collect()
    }

    fn wanted(&self, succeeded: i32, active: i32) -> usize {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.completions() {
            _ if self.is_suspended() => 0,
            None if succeeded > 0 => active,
            None => parallelism,
            Some(completions) => parallelism.min(completions - succeeded),
        };
        usize::try_from(wanted).unwrap_or(0)
    }

    /// Pods to end: those whose index is none of the Job's or has a better pod, and the least useful
    /// until they make up the surplus.
    fn doomed(&self, mut active: Vec<Arc<Pod>>, surplus: usize) -> Vec<Arc<Pod>> {
        crate::pods::rank_for_deletion(&mut active, &[], self.cx.now);
        let mut kept = BTreeSet::new();
        let (mut useful, mut doomed) = (Vec::new(), Vec::new());
        for pod in active.into_iter().rev() {
            let fits = !self.is_indexed() || self.index(&pod).is_some_and(|i| kept.insert(i));
            if fits { useful.push(pod) } else { doomed.push(pod) }
        }
        let more = surplus.saturating_sub(doomed.len());
        doomed.extend(useful.into_iter().rev().take(more));
        doomed
    }

    /// Until when no pod is made because of failures since the last success.
    fn pause_after_failure(&self) -> Option<Timestamp> {
        let ended = |pod: &Arc<Pod>| pods::finished_at(pod).or(Some(self.cx.now));
        let succeeded = self.pods.iter().filter(|pod| phase(pod) == "Succeeded");
        let last_success = succeeded.filter_map(ended).max();
        let failures: Vec<Timestamp> = self
            .pods
            .iter()
            .filter(|pod| phase(pod) == "Failed")
            .filter(|pod| policy::judge(self.job, pod) != Verdict::Ignore)
            .filter_map(ended)
            .filter(|at| last_success.is_none_or(|success| *at > success))
            .collect();
        let before = u32::try_from(failures.len().checked_sub(1)?).unwrap_or(u32::MAX);
        pause(before, failures.into_iter().max()?)
    }

    fn count_present(&mut self) {
        let active: Vec<_> = self.active().cloned().collect();
        let ready = active.iter().filter(|pod| is_ready(pod)).count();
        let going = self.pods.iter().filter(|p| is_terminating(p) && !is_terminal(p)).count();
        self.status.active = Some(count(active.len())).filter(|n| *n > 0);
        self.status.ready = Some(count(ready));
        self.status.terminating = Some(count(going));
        if self.status.start_time.is_none() && !self.is_suspended() {
            self.status.start_time = Some(Time(self.cx.now));
            if let Some(seconds) = self.spec.active_deadline_seconds {
                let wait = SignedDuration::from_secs(seconds);
                self.plan.look_again(self.cx.now.saturating_add(wait).unwrap_or(Timestamp::MAX));
            }
        }
    }

    /// A finished Job lets go of all its pods.
    fn release_all(&mut self) {
        let actions: Vec<_> = self.pods.iter().filter_map(|pod| pods::release(pod)).collect();
        self.plan.push(actions);
    }
}

/// When the pause after a failure ends that followed on so many others.
fn pause(before: u32, failed: Timestamp) -> Option<Timestamp> {
    let seconds = FAILURE_PAUSE_SECONDS
        .saturating_mul(2_i64.saturating_pow(before))
        .min(MAX_FAILURE_PAUSE_SECONDS);
    failed.saturating_add(SignedDuration::from_secs(seconds)).ok()
}

#[cfg(test)]
mod tests;
