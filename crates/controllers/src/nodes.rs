//! Whether nodes are alive, and what follows when they are not: conditions, taints, the
//! readiness of their pods, eviction; and the pod addresses a node is given.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use api::placement::tolerates;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Node, NodeCondition, NodeSpec, Pod, PodCondition, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::pods;

/// Namespace of the leases that nodes renew.
const LEASES: &str = "kube-node-lease";
/// What a heartbeat is noted under in the world.
const HEARTBEAT: &str = "heartbeat";

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Conditions that become NoSchedule taints when they have this status.
const PRESSURE_TAINTS: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that nobody can vouch for when a node is silent.
const REPORTED_CONDITIONS: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Conditions and taints of nodes, readiness of their pods.
pub const NODE_LIFECYCLE: Controller = Controller {
    name: "node-controller",
    watches: watch_lifecycle,
    reconcile: Reconcile::Plan(plan_lifecycle),
};

/// Evicts pods from nodes with NoExecute taints.
pub const TAINT_EVICTION: Controller = Controller {
    name: "taint-eviction-controller",
    watches: watch_eviction,
    reconcile: Reconcile::Plan(plan_eviction),
};

/// Gives each node its part of the pod addresses.
pub const NODE_IPAM: Controller = Controller {
    name: "cidrAllocator",
    // One key for all, so that no two nodes are given the same part at the same time.
    watches: |watches| watches.map::<Node>(|_, _| vec![Key::new("", "")]),
    reconcile: Reconcile::Plan(plan_addresses),
};

fn watch_lifecycle(watches: &mut Watches) {
    watches.own::<Node>();
    watches.map::<Lease>(|world, lease| {
        if lease.namespace().as_deref() != Some(LEASES) {
            return Vec::new();
        }
        let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.as_ref()).map(|time| time.0);
        // The node's clock may be years off: what counts is when we have seen it move.
        let known = world.note(HEARTBEAT, &lease.name_any(), renewed, Timestamp::now());
        // A node that is known to be alive needs a look only when it falls silent.
        let silent = world.get::<Node>("", &lease.name_any()).is_none_or(|node| !is_ready(&node));
        if silent || !known { vec![Key::new("", lease.name_any())] } else { Vec::new() }
    });
    watches.read::<Pod>();
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

/// When the node was last heard of.
fn last_heard(cx: &Cx, node: &Node) -> Timestamp {
    let status = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.as_ref());
    let lease = cx.world.noted(HEARTBEAT, &node.name_any());
    let created = node.metadata.creation_timestamp.as_ref();
    let heard = [lease, status.map(|time| time.0), created.map(|time| time.0)];
    // A time in the future is a clock that was wrong, not a promise.
    let past = heard.into_iter().flatten().filter(|at| *at <= cx.now);
    past.max().unwrap_or(cx.now).max(cx.world.started())
}

fn plan_lifecycle(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = cx.world.get::<Node>("", &key.name) else { return plan };
    let grace = SignedDuration::from_secs(cx.config.node_grace_seconds.into());
    let deadline = last_heard(cx, &node).saturating_add(grace).unwrap_or(Timestamp::MAX);
    let mut now_node = node.as_ref().clone();
    if deadline <= cx.now {
        silence(&mut now_node, cx.now);
    } else {
        plan.look_again(deadline);
    }
    if condition(&node, "Ready").is_some_and(|c| c.status == "True") && !is_ready(&now_node) {
        let note = format!("Node {} status is now: NodeNotReady", key.name);
        plan.push([Action::event(node.as_ref(), false, "NodeNotReady", note)]);
    }
    plan.push(Action::change(node.as_ref(), &now_node, "status"));
    let mut tainted = now_node.clone();
    let taints = taints(cx, &now_node);
    if taints.is_some() || tainted.spec.is_some() {
        tainted.spec.get_or_insert_default().taints = taints;
    }
    plan.push(Action::change(&now_node, &tainted, ""));
    // A node that speaks for itself speaks for its pods too.
    if condition(&now_node, "Ready").is_some_and(|c| c.status == "Unknown") {
        for pod in pods_on(cx, &key.name) {
            plan.push(mark_not_ready(&pod, cx.now));
        }
    }
    plan
}

