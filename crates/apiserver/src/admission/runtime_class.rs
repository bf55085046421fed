//! RuntimeClass: what a pod's runtime adds to it, overhead and where it may run.

use std::sync::Arc;

use api::quota::amounts;
use api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};

const CLASSES: &str = "node.k8s.io/runtimeclasses";
const OTHER: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const ALONE: &str =
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

fn class_of(attributes: &Attributes<'_>, pod: &Value) -> Outcome<Option<Arc<Value>>> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    let found = attributes.cluster.find(CLASSES, "", name);
    found.map(Some).ok_or_else(|| {
        let why = format!("pod rejected: RuntimeClass {name:?} not found");
        Status::forbidden(attributes.resource, meta::name(pod), &why)
    })
}

pub(super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if !attributes.is(Operation::Create, "pods") {
        return Ok(());
    }
    let Some(class) = class_of(attributes, pod)? else { return Ok(()) };
    let forbidden =
        |pod: &Value, why: &str| Status::forbidden(attributes.resource, meta::name(pod), why);
    let fixed = &class["overhead"]["podFixed"];
    if fixed.is_object() {
        let given = &pod["spec"]["overhead"];
        if given.is_object() && amounts(given) != amounts(fixed) {
            return Err(forbidden(pod, OTHER));
        }
        meta::member(pod, "spec").insert("overhead".to_owned(), fixed.clone());
    }
    let scheduling = &class["scheduling"];
    let mut selector = pod["spec"]["nodeSelector"].as_object().cloned().unwrap_or_default();
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(own)
            );
            return Err(forbidden(pod, &why));
        }
        selector.insert(key.clone(), value.clone());
    }
    if !selector.is_empty() {
        meta::member(pod, "spec").insert("nodeSelector".to_owned(), selector.into());
    }
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for toleration in scheduling["tolerations"].as_array().into_iter().flatten() {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        meta::member(pod, "spec").insert("tolerations".to_owned(), tolerations.into());
    }
    Ok(())
}

pub(super) fn check(attributes: &Attributes<'_>, pod: &Value) -> Outcome<()> {
    if !attributes.is(Operation::Create, "pods") {
        return Ok(());
    }
    let class = class_of(attributes, pod)?;
    let fixed = class.as_ref().map_or(&Value::Null, |class| &class["overhead"]["podFixed"]);
    let given = &pod["spec"]["overhead"];
    let why = match (fixed.is_object(), given.is_object()) {
        (true, _) if amounts(fixed) != amounts(given) => OTHER,
        (false, true) => ALONE,
        _ => return Ok(()),
    };
    Err(Status::forbidden(attributes.resource, meta::name(pod), why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, create};
    use serde_json::json;

    #[test]
    fn a_class_completes_its_pods() {
        let cluster = Few::default().with(
            CLASSES,
            json!({"metadata": {"name": "kata"}, "overhead": {"podFixed": {"cpu": "100m"}},
                "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]}}),
        );
        let admitted = |spec: Value| {
            let mut pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
            match create(admit, &cluster, ("", "v1", "pods"), &mut pod) {
                Ok(()) => pod["spec"].clone(),
                Err(status) => status.message.into(),
            }
        };
        assert_eq!(
            admitted(json!({"runtimeClassName": "kata"})),
            json!({"runtimeClassName": "kata", "overhead": {"cpu": "100m"},
                   "nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]})
        );
        for (spec, expected) in [
            (
                json!({"runtimeClassName": "no"}),
                "pods \"p\" is forbidden: pod rejected: RuntimeClass \"no\" not found",
            ),
            (
                json!({"runtimeClassName": "kata", "nodeSelector": {"vm": "no"}}),
                "pods \"p\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
            ),
        ] {
            assert_eq!(admitted(spec), expected);
        }
    }
}
