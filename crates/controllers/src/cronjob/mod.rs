//! Starts Jobs by the clock.

mod schedule;

pub use schedule::Schedule;

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use crate::action::{Action, Announce, Plan, reference};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile};
use crate::owner;

/// Annotation of a Job with the time it was due.
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// CronJobs.
pub const CRON_JOB: Controller = Controller {
    name: "cronjob-controller",
    watches: |watches| {
        watches.own::<CronJob>();
        watches.owned::<Job, CronJob>();
    },
    reconcile: Reconcile::Plan(plan),
};

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(cron) = cx.world.get::<CronJob>(&key.namespace, &key.name) else { return plan };
    let spec = &cron.spec;
    let mut jobs = cx.world.list::<Job>(&key.namespace);
    jobs.retain(|job| owner::is_controlled_by(job.as_ref(), cron.as_ref()));
    let mut status = cron.status.clone().unwrap_or_default();
    note_ended(&cron, &jobs, &mut status, &mut plan);
    plan.push(surplus(spec, &jobs));
    plan.push(missing(&cron, &jobs));
    let mut active: Vec<_> = jobs.iter().filter(|job| ended(job).is_none()).cloned().collect();
    if cron.metadata.deletion_timestamp.is_none() && spec.suspend != Some(true) {
        start_due(cx, &cron, spec, &mut active, &mut status, &mut plan);
    }
    let references = active.iter().map(|job| ObjectReference {
        // The version changes with every status; the reference must not.
        resource_version: None,
        ..reference(job.as_ref())
    });
    let references: Vec<_> = references.collect();
    status.active = (!references.is_empty()).then_some(references);
    let wanted = CronJob { status: Some(status), ..cron.as_ref().clone() };
    plan.push(Action::change(cron.as_ref(), &wanted, "status"));
    plan
}

/// How a Job has ended (`Complete`, `Failed`); none: it has not.
fn ended(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = |type_: &str| matches!(type_, "Complete" | "Failed");
    conditions.iter().find(|c| end(&c.type_) && c.status == "True").map(|c| c.type_.as_str())
}

fn note_ended(cron: &CronJob, jobs: &[Arc<Job>], status: &mut CronJobStatus, plan: &mut Plan) {
    for job in jobs {
        let Some(how) = ended(job) else { continue };
        let was_active =
            status.active.iter().flatten().any(|reference| reference.uid == job.metadata.uid);
        if was_active {
            let note = format!("Saw completed job: {}, condition: {how}", job.name_any());
            plan.push([Action::event(cron, false, "SawCompletedJob", note)]);
        }
        let completed = job.status.as_ref().and_then(|s| s.completion_time.clone());
        if how == "Complete" && completed > status.last_successful_time {
            status.last_successful_time = completed;
        }
    }
}