/// Makes what the node reports unknown.
fn silence(node: &mut Node, now: Timestamp) {
    let created = node.metadata.creation_timestamp.clone();
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in REPORTED_CONDITIONS {
        match conditions.iter_mut().find(|c| c.type_ == *type_) {
            None => conditions.push(NodeCondition {
                type_: (*type_).into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: created.clone(),
                last_transition_time: Some(Time(now)),
            }),
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
        }
    }
}

/// The node's own taints, with those that follow from its state.
fn taints(cx: &Cx, node: &Node) -> Option<Vec<Taint>> {
    let spec = node.spec.clone().unwrap_or_default();
    let is = |type_: &str, status: &str| condition(node, type_).is_some_and(|c| c.status == status);
    let ready = condition(node, "Ready").map(|c| c.status.as_str());
    // Where no node at all is well, the trouble is more likely ours: nobody is evicted.
    let some_ready =
        cx.world.list::<Node>("").iter().any(|n| n.name_any() != node.name_any() && is_ready(n));
    let evict = |taint: bool| taint && some_ready;
    let mut wanted = vec![
        (NOT_READY, "NoSchedule", matches!(ready, None | Some("False"))),
        (UNREACHABLE, "NoSchedule", ready == Some("Unknown")),
        (NOT_READY, "NoExecute", evict(ready == Some("False"))),
        (UNREACHABLE, "NoExecute", evict(ready == Some("Unknown"))),
        (UNSCHEDULABLE, "NoSchedule", spec.unschedulable == Some(true)),
    ];
    wanted
        .extend(PRESSURE_TAINTS.iter().map(|(type_, key)| (*key, "NoSchedule", is(type_, "True"))));
    let mut taints = spec.taints.unwrap_or_default();
    for (key, effect, wanted) in wanted {
        let present = taints.iter().position(|t| t.key == key && t.effect == effect);
        match (present, wanted) {
            (Some(at), false) => drop(taints.remove(at)),
            (None, true) => taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(Time(cx.now)),
            }),
            _ => {}
        }
    }
    (!taints.is_empty()).then_some(taints)
}

fn pods_on(cx: &Cx, node: &str) -> Vec<std::sync::Arc<Pod>> {
    let mut all = cx.world.list::<Pod>("");
    all.retain(|pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node));
    all
}

/// A pod on a node that is not ready is not ready either.
fn mark_not_ready(pod: &Pod, now: Timestamp) -> Option<Action> {
    let mut marked = pod.clone();
    let conditions = marked.status.as_mut()?.conditions.as_mut()?;
    let ready = conditions.iter_mut().find(|c| c.type_ == "Ready" && c.status == "True")?;
    ready.status = "False".into();
    ready.last_transition_time = Some(Time(now));
    Action::change(pod, &marked, "status")
}

fn watch_eviction(watches: &mut Watches) {
    watches.own::<Pod>();
    watches.map::<Node>(|world, node| {
        let name = node.name_any();
        let here = |pod: &Pod| {
            pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(name.as_str())
        };
        if !node.spec.as_ref().is_some_and(has_evicting_taint) {
            return Vec::new();
        }
        world.list::<Pod>("").iter().filter(|pod| here(pod)).map(|p| Key::of(p.as_ref())).collect()
    });
}

fn has_evicting_taint(spec: &NodeSpec) -> bool {
    spec.taints.iter().flatten().any(|taint| taint.effect == "NoExecute")
}

