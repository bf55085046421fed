//! One round of the plan each.

use super::JOB;
use crate::action::Action;
use crate::fixture::{check, plan};

fn job(spec: &str, status: &str) -> String {
    format!(
        "
kind: Job
metadata: {{name: sum}}
spec: {{{spec}, selector: {{matchLabels: {{job: sum}}}}, template: {{metadata: {{labels: {{job: sum}}}}, spec: {{restartPolicy: Never, containers: [{{name: c}}]}}}}}}
status: {{startTime: '2026-01-01T11:59:00Z', ready: 0, terminating: 0, uncountedTerminatedPods: {{}}{status}}}
"
    )
}

fn pod(name: &str, phase: &str, tracked: bool, rest: &str) -> String {
    let finalizers = if tracked { "finalizers: [batch.kubernetes.io/job-tracking], " } else { "" };
    format!(
        "
---
kind: Pod
metadata: {{name: {name}, {finalizers}labels: {{job: sum}}, owner: Job/sum{rest}}}
status: {{phase: {phase}, containerStatuses: [{{name: c, ready: false, restartCount: 0, image: i, imageID: '', state: {{terminated: {{exitCode: 3, finishedAt: '2026-01-01T11:59:55Z'}}}}}}]}}
"
    )
}

#[test]
fn makes_as_many_pods_as_may_run_at_once() {
    check(
        &JOB,
        "default/sum",
        &job("completions: 5, parallelism: 2", ""),
        "
        create Pod default/sum-*
        create Pod default/sum-*
        ",
    );
}

#[test]
fn a_finished_pod_is_listed_then_let_go_then_counted() {
    let listed = [job("completions: 1", ""), pod("a", "Succeeded", true, "")].concat();
    check(
        &JOB,
        "default/sum",
        &listed,
        r#"
        patch Job default/sum/status {"status":{"conditions":[{"lastProbeTime":"2026-01-01T12:00:00Z","lastTransitionTime":"2026-01-01T12:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"}],"uncountedTerminatedPods":{"succeeded":["Pod-a"]}}}
        patch Pod default/a {"metadata":{"finalizers":null}}
        "#,
    );
    let criteria = ", conditions: [{type: SuccessCriteriaMet, status: 'True', reason: CompletionsReached, message: Reached}], uncountedTerminatedPods: {succeeded: [Pod-a]}";
    let job = job("completions: 1", criteria).replacen("uncountedTerminatedPods: {}, ", "", 1);
    check(
        &JOB,
        "default/sum",
        &[job.as_str(), &pod("a", "Succeeded", false, "")].concat(),
        r#"
        event Normal Completed: Job completed
        patch Job default/sum/status {"status":{"completionTime":"2026-01-01T12:00:00Z","conditions":[{"message":"Reached","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"},{"lastProbeTime":"2026-01-01T12:00:00Z","lastTransitionTime":"2026-01-01T12:00:00Z","message":"Reached","reason":"CompletionsReached","status":"True","type":"Complete"}],"succeeded":1,"uncountedTerminatedPods":{"succeeded":null}}}
        "#,
    );
}

#[test]
fn a_failure_is_followed_by_a_pause() {
    let yaml = [job("completions: 1", ", failed: 1"), pod("a", "Failed", false, "")].concat();
    let plan = plan(&JOB, "default/sum", &yaml, None);
    assert_eq!(plan.actions, []);
    assert_eq!(plan.again, "2026-01-01T12:00:05Z".parse().ok());
}

#[test]
fn too_many_failures_fail_the_job_and_end_its_pods() {
    let yaml =
        [job("completions: 2, backoffLimit: 0", ", failed: 1"), pod("b", "Running", true, "")]
            .concat();
    check(
        &JOB,
        "default/sum",
        &yaml,
        r#"
        patch Job default/sum/status {"status":{"active":1,"conditions":[{"lastProbeTime":"2026-01-01T12:00:00Z","lastTransitionTime":"2026-01-01T12:00:00Z","message":"Job has reached the specified backoff limit","reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"}]}}
        delete Pod default/b
        "#,
    );
}

#[test]
fn a_policy_decides_by_exit_code() {
    let spec = "completions: 1, podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [3]}}]}";
    let plan =
        plan(&JOB, "default/sum", &[job(spec, ""), pod("a", "Failed", true, "")].concat(), None);
    let status = plan.actions[0].to_string();
    assert!(
        status.contains(
            "Container c for pod default/a failed with exit code 3 matching FailJob rule at index 0"
        ),
        "{status}"
    );
}

