//! Rules for Jobs and CronJobs (k8s.io/kubernetes `pkg/apis/batch/validation`).

use super::at::{At, Errors};
use super::{cron, formats, job_policies, network, pod, selectors, workload};
use serde_json::Value;

/// A Job of this CronJob has eleven more characters in its name.
const CRON_NAME_LIMIT_CHARS: usize = 52;
/// Longest name of another controller that takes care of a Job.
const MANAGED_BY_MAX_BYTES: usize = 63;
/// Most pods of an indexed Job at once.
const INDEXED_MAX_COUNT: i64 = 100_000;
/// Most indexes that may fail before the Job does.
const FAILED_INDEXES_MAX_COUNT: i64 = 100_000;
/// Beyond so many completions a Job that counts failures by index has narrower limits.
const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;
/// And this is the narrower limit, of pods at once and of failed indexes.
const HIGH_COMPLETIONS_MAX_COUNT: i64 = 10_000;

/// A Job.
pub(super) fn job(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    generated_selector(object, out);
    job_spec(&spec, out);
    let selector = spec.get("selector");
    match selector.is_set() {
        true => selectors::label_selector(&selector, out),
        false => out.required(&selector, ""),
    }
    workload::matches_template(selector.value, &spec, out);
    let last = spec.get("completions").number() - 1;
    if spec.get("completionMode").text() == "Indexed" && last >= 0 {
        let name = object.get("metadata.name");
        let host = format!("{}-{last}", name.text());
        if !formats::dns_label(&host).is_empty() {
            out.invalid(
                &name,
                format!("will not able to create pod with invalid DNS label: {host}"),
            );
        }
    }
}

/// The server makes selector and labels, unless the writer says otherwise.
fn generated_selector(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    if spec.get("manualSelector").is_true() || !spec.get("selector").is_set() {
        return;
    }
    let labels = spec.get("template.metadata.labels");
    for (label, field) in [
        ("batch.kubernetes.io/controller-uid", "metadata.uid"),
        ("batch.kubernetes.io/job-name", "metadata.name"),
    ] {
        let expected = object.get(field).text();
        let found = labels.value.get(label).and_then(Value::as_str);
        let why = format!("must be '{expected}'");
        match found {
            None => out.required(&labels.key(label), &why),
            Some(found) if found != expected => {
                out.invalid_as(&labels.key(label), labels.value.clone(), why);
            }
            Some(_) => {}
        }
    }
}

fn job_spec(spec: &At<'_>, out: &mut Errors) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        out.not_negative(&spec.get(name));
    }
    let (per_index, failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if failed.is_set() && !per_index.is_set() {
        out.required(&per_index, "when maxFailedIndexes is specified");
    }
    let mode = spec.get("completionMode");
    if mode.is_set() && !matches!(mode.text(), "NonIndexed" | "Indexed") {
        out.not_supported(&mode, &["NonIndexed", "Indexed"]);
    }
    match mode.text() {
        "Indexed" => indexed(spec, out),
        "" | "NonIndexed" => {
            for at in [&per_index, &failed] {
                if at.is_set() {
                    out.invalid(at, "requires indexed completion mode");
                }
            }
        }
        _ => {}
    }
    job_policies::failure(spec, out);
    job_policies::success(spec, out);
    let replacement = spec.get("podReplacementPolicy");
    match spec.get("podFailurePolicy").is_set() {
        true => out.one_of_if_set(&replacement, &["Failed"]),
        false => out.one_of_if_set(&replacement, &["Failed", "TerminatingOrFailed"]),
    }
    let manager = spec.get("managedBy");
    if manager.is_set() {
        network::domain_path(&manager, out);
        if manager.text().len() > MANAGED_BY_MAX_BYTES {
            out.too_long(&manager, MANAGED_BY_MAX_BYTES);
        }
    }
    pod::template(&spec.get("template"), out);
    let policy = spec.get("template.spec.restartPolicy");
    match policy.text() {
        "" | "Always" => out.required(&policy, r#"valid values: "OnFailure", "Never""#),
        "OnFailure" => {
            if spec.get("podFailurePolicy").is_set() {
                let why = r#"only "Never" is supported when podFailurePolicy is specified"#;
                out.invalid(&policy, why);
            }
        }
        "Never" => {}
        _ => out.not_supported(&policy, &["OnFailure", "Never"]),
    }
}

/// A Job whose pods are numbered.
fn indexed(spec: &At<'_>, out: &mut Errors) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let failed = spec.get("maxFailedIndexes");
    if !completions.is_set() {
        out.required(&completions, "when completion mode is Indexed");
    }
    if parallelism.number() > INDEXED_MAX_COUNT {
        let why = format!(
            "must be less than or equal to {INDEXED_MAX_COUNT} when completion mode is Indexed"
        );
        out.invalid(&parallelism, why);
    }
    if completions.is_set() && failed.number() > completions.number() {
        out.invalid(&failed, "must be less than or equal to completions");
    }
    if failed.number() > FAILED_INDEXES_MAX_COUNT {
        out.invalid(&failed, format!("must be less than or equal to {FAILED_INDEXES_MAX_COUNT}"));
    }
    let per_index = spec.get("backoffLimitPerIndex").is_set();
    if !per_index || completions.number() <= COMPLETIONS_SOFT_LIMIT {
        return;
    }
    if !failed.is_set() {
        let why = format!("must be specified when completions is above {COMPLETIONS_SOFT_LIMIT}");
        out.required(&failed, &why);
    }
    for at in [&parallelism, &failed] {
        if at.number() > HIGH_COMPLETIONS_MAX_COUNT {
            let why = format!(
                "must be less than or equal to {HIGH_COMPLETIONS_MAX_COUNT} when completions are above {COMPLETIONS_SOFT_LIMIT} and used with backoff limit per index"
            );
            out.invalid(at, why);
        }
    }
}

/// A changed Job.
pub(super) fn job_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let (now, before) = (new.get("spec"), old.get("spec"));
    completions(&now, &before, out);
    out.immutable(&now.get("selector"), before.get("selector").value);
    template_update(new, old, out);
    for name in
        ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        out.immutable(&now.get(name), before.get(name).value);
    }
}

