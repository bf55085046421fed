//! One pod on every node that can take it, brought up to date node by node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::placement;
use client::Pod;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Toleration,
};
use kube::ResourceExt;

use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::deployment::scaled;
use crate::driver::{Controller, Reconcile, Watches};
use crate::hash::template_hash;
use crate::history::History;
use crate::replicaset::{count, delete_pod, pod_created, pod_from_template};
use crate::{owner, pods};

/// Label of pods and revisions with the hash of their template.
const REVISION_HASH: &str = "controller-revision-hash";
/// Taints that keep no daemon away: key, effect.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// DaemonSets.
pub const DAEMON_SET: Controller =
    Controller { name: "daemonset-controller", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    watches.own::<DaemonSet>();
    watches.owned::<ControllerRevision, DaemonSet>();
    watches.dependents::<Pod, DaemonSet>(|set| owner::selector(&set.spec.as_ref()?.selector));
    // Labels and taints decide; a heartbeat wakes a plan that finds nothing to do.
    watches.map::<Node>(|world, _| {
        world.list::<DaemonSet>("").iter().map(|set| Key::of(set.as_ref())).collect()
    });
}

/// What the steps of one plan share.
struct Round<'a> {
    cx: &'a Cx<'a>,
    set: &'a DaemonSet,
    /// The pod's spec with the tolerations that every daemon has.
    spec: PodSpec,
    history: History,
    /// Pods by the node they are on or meant for.
    by_node: BTreeMap<String, Vec<Arc<Pod>>>,
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = cx.world.get::<DaemonSet>(&key.namespace, &key.name) else { return plan };
    let Some(spec) = &set.spec else { return plan };
    let Some(selector) = owner::selector(&spec.selector).filter(|s| !s.selects_all()) else {
        return plan;
    };
    let claim = owner::claim(set.as_ref(), &selector, cx.world.list::<Pod>(&key.namespace));
    plan.push(claim.actions);
    let hash = template_hash(&spec.template, set.status.as_ref().and_then(|s| s.collision_count));
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in claim.owned {
        if let Some(node) = node_of(&pod) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let mut revisions = cx.world.list::<ControllerRevision>(&key.namespace);
    revisions.retain(|revision| owner::is_controlled_by(revision.as_ref(), set.as_ref()));
    let history = History::new(set.as_ref(), &spec.template, (REVISION_HASH, &hash), revisions);
    let spec = tolerant(spec.template.spec.clone().unwrap_or_default());
    let round = Round { cx, set: &set, spec, history, by_node };
    let mut changes = Vec::new();
    if set.metadata.deletion_timestamp.is_none() {
        plan.push(round.revisions());
        plan.push(round.relabel());
        changes = round.manage();
        if changes.is_empty() {
            changes = round.update();
        }
    }
    let wanted = DaemonSet { status: Some(round.status()), ..set.as_ref().clone() };
    let status = Action::change(set.as_ref(), &wanted, "status");
    // What failed may fail again and end the plan; the status is written before.
    plan.push(status);
    plan.push(changes);
    round.look_again(&mut plan);
    plan
}

/// The hash of its template that a pod or a revision is labelled with.
fn hash(object: &impl ResourceExt) -> Option<&str> {
    object.labels().get(REVISION_HASH).map(String::as_str)
}

/// The node a pod is on, or the one its affinity names.
fn node_of(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.clone().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let required = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = required.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    fields.filter(|f| f.key == "metadata.name").find_map(|f| f.values.as_ref()?.first().cloned())
}

