//! Conditions and taints of nodes by what is heard of them, and the readiness of their pods.

use client::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use super::zones::{Disruption, disruption, zone};
use super::{NOT_READY, UNREACHABLE, condition, is_ready, pods_on, taints};
use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::world::Moment;

/// Namespace of the leases that nodes renew.
const LEASES: &str = "kube-node-lease";
/// What the renewals of a node's lease are noted under in the world.
pub const HEARTBEAT: &str = "heartbeat";
/// What its reports of its own state are noted under.
const REPORT: &str = "report";

/// What is noted of a node that was told to be new.
const TOLD: &str = "told";

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

fn watch_lifecycle(watches: &mut Watches) {
    watches.map::<Node>(|world, node| {
        let name = node.name_any();
        if world.get::<Node>("", &name).is_some() {
            let reported = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.as_ref());
            world.note(REPORT, &name, reported.map(|time| time.0));
        }
        // How many are silent decides over each of the silent.
        let silent = world.list::<Node>("").into_iter().filter(|node| !is_ready(node));
        silent.map(|node| node.name_any()).chain([name]).map(|name| Key::new("", name)).collect()
    });
    watches.map::<Lease>(|world, lease| {
        if lease.namespace().as_deref() != Some(LEASES) {
            return Vec::new();
        }
        let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.as_ref()).map(|time| time.0);
        // The node's clock may be years off: what counts is when we have seen it move.
        let known = world.note(HEARTBEAT, &lease.name_any(), renewed);
        // A node that is known to be alive needs a look only when it falls silent.
        let silent = world.get::<Node>("", &lease.name_any()).is_none_or(|node| !is_ready(&node));
        if silent || !known { vec![Key::new("", lease.name_any())] } else { Vec::new() }
    });
    watches.read::<Pod>();
}

/// When the node was last heard of: by our own steady clock, whatever its clock or ours says.
fn last_heard(cx: &Cx, name: &str) -> Moment {
    let noted = [HEARTBEAT, REPORT].map(|topic| cx.world.noted(topic, name).map(|noted| noted.at));
    noted.into_iter().flatten().max().unwrap_or(Moment::ZERO)
}

/// An event about a node that comes or goes, in upstream's words.
fn of_node(node: &Node, reason: &'static str, done: &str, preposition: &str) -> Action {
    let name = node.name_any();
    let note = format!("Node {name} event: {done} {name} {preposition} Controller");
    Action::event(node, false, reason, note)
}

