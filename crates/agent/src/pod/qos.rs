//! The quality-of-service class of a pod, and what follows from it.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::quantity;

/// How the kernel should treat a pod under pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Every container has limits equal to its requests for CPU and memory.
    Guaranteed,
    /// Something is requested or limited, but not everything.
    Burstable,
    /// Nothing is requested and nothing limited.
    BestEffort,
}

impl Qos {
    /// The name that `status.qosClass` carries.
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// The class of `pod`, by upstream's rule over all containers and init containers.
    pub fn of(pod: &Pod) -> Qos {
        let Some(spec) = pod.spec.as_ref() else { return Qos::BestEffort };
        if let Some(resources) = &spec.resources {
            return match (is_empty(resources), guaranteed(resources)) {
                (true, _) => Qos::BestEffort,
                (false, true) => Qos::Guaranteed,
                (false, false) => Qos::Burstable,
            };
        }
        let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let empty = |c: &Container| c.resources.as_ref().is_none_or(is_empty);
        if containers().all(empty) {
            return Qos::BestEffort;
        }
        if containers().all(|c| c.resources.as_ref().is_some_and(guaranteed)) {
            Qos::Guaranteed
        } else {
            Qos::Burstable
        }
    }
}

/// The lowest priority of pods that the node itself leans on (system-cluster-critical).
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Whether the node leans on the pod.
pub fn is_critical(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|p| p >= CRITICAL_PRIORITY)
}

/// Neither CPU nor memory is asked for or limited by more than nothing.
fn is_empty(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        [&resources.requests, &resources.limits].iter().all(|list| {
            list.as_ref().and_then(|l| l.get(*name)).is_none_or(|q| quantity::millis(q) == 0)
        })
    })
}

fn guaranteed(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = resources.limits.as_ref().and_then(|l| l.get(*name)).map(quantity::millis);
        let request = resources.requests.as_ref().and_then(|l| l.get(*name)).map(quantity::millis);
        limit.is_some_and(|l| l > 0 && request.is_none_or(|r| r == l))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let of = |resources: serde_json::Value| {
            let pod = json!({"spec": {"containers": resources.as_array().unwrap().iter()
                .map(|r| json!({"name": "c", "resources": r})).collect::<Vec<_>>()}});
            Qos::of(&serde_json::from_value(pod).unwrap()).name()
        };
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        assert_eq!(of(json!([{}])), "BestEffort");
        assert_eq!(of(json!([{"requests": {"cpu": "0"}}])), "BestEffort");
        assert_eq!(of(json!([full])), "Guaranteed");
        assert_eq!(of(json!([full, {}])), "Burstable");
        assert_eq!(of(json!([{"requests": {"cpu": "1m"}}])), "Burstable");
        assert_eq!(
            of(json!([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.5"}}])),
            "Burstable"
        );
    }
}
