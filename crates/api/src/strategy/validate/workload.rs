//! Rules for what keeps pods of a template running
//! (k8s.io/kubernetes `pkg/apis/apps/validation`).

use super::at::{At, Errors};
use super::{meta, pod, selectors};
use crate::selector::LabelSelector;
use serde_json::{Value, json};

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const MISMATCH: &str = "`selector` does not match template `labels`";

/// A Deployment.
pub(super) fn deployment(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    out.not_negative(&spec.get("replicas"));
    selector(&spec, "empty selector is invalid for deployment", out);
    template(&spec, "ReplicaSet", out);
    strategy(&spec.get("strategy"), out);
    for name in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        out.not_negative(&spec.get(name));
    }
    let deadline = spec.get("progressDeadlineSeconds");
    if deadline.is_set() && deadline.number() <= spec.get("minReadySeconds").number() {
        out.invalid(&deadline, "must be greater than minReadySeconds");
    }
}

/// A ReplicaSet; upstream's message speaks of Deployments here too.
pub(super) fn replica_set(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    out.not_negative(&spec.get("replicas"));
    out.not_negative(&spec.get("minReadySeconds"));
    selector(&spec, "empty selector is invalid for deployment", out);
    template(&spec, "ReplicaSet", out);
}

/// A ReplicationController.
pub(super) fn replication_controller(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    out.not_negative(&spec.get("minReadySeconds"));
    if spec.get("selector").len() == 0 {
        out.required(&spec.get("selector"), "");
    }
    out.not_negative(&spec.get("replicas"));
    if !spec.get("template").is_set() {
        return out.required(&spec.get("template"), "");
    }
    let labels = |value: &Value| json!({"matchLabels": value});
    if spec.get("selector").len() > 0 {
        matches_template(&labels(spec.get("selector").value), &spec, out);
    }
    pod::template(&spec.get("template"), out);
    always(&spec, "ReplicationController", out);
}

/// A DaemonSet.
pub(super) fn daemon_set(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let own = spec.get("selector");
    selectors::label_selector(&own, out);
    matches_template(own.value, &spec, out);
    if own.is_set() && is_empty(own.value) {
        out.invalid(&own, "empty selector is invalid for daemonset");
    }
    pod::template(&spec.get("template"), out);
    always(&spec, "DaemonSet", out);
    out.not_negative(&spec.get("minReadySeconds"));
    let update = spec.get("updateStrategy");
    match update.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if update.get("rollingUpdate").is_set() => {
            daemon_rolling_update(&update.get("rollingUpdate"), out);
        }
        "RollingUpdate" => out.required(&update.get("rollingUpdate"), ""),
        _ => out.not_supported(&update, &["RollingUpdate", "OnDelete"]),
    }
    out.not_negative(&spec.get("revisionHistoryLimit"));
}

/// A StatefulSet. Its template is looked at only roughly, since volumes come from its claims.
pub(super) fn stateful_set(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let policy = spec.get("podManagementPolicy");
    match policy.text() {
        "" => out.required(&policy, ""),
        "OrderedReady" | "Parallel" => {}
        _ => out.invalid(&policy, "must be 'OrderedReady' or 'Parallel'"),
    }
    let update = spec.get("updateStrategy");
    let rolling = update.get("rollingUpdate");
    match update.get("type").text() {
        "" => out.required(&update, ""),
        "OnDelete" if rolling.is_set() => {
            out.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            out.not_negative(&rolling.get("partition"));
            let most = rolling.get("maxUnavailable");
            part(&most, out);
            if most.is_set() && is_zero(&most) {
                out.invalid(&most, "cannot be 0");
            }
        }
        _ => out.invalid(&update, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        out.one_of_if_set(&retention.get(name), &["Delete", "Retain"]);
    }
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit", "ordinals.start"] {
        out.not_negative(&spec.get(name));
    }
    selector(&spec, "empty selector is invalid for statefulset", out);
    let template = spec.get("template");
    matches_template(spec.get("selector").value, &spec, out);
    meta::labels(&template.get("metadata.labels").named(&template, "labels"), out);
    meta::annotations(&template.get("metadata.annotations").named(&template, "annotations"), out);
    if template.get("spec.containers").len() == 0 {
        out.required(&template.get("spec.containers"), "");
    }
    if template.get("spec.restartPolicy").text() != "Always" {
        out.not_supported(&template.get("spec.restartPolicy"), &["Always"]);
    }
    if template.get("spec.activeDeadlineSeconds").is_set() {
        out.forbidden(
            &template.get("spec.activeDeadlineSeconds"),
            "activeDeadlineSeconds in StatefulSet is not Supported",
        );
    }
}

/// A changed workload: its selector stays.
pub(super) fn fixed_selector(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("spec.selector"), old.get("spec.selector").value);
}

