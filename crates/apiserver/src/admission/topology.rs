//! PodTopologyLabels: a pod has the zone and the region of its node as labels, so that its
//! containers can be told.

use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// Adds the labels when a pod is put on a node, or made on one. Of a pod that is put on a node they
/// replace its own, as all labels of a Binding do.
pub(super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    let is_binding = attributes.subresource == "binding";
    let concerns = attributes.operation == Operation::Create
        && attributes.resource.collection() == "pods"
        && (is_binding || attributes.subresource.is_empty());
    let node = pod["spec"]["nodeName"].as_str().filter(|node| concerns && !node.is_empty());
    let Some(node) = node.and_then(|node| attributes.cluster.find("nodes", "", node)) else {
        return Ok(());
    };
    let of_node = LABELS.iter().filter_map(|label| {
        let value = node["metadata"]["labels"].get(*label)?;
        Some(((*label).to_owned(), value.clone()))
    });
    let mut labels = pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let before = labels.clone();
    for (label, value) in of_node {
        if is_binding || !labels.contains_key(&label) {
            labels.insert(label, value);
        }
    }
    if labels != before {
        meta::set(pod, "labels", Value::Object(labels));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};
    use serde_json::json;

    #[test]
    fn a_pod_on_a_node_has_its_zone() {
        let zone = LABELS[0];
        let node = json!({"metadata": {"name": "n", "labels": {zone: "a", "disk": "ssd"}}});
        let cluster = Few::default().with("nodes", node);
        let mut write = attributes(&cluster, ("", "v1", "pods"), "x");
        let said = |write: &Attributes<'_>, labels: Value, node: &str| {
            let mut pod = json!({"metadata": {"labels": labels}, "spec": {"nodeName": node}});
            admit(write, &mut pod).unwrap();
            pod["metadata"]["labels"].take()
        };
        assert_eq!(said(&write, json!({"app": "x"}), "n"), json!({"app": "x", zone: "a"}));
        assert_eq!(said(&write, json!({zone: "own"}), "n"), json!({zone: "own"}));
        assert_eq!(said(&write, Value::Null, "other"), Value::Null);
        write.subresource = "binding";
        assert_eq!(said(&write, json!({zone: "own"}), "n"), json!({zone: "a"}));
    }
}