fn plan_lifecycle(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = cx.world.get::<Node>("", &key.name) else {
        let was_known = cx.world.noted(REPORT, &key.name).is_some();
        [HEARTBEAT, REPORT, TOLD].iter().for_each(|topic| cx.world.forget(topic, &key.name));
        if was_known {
            let metadata = ObjectMeta { name: Some(key.name.clone()), ..ObjectMeta::default() };
            let gone = Node { metadata, ..Node::default() };
            plan.push([of_node(&gone, "RemovingNode", "Removing Node", "from")]);
        }
        return plan;
    };
    let grace = SignedDuration::from_secs(cx.config.node_grace_seconds.into());
    let deadline = last_heard(cx, &key.name) + grace;
    let mut now_node = node.as_ref().clone();
    if deadline <= cx.moment {
        silence(&mut now_node, cx.now);
    } else {
        plan.look_again(cx.at(deadline));
    }
    // Upstream tells it of all nodes whenever the controller starts; here it is told of new ones,
    // which the allocator of pod addresses has not met yet, and once.
    let is_new = node.spec.as_ref().is_none_or(|spec| spec.pod_cidr.is_none());
    if is_new && deadline > cx.moment && !cx.world.note(TOLD, &key.name, None) {
        plan.push([of_node(&node, "RegisteredNode", "Registered Node", "in")]);
    }
    if condition(&node, "Ready").is_some_and(|c| c.status == "True") && !is_ready(&now_node) {
        let note = format!("Node {} status is now: NodeNotReady", key.name);
        plan.push([Action::event(node.as_ref(), false, "NodeNotReady", note)]);
    }
    plan.push(Action::change(node.as_ref(), &now_node, "status"));
    let mut tainted = now_node.clone();
    let taints = wanted_taints(cx, &now_node, &mut plan);
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

/// Whether the pods of a node that is not ready are to leave it. What was announced stays unless
/// all nodes are silent; a further node of a zone waits for its turn, for which `plan` looks again.
fn evicts(cx: &Cx, node: &Node, plan: &mut Plan) -> bool {
    let nodes = cx.world.list::<Node>("");
    let rates = &cx.config.eviction_rates;
    let disruption = disruption(node, nodes.iter().map(|node| node.as_ref()), rates);
    if disruption == Disruption::Full {
        return false;
    }
    let of_ours = |taint: &Taint| matches!(taint.key.as_str(), NOT_READY | UNREACHABLE);
    if taints(node).iter().any(|taint| taint.effect == "NoExecute" && of_ours(taint)) {
        return true;
    }
    let Some(pace) = rates.pace(disruption) else { return false };
    match cx.world.turn(&zone(node).join("/"), &node.name_any(), pace) {
        Ok(()) => true,
        Err(next) => {
            plan.look_again(cx.at(next));
            false
        }
    }
}

/// The node's own taints, with those that follow from its state.
fn wanted_taints(cx: &Cx, node: &Node, plan: &mut Plan) -> Option<Vec<Taint>> {
    let is = |type_: &str, status: &str| condition(node, type_).is_some_and(|c| c.status == status);
    let ready = condition(node, "Ready").map(|c| c.status.as_str());
    let evicted = matches!(ready, Some("False" | "Unknown")) && evicts(cx, node, plan);
    let mut taints = taints(node).to_vec();
    let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let mut wanted = vec![
        (NOT_READY, "NoSchedule", matches!(ready, None | Some("False"))),
        (UNREACHABLE, "NoSchedule", ready == Some("Unknown")),
        (NOT_READY, "NoExecute", ready == Some("False") && evicted),
        (UNREACHABLE, "NoExecute", ready == Some("Unknown") && evicted),
        (UNSCHEDULABLE, "NoSchedule", cordoned),
    ];
    wanted
        .extend(PRESSURE_TAINTS.iter().map(|(type_, key)| (*key, "NoSchedule", is(type_, "True"))));
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

/// A pod on a node that is not ready is not ready either.
fn mark_not_ready(pod: &Pod, now: Timestamp) -> Option<Action> {
    let mut marked = pod.clone();
    let conditions = marked.status.as_mut()?.conditions.as_mut()?;
    let ready = conditions.iter_mut().find(|c| c.type_ == "Ready" && c.status == "True")?;
    ready.status = "False".into();
    ready.last_transition_time = Some(Time(now));
    Action::change(pod, &marked, "status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{check, plan, plan_in};

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
    fn coming_and_going_is_told_once() {
        let new = "
kind: Node
metadata: {name: one}
status: {conditions: [{type: Ready, status: 'True'}]}
";
        let known = new.replace("status: {", "spec: {podCIDR: 10.42.0.0/24}\nstatus: {");
        let events = |world: &crate::world::World| -> Vec<String> {
            let plan = crate::fixture::plan_in(world, &NODE_LIFECYCLE, "one", None);
            let lines = plan.actions.iter().map(ToString::to_string);
            lines.filter(|line| line.starts_with("event")).collect()
        };
        let world = |yaml: &str| {
            let world = crate::fixture::world(yaml);
            world.note(REPORT, "one", None);
            world
        };
        let (new, known, gone) = (world(new), world(&known), world(HEALTHY));
        let registered =
            "event Normal RegisteredNode: Node one event: Registered Node one in Controller";
        assert_eq!(events(&new), [registered]);
        assert!(events(&new).is_empty(), "its addresses take a moment");
        assert!(events(&known).is_empty());
        let removed =
            "event Normal RemovingNode: Node one event: Removing Node one from Controller";
        assert_eq!(events(&gone), [removed]);
        assert!(events(&gone).is_empty(), "nobody knows it any more");
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

    /// Five boards without a label; those whose number is listed are silent.
    fn boards(silent: &[u32]) -> String {
        let node = |n: u32| {
            let at = if silent.contains(&n) { "11:50:00" } else { "11:59:50" };
            format!(
                "kind: Node\nmetadata: {{name: b{n}}}\nstatus: {{conditions: [{{type: Ready, \
                 status: '{}', lastHeartbeatTime: '2026-01-01T{at}Z'}}]}}\n",
                if silent.contains(&n) { "Unknown" } else { "True" }
            )
        };
        (0..5).map(node).collect::<Vec<_>>().join("---\n")
    }

    fn taints_of(plan: &Plan) -> String {
        let lines: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn when_most_or_all_are_silent_nobody_is_evicted() {
        let few = taints_of(&plan(&NODE_LIFECYCLE, "b1", &boards(&[0, 1]), None));
        assert!(few.contains("NoSchedule") && few.contains("NoExecute"), "{few}");
        let most = taints_of(&plan(&NODE_LIFECYCLE, "b1", &boards(&[0, 1, 2]), None));
        assert!(most.contains("NoSchedule") && !most.contains("NoExecute"), "{most}");
        let all = taints_of(&plan(&NODE_LIFECYCLE, "b1", &boards(&[0, 1, 2, 3, 4]), None));
        assert!(all.contains("NoSchedule") && !all.contains("NoExecute"), "{all}");
    }

    #[test]
    fn what_was_announced_is_taken_back_only_when_all_are_silent() {
        let tainted = |silent: &[u32]| {
            let taint = "metadata: {name: b1}\nspec: {taints: [{key: \
                         node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: \
                         '2026-01-01T11:51:00Z'}]}";
            let yaml = boards(silent).replace("metadata: {name: b1}", taint);
            taints_of(&plan(&NODE_LIFECYCLE, "b1", &yaml, None))
        };
        assert!(tainted(&[0, 1, 2]).contains("NoExecute"));
        assert!(!tainted(&[0, 1, 2, 3, 4]).contains("NoExecute"));
    }

    #[test]
    fn of_two_boards_that_die_together_one_keeps_its_pods_a_little_longer() {
        let mut world = crate::fixture::world(&boards(&[0, 1]));
        let first = plan_in(&world, &NODE_LIFECYCLE, "b0", None);
        assert!(taints_of(&first).contains("NoExecute"), "{first:?}");
        let second = plan_in(&world, &NODE_LIFECYCLE, "b1", None);
        assert!(!taints_of(&second).contains("NoExecute"), "{second:?}");
        assert_eq!(second.again, "2026-01-01T12:00:10Z".parse().ok());
        // The first's taint may not have been taken: it need not wait again.
        let once_more = plan_in(&world, &NODE_LIFECYCLE, "b0", None);
        assert!(taints_of(&once_more).contains("NoExecute"), "{once_more:?}");
        world.fix_moment(world.moment().since(Moment::ZERO) + SignedDuration::from_secs(10));
        let later = plan_in(&world, &NODE_LIFECYCLE, "b1", None);
        assert!(taints_of(&later).contains("NoExecute"), "{later:?}");
        // Who had the last turn long ago takes a new one like everybody else.
        world.fix_moment(world.moment().since(Moment::ZERO) + SignedDuration::from_secs(3600));
        plan_in(&world, &NODE_LIFECYCLE, "b1", None);
        let again = plan_in(&world, &NODE_LIFECYCLE, "b0", None);
        assert!(!taints_of(&again).contains("NoExecute"), "{again:?}");
    }

    #[test]
    fn a_node_that_says_it_is_not_ready_after_silence_changes_its_taint_at_once() {
        let taint = "metadata: {name: b1}\nspec: {taints: [{key: node.kubernetes.io/not-ready, \
                     effect: NoExecute}]}";
        let yaml = boards(&[0, 1, 2]).replace("metadata: {name: b1}", taint);
        let changed = taints_of(&plan(&NODE_LIFECYCLE, "b1", &yaml, None));
        assert!(changed.contains("unreachable") && changed.contains("NoExecute"), "{changed}");
    }

    #[test]
    fn a_wall_clock_that_jumps_kills_no_node() {
        let world = crate::fixture::world(HEALTHY);
        let config = crate::Config { node_grace_seconds: 40, ..crate::Config::default() };
        let now = "2026-01-03T12:00:00Z".parse().expect("a time");
        let cx = Cx { world: &world, now, moment: world.moment(), config: &config, failure: None };
        let plan = plan_lifecycle(&cx, &Key::new("", "well"));
        assert_eq!(plan.actions, []);
        assert_eq!(plan.again, "2026-01-03T12:00:30Z".parse().ok());
    }
}