fn plan_eviction(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = cx.world.get::<Pod>(&key.namespace, &key.name) else { return plan };
    if pods::is_terminating(&pod) || pods::is_terminal(&pod) {
        return plan;
    }
    let node = pod.spec.as_ref().and_then(|s| cx.world.get::<Node>("", s.node_name.as_deref()?));
    let taints = node.and_then(|node| node.spec.clone()?.taints).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone()).unwrap_or_default();
    match eviction_time(&taints, &tolerations, cx.now) {
        None => {}
        Some(at) if at > cx.now => plan.look_again(at),
        Some(_) => {
            let note = format!("Marking for deletion Pod {key}");
            plan.push([Action::event(pod.as_ref(), false, "TaintManagerEviction", note)]);
            let text = "Taint manager: deleting due to NoExecute taint";
            plan.push(disrupt(&pod, "DeletionByTaintManager", text, None, cx.now));
            plan.push([Action::delete(pod.as_ref(), None)]);
        }
    }
    plan
}

/// When the taints evict a pod with these tolerations; none: they do not.
fn eviction_time(
    taints: &[Taint],
    tolerations: &[Toleration],
    now: Timestamp,
) -> Option<Timestamp> {
    let evicting = taints.iter().filter(|taint| taint.effect == "NoExecute");
    evicting
        .filter_map(|taint| {
            let tolerating: Vec<_> =
                tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
            if tolerating.is_empty() {
                return Some(now);
            }
            // Of several the shortest counts; one without a time tolerates for ever.
            let seconds = tolerating.iter().filter_map(|t| t.toleration_seconds).min()?;
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            Some(since.saturating_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(now))
        })
        .min()
}

/// The condition that tells a Job's failure policy that the pod is not to blame.
pub fn disrupt(
    pod: &Pod,
    reason: &str,
    message: &str,
    phase: Option<&str>,
    now: Timestamp,
) -> Option<Action> {
    let mut marked = pod.clone();
    let status = marked.status.get_or_insert_default();
    if let Some(phase) = phase {
        status.phase = Some(phase.into());
    }
    let conditions = status.conditions.get_or_insert_default();
    if !conditions.iter().any(|c| c.type_ == "DisruptionTarget" && c.status == "True") {
        conditions.push(PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_transition_time: Some(Time(now)),
            ..PodCondition::default()
        });
    }
    Action::change(pod, &marked, "status")
}

fn plan_addresses(cx: &Cx, _: &Key) -> Plan {
    let mut plan = Plan::default();
    let bits = cx.config.node_cidr_prefix_bits;
    let Some(parts) = Parts::of(&cx.config.cluster_cidr, bits) else { return plan };
    let nodes = cx.world.list::<Node>("");
    let cidr = |node: &Node| node.spec.as_ref().and_then(|s| s.pod_cidr.clone());
    let mut used: BTreeSet<String> = nodes.iter().filter_map(|node| cidr(node)).collect();
    for node in nodes.iter().filter(|node| cidr(node).is_none()) {
        let Some(free) = parts.iter().find(|part| !used.contains(part)) else {
            let note = "Node status is now: CIDRNotAvailable".to_owned();
            plan.push([Action::event(node.as_ref(), false, "CIDRNotAvailable", note)]);
            continue;
        };
        used.insert(free.clone());
        let mut given = node.as_ref().clone();
        let spec = given.spec.get_or_insert_default();
        spec.pod_cidr = Some(free.clone());
        spec.pod_cidrs = Some(vec![free]);
        plan.push(Action::change(node.as_ref(), &given, ""));
    }
    plan
}

/// The equal parts of an IPv4 network.
struct Parts {
    first: u32,
    count: u32,
    bits: u8,
}

impl Parts {
    fn of(cidr: &str, bits: u8) -> Option<Parts> {
        let (address, prefix) = cidr.split_once('/')?;
        let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let count = 1u32.checked_shl(u32::from(bits.checked_sub(prefix)?))?;
        (bits <= 32).then_some(Parts { first: address.to_bits(), count, bits })
    }

