//! AlwaysPullImages: who may not pull an image does not get one that is on the node already.

use api::status::{FieldError, Status};
use serde_json::Value;

use super::super::{Attributes, Operation};
use super::{containers, writes_pod};
use crate::registry::{Outcome, meta};

/// Whether the write brings no image that was not there.
fn is_old(attributes: &Attributes<'_>, pod: &Value) -> bool {
    let Some(old) = attributes.old.filter(|_| attributes.operation == Operation::Update) else {
        return false;
    };
    let had = |image: &Value| containers(old).any(|(_, _, one)| one["image"] == *image);
    containers(pod).all(|(_, _, one)| had(&one["image"]))
}

/// Has every image pulled.
pub(in super::super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if !writes_pod(attributes) || is_old(attributes, pod) {
        return Ok(());
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        // Indexing would leave a null where there is no such list.
        let all = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in all.into_iter().flatten() {
            container["imagePullPolicy"] = "Always".into();
        }
    }
    let volumes = pod["spec"].get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        if volume["image"].is_object() {
            volume["image"]["pullPolicy"] = "Always".into();
        }
    }
    Ok(())
}

/// Refuses what would not be pulled after all.
pub(in super::super) fn check(attributes: &Attributes<'_>, pod: &Value) -> Outcome<()> {
    if !writes_pod(attributes) || is_old(attributes, pod) {
        return Ok(());
    }
    let wrong = containers(pod).find(|(_, _, one)| one["imagePullPolicy"] != "Always");
    let Some((list, index, container)) = wrong else { return Ok(()) };
    let path = format!("spec.{list}[{index}].imagePullPolicy");
    let given = container["imagePullPolicy"].clone();
    let why = FieldError::not_supported(path, given, &["Always"]).to_string();
    Err(Status::forbidden(attributes.resource, meta::name(pod), &why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes, create};
    use serde_json::json;

    #[test]
    fn every_image_is_pulled() {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {
            "initContainers": [{"name": "i"}], "containers": [{"name": "c", "imagePullPolicy": "Never"}]}});
        let cluster = Few::default();
        let write = attributes(&cluster, ("", "v1", "pods"), "x");
        let why = check(&write, &pod).unwrap_err().message;
        assert!(why.contains("spec.initContainers[0].imagePullPolicy: Unsupported value"), "{why}");
        create(admit, &cluster, ("", "v1", "pods"), &mut pod).unwrap();
        assert_eq!(
            pod["spec"],
            json!({"initContainers": [{"name": "i", "imagePullPolicy": "Always"}],
                "containers": [{"name": "c", "imagePullPolicy": "Always"}]})
        );
        check(&write, &pod).unwrap();
    }
}
