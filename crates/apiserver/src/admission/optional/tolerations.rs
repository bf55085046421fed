//! PodTolerationRestriction: the taints that pods of a namespace tolerate, and may tolerate.

use api::status::Status;
use serde_json::{Value, json};

use super::super::{Attributes, Operation};
use super::{annotation, writes_pod};
use crate::registry::{Outcome, meta};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// What holds in namespaces that say nothing.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct TolerationRestriction {
    default: Vec<Value>,
    allowed: Vec<Value>,
}

impl TolerationRestriction {
    /// Reads the plugin's configuration.
    pub fn read(config: &Value) -> Self {
        let list = |field: &str| config[field].as_array().cloned().unwrap_or_default();
        TolerationRestriction { default: list("default"), allowed: list("whitelist") }
    }
}

/// The tolerations of an annotation; the error is that it is none.
fn noted(attributes: &Attributes<'_>, name: &str) -> Outcome<Option<Vec<Value>>> {
    let Some(text) = annotation(attributes, name) else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|error| Status::internal_error(&error.to_string()))
}

/// Whether the one toleration tolerates all that the other does.
fn covers(one: &Value, other: &Value) -> bool {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let same = |field: &str| text(one, field) == text(other, field);
    let exists = text(one, "operator") == "Exists";
    if one == other {
        return true;
    }
    if !same("key") && (!text(one, "key").is_empty() || !exists) {
        return false;
    }
    if !same("effect") && !text(one, "effect").is_empty() {
        return false;
    }
    if let (true, Some(most)) =
        (text(one, "effect") == "NoExecute", one["tolerationSeconds"].as_i64())
        && other["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    let equal = |value: &Value| matches!(text(value, "operator").as_str(), "Equal" | "");
    exists || (equal(one) && equal(other) && same("value"))
}

/// Both lists without what is covered by another.
fn merged(first: Vec<Value>, second: Vec<Value>) -> Vec<Value> {
    let all: Vec<Value> = first.into_iter().chain(second).collect();
    let mut kept: Vec<Value> = Vec::new();
    for (place, one) in all.iter().enumerate() {
        let later = all[place + 1..].iter().any(|other| other != one && covers(other, one));
        if !later && !kept.iter().any(|other| covers(other, one)) {
            kept.push(one.clone());
        }
    }
    kept
}

/// Adds what the namespace's pods tolerate.
pub(in super::super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if !writes_pod(attributes) {
        return Ok(());
    }
    let mut all = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    if attributes.operation == Operation::Create {
        let default = noted(attributes, DEFAULTS)?;
        let default =
            default.unwrap_or_else(|| attributes.cluster.plugins().tolerations.default.clone());
        all = merged(default, all);
    }
    if api::strategy::qos_class(pod) != "BestEffort" {
        let pressed = json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"});
        all = merged(all, vec![pressed]);
    }
    if !all.is_empty() {
        meta::member(pod, "spec").insert("tolerations".to_owned(), all.into());
    }
    check(attributes, pod)
}

/// Holds a pod against what its namespace may tolerate.
pub(in super::super) fn check(attributes: &Attributes<'_>, pod: &Value) -> Outcome<()> {
    let own = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    if !writes_pod(attributes) || own.is_empty() {
        return Ok(());
    }
    let allowed = noted(attributes, ALLOWED)?;
    let allowed =
        allowed.unwrap_or_else(|| attributes.cluster.plugins().tolerations.allowed.clone());
    let fits = |one: &Value| allowed.iter().any(|other| covers(other, one));
    if allowed.is_empty() || own.iter().all(fits) {
        return Ok(());
    }
    let why = "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist";
    Err(Status::internal_error(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, create};

    #[test]
    fn the_namespace_says_what_is_tolerated() {
        let cluster = Few::default().with(
            "namespaces",
            json!({"metadata": {"name": "x", "annotations": {
                DEFAULTS: r#"[{"key": "a", "operator": "Exists"}]"#,
                ALLOWED: r#"[{"key": "a", "operator": "Exists"}, {"key": "b", "value": "1"}]"#}}}),
        );
        let say = |own: Value| {
            let mut pod = json!({"metadata": {"name": "p", "namespace": "x"},
                "spec": {"tolerations": own, "containers": []}});
            match create(admit, &cluster, ("", "v1", "pods"), &mut pod) {
                Ok(()) => pod["spec"]["tolerations"].to_string(),
                Err(status) => status.message,
            }
        };
        let default = r#"{"key":"a","operator":"Exists"}"#;
        assert_eq!(say(Value::Null), format!("[{default}]"));
        // What the default covers is not said twice.
        assert_eq!(say(json!([{"key": "a", "value": "x"}])), format!("[{default}]"));
        assert_eq!(
            say(json!([{"key": "b", "value": "1"}])),
            format!(r#"[{default},{{"key":"b","value":"1"}}]"#)
        );
        assert!(
            say(json!([{"key": "b", "value": "2"}]))
                .ends_with("conflict with its namespace whitelist")
        );
    }
}