/// An indexed Job may grow and shrink as long as all its indexes run at once.
fn completions(now: &At<'_>, before: &At<'_>, out: &mut Errors) {
    let indexed = now.get("completionMode").text() == "Indexed";
    let at = now.get("completions");
    if !indexed || !at.is_set() {
        return out.immutable(&at, before.get("completions").value);
    }
    let same = |name: &str| now.get(name).value == before.get(name).value;
    if !same("completions") && at.value != now.get("parallelism").value {
        out.invalid(&at, "can only be modified in tandem with parallelism");
    }
}

/// A suspended Job without running pods may still be steered to other nodes and be given more or
/// less.
fn template_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let (now, before) = (new.get("spec.template"), old.get("spec.template"));
    let mut template = now.value.clone();
    let waiting = old.get("spec.suspend").is_true() && old.get("status.active").number() == 0;
    if waiting {
        for (part, fields) in [
            ("metadata", &["labels", "annotations"][..]),
            ("spec", &["nodeSelector", "tolerations", "affinity", "schedulingGates"]),
        ] {
            let Some(part_now) = template.get_mut(part) else { continue };
            fields.iter().for_each(|field| restore(part_now, &before.value[part], field));
        }
        for list in ["containers", "initContainers"] {
            let all = template.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
            let known = before.value["spec"][list].as_array();
            for (container, was) in all.into_iter().flatten().zip(known.into_iter().flatten()) {
                if container["resources"]["claims"] == was["resources"]["claims"] {
                    restore(container, was, "resources");
                }
            }
        }
    }
    if template != *before.value {
        out.invalid(&now, "field is immutable");
    }
}

/// Makes a field what it was.
fn restore(now: &mut Value, was: &Value, field: &str) {
    let Some(now) = now.as_object_mut() else { return };
    match was.get(field) {
        Some(value) => drop(now.insert(field.to_owned(), value.clone())),
        None => drop(now.shift_remove(field)),
    }
}

/// A CronJob.
pub(super) fn cron_job(object: &At<'_>, out: &mut Errors) {
    cron_job_spec(&object.get("spec"), out);
    let name = object.get("metadata.name");
    if name.text().len() > CRON_NAME_LIMIT_CHARS {
        let why = format!("must be no more than {CRON_NAME_LIMIT_CHARS} characters");
        out.invalid(&name, why);
    }
}

