//! Rules for the classes that pods are of: PriorityClass and RuntimeClass
//! (k8s.io/kubernetes `pkg/apis/scheduling/validation`, `pkg/apis/node/validation`).

use super::at::{At, Errors};
use super::{amounts, formats, meta, selectors};
use serde_json::json;

/// The most that a class of a user's own is worth.
const USER_MAX_PRIORITY: i64 = 1_000_000_000;
const SYSTEM: &str = "system-";
/// Classes of the system, with what they are worth.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// A PriorityClass.
pub(super) fn priority(object: &At<'_>, out: &mut Errors) {
    let (name, value) = (object.get("metadata.name"), object.get("value"));
    if name.text().starts_with(SYSTEM) {
        if let Some(why) = not_of_the_system(name.text(), value.number(), object) {
            let why = format!(
                "priority class names with '{SYSTEM}' prefix are reserved for system use only. error: {why}"
            );
            out.forbidden(&name, why);
        }
    } else if value.number() > USER_MAX_PRIORITY {
        let why =
            format!("maximum allowed value of a user defined priority is {USER_MAX_PRIORITY}");
        out.forbidden(&value, why);
    }
    out.one_of_if_set(&object.get("preemptionPolicy"), &["Never", "PreemptLowerPriority"]);
}

fn not_of_the_system(name: &str, value: i64, object: &At<'_>) -> Option<String> {
    let Some((_, worth)) = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if *worth != value {
        return Some(format!("value of {name} PriorityClass must be {worth}"));
    }
    let default = object.get("globalDefault").is_true();
    default.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

/// A changed PriorityClass.
pub(super) fn priority_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    if new.get("value").number() != old.get("value").number() {
        out.forbidden(&new.get("value"), "may not be changed in an update.");
    }
    out.immutable(&new.get("preemptionPolicy"), old.get("preemptionPolicy").value);
}

/// A RuntimeClass.
pub(super) fn runtime(object: &At<'_>, out: &mut Errors) {
    let handler = object.get("handler");
    out.all(&handler, formats::dns_label(handler.text()));
    if let Some(overhead) = object.get("overhead").set() {
        let limits = json!({"limits": overhead.get("podFixed").value});
        amounts::requirements(&overhead.with(&limits), &|_| false, out);
    }
    if let Some(scheduling) = object.get("scheduling").set() {
        meta::labels(&scheduling.get("nodeSelector"), out);
        let tolerations = scheduling.get("tolerations");
        selectors::tolerations(&tolerations, out);
        let mut seen = Vec::new();
        for item in tolerations.items() {
            let key = ["key", "operator", "value", "effect"].map(|field| item.get(field).text());
            if seen.contains(&key) {
                out.duplicate(&item, item.value.clone());
            }
            seen.push(key);
        }
    }
}

/// A changed RuntimeClass.
pub(super) fn runtime_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("handler"), old.get("handler").value);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    #[test]
    fn priorities() {
        created(
            "scheduling.k8s.io/priorityclasses",
            &[
                ("value: 1000000000", ""),
                ("{metadata: {name: system-node-critical}, value: 2000001000}", ""),
                (
                    "{value: 1000000001, preemptionPolicy: Perhaps}",
                    r#"value: Forbidden: maximum allowed value of a user defined priority is 1000000000
                       preemptionPolicy: Unsupported value: "Perhaps": supported values: "Never", "PreemptLowerPriority""#,
                ),
                (
                    "{metadata: {name: system-x}, value: 1}",
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
                ),
            ],
        );
        updated(
            "scheduling.k8s.io/priorityclasses",
            &[(
                "value: 1",
                "{value: 2, preemptionPolicy: Never}",
                r#"value: Forbidden: may not be changed in an update.
                   preemptionPolicy: Invalid value: "Never": field is immutable"#,
            )],
        );
    }

    #[test]
    fn runtimes() {
        created(
            "node.k8s.io/runtimeclasses",
            &[
                ("{handler: runc, overhead: {podFixed: {cpu: 10m}}}", ""),
                (
                    "{handler: A.b, overhead: {podFixed: {cpu: -1}}, scheduling: {nodeSelector: {a b: c}, tolerations: [{key: a, operator: Exists}, {key: a, operator: Exists}]}}",
                    r#"handler: Invalid value: "A.b": a lowercase RFC 1123 label must…
                       overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0
                       scheduling.nodeSelector: Invalid value: "a b": name part must consist of…
                       scheduling.tolerations[1]: Duplicate value: {"key":"a","operator":"Exists"}"#,
                ),
            ],
        );
        updated(
            "node.k8s.io/runtimeclasses",
            &[("handler: a", "handler: b", r#"handler: Invalid value: "b": field is immutable"#)],
        );
    }
}
