//! Rules for what a Job takes as failure and success (`validatePodFailurePolicy` and
//! `validateSuccessPolicy` in k8s.io/kubernetes `pkg/apis/batch/validation`).

use std::collections::BTreeSet;

use super::at::{At, Errors};
use super::meta;

/// Most rules of either policy, and most conditions that one rule names.
const RULES_MAX_COUNT: usize = 20;
/// Most exit codes that one rule names.
const EXIT_CODES_MAX_COUNT: usize = 255;
/// Longest text of indexes.
const INDEXES_MAX_BYTES: usize = 64 << 10;

/// What a failed pod means, where the Job says so.
pub(super) fn failure(spec: &At<'_>, out: &mut Errors) {
    let rules = spec.get("podFailurePolicy.rules");
    if rules.len() > RULES_MAX_COUNT {
        out.too_many(&rules, RULES_MAX_COUNT);
    }
    let pod = spec.get("template.spec");
    let containers = ["containers", "initContainers"].map(|list| pod.get(list));
    let names: BTreeSet<&str> = containers
        .iter()
        .flat_map(At::items)
        .map(|container| container.get("name").text())
        .collect();
    for rule in rules.items() {
        let action = rule.get("action");
        if action.text() != "FailIndex" {
            one_of_named(&action, &["Count", "FailIndex", "FailJob", "Ignore"], out);
        } else if !spec.get("backoffLimitPerIndex").is_set() {
            out.invalid(&action, "requires the backoffLimitPerIndex to be set");
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, &names, out);
        }
        if conditions.len() > RULES_MAX_COUNT {
            out.too_many(&conditions, RULES_MAX_COUNT);
        }
        for pattern in conditions.items() {
            let kind = pattern.get("type");
            meta::label_key(&kind, kind.text(), out);
            one_of_named(&pattern.get("status"), &["False", "True", "Unknown"], out);
        }
        let why = match (codes.is_set(), conditions.len() > 0) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        out.invalid(&rule, why);
    }
}

/// A text that has to be one of a few, which are named where there is none.
fn one_of_named(at: &At<'_>, supported: &[&str], out: &mut Errors) {
    match at.text() {
        "" => out.required(at, &format!("valid values: {supported:?}").replace(',', "")),
        _ => out.one_of_if_set(at, supported),
    }
}

fn exit_codes(codes: &At<'_>, names: &BTreeSet<&str>, out: &mut Errors) {
    let operator = codes.get("operator");
    one_of_named(&operator, &["In", "NotIn"], out);
    let container = codes.get("containerName");
    if container.is_set() && !names.contains(container.text()) {
        let why = "must be one of the container or initContainer names in the pod template";
        out.invalid(&container, why);
    }
    let values = codes.get("values");
    match values.len() {
        0 => out.invalid(&values, "at least one value is required"),
        count if count > EXIT_CODES_MAX_COUNT => out.too_many(&values, EXIT_CODES_MAX_COUNT),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for value in values.items() {
        if operator.text() == "In" && value.number() == 0 {
            out.invalid(&value, "must not be 0 for the In operator");
        }
        if !seen.insert(value.number()) {
            out.duplicate(&value, value.number());
        }
    }
    if !values.items().map(|value| value.number()).is_sorted() {
        out.invalid(&values, "must be ordered");
    }
}

/// When the Job has succeeded before all its indexes have.
pub(super) fn success(spec: &At<'_>, out: &mut Errors) {
    let policy = spec.get("successPolicy");
    if !policy.is_set() {
        return;
    }
    if spec.get("completionMode").text() != "Indexed" {
        return out.invalid(&policy, "requires indexed completion mode");
    }
    let rules = policy.get("rules");
    match rules.len() {
        0 => out.required(
            &rules,
            "at least one rules must be specified when the successPolicy is specified",
        ),
        count if count > RULES_MAX_COUNT => out.too_many(&rules, RULES_MAX_COUNT),
        _ => {}
    }
    let completions = spec.get("completions").number();
    for rule in rules.items() {
        let (indexes, needed) = (rule.get("succeededIndexes"), rule.get("succeededCount"));
        if !indexes.is_set() && !needed.is_set() {
            out.required(
                &rule,
                "at least one of succeededCount or succeededIndexes must be specified",
            );
        }
        if indexes.text().len() > INDEXES_MAX_BYTES {
            out.too_long(&indexes, INDEXES_MAX_BYTES);
        }
        let named = count(indexes.text(), completions).unwrap_or_else(|why| {
            out.invalid(&indexes, format!("error parsing succeededIndexes: {why}"));
            0
        });
        out.not_negative(&needed);
        if needed.number() > completions {
            let why = format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            );
            out.invalid(&needed, why);
        }
        if indexes.is_set() && needed.number() > named {
            let why = format!(
                "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
            );
            out.invalid(&needed, why);
        }
    }
}