fn tolerant(mut spec: PodSpec) -> PodSpec {
    let network = (spec.host_network == Some(true)).then_some(&NETWORK_UNAVAILABLE);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.iter().chain(network) {
        let toleration = Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            effect: Some((*effect).into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    spec
}

impl Round<'_> {
    fn min_ready_seconds(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    /// Whether the node should get a pod, and whether one that is there may stay.
    fn judge(&self, node: &Node) -> (bool, bool) {
        let named = self.spec.node_name.as_deref().filter(|name| !name.is_empty());
        let fits = named.is_none_or(|name| name == node.name_any())
            && placement::node_matches(&self.spec, node);
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let tolerations = self.spec.tolerations.as_deref().unwrap_or_default();
        let evicting = taints.clone().filter(|taint| taint.effect == "NoExecute");
        let may_stay = fits && placement::tolerates_all(tolerations, evicting);
        (fits && placement::tolerates_all(tolerations, taints), may_stay)
    }

    fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_node.values().flatten()
    }

    fn pods_on(&self, node: &str) -> &[Arc<Pod>] {
        self.by_node.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// A pod where there should be one, none elsewhere, and no failed ones.
    fn manage(&self) -> Vec<Action> {
        let (mut deletions, mut creations) = (Vec::new(), Vec::new());
        for node in self.cx.world.list::<Node>("") {
            let name = node.name_any();
            let (should_run, may_stay) = self.judge(&node);
            let mut living: Vec<&Arc<Pod>> = Vec::new();
            let before = deletions.len();
            for pod in self.pods_on(&name).iter().filter(|pod| !pods::is_terminating(pod)) {
                match pods::phase(pod) {
                    _ if !may_stay => deletions.push(delete_pod(self.set, pod)),
                    "Failed" | "Succeeded" => {
                        let (what, reason, warning) = match pods::phase(pod) {
                            "Failed" => ("failed", "FailedDaemonPod", true),
                            _ => ("succeeded", "SucceededDaemonPod", false),
                        };
                        let note = format!(
                            "Found {what} daemon pod {}/{} on node {name}, will try to {} it",
                            pod.namespace().unwrap_or_default(),
                            pod.name_any(),
                            if warning { "kill" } else { "delete" },
                        );
                        deletions.push(Action::event(self.set, warning, reason, note));
                        deletions.push(delete_pod(self.set, pod));
                    }
                    _ => living.push(pod),
                }
            }
            living.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.name_any()));
            deletions.extend(self.excess(&living).into_iter().map(|p| delete_pod(self.set, p)));
            let mut there = self.pods_on(&name).iter();
            let going = !self.surges() && there.any(|pod| pods::is_terminating(pod));
            if should_run && living.is_empty() && !going && deletions.len() == before {
                creations.push(self.create(&name));
            }
        }
        deletions.extend(creations);
        deletions
    }

    fn create(&self, node: &str) -> Action {
        let mut template = self.set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let mut spec = self.spec.clone();
        let here = NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.to_owned()]),
        };
        let affinity = spec.affinity.get_or_insert_default();
        let required = &mut affinity
            .node_affinity
            .get_or_insert_default()
            .required_during_scheduling_ignored_during_execution;
        let terms = match required.take() {
            Some(selector) if !selector.node_selector_terms.is_empty() => {
                selector.node_selector_terms
            }
            _ => vec![NodeSelectorTerm::default()],
        };
        let pinned = terms
            .into_iter()
            .map(|term| NodeSelectorTerm { match_fields: Some(vec![here.clone()]), ..term });
        *required = Some(NodeSelector { node_selector_terms: pinned.collect() });
        template.spec = Some(spec);
        let mut pod = pod_from_template(self.set, &template);
        pod.labels_mut().insert(REVISION_HASH.into(), self.history.hash().into());
        Action::create(&pod, Some(pod_created(self.set)))
    }

    fn is_current(&self, pod: &Pod) -> bool {
        hash(pod).is_some_and(|hash| {
            hash == self.history.hash() || self.history.aliases().contains(hash)
        })
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_active(pod) && pods::is_available(pod, self.min_ready_seconds(), self.cx.now)
    }

    /// On how many of these nodes a new pod may run beside an old one that is well.
    fn max_surge(&self, nodes: usize) -> i32 {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let surge = strategy.and_then(|s| s.rolling_update.as_ref()?.max_surge.as_ref());
        surge.map_or(0, |value| scaled(value, count(nodes), true))
    }

    fn surges(&self) -> bool {
        self.max_surge(1) > 0
    }

    /// Which of a node's pods, the oldest first, are too many: all but the oldest. A set that surges
    /// keeps one of the new template too, and one of an older only until the new one is available or
    /// as long as it is ready itself.
    fn excess<'p>(&self, living: &[&'p Arc<Pod>]) -> Vec<&'p Arc<Pod>> {
        if !self.surges() {
            return living.iter().skip(1).copied().collect();
        }
        let (new, old): (Vec<_>, Vec<_>) =
            living.iter().copied().partition(|pod| self.is_current(pod));
        let replaced = match (old.first(), new.first()) {
            (Some(old), Some(new)) => !pods::is_ready(old) || self.is_available(new),
            _ => false,
        };
        let old = old.into_iter().skip(usize::from(!replaced));
        old.chain(new.into_iter().skip(1)).collect()
    }

    /// New pods beside old ones: where those are not available, and on as many other nodes as may
    /// have both. The old ones are in excess when the new ones are available.
    fn surge(&self, nodes: &[String]) -> Vec<Action> {
        let mut budget = self.max_surge(nodes.len());
        let (mut sick, mut well) = (Vec::new(), Vec::new());
        for node in nodes {
            let living = self.pods_on(node).iter().filter(|pod| !pods::is_terminating(pod));
            let (new, old): (Vec<_>, Vec<_>) = living.partition(|pod| self.is_current(pod));
            match (old.first(), new.first()) {
                (Some(_), Some(new)) if !self.is_available(new) => budget -= 1,
                (Some(old), None) if self.is_available(old) => well.push(node),
                (Some(_), None) => sick.push(node),
                _ => {}
            }
        }
        let well = well.into_iter().take(usize::try_from(budget).unwrap_or(0));
        sick.into_iter().chain(well).map(|node| self.create(node)).collect()
    }

    /// Replaces pods of an older template, as many at once as may be unavailable.
    fn update(&self) -> Vec<Action> {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.clone());
        let strategy = strategy.unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return Vec::new();
        }
        let nodes = self.cx.world.list::<Node>("");
        let wanted: Vec<String> =
            nodes.iter().filter(|node| self.judge(node).0).map(|node| node.name_any()).collect();
        if self.surges() {
            return self.surge(&wanted);
        }
        let most = strategy
            .rolling_update
            .and_then(|r| r.max_unavailable)
            .map_or(1, |value| scaled(&value, count(wanted.len()), true));
        let missing = wanted
            .iter()
            .filter(|node| !self.pods_on(node).iter().any(|pod| self.is_available(pod)));
        let mut budget = most.max(1) - count(missing.count());
        let mut doomed = Vec::new();
        for pod in wanted.iter().flat_map(|node| self.pods_on(node)) {
            if self.is_current(pod) || !pods::is_active(pod) {
                continue;
            }
            // One that is not available anyway costs nothing.
            if !self.is_available(pod) {
                doomed.push(delete_pod(self.set, pod));
            } else if budget > 0 {
                budget -= 1;
                doomed.push(delete_pod(self.set, pod));
            }
        }
        doomed
    }

    /// The history that `kubectl rollout history` and `undo` read.
    fn revisions(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = self.history.record().into_iter().collect();
        let in_use: BTreeSet<&str> = self.pods().filter_map(|pod| hash(pod.as_ref())).collect();
        let limit = self.set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        actions
            .extend(self.history.forget(limit, |revision| {
                hash(revision).is_some_and(|hash| in_use.contains(hash))
            }));
        actions
    }

    /// Pods of a revision that another one repeats, which may go, belong to that one (upstream's
    /// dedupCurHistories).
    fn relabel(&self) -> Vec<Action> {
        let relabelled = |pod: &Arc<Pod>| {
            let mut wanted = pod.as_ref().clone();
            wanted.labels_mut().insert(REVISION_HASH.into(), self.history.hash().into());
            Action::change(pod.as_ref(), &wanted, "")
        };
        self.pods().filter(|pod| self.is_current(pod)).filter_map(relabelled).collect()
    }

    fn status(&self) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: self.set.status.as_ref().and_then(|s| s.collision_count),
            conditions: self.set.status.as_ref().and_then(|s| s.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for node in self.cx.world.list::<Node>("") {
            let on_node = self.pods_on(&node.metadata.name.clone().unwrap_or_default()).to_vec();
            match (
                self.judge(&node).0,
                on_node.iter().min_by_key(|p| p.metadata.creation_timestamp.clone()),
            ) {
                (true, pod) => {
                    status.desired_number_scheduled += 1;
                    let Some(pod) = pod else { continue };
                    status.current_number_scheduled += 1;
                    status.number_ready += i32::from(pods::is_ready(pod));
                    available += i32::from(self.is_available(pod));
                    updated += i32::from(self.is_current(pod));
                }
                (false, Some(_)) => status.number_misscheduled += 1,
                (false, None) => {}
            }
        }
        let some = |n: i32| (n != 0).then_some(n);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status
    }

    fn look_again(&self, plan: &mut Plan) {
        let times = self.pods().filter_map(|pod| pods::available_at(pod, self.min_ready_seconds()));
        if let Some(next) = times.filter(|at| *at > self.cx.now).min() {
            plan.look_again(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::plan;

    const SET: &str = "
kind: DaemonSet
metadata: {name: log, generation: 1}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec: {nodeSelector: {logs: 'yes'}, containers: [{name: c, image: i}]}
---
kind: Node
metadata: {name: a, labels: {logs: 'yes'}}
---
kind: Node
metadata: {name: b, labels: {logs: 'yes'}}
spec: {unschedulable: true, taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]}
---
kind: Node
metadata: {name: c}
---
kind: Node
metadata: {name: d, labels: {logs: 'yes'}}
spec: {taints: [{key: mine, effect: NoSchedule}]}
";

    fn pod(name: &str, node: &str, hash: &str) -> String {
        format!(
            "
---
kind: Pod
metadata: {{name: {name}, labels: {{app: log, controller-revision-hash: '{hash}'}}, owner: DaemonSet/log}}
spec: {{nodeName: {node}, containers: []}}
status: {{phase: Running, conditions: [{{type: Ready, status: 'True', lastTransitionTime: '2026-01-01T11:00:00Z'}}]}}
"
        )
    }

    /// What happens to pods.
    fn pods_changed(yaml: &str) -> Vec<String> {
        let plan = plan(&DAEMON_SET, "default/log", yaml, None);
        let lines = plan.actions.iter().map(ToString::to_string);
        lines.filter(|line| line.contains(" Pod ")).collect()
    }

    #[test]
    fn a_pod_on_each_node_that_can_take_it() {
        let plan = plan(&DAEMON_SET, "default/log", SET, None);
        let nodes: Vec<_> = plan
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Create { body, target, .. } if target.kind == "Pod" => {
                    let pod: Pod = serde_json::from_value(body.as_ref().clone()).ok()?;
                    node_of(&pod)
                }
                _ => None,
            })
            .collect();
        assert_eq!(nodes, ["a", "b"]);
        let first = plan.actions[0].to_string();
        assert!(first.starts_with("create ControllerRevision default/log-"), "{first}");
    }

    #[test]
    fn a_pod_leaves_a_node_that_is_not_meant_any_more() {
        let yaml = [SET, &pod("one", "c", ""), &pod("two", "d", "")].concat();
        let created = "create Pod default/log-*";
        assert_eq!(pods_changed(&yaml), ["delete Pod default/one", created, created]);
    }

    #[test]
    fn one_old_pod_after_the_other_is_replaced() {
        let yaml = [SET, &pod("one", "a", "old"), &pod("two", "b", "old")].concat();
        assert_eq!(pods_changed(&yaml), ["delete Pod default/one"]);
    }

    #[test]
    fn a_set_that_surges_keeps_the_old_pod_until_the_new_one_is_available() {
        let rolling = "updateStrategy: {rollingUpdate: {maxSurge: 50%, maxUnavailable: 0}}";
        let set = SET.replace("  template:\n", &format!("  {rolling}\n  template:\n"));
        let made = plan(&DAEMON_SET, "default/log", &set, None);
        let Action::Create { body, .. } = &made.actions[0] else { panic!("no revision") };
        let hash = body["metadata"]["labels"][REVISION_HASH].as_str().expect("a hash").to_owned();
        let sick = |pod: &str| pod.replace("status: 'True'", "status: 'False'");
        let [one, two] = [pod("one", "a", "old"), pod("two", "b", "old")];
        let new = pod("new", "a", &hash);
        let changed = |pods: &[&str]| pods_changed(&[set.clone(), pods.concat()].concat());
        let created = "create Pod default/log-*";
        assert_eq!(changed(&[&one, &two]), [created]);
        assert_eq!(changed(&[&one, &sick(&two)]), [created, created]);
        assert!(changed(&[&one, &two, &sick(&new)]).is_empty());
        assert_eq!(changed(&[&one, &two, &new]), ["delete Pod default/one"]);
        assert_eq!(changed(&[&sick(&one), &two, &sick(&new)]), ["delete Pod default/one"]);
        let going = "owner: DaemonSet/log, deletionTimestamp: '2026-01-01T11:59:00Z'}";
        let going = one.replace("owner: DaemonSet/log}", going);
        assert_eq!(changed(&[&going, &two]), [created]);
    }

    #[test]
    fn a_revision_that_somebody_else_made_of_the_template_is_the_newest_one() {
        let made = plan(&DAEMON_SET, "default/log", SET, None);
        let Action::Create { body, .. } = &made.actions[0] else { panic!("no revision") };
        let stored = |name: &str, number: i32| {
            let mut revision = body.as_ref().clone();
            revision["metadata"]["name"] = name.into();
            revision["metadata"]["labels"][REVISION_HASH] = name.into();
            revision["revision"] = number.into();
            format!("\n---\n{revision}")
        };
        let pods = [pod("one", "a", "first"), pod("two", "b", "first")].concat();
        let yaml = [SET, &stored("first", 1), &stored("theirs", 2), &pods].concat();
        let planned = plan(&DAEMON_SET, "default/log", &yaml, None);
        let lines: Vec<_> = planned.actions.iter().map(ToString::to_string).collect();
        assert!(lines[0].starts_with("patch Pod default/one"), "{lines:?}");
        assert!(lines[0].contains("theirs") && lines[1].contains("theirs"), "{lines:?}");
        let removed = [SET, &stored("theirs", 2), &pods.replace("'first'", "theirs")].concat();
        assert!(pods_changed(&removed).is_empty());
    }
}
