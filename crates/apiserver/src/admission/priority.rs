//! Priority: a pod's class becomes a number, and the cluster has one default class at most.

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};
use api::status::Status;
use serde_json::{Value, json};

/// The classes that upstream makes at start; they hold even before their objects do.
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(super) fn admit_pod(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if attributes.is(Operation::Update, "pods") {
        keep_priority(attributes, pod);
        return Ok(());
    }
    if !attributes.is(Operation::Create, "pods") {
        return Ok(());
    }
    let class = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let (class, priority, policy) = resolve(attributes, &class)?;
    if let Some(given) = pod["spec"]["priority"].as_i64()
        && given != priority
    {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        );
        return Err(Status::forbidden(attributes.resource, meta::name(pod), &why));
    }
    let spec = meta::member(pod, "spec");
    if !class.is_empty() {
        spec.insert("priorityClassName".to_owned(), class.into());
    }
    spec.insert("priority".to_owned(), priority.into());
    spec.entry("preemptionPolicy").or_insert(policy);
    Ok(())
}

/// A replaced pod that leaves its computed priority out keeps it.
fn keep_priority(attributes: &Attributes<'_>, pod: &mut Value) {
    let Some(old) = attributes.old else { return };
    for field in ["priority", "preemptionPolicy"] {
        if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
            meta::member(pod, "spec").insert(field.to_owned(), old["spec"][field].clone());
        }
    }
}

/// The class that counts, its number and its preemption policy.
fn resolve(attributes: &Attributes<'_>, class: &str) -> Outcome<(String, i64, Value)> {
    let lower = || json!("PreemptLowerPriority");
    let parts = |object: &Value| {
        let policy = object["preemptionPolicy"].as_str().map_or_else(lower, Value::from);
        (meta::name(object).to_owned(), object["value"].as_i64().unwrap_or(0), policy)
    };
    if class.is_empty() {
        let classes = attributes.cluster.all("scheduling.k8s.io/priorityclasses");
        let default = classes
            .iter()
            .filter(|object| object["globalDefault"] == true)
            .min_by_key(|object| object["value"].as_i64());
        return Ok(default.map_or_else(|| (String::new(), 0, lower()), parts));
    }
    if let Some(object) = attributes.cluster.find("scheduling.k8s.io/priorityclasses", "", class) {
        return Ok(parts(&object));
    }
    if let Some((name, value)) = SYSTEM.iter().find(|(name, _)| *name == class) {
        return Ok(((*name).to_owned(), *value, lower()));
    }
    let why = format!("no PriorityClass with name {class} was found");
    Err(Status::forbidden(attributes.resource, attributes.name, &why))
}

pub(super) fn check_class(attributes: &Attributes<'_>, class: &Value) -> Outcome<()> {
    let collection = "scheduling.k8s.io/priorityclasses";
    let written = attributes.is(Operation::Create, collection)
        || attributes.is(Operation::Update, collection);
    if !written || class["globalDefault"] != true {
        return Ok(());
    }
    let name = meta::name(class);
    let other = attributes
        .cluster
        .all(collection)
        .into_iter()
        .find(|other| other["globalDefault"] == true && meta::name(other) != name);
    match other {
        Some(other) => {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                meta::name(&other)
            );
            Err(Status::forbidden(attributes.resource, name, &why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, create};

    #[test]
    fn classes_become_numbers() {
        let cluster = Few::default().with(
            "scheduling.k8s.io/priorityclasses",
            json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}),
        );
        let admitted = |class: Value| {
            let mut pod = json!({"metadata": {"name": "a", "namespace": "x"}, "spec": {"priorityClassName": class}});
            create(admit_pod, &cluster, ("", "v1", "pods"), &mut pod).map(|()| pod["spec"].clone())
        };
        assert_eq!(
            admitted(json!("high")).unwrap(),
            json!({"priorityClassName": "high", "priority": 7, "preemptionPolicy": "Never"})
        );
        assert_eq!(admitted(Value::Null).unwrap()["priority"], 0);
        assert_eq!(admitted(json!("system-node-critical")).unwrap()["priority"], 2_000_001_000);
        let refused = admitted(json!("nope")).unwrap_err();
        assert_eq!(
            refused.message,
            "pods \"a\" is forbidden: no PriorityClass with name nope was found"
        );
    }
}