/// How many indexes a text such as `0-2,5` names, all of them below `completions`.
fn count(text: &str, completions: i64) -> Result<i64, String> {
    let number = |text: &str| {
        let number = text.parse::<i64>();
        let number =
            number.map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        (number < completions).then_some(number).ok_or(format!("too large index: {text:?}"))
    };
    let (mut total, mut last) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let ends: Vec<&str> = part.split('-').collect();
        let (first, end) = match ends[..] {
            [one] => (number(one)?, number(one)?),
            [first, end] => {
                let (first, end) = (number(first)?, number(end)?);
                if first >= end {
                    return Err(format!("non-increasing order, previous: {first}, current: {end}"));
                }
                (first, end)
            }
            _ => {
                return Err(format!(
                    "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    fn job(spec: &str) -> String {
        format!(
            "{{metadata: {{uid: u}}, spec: {{selector: {{matchLabels: {{batch.kubernetes.io/controller-uid: u}}}}, template: {{metadata: {{labels: {{batch.kubernetes.io/controller-uid: u, batch.kubernetes.io/job-name: x}}}}, spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}, {spec}}}}}"
        )
    }

    #[test]
    fn failure_policies() {
        let rule = |rule: &str| job(&format!("podFailurePolicy: {{rules: [{{{rule}}}]}}"));
        let at = "spec.podFailurePolicy.rules[0]";
        created(
            "batch/jobs",
            &[
                (&rule("action: Ignore, onPodConditions: [{type: DisruptionTarget}]"), ""),
                (&rule("action: FailJob, onExitCodes: {containerName: c, operator: In, values: [1, 2]}"), ""),
                (
                    &rule("action: FailIndex, onExitCodes: {containerName: d, operator: In, values: [0, 2, 2, 1]}"),
                    &[
                        r#".action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set"#,
                        r#".onExitCodes.containerName: Invalid value: "d": must be one of the container or initContainer names in the pod template"#,
                        ".onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                        ".onExitCodes.values[2]: Duplicate value: 2",
                        ".onExitCodes.values: Invalid value: [0,2,2,1]: must be ordered",
                    ]
                    .map(|why| format!("{at}{why}"))
                    .join("\n"),
                ),
                (
                    &rule("onExitCodes: {values: []}"),
                    &[
                        r#".action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#,
                        r#".onExitCodes.operator: Required value: valid values: ["In" "NotIn"]"#,
                        ".onExitCodes.values: Invalid value: []: at least one value is required",
                    ]
                    .map(|why| format!("{at}{why}"))
                    .join("\n"),
                ),
            ],
        );
    }

    #[test]
    fn success_policies() {
        let rule = |rule: &str| {
            job(&format!(
                "completions: 5, completionMode: Indexed, successPolicy: {{rules: [{rule}]}}"
            ))
        };
        let at = "spec.successPolicy.rules";
        created(
            "batch/jobs",
            &[
                (&rule("{succeededIndexes: '0-2,4', succeededCount: 4}"), ""),
                (
                    &rule(""),
                    &format!("{at}: Required value: at least one rules must be specified when the successPolicy is specified"),
                ),
                (
                    &rule("{}"),
                    &format!("{at}[0]: Required value: at least one of succeededCount or succeededIndexes must be specified"),
                ),
                (
                    &rule("{succeededIndexes: '2,1'}, {succeededIndexes: '5'}, {succeededIndexes: '3-2'}, {succeededIndexes: a}"),
                    &[
                        r#"[0].succeededIndexes: Invalid value: "2,1": error parsing succeededIndexes: non-increasing order, previous: 2, current: 1"#,
                        r#"[1].succeededIndexes: Invalid value: "5": error parsing succeededIndexes: too large index: "5""#,
                        r#"[2].succeededIndexes: Invalid value: "3-2": error parsing succeededIndexes: non-increasing order, previous: 3, current: 2"#,
                        r#"[3].succeededIndexes: Invalid value: "a": error parsing succeededIndexes: cannot convert string to integer for index: "a""#,
                    ]
                    .map(|why| format!("{at}{why}"))
                    .join("\n"),
                ),
                (
                    &rule("{succeededIndexes: '1', succeededCount: 2}, {succeededCount: 6}"),
                    &[
                        "[0].succeededCount: Invalid value: 2: must be less than or equal to 1 (the number of indexes in the specified succeededIndexes field)",
                        "[1].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)",
                    ]
                    .map(|why| format!("{at}{why}"))
                    .join("\n"),
                ),
            ],
        );
    }
}
