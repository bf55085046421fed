//! Keeps as many pods as a ReplicaSet or ReplicationController asks for.

use std::sync::Arc;

use client::Pod;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    self, PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

use crate::action::{Action, Announce, Kind, Plan, reference};
use crate::context::{Cx, Failure, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::{owner, pods};

/// Pods created or deleted for one owner in one go, as upstream's BurstReplicas.
const BURST_REPLICAS_PODS: usize = 500;

/// ReplicaSets.
pub const REPLICA_SET: Controller = Controller {
    name: "replicaset-controller",
    watches: watches::<ReplicaSet>,
    reconcile: Reconcile::Plan(plan::<ReplicaSet>),
};

/// ReplicationControllers, by the same code.
pub const REPLICATION_CONTROLLER: Controller = Controller {
    name: "replication-controller",
    watches: watches::<ReplicationController>,
    reconcile: Reconcile::Plan(plan::<ReplicationController>),
};

/// What ReplicaSet and ReplicationController have in common.
trait Replicated: Kind {
    /// Wanted replicas, seconds to be ready before available, template.
    fn wants(&self) -> (i32, i32, Option<&PodTemplateSpec>);
    fn selects(&self) -> Option<Selector>;
    fn status(&self) -> ReplicaSetStatus;
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    fn wants(&self) -> (i32, i32, Option<&PodTemplateSpec>) {
        self.spec.as_ref().map_or((0, 0, None), |s| {
            (s.replicas.unwrap_or(1), s.min_ready_seconds.unwrap_or(0), s.template.as_ref())
        })
    }

    fn selects(&self) -> Option<Selector> {
        owner::selector(&self.spec.as_ref()?.selector)
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        ReplicaSet { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    fn wants(&self) -> (i32, i32, Option<&PodTemplateSpec>) {
        self.spec.as_ref().map_or((0, 0, None), |s| {
            (s.replicas.unwrap_or(1), s.min_ready_seconds.unwrap_or(0), s.template.as_ref())
        })
    }

    fn selects(&self) -> Option<Selector> {
        Some(self.spec.as_ref()?.selector.clone()?.into_iter().collect())
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        }
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let condition = |c: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        let status = ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        };
        ReplicationController { status: Some(status), ..self.clone() }
    }
}

fn watches<K: Replicated>(watches: &mut Watches) {
    watches.own::<K>();
    watches.dependents::<Pod, K>(K::selects);
}

fn plan<K: Replicated>(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = cx.world.get::<K>(&key.namespace, &key.name) else { return plan };
    let Some(selector) = set.selects().filter(|s| !s.selects_all()) else { return plan };
    let all = cx.world.list::<Pod>(&key.namespace);
    let claim = owner::claim(set.as_ref(), &selector, all.iter().cloned());
    plan.push(claim.actions);
    let active: Vec<_> = claim.owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let (replicas, min_ready_seconds, template) = set.wants();
    let status = status(set.as_ref(), &claim.owned, &active, cx);
    let mut status = Action::change(set.as_ref(), &set.with_status(status), "status");
    if cx.failure.is_some() {
        // What failed may fail again and end the plan; first say so.
        plan.push(status.take());
    }
    if set.meta().deletion_timestamp.is_none() {
        plan.push(scale(set.as_ref(), &active, &all, template, replicas, cx.now));
    }
    plan.push(status);
    let waiting = active.iter().filter_map(|pod| pods::available_at(pod, min_ready_seconds));
    if let Some(next) = waiting.filter(|at| *at > cx.now).min() {
        plan.look_again(next);
    }
    plan
}

/// Creations or deletions that bring the active pods to the wanted number.
fn scale<K: Replicated>(
    set: &K,
    active: &[Arc<Pod>],
    all: &[Arc<Pod>],
    template: Option<&PodTemplateSpec>,
    replicas: i32,
    now: Timestamp,
) -> Vec<Action> {
    let wanted = usize::try_from(replicas).unwrap_or(0);
    if let Some(template) = template
        && active.len() < wanted
    {
        let missing = (wanted - active.len()).min(BURST_REPLICAS_PODS);
        return vec![create_pod(set, template); missing];
    }
    let surplus = active.len().saturating_sub(wanted).min(BURST_REPLICAS_PODS);
    if surplus == 0 {
        return Vec::new();
    }
    let mut ranked = active.to_vec();
    pods::rank_for_deletion(&mut ranked, &related(set, all), now);
    ranked[..surplus].iter().map(|pod| delete_pod(set, pod)).collect()
}

/// The pods of all sets that share `set`'s own controller (the same Deployment).
fn related<K: Replicated>(set: &K, all: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let family = owner::controller_of(set).map(|_| set.name_any()).and_then(|name| {
        // Sets of one Deployment share its name and differ in the hash behind the last dash.
        Some(name.rsplit_once('-')?.0.to_owned())
    });
    let is_related = |pod: &Pod| {
        owner::is_controlled_by(pod, set)
            || owner::controller_of(pod).is_some_and(|c| {
                c.kind == K::KIND
                    && family.as_deref().is_some_and(|family| {
                        c.name.rsplit_once('-').is_some_and(|(prefix, _)| prefix == family)
                    })
            })
    };
    all.iter().filter(|pod| is_related(pod)).cloned().collect()
}

/// A pod as the template says, owned by `owner`.
pub fn pod_from_template<O: Kind>(owner: &O, template: &PodTemplateSpec) -> v1::Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    v1::Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name_any())),
            namespace: owner.namespace(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner::controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates a pod from the template, with upstream's events.
fn create_pod<O: Kind>(set: &O, template: &PodTemplateSpec) -> Action {
    Action::create(&pod_from_template(set, template), Some(pod_created(set)))
}

/// The events around the creation of a pod.
pub fn pod_created<O: Kind>(set: &O) -> Announce {
    Announce {
        regarding: reference(set),
        done: Some(("SuccessfulCreate", "Created pod: ")),
        failed: ("FailedCreate", "Error creating: ".into()),
    }
}

/// Deletes a pod, with upstream's events.
pub fn delete_pod<O: Kind>(set: &O, pod: &Pod) -> Action {
    Action::delete(
        pod,
        Some(Announce {
            regarding: reference(set),
            done: Some(("SuccessfulDelete", "Deleted pod: ")),
            failed: ("FailedDelete", "Error deleting: ".into()),
        }),
    )
}

fn status<K: Replicated>(
    set: &K,
    owned: &[Arc<Pod>],
    active: &[Arc<Pod>],
    cx: &Cx,
) -> ReplicaSetStatus {
    let (_, min_ready_seconds, template) = set.wants();
    let labels = template
        .and_then(|t| t.metadata.as_ref()?.labels.clone())
        .unwrap_or_default()
        .into_iter()
        .collect::<Selector>();
    let count = |test: &dyn Fn(&Pod) -> bool| count(active.iter().filter(|pod| test(pod)).count());
    let terminating =
        owned.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_terminal(pod)).count();
    let before = set.status();
    ReplicaSetStatus {
        replicas: self::count(active.len()),
        fully_labeled_replicas: Some(count(&|pod| labels.matches(pod.labels()))),
        ready_replicas: Some(count(&pods::is_ready)),
        available_replicas: Some(count(&|pod| pods::is_available(pod, min_ready_seconds, cx.now))),
        terminating_replicas: Some(self::count(terminating)),
        observed_generation: set.meta().generation,
        conditions: conditions(before.conditions, cx.failure, cx.now),
    }
    .without_empty()
}

