//! Pods leave nodes with NoExecute taints, when their tolerations have run out.
//!
//! How long a taint has been there is counted by our own steady clock from when we first saw it;
//! what it had been there before, by its own time stamp, counts too, so that a new leader forgets
//! nothing. But a node that was found silent is given the time to speak first: after an hour
//! without any server, nobody is evicted before the nodes could report.

use api::placement::tolerates;
use client::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{NOT_READY, UNREACHABLE, is_on, taints};
use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::pods;
use crate::world::{Moment, World};

/// Evicts pods from nodes with NoExecute taints.
pub const TAINT_EVICTION: Controller = Controller {
    name: "taint-eviction-controller",
    watches: watch_eviction,
    reconcile: Reconcile::Plan(plan_eviction),
};

/// What the first sight of a taint is noted under.
const TAINTED: &str = "tainted";

fn watch_eviction(watches: &mut Watches) {
    watches.own::<Pod>();
    watches.map::<Node>(|world, node| {
        let name = node.name_any();
        if !note_taints(world, node) {
            return Vec::new();
        }
        let all = world.list::<Pod>("");
        all.iter().filter(|pod| is_on(pod, &name)).map(|pod| Key::of(pod.as_ref())).collect()
    });
}

/// Notes which taints evict, and forgets those that are gone: one that comes back begins anew.
/// Says whether there is any.
fn note_taints(world: &World, node: &Node) -> bool {
    let name = node.name_any();
    let present = world.get::<Node>("", &name).is_some();
    let evicting: Vec<&Taint> =
        taints(node).iter().filter(|taint| present && evicts(taint)).collect();
    let subjects: Vec<String> = evicting.iter().map(|taint| subject(&name, taint)).collect();
    let of_node = format!("{name} ");
    world.forget_where(TAINTED, |noted| {
        noted.starts_with(&of_node) && subjects.iter().all(|subject| subject != noted)
    });
    evicting.iter().for_each(|taint| note(world, &name, taint));
    !evicting.is_empty()
}

fn evicts(taint: &Taint) -> bool {
    taint.effect == "NoExecute"
}

fn subject(node: &str, taint: &Taint) -> String {
    format!("{node} {}", taint.key)
}

pub(crate) fn note(world: &World, node: &str, taint: &Taint) {
    world.note(TAINTED, &subject(node, taint), taint.time_added.as_ref().map(|time| time.0));
}