/// A changed StatefulSet: most of its `spec` stays.
pub(super) fn stateful_set_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |at: &At<'_>| {
        let mut spec = at.get("spec").map().cloned().unwrap_or_default();
        FREE.iter().for_each(|name| drop(spec.shift_remove(*name)));
        // Claims of templates that were stored get a status; it says nothing of what is wished for.
        for claim in
            spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten()
        {
            claim.as_object_mut().map(|claim| claim.shift_remove("status"));
        }
        spec
    };
    if fixed(new) != fixed(old) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        out.forbidden(&new.get("spec"), why);
    }
}

fn is_empty(selector: &Value) -> bool {
    let at = At::root(selector);
    at.get("matchLabels").len() + at.get("matchExpressions").len() == 0
}

fn selector(spec: &At<'_>, empty: &str, out: &mut Errors) {
    let at = spec.get("selector");
    if !at.is_set() {
        return out.required(&at, "");
    }
    selectors::label_selector(&at, out);
    if is_empty(at.value) {
        out.invalid(&at, empty);
    }
}

/// The template of a kind whose selector has to match it.
fn template(spec: &At<'_>, kind: &str, out: &mut Errors) {
    if LabelSelector::from_object(spec.get("selector").value).is_err() {
        return out.invalid(&spec.get("selector"), "invalid label selector");
    }
    matches_template(spec.get("selector").value, spec, out);
    pod::template(&spec.get("template"), out);
    always(spec, kind, out);
}

/// An empty selector asks nothing; an absent one matches nothing.
pub(super) fn matches_template(selector: &Value, spec: &At<'_>, out: &mut Errors) {
    let at = spec.get("template.metadata.labels");
    let fits = match selector {
        Value::Null => false,
        selector if is_empty(selector) => true,
        selector => LabelSelector::from_object(selector)
            .is_ok_and(|parsed| parsed.matches_object(spec.get("template").value)),
    };
    if !fits {
        let labels = at.map().cloned().unwrap_or_default();
        out.invalid_as(&at, Value::Object(labels), MISMATCH);
    }
}