/// Zero counts are left out, as Go's `omitempty` leaves them out: `kubectl get -o yaml`
/// and `diff` then see the same object as upstream's.
trait WithoutEmpty {
    fn without_empty(self) -> Self;
}

impl WithoutEmpty for ReplicaSetStatus {
    fn without_empty(mut self) -> Self {
        for field in [
            &mut self.fully_labeled_replicas,
            &mut self.ready_replicas,
            &mut self.available_replicas,
        ] {
            *field = field.filter(|count| *count != 0);
        }
        self
    }
}

fn conditions(
    before: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut all = before.unwrap_or_default();
    let known = all.iter().any(|c| c.type_ == "ReplicaFailure");
    match failure {
        Some(failure) if !known => all.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(failure.reason.into()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        Some(_) => {}
        None => all.retain(|c| c.type_ != "ReplicaFailure"),
    }
    (!all.is_empty()).then_some(all)
}

/// A count as API objects carry it.
pub fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{check, compare, plan};

    const SET: &str = "
kind: ReplicaSet
metadata: {name: web-5d, generation: 2}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i}]}
status: {replicas: 0}
";

    fn pod(name: &str, rest: &str) -> String {
        format!("\n---\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}, {rest}\n")
    }

    #[test]
    fn creates_what_is_missing() {
        let running = pod(
            "web-5d-a",
            "owner: ReplicaSet/web-5d}\nstatus: {phase: Running, conditions: [{type: Ready, status: 'True'}]}",
        );
        check(
            &REPLICA_SET,
            "default/web-5d",
            &format!("{SET}{running}"),
            r#"
            create Pod default/web-5d-*
            create Pod default/web-5d-*
            patch ReplicaSet default/web-5d/status {"status":{"availableReplicas":1,"fullyLabeledReplicas":1,"observedGeneration":2,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}}
            "#,
        );
    }

    #[test]
    fn adopts_orphans_and_releases_strangers() {
        let orphan = pod("lost", "uid: lost}");
        let stranger = "\n---\nkind: Pod\nmetadata: {name: other, labels: {app: db}, owner: ReplicaSet/web-5d}\n";
        let gone = pod("done", "owner: ReplicaSet/web-5d}\nstatus: {phase: Succeeded}");
        check(
            &REPLICA_SET,
            "default/web-5d",
            &format!("{SET}{orphan}{stranger}{gone}"),
            r#"
            patch Pod default/lost {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web-5d","uid":"ReplicaSet-web-5d"}]}}
            patch Pod default/other {"metadata":{"ownerReferences":null}}
            create Pod default/web-5d-*
            create Pod default/web-5d-*
            patch ReplicaSet default/web-5d/status {"status":{"fullyLabeledReplicas":1,"observedGeneration":2,"replicas":1,"terminatingReplicas":0}}
            "#,
        );
    }

    #[test]
    fn deletes_the_least_useful_first() {
        let ready = "status: {phase: Running, conditions: [{type: Ready, status: 'True', lastTransitionTime: '2026-01-01T11:00:00Z'}]}";
        let owned = "owner: ReplicaSet/web-5d}\nspec: {nodeName: n1, containers: []}\n";
        let pods: String = [
            pod("e-ready", &format!("{owned}{ready}")),
            pod("d-ready", &format!("{owned}{ready}")),
            pod("c-ready", &format!("{owned}{ready}")),
            pod("b-unready", &format!("{owned}status: {{phase: Running}}")),
            pod("a-unassigned", "owner: ReplicaSet/web-5d}"),
            pod(
                "cheap",
                "annotations: {controller.kubernetes.io/pod-deletion-cost: '-5'}, owner: ReplicaSet/web-5d}\nspec: {nodeName: n1, containers: []}\nstatus: {phase: Running, conditions: [{type: Ready, status: 'True', lastTransitionTime: '2026-01-01T11:00:00Z'}]}",
            ),
        ]
        .concat();
        check(
            &REPLICA_SET,
            "default/web-5d",
            &format!("{SET}{pods}"),
            r#"
            delete Pod default/a-unassigned
            delete Pod default/b-unready
            delete Pod default/cheap
            patch ReplicaSet default/web-5d/status {"status":{"availableReplicas":4,"fullyLabeledReplicas":6,"observedGeneration":2,"readyReplicas":4,"replicas":6,"terminatingReplicas":0}}
            "#,
        );
    }

    #[test]
    fn a_failure_shows_as_a_condition() {
        let failure = Failure { reason: "FailedCreate", message: "pods \"x\" is forbidden".into() };
        let set = SET.replace("replicas: 3", "replicas: 0");
        compare(
            &plan(&REPLICA_SET, "default/web-5d", &set, Some(failure)),
            r#"
            patch ReplicaSet default/web-5d/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","message":"pods \"x\" is forbidden","reason":"FailedCreate","status":"True","type":"ReplicaFailure"}],"observedGeneration":2,"terminatingReplicas":0}}
            "#,
        );
    }

    #[test]
    fn looks_again_when_the_next_pod_becomes_available() {
        let set = SET.replace("replicas: 3", "replicas: 1\n  minReadySeconds: 30");
        let ready = pod(
            "a",
            "owner: ReplicaSet/web-5d}\nstatus: {phase: Running, conditions: [{type: Ready, status: 'True', lastTransitionTime: '2026-01-01T11:59:45Z'}]}",
        );
        let plan = plan(&REPLICA_SET, "default/web-5d", &format!("{set}{ready}"), None);
        assert_eq!(plan.again, "2026-01-01T12:00:15Z".parse().ok());
    }
}
