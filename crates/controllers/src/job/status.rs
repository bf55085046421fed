//! A Job's conditions: suspension, the criteria met, the end.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Round;
use crate::action::Action;

impl Round<'_> {
    fn condition(&self, type_: &str) -> Option<&JobCondition> {
        self.status.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
    }

    pub(super) fn has_condition(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|c| c.status == "True")
    }

    pub(super) fn is_finished(&self) -> bool {
        self.has_condition("Complete") || self.has_condition("Failed")
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let condition = JobCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(Time(self.cx.now)),
            last_transition_time: Some(Time(self.cx.now)),
        };
        let all = self.status.conditions.get_or_insert_default();
        match all.iter_mut().find(|c| c.type_ == type_) {
            Some(present) => *present = condition,
            None => all.push(condition),
        }
    }

    pub(super) fn note_suspension(&mut self) {
        let noted = self.has_condition("Suspended");
        match self.is_suspended() {
            true if !noted => {
                self.set("Suspended", "True", "JobSuspended", "Job suspended");
                self.status.start_time = None;
                self.tell("Suspended", "Job suspended");
            }
            false if noted => {
                self.set("Suspended", "False", "JobResumed", "Job resumed");
                self.status.start_time = Some(Time(self.cx.now));
                self.tell("Resumed", "Job resumed");
            }
            _ => {}
        }
    }

    fn tell(&mut self, reason: &'static str, note: &str) {
        self.plan.push([Action::event(self.job, false, reason, note.into())]);
    }

    /// Says that the Job is going to succeed or fail; it ends when its pods have.
    pub(super) fn mark_target(&mut self, success: bool) {
        let type_ = if success { "SuccessCriteriaMet" } else { "FailureTarget" };
        if self.has_condition(type_) {
            return;
        }
        let (reason, message) = match self.failure.take() {
            Some(failure) if !success => failure,
            _ => match self.policy_succeeds() {
                Some(rule) => ("SuccessPolicy", format!("Matched rules at index {rule}")),
                None => {
                    ("CompletionsReached", "Reached expected number of succeeded pods".to_owned())
                }
            },
        };
        self.set(type_, "True", reason, &message);
    }

    /// Ends the Job, when every pod has been counted.
    pub(super) fn finish(&mut self, success: bool) {
        if self.uncounted() != (0, 0) || !self.replaced.is_empty() {
            return;
        }
        let (target, type_) = match success {
            true => ("SuccessCriteriaMet", "Complete"),
            false => ("FailureTarget", "Failed"),
        };
        let known = self.condition(target).cloned();
        let reason = known.as_ref().and_then(|c| c.reason.clone()).unwrap_or_default();
        let message = known.and_then(|c| c.message).unwrap_or_default();
        self.set(type_, "True", &reason, &message);
        if success {
            self.status.completion_time = Some(Time(self.cx.now));
            self.tell("Completed", "Job completed");
        } else {
            let reason = match reason.as_str() {
                "BackoffLimitExceeded" => "BackoffLimitExceeded",
                "DeadlineExceeded" => "DeadlineExceeded",
                "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
                "FailedIndexes" => "FailedIndexes",
                _ => "PodFailurePolicy",
            };
            self.plan.push([Action::event(self.job, true, reason, message)]);
        }
    }

    /// Deletes a finished Job when its time to live is over.
    pub(super) fn expire(&mut self) {
        let Some(seconds) = self.spec.ttl_seconds_after_finished else { return };
        if self.job.metadata.deletion_timestamp.is_some() {
            return;
        }
        let ended = self.condition("Complete").or(self.condition("Failed"));
        let Some(Time(ended)) = ended.and_then(|c| c.last_transition_time.clone()) else { return };
        let life = SignedDuration::from_secs(seconds.into());
        let end = ended.saturating_add(life).unwrap_or(Timestamp::MAX);
        if end > self.cx.now {
            self.plan.look_again(end);
        } else {
            self.plan.push([Action::delete(self.job, None)]);
        }
    }
}
