//! Which names a definition gets, and what its conditions say of that.
//! Source: `pkg/controller/status` of apiextensions-apiserver.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::definition::{self, Approval, text};
use super::{holds, list};

/// The status that a definition should have beside the others: accepted names and conditions.
/// `now` dates what changes.
pub fn status<'d>(
    definition: &Value,
    others: impl Iterator<Item = &'d Value> + Clone,
    now: &str,
) -> Value {
    let names = &definition["spec"]["names"];
    let mut status = definition["status"].clone();
    let taken = |field: &'static str| -> BTreeSet<String> {
        let rivals = others.clone().filter(|other| {
            other["spec"]["group"] == definition["spec"]["group"]
                && other["metadata"]["name"] != definition["metadata"]["name"]
        });
        let names = rivals.map(|other| &other["status"]["acceptedNames"]);
        names.flat_map(|names| words(names, field)).collect()
    };
    let (plurals, kinds) = (taken("plural"), taken("kind"));
    let mut accepted = status["acceptedNames"].clone();
    let mut conflict = None;
    for (field, taken, reason) in [
        ("plural", &plurals, "PluralConflict"),
        ("singular", &plurals, "SingularConflict"),
        ("shortNames", &plurals, "ShortNamesConflict"),
        ("kind", &kinds, "KindConflict"),
        ("listKind", &kinds, "ListKindConflict"),
    ] {
        let clash = match &names[field] {
            Value::String(name) if taken.contains(name) => Some(name.clone()),
            Value::Array(many) => {
                many.iter().map(text).find(|name| taken.contains(*name)).map(str::to_owned)
            }
            _ => None,
        };
        match clash {
            Some(name) => {
                conflict.get_or_insert((reason, format!("{name:?} is already in use")));
            }
            None => match names.get(field) {
                Some(value) => accepted[field] = value.clone(),
                None => drop(accepted.as_object_mut().map(|names| names.shift_remove(field))),
            },
        }
    }
    if let Some(categories) = names.get("categories") {
        accepted["categories"] = categories.clone();
    }
    status["acceptedNames"] = accepted;
    judge_schemas(definition, &mut status, now);
    judge_approval(definition, &mut status, now);
    match conflict {
        None => {
            set_condition(
                &mut status,
                ("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
                now,
            );
            let established = (
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            );
            set_condition(&mut status, established, now);
        }
        Some((reason, message)) => {
            set_condition(&mut status, ("NamesAccepted", "False", reason, &message), now);
            if !holds(definition, "Established") {
                let established =
                    ("Established", "False", "NotAccepted", "not all names are accepted");
                set_condition(&mut status, established, now);
            }
        }
    }
    status
}

/// Definitions that were stored before all schemas had to be structural keep a condition.
fn judge_schemas(definition: &Value, status: &mut Value, now: &str) {
    let kind = "NonStructuralSchema";
    let violations = definition::structural_violations(definition);
    if violations.is_empty() {
        forget_condition(status, kind);
    } else {
        let message = crate::status::aggregate(&violations);
        set_condition(status, (kind, "True", "Violations", &message), now);
    }
}

/// Whether a group of Kubernetes' own may have this kind.
fn judge_approval(definition: &Value, status: &mut Value, now: &str) {
    let kind = "KubernetesAPIApprovalPolicyConformant";
    let Some((approval, message)) = definition::approval(definition) else {
        return forget_condition(status, kind);
    };
    let (holds, reason) = match approval {
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        Approval::Invalid => ("False", "InvalidAnnotation"),
    };
    set_condition(status, (kind, holds, reason, &message), now);
}

fn forget_condition(status: &mut Value, kind: &str) {
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] != kind);
    }
}

/// Names that may stand for one resource, or for one kind.
fn words(names: &Value, field: &str) -> Vec<String> {
    let mut words = Vec::new();
    let fields: &[&str] =
        if field == "kind" { &["kind", "listKind"] } else { &["plural", "singular"] };
    words.extend(fields.iter().map(|field| text(&names[*field]).to_owned()));
    if field != "kind" {
        words.extend(list(&names["shortNames"]).iter().map(|name| text(name).to_owned()));
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Sets a condition: type, status, reason, message.
pub fn set_condition(
    status: &mut Value,
    (kind, holds, reason, message): (&str, &str, &str, &str),
    now: &str,
) {
    let mut conditions = list(&status["conditions"]).to_vec();
    let at = conditions.iter().position(|condition| condition["type"] == kind);
    let since = at
        .filter(|at| conditions[*at]["status"] == holds)
        .map_or(json!(now), |at| conditions[at]["lastTransitionTime"].clone());
    let condition = json!({
        "lastTransitionTime": since, "message": message, "reason": reason, "status": holds,
        "type": kind,
    });
    match at {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = conditions.into();
}

#[cfg(test)]
mod tests {
    use super::super::definition::tests::definition;
    use super::*;

    #[test]
    fn the_second_of_two_with_one_name_waits() {
        let mut first = definition("boats", "Boat");
        first["status"] = status(&first, [].iter(), "t0");
        assert!(holds(&first, "Established") && holds(&first, "NamesAccepted"));
        let mut second = definition("ships", "Boat");
        second["spec"]["names"]["singular"] = json!("ship");
        let judged = status(&second, [&first].into_iter(), "t1");
        assert_eq!(
            judged["conditions"][0],
            json!({"type": "NamesAccepted", "status": "False", "reason": "KindConflict",
                "message": "\"Boat\" is already in use", "lastTransitionTime": "t1"})
        );
        assert_eq!(judged["conditions"][1]["reason"], "NotAccepted");
    }
}