    fn iter(&self) -> impl Iterator<Item = String> {
        let step = 1u64 << (32 - u32::from(self.bits));
        (0..u64::from(self.count)).filter_map(move |part| {
            let address = u32::try_from(u64::from(self.first) + part * step).ok()?;
            Some(format!("{}/{}", Ipv4Addr::from_bits(address), self.bits))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{check, plan};

    const HEALTHY: &str = "
kind: Node
metadata: {name: well}
spec: {podCIDR: 10.42.0.0/24}
status: {conditions: [{type: Ready, status: 'True', lastHeartbeatTime: '2026-01-01T11:59:50Z'}]}
";

    fn silent(extra: &str) -> String {
        format!(
            "{HEALTHY}---
kind: Node
metadata: {{name: lost}}
status: {{conditions: [{{type: Ready, status: 'True', lastHeartbeatTime: '2026-01-01T11:50:00Z'}}]}}
{extra}"
        )
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_tainted_and_its_pods_unready() {
        let pod = "---
kind: Pod
metadata: {name: p}
spec: {nodeName: lost, containers: []}
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
";
        let plan = plan(&NODE_LIFECYCLE, "lost", &silent(pod), None);
        let lines: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
        assert_eq!(lines[0], "event Normal NodeNotReady: Node lost status is now: NodeNotReady");
        assert!(lines[1].contains("Kubelet stopped posting node status."), "{}", lines[1]);
        assert_eq!(
            lines[2],
            r#"patch Node lost {"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T12:00:00Z"},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T12:00:00Z"}]}}"#
        );
        assert_eq!(
            lines[3],
            r#"patch Pod default/p/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","status":"False","type":"Ready"}]}}"#
        );
    }

    #[test]
    fn a_node_that_is_heard_of_is_looked_at_when_it_might_fall_silent() {
        let plan = plan(&NODE_LIFECYCLE, "well", HEALTHY, None);
        assert_eq!(plan.actions, []);
        assert_eq!(plan.again, "2026-01-01T12:00:30Z".parse().ok());
    }

    #[test]
    fn a_ready_node_loses_its_taints_and_a_cordoned_one_gets_one() {
        let yaml = HEALTHY.replace(
            "spec: {",
            "spec: {unschedulable: true, taints: [{key: node.kubernetes.io/not-ready, effect: NoSchedule}, {key: mine, effect: NoExecute}], ",
        );
        check(
            &NODE_LIFECYCLE,
            "well",
            &yaml,
            r#"patch Node well {"spec":{"taints":[{"effect":"NoExecute","key":"mine"},{"effect":"NoSchedule","key":"node.kubernetes.io/unschedulable","timeAdded":"2026-01-01T12:00:00Z"}]}}"#,
        );
    }

    #[test]
    fn eviction_honours_toleration_seconds() {
        let yaml = |tolerations: &str| {
            format!(
                "
kind: Node
metadata: {{name: n1}}
spec: {{taints: [{{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2026-01-01T11:58:00Z'}}]}}
---
kind: Pod
metadata: {{name: p}}
spec: {{nodeName: n1, containers: [], tolerations: [{tolerations}]}}
"
            )
        };
        let tolerated = |seconds: &str| {
            format!(
                "{{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute{seconds}}}"
            )
        };
        let later =
            plan(&TAINT_EVICTION, "default/p", &yaml(&tolerated(", tolerationSeconds: 300")), None);
        assert_eq!((later.actions.len(), later.again), (0, "2026-01-01T12:03:00Z".parse().ok()));
        let forever = plan(&TAINT_EVICTION, "default/p", &yaml(&tolerated("")), None);
        assert_eq!((forever.actions.len(), forever.again), (0, None));
        check(
            &TAINT_EVICTION,
            "default/p",
            &yaml(&tolerated(", tolerationSeconds: 60")),
            r#"
            event Normal TaintManagerEviction: Marking for deletion Pod default/p
            patch Pod default/p/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","message":"Taint manager: deleting due to NoExecute taint","reason":"DeletionByTaintManager","status":"True","type":"DisruptionTarget"}]}}
            delete Pod default/p
            "#,
        );
    }

    #[test]
    fn each_node_gets_the_lowest_free_part() {
        check(
            &NODE_IPAM,
            "",
            &silent(""),
            r#"patch Node lost {"spec":{"podCIDR":"10.42.1.0/24","podCIDRs":["10.42.1.0/24"]}}"#,
        );
    }
}