/// Pods that are replaced when they end have no other restart policy and no deadline.
fn always(spec: &At<'_>, kind: &str, out: &mut Errors) {
    let policy = spec.get("template.spec.restartPolicy");
    if policy.text() != "Always" {
        out.not_supported(&policy, &["Always"]);
    }
    let deadline = spec.get("template.spec.activeDeadlineSeconds");
    if deadline.is_set() {
        out.forbidden(&deadline, format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

fn strategy(at: &At<'_>, out: &mut Errors) {
    let rolling = at.get("rollingUpdate");
    match at.get("type").text() {
        "Recreate" if rolling.is_set() => {
            out.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_set() => rolling_update(&rolling, out),
        "RollingUpdate" => out.required(&rolling, "this should be defaulted and never be nil"),
        _ => out.not_supported(at, &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(at: &At<'_>, out: &mut Errors) {
    let (unavailable, surge) = (at.get("maxUnavailable"), at.get("maxSurge"));
    count_or_percent(&unavailable, out);
    count_or_percent(&surge, out);
    if is_zero(&unavailable) && is_zero(&surge) {
        out.invalid_as(
            &unavailable,
            if unavailable.is_set() { unavailable.value.clone() } else { json!(0) },
            "may not be 0 when `maxSurge` is 0",
        );
    }
    if percent(unavailable.text()).is_some_and(|percent| percent > 100) {
        out.invalid(&unavailable, "must not be greater than 100%");
    }
}

/// A DaemonSet's pods are either made before old ones go or after, never both.
fn daemon_rolling_update(at: &At<'_>, out: &mut Errors) {
    let (unavailable, surge) = (at.get("maxUnavailable"), at.get("maxSurge"));
    part(&unavailable, out);
    part(&surge, out);
    match (is_zero(&unavailable), is_zero(&surge)) {
        (false, false) => out.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
        (true, true) => out.required(&unavailable, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn is_zero(at: &At<'_>) -> bool {
    match at.value {
        Value::String(text) => percent(text) == Some(0),
        _ => at.number() == 0,
    }
}

fn percent(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('%')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// A number that is not negative, or a percentage.
pub(super) fn count_or_percent(at: &At<'_>, out: &mut Errors) {
    match at.value {
        Value::String(text) if percent(text).is_none() => out.invalid(at, PERCENT),
        Value::String(_) => {}
        _ => out.not_negative(at),
    }
}

/// The same of what is not more than the whole.
fn part(at: &At<'_>, out: &mut Errors) {
    count_or_percent(at, out);
    if percent(at.text()).is_some_and(|percent| percent > 100) {
        out.invalid(at, "must not be greater than 100%");
    }
}

/// A PodDisruptionBudget.
pub(super) fn disruption_budget(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let (least, most) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if least.is_set() && most.is_set() {
        out.invalid_as(
            &spec,
            spec.value.clone(),
            "minAvailable and maxUnavailable cannot be both set",
        );
    }
    part(&least, out);
    part(&most, out);
    selectors::label_selector(&spec.get("selector"), out);
    out.one_of_if_set(&spec.get("unhealthyPodEvictionPolicy"), &["AlwaysAllow", "IfHealthyBudget"]);
}

/// A ControllerRevision.
pub(super) fn revision(object: &At<'_>, out: &mut Errors) {
    if !object.get("data").is_set() {
        out.required(&object.get("data"), "data is mandatory");
    }
    out.not_negative(&object.get("revision"));
}

/// A changed ControllerRevision.
pub(super) fn revision_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("data"), old.get("data").value);
}

/// A PodTemplate.
pub(super) fn pod_template_object(object: &At<'_>, out: &mut Errors) {
    pod::template(&object.get("template"), out);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    const POD: &str =
        "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";

    fn with_pod(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        rows.iter().map(|(yaml, told)| (yaml.replace("POD", POD), (*told).to_owned())).collect()
    }

    fn check(collection: &str, rows: &[(&str, &str)]) {
        let rows = with_pod(rows);
        let rows: Vec<(&str, &str)> = rows.iter().map(|(y, t)| (y.as_str(), t.as_str())).collect();
        created(collection, &rows);
    }

    #[test]
    fn deployments() {
        check(
            "apps/deployments",
            &[
                ("spec: {selector: {matchLabels: {a: b}}, POD}", ""),
                (
                    "spec: {replicas: -1, POD}",
                    r#"spec.replicas: Invalid value: -1: must be greater than or equal to 0
                       spec.selector: Required value
                       spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
                ),
                (
                    "spec: {selector: {}, POD}",
                    "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
                ),
                (
                    "spec: {selector: {matchLabels: {a: c}}, POD}",
                    r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
                ),
                (
                    "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b, '': x}}, spec: {restartPolicy: Never, activeDeadlineSeconds: 1, containers: [{name: c}]}}}",
                    r#"spec.template.labels: Invalid value: "": name part must be non-empty
                       spec.template.labels: Invalid value: "": name part must consist of…
                       spec.template.spec.containers[0].image: Required value
                       spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
                       spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"#,
                ),
                (
                    "spec: {minReadySeconds: 700, strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 0%}}, selector: {matchLabels: {a: b}}, POD}",
                    r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0
                       spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"#,
                ),
                (
                    "spec: {strategy: {type: Recreate, rollingUpdate: {}}, selector: {matchLabels: {a: b}}, POD}",
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ),
                (
                    "spec: {strategy: {rollingUpdate: {maxUnavailable: x, maxSurge: 1}}, selector: {matchLabels: {a: b}}, POD}",
                    r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "x": a valid percent string must…"#,
                ),
            ],
        );
    }

    #[test]
    fn other_workloads() {
        check(
            "apps/daemonsets",
            &[
                ("spec: {selector: {matchLabels: {a: b}}, POD}", ""),
                (
                    "spec: {POD}",
                    r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
                ),
                (
                    "spec: {selector: {matchLabels: {a: b}}, updateStrategy: {type: x}, POD}",
                    r#"spec.updateStrategy: Unsupported value: {"type":"x"}: supported values: "RollingUpdate", "OnDelete""#,
                ),
            ],
        );
        let rolling = |update: &str| {
            format!(
                "spec: {{selector: {{matchLabels: {{a: b}}}}, updateStrategy: {{rollingUpdate: {update}}}, POD}}"
            )
        };
        check(
            "apps/daemonsets",
            &[
                (&rolling("{maxUnavailable: 0, maxSurge: 1}"), ""),
                (
                    &rolling("{maxUnavailable: 0}"),
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ),
                (
                    &rolling("{maxSurge: 50%}"),
                    r#"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "50%": may not be set when maxUnavailable is non-zero"#,
                ),
            ],
        );
        check(
            "replicationcontrollers",
            &[("spec: {POD}", ""), ("spec: {selector: {a: c}}", "spec.template: Required value")],
        );
        check(
            "apps/statefulsets",
            &[
                ("spec: {selector: {matchLabels: {a: b}}, POD}", ""),
                (
                    "spec: {updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0}}, selector: {matchLabels: {a: b}}, POD}",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
                ),
                (
                    "spec: {updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 101%}}, selector: {matchLabels: {a: b}}, POD}",
                    r#"spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%"#,
                ),
                (
                    "spec: {podManagementPolicy: x, updateStrategy: {type: OnDelete, rollingUpdate: {}}, POD}",
                    r#"spec.podManagementPolicy: Invalid value: "x": must be 'OrderedReady' or 'Parallel'
                       spec.updateStrategy.rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'
                       spec.selector: Required value
                       spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
                ),
            ],
        );
    }

    #[test]
    fn selectors_stay() {
        let old = format!("spec: {{selector: {{matchLabels: {{a: b}}}}, {POD}}}");
        let new = "spec: {selector: {matchLabels: {a: c}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}";
        for collection in ["apps/deployments", "apps/replicasets", "apps/daemonsets"] {
            updated(
                collection,
                &[
                    (
                        &old,
                        new,
                        r#"spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable"#,
                    ),
                    (&old, &old, ""),
                ],
            );
        }
        updated(
            "apps/statefulsets",
            &[(
                &old,
                new,
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template',…",
            )],
        );
    }
}