#[test]
fn indexes_that_have_not_succeeded_are_run() {
    let spec = "completions: 4, parallelism: 4, completionMode: Indexed";
    let index =
        |n: u8| format!(", annotations: {{batch.kubernetes.io/job-completion-index: '{n}'}}");
    let yaml = [
        job(spec, ", succeeded: 1, completedIndexes: '0', active: 1"),
        pod("b", "Running", true, &index(1)),
        pod("c", "Succeeded", true, &index(2)),
    ]
    .concat();
    check(
        &JOB,
        "default/sum",
        &yaml,
        r#"
        patch Job default/sum/status {"status":{"completedIndexes":"0,2","succeeded":2}}
        patch Pod default/c {"metadata":{"finalizers":null}}
        create Pod default/sum-3-*
        "#,
    );
}

/// Annotations of a pod with this index, before which so many have failed.
fn index_of(index: u8, failures: u8) -> String {
    format!(
        ", annotations: {{batch.kubernetes.io/job-completion-index: '{index}', batch.kubernetes.io/job-index-failure-count: '{failures}'}}"
    )
}

const PER_INDEX: &str =
    "completions: 2, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 1";

#[test]
fn a_failed_pod_of_an_index_is_kept_until_it_has_a_successor() {
    let failed = pod("a", "Failed", true, &index_of(0, 0));
    let running = pod("b", "Running", true, &index_of(1, 0));
    let yaml = [job(PER_INDEX, ", active: 1, failedIndexes: ''"), failed.clone(), running].concat();
    let waiting = plan(&JOB, "default/sum", &yaml, None);
    assert_eq!(waiting.actions, []);
    assert_eq!(waiting.again, "2026-01-01T12:00:05Z".parse().ok());
    let later = yaml.replace("11:59:55Z", "11:59:50Z");
    let made = plan(&JOB, "default/sum", &later, None).actions;
    assert_eq!(made.len(), 1, "the failed one stays");
    let Some(Action::Create { body, .. }) = made.first() else { panic!("{made:?}") };
    let count = &body["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"];
    assert_eq!(count, "1");
    let successor = pod("c", "Running", true, &index_of(0, 1));
    check(
        &JOB,
        "default/sum",
        &[yaml, successor].concat(),
        r#"
        patch Job default/sum/status {"status":{"active":2,"uncountedTerminatedPods":{"failed":["Pod-a"]}}}
        patch Pod default/a {"metadata":{"finalizers":null}}
        "#,
    );
}

