//! What the shared caches leave out of objects.
//!
//! A typed object is far larger than its JSON: each volume takes 3 KiB, each container 2 KiB and
//! each variable of its environment 360 bytes, used or not. With thousands of pods that is most of
//! a server's memory, for parts that only the agent of one node reads. Keeping bytes instead and
//! decoding them when asked was turned down: the scheduler looks at all pods for each decision.

use std::any::Any;

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use crate::Object;

/// Takes out of an object what no controller and no scheduler looks at.
pub(crate) fn slim<K: Object>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(pod) = (object as &mut dyn Any).downcast_mut() {
        slim_pod(pod);
    }
}

/// Of a pod stays what places it, what it offers, what it is charged for and how it is.
fn slim_pod(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        let all = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        all.for_each(slim_container);
        spec.ephemeral_containers = None;
        spec.volumes = spec.volumes.take().map(claims).filter(|claims| !claims.is_empty());
    }
    // A clone's lists and texts are as long as what they hold, a decoder's up to four times that.
    *pod = pod.clone();
}

fn slim_container(container: &mut Container) {
    *container = Container {
        name: std::mem::take(&mut container.name),
        image: container.image.take(),
        ports: container.ports.take(),
        resources: container.resources.take(),
        restart_policy: container.restart_policy.take(),
        ..Container::default()
    };
}

/// The volumes that stand for claims.
fn claims(mut volumes: Vec<Volume>) -> Vec<Volume> {
    volumes.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
    volumes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_pod_keeps_what_controllers_look_at() {
        let container = json!({"name": "a", "image": "i", "ports": [{"containerPort": 1}],
            "resources": {"requests": {"cpu": "1"}}});
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "a", "image": "i",
            "imageID": "", "ready": true, "restartCount": 0}]});
        let kept = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"containers": [container], "nodeName": "n",
                "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]},
            "status": status});
        let mut whole = kept.clone();
        whole["metadata"]["managedFields"] = json!([{"manager": "m"}]);
        whole["spec"]["containers"][0]["env"] = json!([{"name": "E", "value": "v"}]);
        whole["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"port": 1}});
        whole["spec"]["ephemeralContainers"] = json!([{"name": "e"}]);
        whole["spec"]["volumes"].as_array_mut().unwrap().push(json!({"name": "e", "emptyDir": {}}));
        let mut pod: Pod = serde_json::from_value(whole).unwrap();
        slim(&mut pod);
        assert_eq!(serde_json::to_value(&pod).unwrap(), kept);
        let mut bare: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}})).unwrap();
        slim(&mut bare);
        assert_eq!(serde_json::to_value(&bare).unwrap()["spec"], Value::Null);
    }
}
