//! Whether nodes are alive, and what follows when they are not: conditions, taints, the
//! readiness of their pods, eviction; and the pod addresses a node is given.

mod addresses;
mod eviction;
mod lifecycle;
mod roles;
mod zones;

use std::sync::Arc;

use client::Pod;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};

use crate::context::Cx;

pub use addresses::NODE_IPAM;
pub use eviction::{TAINT_EVICTION, disrupt};
#[cfg(test)]
pub use lifecycle::HEARTBEAT;
pub use lifecycle::NODE_LIFECYCLE;
pub use roles::NODE_ROLES;
pub use zones::EvictionRates;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Set by a person who knows that the node is off and will not come back with its pods.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn is_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node)
}

fn pods_on(cx: &Cx, node: &str) -> Vec<Arc<Pod>> {
    let mut all = cx.world.list::<Pod>("");
    all.retain(|pod| is_on(pod, node));
    all
}

/// Whether somebody has said that the node is off for good and its pods may be forgotten.
pub fn out_of_service(node: &Node) -> bool {
    !is_ready(node) && taints(node).iter().any(|taint| taint.key == OUT_OF_SERVICE)
}