#[test]
fn an_index_fails_for_good_and_the_others_go_on() {
    let failed = pod("a", "Failed", true, &index_of(0, 1));
    let running = pod("b", "Running", true, &index_of(1, 0));
    let yaml = [job(PER_INDEX, ", active: 1"), failed.clone(), running.clone()].concat();
    let gone_on = r#"
        patch Job default/sum/status {"status":{"failedIndexes":"0","uncountedTerminatedPods":{"failed":["Pod-a"]}}}
        patch Pod default/a {"metadata":{"finalizers":null}}
        "#;
    check(&JOB, "default/sum", &yaml, gone_on);
    // A rule of the policy may give an index up at its first failure.
    let rule = "podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {operator: In, values: [3]}}]}";
    let first = pod("a", "Failed", true, &index_of(0, 0));
    let yaml = [job(&format!("{PER_INDEX}, {rule}"), ", active: 1"), first, running].concat();
    check(&JOB, "default/sum", &yaml, gone_on);
    let done = pod("b", "Succeeded", true, &index_of(1, 0));
    let said = |spec: &str, pods: &[&str]| {
        let yaml = [&[job(spec, "").as_str()], pods].concat().concat();
        plan(&JOB, "default/sum", &yaml, None).actions[0].to_string()
    };
    let end = said(PER_INDEX, &[&failed, &done]);
    assert!(
        end.contains(r#""message":"Job has failed indexes","reason":"FailedIndexes""#),
        "{end}"
    );
    let end = said(&format!("{PER_INDEX}, maxFailedIndexes: 0"), &[&failed]);
    assert!(end.contains("MaxFailedIndexesExceeded"), "{end}");
}

#[test]
fn a_success_policy_is_the_reason_also_when_all_have_succeeded() {
    let spec =
        "completions: 1, completionMode: Indexed, successPolicy: {rules: [{succeededCount: 1}]}";
    let yaml = [job(spec, ""), pod("a", "Succeeded", true, &index_of(0, 0))].concat();
    let end = plan(&JOB, "default/sum", &yaml, None).actions[1].to_string();
    let said = end.matches(r#""message":"Matched rules at index 0","reason":"SuccessPolicy""#);
    assert_eq!(said.count(), 2, "{end}");
}

#[test]
fn of_two_pods_with_one_index_one_stays_and_none_beyond_the_last() {
    let spec = "completions: 2, parallelism: 2, completionMode: Indexed";
    let yaml = [
        job(spec, ", active: 4"),
        pod("a", "Running", true, &index_of(0, 0)),
        pod("b", "Pending", true, &index_of(0, 0)),
        pod("c", "Running", true, &index_of(1, 0)),
        pod("d", "Running", true, &index_of(7, 0)),
    ]
    .concat();
    let ends = plan(&JOB, "default/sum", &yaml, None).actions;
    let mut ends: Vec<_> = ends.iter().map(ToString::to_string).collect();
    ends.sort();
    assert_eq!(ends, ["delete Pod default/b", "delete Pod default/d"]);
}

#[test]
fn a_suspended_job_has_no_pods() {
    let yaml = [job("completions: 1, suspend: true", ""), pod("a", "Running", true, "")].concat();
    check(
        &JOB,
        "default/sum",
        &yaml,
        r#"
        event Normal Suspended: Job suspended
        patch Job default/sum/status {"status":{"active":1,"conditions":[{"lastProbeTime":"2026-01-01T12:00:00Z","lastTransitionTime":"2026-01-01T12:00:00Z","message":"Job suspended","reason":"JobSuspended","status":"True","type":"Suspended"}],"startTime":null}}
        delete Pod default/a
        "#,
    );
}

#[test]
fn time_runs_out_and_the_finished_are_forgotten() {
    let late = plan(&JOB, "default/sum", &job("activeDeadlineSeconds: 30", ""), None);
    assert!(late.actions[0].to_string().contains("DeadlineExceeded"));
    let early = plan(&JOB, "default/sum", &job("activeDeadlineSeconds: 90", ", active: 0"), None);
    assert_eq!(early.again, "2026-01-01T12:00:30Z".parse().ok());
    let done = |at: &str| {
        let condition = format!(
            ", conditions: [{{type: Complete, status: 'True', lastTransitionTime: '{at}'}}]"
        );
        plan(&JOB, "default/sum", &job("ttlSecondsAfterFinished: 60", &condition), None)
    };
    assert_eq!(done("2026-01-01T11:58:00Z").actions[0].to_string(), "delete Job default/sum");
    assert_eq!(done("2026-01-01T11:59:30Z").again, "2026-01-01T12:00:30Z".parse().ok());
}

#[test]
fn pods_of_a_vanished_job_are_let_go() {
    let orphan = pod("a", "Running", true, "");
    check(&JOB, "default/sum", &orphan, r#"patch Pod default/a {"metadata":{"finalizers":null}}"#);
}

#[test]
fn a_pod_is_kept_while_it_is_the_jobs_and_no_longer() {
    let pod = |rest: &str| format!("---\nkind: Pod\nmetadata: {{name: a, {rest}}}\n");
    let running = job("completions: 1, parallelism: 0", "");
    let released = pod("owner: Job/sum, finalizers: [batch.kubernetes.io/job-tracking, mine]");
    check(
        &JOB,
        "default/sum",
        &[running.as_str(), &released].concat(),
        r#"patch Pod default/a {"metadata":{"finalizers":["mine"],"ownerReferences":null}}"#,
    );
    let stray = [running.as_str(), &pod("labels: {job: sum}")].concat();
    assert_eq!(
        plan(&JOB, "default/sum", &stray, None).actions[0].to_string(),
        r#"patch Pod default/a {"metadata":{"finalizers":["batch.kubernetes.io/job-tracking"],"ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"Job","name":"sum","uid":"Job-sum"}]}}"#,
    );
    // It lost owner and labels at once, and nothing says whose it was.
    let lost = pod("finalizers: [batch.kubernetes.io/job-tracking]");
    check(&JOB, "default/", &lost, r#"patch Pod default/a {"metadata":{"finalizers":null}}"#);
}