fn cron_job_spec(spec: &At<'_>, out: &mut Errors) {
    let schedule = spec.get("schedule");
    if out.needed(&schedule) {
        if let Err(why) = cron::check(schedule.text()) {
            out.invalid(&schedule, why);
        }
        if schedule.text().contains("TZ") {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            out.invalid(&schedule, why);
        }
    }
    out.not_negative(&spec.get("startingDeadlineSeconds"));
    time_zone(&spec.get("timeZone"), out);
    out.one_of(&spec.get("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    let template = spec.get("jobTemplate.spec");
    job_spec(&template, out);
    let selector = template.get("selector");
    if selector.is_set() {
        out.invalid(&selector, "`selector` will be auto-generated");
    }
    let manual = template.get("manualSelector");
    if manual.is_true() {
        out.not_supported(&manual, &["nil", "false"]);
    }
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        out.not_negative(&spec.get(name));
    }
}

fn time_zone(at: &At<'_>, out: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let name = at.text();
    if name.is_empty() {
        out.invalid(at, "timeZone must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("Local") {
        out.invalid(
            at,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    } else if jiff::tz::TimeZone::get(name).is_err() {
        out.invalid(at, format!("unknown time zone {name}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    const TEMPLATE: &str = "template: {metadata: {labels: {batch.kubernetes.io/controller-uid: u, batch.kubernetes.io/job-name: x}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}";
    const SELECTOR: &str = "selector: {matchLabels: {batch.kubernetes.io/controller-uid: u}}";

    fn job(spec: &str) -> String {
        format!("{{metadata: {{uid: u}}, spec: {{{SELECTOR}, {TEMPLATE}, {spec}}}}}")
    }

    #[test]
    fn jobs_that_count_failures_by_index() {
        let job = |spec: &str| job(&format!("{spec}, completionMode: Indexed"));
        created(
            "batch/jobs",
            &[
                (&job("completions: 3, backoffLimitPerIndex: 1, maxFailedIndexes: 2"), ""),
                (
                    &job("completions: 3, maxFailedIndexes: 4"),
                    "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified\nspec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
                ),
                (
                    &job("completions: 3, backoffLimitPerIndex: 1").replace(
                        "completionMode: Indexed",
                        "successPolicy: {rules: [{succeededCount: 1}]}",
                    ),
                    "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode\nspec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode",
                ),
                (
                    &job("completions: 100001, parallelism: 10001, backoffLimitPerIndex: 1"),
                    "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000\nspec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index",
                ),
                (
                    &job("completions: 1, managedBy: x"),
                    "spec.managedBy: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ),
            ],
        );
    }

    #[test]
    fn jobs() {
        created(
            "batch/jobs",
            &[
                (&job("parallelism: 2"), ""),
                (
                    &job("parallelism: -1, completionMode: Indexed"),
                    "spec.parallelism: Invalid value: -1: must be greater than or equal to 0\nspec.completions: Required value: when completion mode is Indexed",
                ),
                (
                    &job("backoffLimit: 1").replace("Never", "Always"),
                    r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#,
                ),
                (
                    &job("backoffLimit: 1").replace("job-name: x", "job-name: z"),
                    "spec.template.metadata.labels[batch.kubernetes.io/job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"z\"}: must be 'x'",
                ),
            ],
        );
        let suspended = job("completions: 2, suspend: true");
        let more = "image: i, resources: {requests: {cpu: '1'}}";
        updated(
            "batch/jobs",
            &[
                (&job("completions: 2"), &job("completions: 2, parallelism: 3, suspend: true"), ""),
                (
                    &job("completions: 2"),
                    &job("completions: 3"),
                    "spec.completions: Invalid value: 3: field is immutable",
                ),
                (
                    &job("completions: 2"),
                    &job("completions: 2").replace("image: i", "image: j"),
                    "spec.template: Invalid value: {\"metadata\":…",
                ),
                (
                    &job("completions: 2, suspend: true"),
                    &job("completions: 2, suspend: true")
                        .replace("restartPolicy", "nodeSelector: {a: b}, restartPolicy"),
                    "",
                ),
                (&suspended, &suspended.replace("image: i", more), ""),
                (
                    &suspended.replacen("spec: ", "status: {active: 1}, spec: ", 1),
                    &suspended.replace("image: i", more),
                    "spec.template: Invalid value: {\"metadata\":…",
                ),
            ],
        );
    }

    #[test]
    fn cron_jobs() {
        let cron = |schedule: &str, more: &str| {
            format!(
                "spec: {{schedule: {schedule}, jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}}}{more}}}"
            )
        };
        created(
            "batch/cronjobs",
            &[
                (&cron("'*/5 * * * *'", ""), ""),
                (&cron("''", ""), "spec.schedule: Required value"),
                (
                    &cron("'* *'", ", concurrencyPolicy: Maybe"),
                    "spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]\nspec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ),
                (
                    &format!(
                        "{{metadata: {{name: {}}}, {}}}",
                        "x".repeat(53),
                        cron("'@daily'", "")
                    ),
                    "metadata.name: Invalid value: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\": must be no more than 52 characters",
                ),
            ],
        );
    }
}