fn plan_eviction(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = cx.world.get::<Pod>(&key.namespace, &key.name) else { return plan };
    if pods::is_terminating(&pod) || pods::is_terminal(&pod) {
        return plan;
    }
    let node = pod.spec.as_ref().and_then(|s| cx.world.get::<Node>("", s.node_name.as_deref()?));
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone()).unwrap_or_default();
    let evicting = node.iter().flat_map(|node| taints(node)).filter(|taint| evicts(taint));
    let due = evicting
        .filter_map(|taint| {
            let patience = patience(taint, &tolerations)?;
            Some(due(cx, pod.spec.as_ref()?.node_name.as_deref()?, taint, patience))
        })
        .min();
    match due {
        None => {}
        Some(at) if at > cx.moment => plan.look_again(cx.at(at)),
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

/// How long a pod with these tolerations stays beside the taint; none: for ever.
fn patience(taint: &Taint, tolerations: &[Toleration]) -> Option<SignedDuration> {
    let mut tolerating = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
    if tolerating.peek().is_none() {
        return Some(SignedDuration::ZERO);
    }
    // Of several the shortest counts; one without a time tolerates for ever.
    let seconds = tolerating.filter_map(|t| t.toleration_seconds).min()?;
    Some(SignedDuration::from_secs(seconds.max(0)))
}

/// When a pod that has `patience` with a taint of its node leaves.
fn due(cx: &Cx, node: &str, taint: &Taint, patience: SignedDuration) -> Moment {
    let (seen, wall) = match cx.world.noted(TAINTED, &subject(node, taint)) {
        Some(noted) => (noted.at, noted.wall),
        None => (cx.moment, cx.now),
    };
    let added = taint.time_added.as_ref().map_or(wall, |time| time.0);
    let before = wall.duration_since(added).clamp(SignedDuration::ZERO, patience);
    let due = seen + (patience - before);
    let silence = matches!(taint.key.as_str(), NOT_READY | UNREACHABLE);
    let grace = SignedDuration::from_secs(cx.config.node_grace_seconds.into());
    // Who does not tolerate the taint at all was to go long ago, whoever is the leader.
    match silence && patience > SignedDuration::ZERO && before > SignedDuration::ZERO {
        true => due.max(Moment::ZERO + grace),
        false => due,
    }
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
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    Action::change(pod, &marked, "status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{check, plan, plan_at};

    fn yaml(seconds: &str) -> String {
        format!(
            "
kind: Node
metadata: {{name: n1}}
spec: {{taints: [{{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2026-01-01T11:58:00Z'}}]}}
---
kind: Pod
metadata: {{name: p}}
spec: {{nodeName: n1, containers: [], tolerations: [{{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute{seconds}}}]}}
"
        )
    }

    #[test]
    fn eviction_honours_toleration_seconds() {
        let later = plan(&TAINT_EVICTION, "default/p", &yaml(", tolerationSeconds: 300"), None);
        assert_eq!((later.actions.len(), later.again), (0, "2026-01-01T12:03:00Z".parse().ok()));
        let forever = plan(&TAINT_EVICTION, "default/p", &yaml(""), None);
        assert_eq!((forever.actions.len(), forever.again), (0, None));
        check(
            &TAINT_EVICTION,
            "default/p",
            &yaml(", tolerationSeconds: 60"),
            r#"
            event Normal TaintManagerEviction: Marking for deletion Pod default/p
            patch Pod default/p/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","message":"Taint manager: deleting due to NoExecute taint","reason":"DeletionByTaintManager","status":"True","type":"DisruptionTarget"}]}}
            delete Pod default/p
            "#,
        );
    }

    #[test]
    fn after_a_start_silent_nodes_may_speak_before_anybody_is_evicted() {
        // The server was off for long and has been back for ten seconds; the grace is forty.
        let since_start = SignedDuration::from_secs(10);
        let seen = |yaml: &str| plan_at(&TAINT_EVICTION, "default/p", yaml, since_start);
        let plan = seen(&yaml(", tolerationSeconds: 60"));
        assert_eq!((plan.actions.len(), plan.again), (0, "2026-01-01T12:00:30Z".parse().ok()));
        // A taint that nobody tolerates, and one of a person's own, do not wait.
        let own = yaml(", tolerationSeconds: 60").replace("node.kubernetes.io/unreachable", "mine");
        assert_eq!(seen(&own).actions.len(), 3);
        let none =
            yaml("").replace("key: node.kubernetes.io/unreachable, operator", "key: x, operator");
        assert_eq!(seen(&none).actions.len(), 3);
    }

    #[test]
    fn a_taint_that_comes_back_begins_anew() {
        let yaml =
            "kind: Node\nmetadata: {name: n1}\nspec: {taints: [{key: mine, effect: NoExecute}]}";
        let mut world = crate::fixture::world(yaml);
        let tainted = world.get::<Node>("", "n1").expect("the node");
        let mut free = tainted.as_ref().clone();
        free.spec = None;
        let seen = |world: &World| world.noted(TAINTED, "n1 mine").map(|noted| noted.at);
        assert!(note_taints(&world, &tainted));
        let first = seen(&world).expect("noted");
        world.fix_moment(SignedDuration::from_hours(9));
        assert!(note_taints(&world, &tainted));
        assert_eq!(seen(&world), Some(first), "nothing has changed");
        assert!(!note_taints(&world, &free));
        assert_eq!(seen(&world), None);
        assert!(note_taints(&world, &tainted));
        assert!(seen(&world).is_some_and(|at| at > first));
    }

    #[test]
    fn a_clock_that_was_wrong_when_the_taint_was_set_evicts_nobody_early() {
        let future =
            yaml(", tolerationSeconds: 300").replace("2026-01-01T11:58", "2031-01-01T11:58");
        let plan = plan(&TAINT_EVICTION, "default/p", &future, None);
        assert_eq!((plan.actions.len(), plan.again), (0, "2026-01-01T12:05:00Z".parse().ok()));
    }
}
