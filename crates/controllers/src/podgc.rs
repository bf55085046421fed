//! Pods that nobody else clears away: on nodes that no longer exist, being deleted without
//! ever having had a node, and finished ones beyond a number.

use client::Pod;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::world::{Moment, World};
use crate::{nodes, pods};

/// How long a node has to be gone before its pods go too (it may register again), upstream's.
const QUARANTINE_SECONDS: i64 = 40;
const GONE: &str = "node-gone";

/// Orphaned and finished pods.
pub const POD_GC: Controller =
    Controller { name: "pod-garbage-collector", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    watches.map::<Pod>(|_, pod| {
        // The empty key stands for all finished pods.
        let finished = pods::is_terminal(pod).then(|| Key::new("", ""));
        [Key::of(pod)].into_iter().chain(finished).collect()
    });
    watches.map::<Node>(|world, node| {
        let name = node.name_any();
        let here =
            |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&name);
        let keys = |world: &World| {
            let all = world.list::<Pod>("");
            all.iter().filter(|pod| here(pod)).map(|pod| Key::of(pod.as_ref())).collect()
        };
        if world.get::<Node>("", &name).is_some() {
            world.forget(GONE, &name);
            return if nodes::out_of_service(node) { keys(world) } else { Vec::new() };
        }
        world.note(GONE, &name, None);
        keys(world)
    });
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    if key.name.is_empty() {
        return finished(cx).into();
    }
    let mut plan = Plan::default();
    let Some(pod) = cx.world.get::<Pod>(&key.namespace, &key.name) else { return plan };
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
    if node.is_empty() {
        if pods::is_terminating(&pod) {
            plan.push([force_delete(&pod)]);
        }
        return plan;
    }
    if let Some(node) = cx.world.get::<Node>("", node) {
        if pods::is_terminating(&pod) && nodes::out_of_service(&node) {
            plan.push(fail(cx, &pod, "PodGC: node is out of service"));
            plan.push([force_delete(&pod)]);
        }
        return plan;
    }
    let since = cx.world.noted(GONE, node).map_or(Moment::ZERO, |noted| noted.at);
    let until = since + SignedDuration::from_secs(QUARANTINE_SECONDS);
    if until > cx.moment {
        plan.look_again(cx.at(until));
        return plan;
    }
    plan.push(fail(cx, &pod, "PodGC: node no longer exists"));
    plan.push([force_delete(&pod)]);
    plan
}

/// A pod that did not end by itself has failed, through no fault of its own.
fn fail(cx: &Cx, pod: &Pod, text: &str) -> Option<Action> {
    if pods::is_terminal(pod) {
        return None;
    }
    nodes::disrupt(pod, "DeletionByPodGC", text, Some("Failed"), cx.now)
}

/// The oldest finished pods beyond the number that is kept.
fn finished(cx: &Cx) -> Vec<Action> {
    let mut finished = cx.world.list::<Pod>("");
    finished.retain(|pod| pods::is_terminal(pod) && !pods::is_terminating(pod));
    let surplus = finished.len().saturating_sub(cx.config.terminated_pods_kept);
    finished.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
    finished[..surplus].iter().map(|pod| force_delete(pod)).collect()
}

fn force_delete(pod: &Pod) -> Action {
    match Action::delete(pod, None) {
        Action::Delete { target, uid, propagation, announce, .. } => {
            Action::Delete { target, uid, propagation, grace_seconds: Some(0), announce }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::check;

    #[test]
    fn pods_of_a_node_that_is_gone_fail_and_go() {
        let yaml = "
kind: Pod
metadata: {name: p, generation: 2}
spec: {nodeName: gone, containers: []}
status: {phase: Running}
---
kind: Pod
metadata: {name: fine}
spec: {nodeName: n1, containers: []}
---
kind: Node
metadata: {name: n1}
";
        check(
            &POD_GC,
            "default/p",
            yaml,
            r#"
            patch Pod default/p/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","message":"PodGC: node no longer exists","observedGeneration":2,"reason":"DeletionByPodGC","status":"True","type":"DisruptionTarget"}],"phase":"Failed"}}
            delete Pod default/p
            "#,
        );
        check(&POD_GC, "default/fine", yaml, "");
    }

    #[test]
    fn pods_of_a_node_out_of_service_are_let_go() {
        let yaml = |ready: &str| {
            format!(
                "
kind: Pod
metadata: {{name: p, deletionTimestamp: '2026-01-01T11:59:00Z'}}
spec: {{nodeName: dark, containers: []}}
status: {{phase: Succeeded}}
---
kind: Node
metadata: {{name: dark}}
spec: {{taints: [{{key: node.kubernetes.io/out-of-service, effect: NoExecute}}]}}
status: {{conditions: [{{type: Ready, status: '{ready}'}}]}}
"
            )
        };
        check(&POD_GC, "default/p", &yaml("Unknown"), "delete Pod default/p");
        check(&POD_GC, "default/p", &yaml("True"), "");
    }
}
