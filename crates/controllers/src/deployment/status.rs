//! A Deployment's counts and conditions, with upstream's reasons and messages.

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::Rollout;
use super::numbers::{max_unavailable, replicas, wanted};
use crate::action::Plan;

/// `progressDeadlineSeconds` that stands for none.
const NO_DEADLINE_SECONDS: i32 = i32::MAX;

impl Rollout<'_> {
    fn deadline_seconds(&self) -> Option<i64> {
        let seconds = self.deployment.spec.as_ref()?.progress_deadline_seconds?;
        (seconds != NO_DEADLINE_SECONDS).then_some(seconds.into())
    }

    fn progressing(&self) -> Option<&DeploymentCondition> {
        find(self.deployment.status.as_ref()?, "Progressing")
    }

    fn progress(&mut self, status: &str, reason: &str, message: String) {
        let condition = self.condition("Progressing", status, reason, message);
        set_condition(self.deployment.status.get_or_insert_default(), condition);
    }

    fn condition(
        &self,
        type_: &str,
        status: &str,
        reason: &str,
        message: String,
    ) -> DeploymentCondition {
        DeploymentCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(self.cx.now)),
            last_update_time: Some(Time(self.cx.now)),
        }
    }

    /// While paused the progress deadline does not run.
    pub(super) fn note_pause(&mut self) {
        if self.deadline_seconds().is_none() {
            return;
        }
        let reason = self.progressing().and_then(|c| c.reason.clone()).unwrap_or_default();
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
        match (paused, reason.as_str()) {
            (_, "ProgressDeadlineExceeded") | (true, "DeploymentPaused") => {}
            (true, _) => {
                self.progress("Unknown", "DeploymentPaused", "Deployment is paused".into())
            }
            (false, "DeploymentPaused") => {
                self.progress("Unknown", "DeploymentResumed", "Deployment is resumed".into());
            }
            (false, _) => {}
        }
    }

    /// The condition that goes with finding or making the new set.
    pub(super) fn note_new_set(&mut self, index: usize, created: bool) {
        if self.deadline_seconds().is_none() {
            return;
        }
        let name = self.sets[index].now.name_any();
        if created {
            match self.cx.failure.filter(|f| f.reason == "ReplicaSetCreateError") {
                Some(failure) => {
                    let text =
                        format!("Failed to create new replica set {name:?}: {}", failure.message);
                    self.progress("False", "ReplicaSetCreateError", text);
                }
                None => {
                    let text = format!("Created new replica set {name:?}");
                    self.progress("True", "NewReplicaSetCreated", text);
                }
            }
        } else if self.progressing().is_none() {
            self.progress("True", "FoundNewReplicaSet", format!("Found new replica set {name:?}"));
        }
    }

    fn total(&self, of: fn(&ReplicaSetStatus) -> i32) -> i32 {
        self.sets.iter().filter_map(|set| set.now.status.as_ref()).map(of).sum()
    }

    /// Counts from the sets' status, and the Available condition.
    fn counted(&self) -> DeploymentStatus {
        let ready = self.total(|s| s.available_replicas.unwrap_or(0));
        let wanted_by_sets: i32 = self.sets.iter().map(|set| replicas(&set.now)).sum();
        let updated = self.new.and_then(|i| self.sets[i].now.status.as_ref());
        let some = |count: i32| (count != 0).then_some(count);
        let before = self.deployment.status.clone().unwrap_or_default();
        let mut status = DeploymentStatus {
            replicas: some(self.total(|s| s.replicas)),
            updated_replicas: some(updated.map_or(0, |s| s.replicas)),
            ready_replicas: some(self.total(|s| s.ready_replicas.unwrap_or(0))),
            available_replicas: some(ready),
            unavailable_replicas: some((wanted_by_sets - ready).max(0)),
            terminating_replicas: Some(self.total(|s| s.terminating_replicas.unwrap_or(0))),
            observed_generation: self.deployment.metadata.generation,
            collision_count: before.collision_count,
            conditions: before.conditions,
        };
        let enough = ready >= wanted(&self.deployment) - max_unavailable(&self.deployment);
        let (value, reason, text) = match enough {
            true => ("True", "MinimumReplicasAvailable", "has"),
            false => ("False", "MinimumReplicasUnavailable", "does not have"),
        };
        let text = format!("Deployment {text} minimum availability.");
        set_condition(&mut status, self.condition("Available", value, reason, text));
        status
    }

    /// Whether every replica is new and available, as far as the sets have reported.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete_with(&self.counted())
    }

    fn is_complete_with(&self, status: &DeploymentStatus) -> bool {
        let wanted = wanted(&self.deployment);
        let is = |count: Option<i32>| count.unwrap_or(0) == wanted;
        is(status.updated_replicas) && is(status.replicas) && is(status.available_replicas)
    }

    /// The status of a Deployment that is not rolling: counts and availability only.
    pub(super) fn plain_status(&mut self) {
        self.deployment.status = Some(self.counted());
    }

    /// Counts, progress against the deadline, and failures of the sets.
    pub(super) fn rollout_status(&mut self, plan: &mut Plan) {
        let mut status = self.counted();
        let present = self.progressing().cloned();
        let settled = status.replicas == status.updated_replicas
            && present.as_ref().and_then(|c| c.reason.as_deref()) == Some("NewReplicaSetAvailable");
        let create_failed = self.cx.failure.is_some();
        match self.deadline_seconds() {
            None => remove(&mut status, "Progressing"),
            Some(_) if settled || create_failed => {}
            Some(deadline) => self.judge_progress(&mut status, present.as_ref(), deadline),
        }
        self.copy_set_failure(&mut status);
        if let (Some(deadline), Some(condition)) =
            (self.deadline_seconds(), find(&status, "Progressing"))
            && !self.is_complete_with(&status)
            && condition.reason.as_deref() != Some("ProgressDeadlineExceeded")
            && let Some(Time(updated)) = &condition.last_update_time
        {
            // A second later, since the deadline has to be over and not just reached.
            let wait = SignedDuration::from_secs(deadline + 1);
            plan.look_again(updated.saturating_add(wait).unwrap_or(jiff::Timestamp::MAX));
        }
        self.deployment.status = Some(status);
    }

    fn judge_progress(
        &self,
        status: &mut DeploymentStatus,
        present: Option<&DeploymentCondition>,
        deadline_seconds: i64,
    ) {
        let subject = match self.new {
            Some(new) => format!("ReplicaSet {:?}", self.sets[new].now.name_any()),
            None => format!("Deployment {:?}", self.deployment.name_any()),
        };
        if self.is_complete_with(status) {
            let text = format!("{subject} has successfully progressed.");
            let condition = self.condition("Progressing", "True", "NewReplicaSetAvailable", text);
            set_condition(status, condition);
        } else if self.has_moved(status) {
            let text = format!("{subject} is progressing.");
            let mut condition = self.condition("Progressing", "True", "ReplicaSetUpdated", text);
            if let Some(present) = present.filter(|c| c.status == "True") {
                condition.last_transition_time = present.last_transition_time.clone();
            }
            remove(status, "Progressing");
            set_condition(status, condition);
        } else if self.has_timed_out(present, deadline_seconds) {
            let text = format!("{subject} has timed out progressing.");
            let reason = "ProgressDeadlineExceeded";
            set_condition(status, self.condition("Progressing", "False", reason, text));
        }
    }

    /// Whether pods were updated, removed, or became ready or available since last time.
    fn has_moved(&self, status: &DeploymentStatus) -> bool {
        let n = |count: Option<i32>| count.unwrap_or(0);
        let before = self.before.status.clone().unwrap_or_default();
        let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
        n(status.updated_replicas) > n(before.updated_replicas)
            || old(status) < old(&before)
            || n(status.ready_replicas) > n(before.ready_replicas)
            || n(status.available_replicas) > n(before.available_replicas)
    }

    fn has_timed_out(&self, present: Option<&DeploymentCondition>, seconds: i64) -> bool {
        let Some(present) = present else { return false };
        match (present.reason.as_deref(), &present.last_update_time) {
            (Some("NewReplicaSetAvailable"), _) | (_, None) => false,
            (Some("ProgressDeadlineExceeded"), _) => true,
            (_, Some(Time(updated))) => {
                self.cx.now.duration_since(*updated) > SignedDuration::from_secs(seconds)
            }
        }
    }

    /// The new set's failure to make pods is the Deployment's too; failing that an old one's.
    fn copy_set_failure(&self, status: &mut DeploymentStatus) {
        let order = self.new.into_iter().chain(self.old());
        let failure = order
            .filter_map(|i| self.sets[i].now.status.as_ref()?.conditions.as_ref())
            .find_map(|all| all.iter().find(|c| c.type_ == "ReplicaFailure"));
        match failure {
            None => remove(status, "ReplicaFailure"),
            Some(failure) => {
                let condition = DeploymentCondition {
                    type_: "ReplicaFailure".into(),
                    status: failure.status.clone(),
                    reason: failure.reason.clone(),
                    message: failure.message.clone(),
                    last_transition_time: failure.last_transition_time.clone(),
                    last_update_time: failure.last_transition_time.clone(),
                };
                set_condition(status, condition);
            }
        }
    }
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|c| c.type_ != type_);
    }
}

/// Replaces the condition of this type, unless status and reason are what they were.
fn set_condition(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(present) = find(status, &condition.type_) {
        if present.status == condition.status && present.reason == condition.reason {
            return;
        }
        if present.status == condition.status {
            condition.last_transition_time = present.last_transition_time.clone();
        }
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_condition_keeps_its_times() {
        let at = |text: &str| Some(Time(text.parse().expect("a time")));
        let condition = |reason: &str, time: &str| DeploymentCondition {
            type_: "Progressing".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            last_transition_time: at(time),
            last_update_time: at(time),
            ..DeploymentCondition::default()
        };
        let (early, late) = ("2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z");
        let mut status = DeploymentStatus::default();
        set_condition(&mut status, condition("A", early));
        set_condition(&mut status, condition("A", late));
        assert_eq!(
            find(&status, "Progressing").and_then(|c| c.last_update_time.clone()),
            at(early)
        );
        set_condition(&mut status, condition("B", late));
        let now = find(&status, "Progressing").expect("still there");
        assert_eq!((&now.last_transition_time, &now.last_update_time), (&at(early), &at(late)));
    }
}
