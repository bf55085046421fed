//! The status that an object is made with. Go writes a struct that is no pointer even where it is
//! empty, and typed clients lean on it: `status` is there, with the counts that have no
//! `omitempty`, before any controller has looked.
//! Source: the types of k8s.io/api and `pkg/registry/*/strategy.go` (PrepareForCreate).

use serde_json::{Value, json};

use crate::custom::definition;

/// Kinds by their collection, and their first status in JSON.
const STATUS: &[(&str, &str)] = &[
    ("admissionregistration.k8s.io/validatingadmissionpolicies", "{}"),
    ("apiregistration.k8s.io/apiservices", "{}"),
    ("apps/daemonsets", DAEMON_SET),
    ("apps/deployments", "{}"),
    ("apps/replicasets", r#"{"replicas":0}"#),
    ("apps/statefulsets", r#"{"replicas":0,"availableReplicas":0}"#),
    ("autoscaling/horizontalpodautoscalers", r#"{"desiredReplicas":0,"currentMetrics":null}"#),
    ("batch/cronjobs", "{}"),
    ("batch/jobs", "{}"),
    ("certificates.k8s.io/certificatesigningrequests", "{}"),
    ("flowcontrol.apiserver.k8s.io/flowschemas", "{}"),
    ("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations", "{}"),
    ("namespaces", r#"{"phase":"Active"}"#),
    ("networking.k8s.io/ingresses", r#"{"loadBalancer":{}}"#),
    ("networking.k8s.io/servicecidrs", "{}"),
    ("nodes", NODE),
    ("persistentvolumeclaims", r#"{"phase":"Pending"}"#),
    ("persistentvolumes", r#"{"phase":"Pending"}"#),
    ("policy/poddisruptionbudgets", BUDGET),
    ("replicationcontrollers", r#"{"replicas":0}"#),
    ("resource.k8s.io/resourceclaims", "{}"),
    ("resourcequotas", "{}"),
    ("services", r#"{"loadBalancer":{}}"#),
    ("storage.k8s.io/volumeattachments", r#"{"attached":false}"#),
];

const DAEMON_SET: &str = r#"{"currentNumberScheduled":0,"numberMisscheduled":0,
    "desiredNumberScheduled":0,"numberReady":0}"#;
const BUDGET: &str = r#"{"disruptionsAllowed":0,"currentHealthy":0,"desiredHealthy":0,
    "expectedPods":0}"#;
const NODE: &str = r#"{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{
    "machineID":"","systemUUID":"","bootID":"","kernelVersion":"","osImage":"",
    "containerRuntimeVersion":"","kubeletVersion":"","kubeProxyVersion":"",
    "operatingSystem":"","architecture":""}}"#;

/// The status that a new object of the collection gets; none: the kind has no say in it.
pub fn status(collection: &str, object: &Value) -> Option<Value> {
    match collection {
        definition::COLLECTION => return Some(definition::first_status(object)),
        "pods" => {
            let mut status = json!({"phase": "Pending", "qosClass": super::qos_class(object)});
            if object["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
                status["conditions"] = json!([gated(object)]);
            }
            return Some(status);
        }
        // Whoever registers a node says how it is.
        "nodes" if object["status"].is_object() => return Some(object["status"].clone()),
        _ => {}
    }
    let row = STATUS.iter().find(|(of, _)| *of == collection)?;
    serde_json::from_str(row.1).ok()
}

/// What a pod says that nobody may schedule yet.
fn gated(pod: &Value) -> Value {
    let message = "Scheduling is blocked due to non-empty scheduling gates";
    json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": message,
        "lastProbeTime": null, "lastTransitionTime": pod["metadata"]["creationTimestamp"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_kind_with_a_status_and_is_read() {
        for (collection, _) in STATUS {
            let is_one = |r: &&crate::resource::Resource| {
                r.collection() == *collection && r.subresource("status").is_some()
            };
            assert!(crate::resource::RESOURCES.iter().any(|r| is_one(&r)), "{collection}");
            assert!(status(collection, &json!({})).is_some_and(|s| s.is_object()), "{collection}");
        }
    }

    #[test]
    fn a_pod_behind_gates_says_so() {
        let first = |gates: Value| {
            let status = status("pods", &json!({"spec": {"schedulingGates": gates}})).unwrap();
            status["conditions"][0]["reason"].clone()
        };
        assert_eq!(first(json!([{"name": "a"}])), "SchedulingGated");
        assert_eq!((first(json!([])), first(json!(null))), (json!(null), json!(null)));
    }

    #[test]
    fn a_node_is_registered_with_its_status() {
        let node = json!({"status": {"capacity": {"cpu": "4"}}});
        assert_eq!(status("nodes", &node), Some(node["status"].clone()));
        assert_eq!(status("configmaps", &node), None);
    }
}