/// Tells of Jobs that somebody deleted while they ran.
fn missing(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Action> {
    let known = cron.status.iter().flat_map(|status| status.active.iter().flatten());
    let gone = known.filter(|known| !jobs.iter().any(|job| job.metadata.uid == known.uid));
    gone.map(|job| {
        let name = job.name.as_deref().unwrap_or_default();
        Action::event(cron, false, "MissingJob", format!("Active job went missing: {name}"))
    })
    .collect()
}

/// Ended Jobs beyond the history limits, the oldest first.
fn surplus(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Action> {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    let of = |how: &str, limit: i32| {
        let mut jobs: Vec<_> = jobs.iter().filter(|job| ended(job) == Some(how)).collect();
        jobs.sort_by_key(|job| job.status.as_ref().and_then(|s| s.start_time.clone()));
        let surplus = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        jobs.truncate(surplus);
        jobs
    };
    let doomed = limits.into_iter().flat_map(|(how, limit)| of(how, limit));
    doomed.map(|job| Action::delete(job.as_ref(), None)).collect()
}

fn zone(spec: &CronJobSpec) -> Option<TimeZone> {
    match spec.time_zone.as_deref() {
        None => Some(TimeZone::system()),
        Some("UTC" | "Etc/UTC") => Some(TimeZone::UTC),
        Some(name) => TimeZone::get(name).ok(),
    }
}

fn start_due(
    cx: &Cx,
    cron: &CronJob,
    spec: &CronJobSpec,
    active: &mut Vec<Arc<Job>>,
    status: &mut CronJobStatus,
    plan: &mut Plan,
) {
    let Some(schedule) = Schedule::parse(&spec.schedule) else {
        let note = format!("unparseable schedule: {:?}", spec.schedule);
        return plan.push([Action::event(cron, true, "UnparseableSchedule", note)]);
    };
    let Some(zone) = zone(spec) else {
        let name = spec.time_zone.as_deref().unwrap_or_default();
        let note = format!("invalid timeZone: {name:?}");
        return plan.push([Action::event(cron, true, "UnknownTimeZone", note)]);
    };
    let known = status.last_schedule_time.as_ref().or(cron.metadata.creation_timestamp.as_ref());
    let since = known.map_or(cx.now, |time| time.0);
    let Some(first) = schedule.next(since, &zone) else {
        // Such as the 31st of February.
        let note = format!("invalid schedule: {} : it never comes", spec.schedule);
        return plan.push([Action::event(cron, true, "InvalidSchedule", note)]);
    };
    let Some(due) = schedule.last(since, cx.now, &zone) else { return plan.look_again(first) };
    if let Some(next) = schedule.next(due, &zone) {
        plan.look_again(next);
    }
    if let Some(seconds) = spec.starting_deadline_seconds {
        let deadline = due.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(due);
        if deadline < cx.now {
            let due = due.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z");
            let note = format!("Missed scheduled time to start a job: {due}");
            return plan.push([Action::event(cron, true, "MissSchedule", note)]);
        }
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let note = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.push([Action::event(cron, false, "JobAlreadyActive", note.into())]);
        }
        Some("Replace") => {
            let announce = announce(cron, "Deleted job ", "FailedDelete");
            let replaced = active.drain(..);
            plan.push(replaced.map(|job| Action::delete(job.as_ref(), Some(announce.clone()))));
        }
        _ => {}
    }
    // A Job of that time that is there already was made before our status could say so.
    let job = job(cron, spec, due);
    let namespace = cron.namespace().unwrap_or_default();
    if cx.world.get::<Job>(&namespace, &job.name_any()).is_none() {
        plan.push([Action::create(&job, Some(announce(cron, "Created job ", "FailedCreate")))]);
    }
    status.last_schedule_time = Some(Time(due));
}

fn announce(cron: &CronJob, text: &'static str, failed: &'static str) -> Announce {
    let done = if failed == "FailedDelete" { "SuccessfulDelete" } else { "SuccessfulCreate" };
    Announce {
        regarding: reference(cron),
        done: Some((done, text)),
        failed: (failed, "Error: ".into()),
    }
}

/// The Job that is due at a time; its name holds the time, so that it is made once.
fn job(cron: &CronJob, spec: &CronJobSpec, due: Timestamp) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut job = Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), due.as_second() / 60)),
            namespace: cron.namespace(),
            labels: template.labels,
            annotations: template.annotations,
            owner_references: Some(vec![owner::controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    };
    let zoned =
        zone(spec).map(|zone| due.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
    let text = zoned.unwrap_or_default().replace("+00:00", "Z");
    job.annotations_mut().insert(SCHEDULED_AT.into(), text);
    job
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{check, plan};

    fn cron(spec: &str, status: &str) -> String {
        format!(
            "
kind: CronJob
metadata: {{name: tick}}
spec: {{schedule: '*/5 * * * *', timeZone: Etc/UTC, jobTemplate: {{spec: {{template: {{}}}}}}{spec}}}
status: {{{status}}}
"
        )
    }

    fn job(name: &str, condition: &str, started: &str) -> String {
        format!(
            "
---
kind: Job
metadata: {{name: {name}, owner: CronJob/tick}}
status: {{startTime: '{started}', conditions: [{{type: {condition}, status: 'True'}}]}}
"
        )
    }

    #[test]
    fn a_due_job_is_started_once() {
        let yaml = cron("", "lastScheduleTime: '2026-01-01T11:50:00Z'");
        check(
            &CRON_JOB,
            "default/tick",
            &yaml,
            r#"
            create Job default/tick-29454480
            patch CronJob default/tick/status {"status":{"lastScheduleTime":"2026-01-01T12:00:00Z"}}
            "#,
        );
        let waiting = plan(
            &CRON_JOB,
            "default/tick",
            &cron("", "lastScheduleTime: '2026-01-01T12:00:00Z'"),
            None,
        );
        assert_eq!(
            (waiting.actions.len(), waiting.again),
            (0, "2026-01-01T12:05:00Z".parse().ok())
        );
    }

    #[test]
    fn policies_and_deadlines() {
        let running = "\n---\nkind: Job\nmetadata: {name: old, owner: CronJob/tick}\n";
        let active = "lastScheduleTime: '2026-01-01T11:50:00Z', active: [{apiVersion: batch/v1, kind: Job, name: old, namespace: default, uid: Job-old}]";
        check(
            &CRON_JOB,
            "default/tick",
            &[cron(", concurrencyPolicy: Forbid", active).as_str(), running].concat(),
            "event Normal JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid",
        );
        let replace = plan(
            &CRON_JOB,
            "default/tick",
            &[cron(", concurrencyPolicy: Replace", active).as_str(), running].concat(),
            None,
        );
        assert_eq!(replace.actions[0].to_string(), "delete Job default/old");
        assert_eq!(replace.actions[1].to_string(), "create Job default/tick-29454480");
        // What goes is not looked for afterwards.
        assert_eq!(
            replace.actions[2].to_string(),
            r#"patch CronJob default/tick/status {"status":{"lastScheduleTime":"2026-01-01T12:00:00Z","active":null}}"#
        );
        check(&CRON_JOB, "default/tick", &cron(", suspend: true", ""), "");
        check(
            &CRON_JOB,
            "default/tick",
            &cron(", startingDeadlineSeconds: -1", "lastScheduleTime: '2026-01-01T11:50:00Z'"),
            "event Warning MissSchedule: Missed scheduled time to start a job: Thu, 01 Jan 2026 12:00:00 +0000",
        );
        check(
            &CRON_JOB,
            "default/tick",
            &cron("", "").replace("*/5 * * * *", "59 23 31 2 *"),
            "event Warning InvalidSchedule: invalid schedule: 59 23 31 2 * : it never comes",
        );
    }

    #[test]
    fn a_job_that_somebody_deleted_is_missed() {
        let active = "lastScheduleTime: '2026-01-01T12:00:00Z', active: [{apiVersion: batch/v1, kind: Job, name: old, namespace: default, uid: Job-old}]";
        check(
            &CRON_JOB,
            "default/tick",
            &cron("", active),
            r#"
            event Normal MissingJob: Active job went missing: old
            patch CronJob default/tick/status {"status":{"active":null}}
            "#,
        );
    }

    #[test]
    fn history_is_kept_short() {
        let yaml = [
            cron(", suspend: true, successfulJobsHistoryLimit: 1", ""),
            job("a", "Complete", "2026-01-01T10:00:00Z"),
            job("b", "Complete", "2026-01-01T11:00:00Z"),
            job("c", "Failed", "2026-01-01T09:00:00Z"),
        ]
        .concat();
        check(&CRON_JOB, "default/tick", &yaml, "delete Job default/a");
    }
}
