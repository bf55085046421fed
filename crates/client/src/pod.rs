//! Pods as the shared caches hold them.
//!
//! A typed object is far larger than its JSON: each volume takes 3 KiB, each container 2 KiB, the rest
//! of a specification 1.5 KiB and each variable of an environment 360 bytes, used or not. With thousands
//! of pods that is most of a server's memory. So parts that only the agent of one node reads are left
//! out, and pods of one template share what is left of it. Keeping bytes instead and decoding them
//! when asked was turned down: the scheduler looks at all pods for each decision.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    self, Container, ContainerStatus, PodSpec, PodStatus, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

/// A pod with what places it, what it offers, what it is charged for and how it is: all that controllers
/// and the scheduler look at. The whole of a pod is `k8s_openapi`'s.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "v1::Pod", into = "v1::Pod")]
pub struct Pod {
    /// Without the field owners.
    pub metadata: ObjectMeta,
    /// Shared by pods that are alike in it.
    pub spec: Option<Arc<PodSpec>>,
    /// How it is.
    pub status: Option<PodStatus>,
}

impl Resource for Pod {
    const API_VERSION: &'static str = v1::Pod::API_VERSION;
    const GROUP: &'static str = v1::Pod::GROUP;
    const KIND: &'static str = v1::Pod::KIND;
    const VERSION: &'static str = v1::Pod::VERSION;
    const URL_PATH_SEGMENT: &'static str = v1::Pod::URL_PATH_SEGMENT;
    type Scope = NamespaceResourceScope;
}

impl Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl From<v1::Pod> for Pod {
    fn from(pod: v1::Pod) -> Self {
        let v1::Pod { mut metadata, spec, mut status } = pod;
        metadata.managed_fields = None;
        let spec = spec.map(slim);
        let statuses = status.iter_mut().flat_map(|status| {
            let all = [&mut status.container_statuses, &mut status.init_container_statuses];
            all.into_iter().flatten().flatten()
        });
        statuses.for_each(|status| slim_status(status, spec.as_ref()));
        if let Some(status) = &mut status {
            (status.resources, status.allocated_resources) = (None, None);
        }
        // A clone's lists and texts are as long as what they hold, a decoder's up to four times that.
        Pod {
            metadata: metadata.clone(),
            spec: spec.as_ref().cloned().map(Arc::new),
            status: status.clone(),
        }
    }
}

impl From<Pod> for v1::Pod {
    fn from(pod: Pod) -> Self {
        let Pod { metadata, spec, status } = pod;
        v1::Pod { metadata, spec: spec.map(Arc::unwrap_or_clone), status }
    }
}

fn slim(mut spec: PodSpec) -> PodSpec {
    let all = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    all.for_each(slim_container);
    spec.ephemeral_containers = None;
    spec.volumes = spec.volumes.map(claims).filter(|claims| !claims.is_empty());
    spec
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

/// Of a container's state stays what it does, how it ended and how often; and its requests where they
/// are not what the specification wishes.
fn slim_status(status: &mut ContainerStatus, spec: Option<&PodSpec>) {
    let mut all = spec
        .into_iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let wished = all.find(|container| container.name == status.name);
    let wished = wished.and_then(|container| container.resources.as_ref()?.requests.as_ref());
    let has = status.resources.take().and_then(|has| has.requests);
    let allocated = status.allocated_resources.take();
    let same = |told: &Option<_>| told.is_none() || told.as_ref() == wished;
    let kept = if same(&has) && same(&allocated) { (None, None) } else { (has, allocated) };
    let (requests, allocated_resources) = kept;
    *status = ContainerStatus {
        resources: requests.map(|requests| ResourceRequirements {
            requests: Some(requests),
            ..Default::default()
        }),
        allocated_resources,
        name: std::mem::take(&mut status.name),
        ready: status.ready,
        started: status.started,
        restart_count: status.restart_count,
        state: status.state.take(),
        ..ContainerStatus::default()
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

    fn decoded(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_keeps_what_controllers_look_at() {
        let container = json!({"name": "a", "image": "i", "ports": [{"containerPort": 1}],
            "resources": {"requests": {"cpu": "1"}}});
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "a", "image": "",
            "imageID": "", "ready": true, "restartCount": 2, "state": {"running": {}}}]});
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
        let seen = &mut whole["status"]["containerStatuses"][0];
        seen["imageID"] = "sha256:1".into();
        seen["volumeMounts"] = json!([{"name": "d", "mountPath": "/d"}]);
        seen["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
        seen["allocatedResources"] = json!({"cpu": "1"});
        whole["status"]["allocatedResources"] = json!({"cpu": "1"});
        assert_eq!(serde_json::to_value(decoded(whole)).unwrap(), kept);
        let mut smaller = kept.clone();
        let seen = &mut smaller["status"]["containerStatuses"][0];
        seen["allocatedResources"] = json!({"cpu": "1"});
        seen["resources"] = json!({"requests": {"cpu": "500m"}});
        assert_eq!(serde_json::to_value(decoded(smaller.clone())).unwrap(), smaller);
        let bare = decoded(json!({"metadata": {"name": "p"}}));
        assert_eq!(serde_json::to_value(&bare).unwrap()["spec"], Value::Null);
    }
}
