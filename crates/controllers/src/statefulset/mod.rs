//! Pods with a name and a place of their own: `web-0`, `web-1`, each with its own claims, made and
//! taken away in order and brought up to date from the last to the first.
//!
//! A plan looks at every ordinal and does what can be done now. Where the set is ordered it stops
//! at the first pod that is not available; the change that makes it so wakes the next plan.

mod claims;
mod identity;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::Pod;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
use kube::ResourceExt;
use kube::core::Selector;

use crate::action::{Action, Announce, Plan, reference};
use crate::context::{Cx, Key};
use crate::deployment::scaled;
use crate::driver::{Controller, Reconcile, Watches};
use crate::hash::template_hash;
use crate::history::{self, History};
use crate::replicaset::count;
use crate::{owner, pods};

/// Label of a pod with the name of the revision that it was made from.
const REVISION: &str = "controller-revision-hash";
/// Label of a revision with its template's hash.
const HASH: &str = "controller.kubernetes.io/hash";

/// StatefulSets.
pub const STATEFUL_SET: Controller =
    Controller { name: "statefulset-controller", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    watches.own::<StatefulSet>();
    watches.owned::<ControllerRevision, StatefulSet>();
    watches.dependents::<Pod, StatefulSet>(selector);
    watches.map::<PersistentVolumeClaim>(claims::sets_of);
}

fn selector(set: &StatefulSet) -> Option<Selector> {
    owner::selector(&set.spec.as_ref()?.selector)
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = cx.world.get::<StatefulSet>(&key.namespace, &key.name) else { return plan };
    let Some(spec) = &set.spec else { return plan };
    let Some(selector) = selector(&set).filter(|s| !s.selects_all()) else { return plan };
    let mut members = cx.world.list::<Pod>(&key.namespace);
    members.retain(|pod| identity::ordinal(&key.name, pod).is_some());
    let pods = owner::claim(set.as_ref(), &selector, members);
    let revisions = cx.world.list::<ControllerRevision>(&key.namespace);
    let revisions = owner::claim(set.as_ref(), &selector, revisions);
    plan.push(pods.actions);
    plan.push(revisions.actions);
    // The first status says zero where there was nothing; the hash must not change by that.
    let collisions = set.status.as_ref().and_then(|s| s.collision_count).filter(|n| *n != 0);
    let hash = template_hash(&spec.template, collisions);
    let history = History::new(set.as_ref(), &spec.template, (HASH, &hash), revisions.owned);
    let round = Round::new(cx, &set, spec, &history, pods.owned);
    let leaving = set.metadata.deletion_timestamp.is_some();
    if !leaving {
        plan.push(history.record());
    }
    let wanted = StatefulSet { status: Some(round.status()), ..set.as_ref().clone() };
    // What failed may fail again and end the plan; the status is written before.
    plan.push(Action::change(set.as_ref(), &wanted, "status"));
    if !leaving {
        plan.push(round.manage());
        plan.push(history.forget(spec.revision_history_limit, |r| round.runs(&r.name_any())));
    }
    let times = round.pods.iter().filter_map(|pod| round.available_at(pod));
    if let Some(next) = times.filter(|at| *at > cx.now).min() {
        plan.look_again(next);
    }
    plan
}

/// A template and the name of its revision.
struct Revision {
    name: String,
    template: PodTemplateSpec,
}

/// What the steps of one plan share.
struct Round<'a> {
    cx: &'a Cx<'a>,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    /// What pods are brought to.
    update: Revision,
    /// What pods below the partition stay at.
    current: Revision,
    /// All pods of the set.
    pods: Vec<Arc<Pod>>,
    /// The pods that should be, by ordinal from the first on; none: to be made.
    replicas: Vec<(i32, Option<Arc<Pod>>)>,
    /// The pods that should not be, the highest ordinal first.
    condemned: Vec<Arc<Pod>>,
}

/// Whether an ordered set may go on to the next pod.
#[derive(PartialEq)]
enum Next {
    Goes,
    Waits,
}

impl<'a> Round<'a> {
    fn new(
        cx: &'a Cx<'a>,
        set: &'a StatefulSet,
        spec: &'a StatefulSetSpec,
        history: &History,
        pods: Vec<Arc<Pod>>,
    ) -> Self {
        let update = Revision { name: history.name().to_owned(), template: spec.template.clone() };
        let before = set.status.as_ref().and_then(|s| s.current_revision.clone());
        let kept = history.all.iter().find(|r| Some(r.name_any()) == before);
        let current = kept
            .and_then(|r| Some(Revision { name: r.name_any(), template: history::template(r)? }));
        let current = current.unwrap_or_else(|| Revision {
            name: update.name.clone(),
            template: update.template.clone(),
        });
        let name = set.name_any();
        let ordinal = |pod: &Arc<Pod>| identity::ordinal(&name, pod).unwrap_or(0);
        let range = identity::range(spec);
        let replicas = range
            .clone()
            .map(|wanted| (wanted, pods.iter().find(|pod| ordinal(pod) == wanted).cloned()));
        let replicas = replicas.collect();
        let mut condemned: Vec<_> =
            pods.iter().filter(|pod| !range.contains(&ordinal(pod))).cloned().collect();
        condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
        Self { cx, set, spec, update, current, pods, replicas, condemned }
    }

    fn available_at(&self, pod: &Pod) -> Option<jiff::Timestamp> {
        pods::available_at(pod, self.spec.min_ready_seconds.unwrap_or(0))
    }

    /// Running, and ready for long enough.
    fn is_available(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && self.available_at(pod).is_some_and(|at| at <= self.cx.now)
    }

    /// Not to be counted on: missing, going, or not available.
    fn is_away(&self, pod: Option<&Arc<Pod>>) -> bool {
        pod.is_none_or(|pod| pods::is_terminating(pod) || !self.is_available(pod))
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// Whether a revision is current, or a pod was made from it.
    fn runs(&self, revision: &str) -> bool {
        revision == self.current.name || self.pods.iter().any(|pod| made_from(pod) == revision)
    }

    /// What can be done now.
    fn manage(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let all = self.replicas.iter().flat_map(|(_, pod)| pod).chain(&self.condemned);
        actions.extend(all.flat_map(|pod| claims::own(self, pod)));
        for (ordinal, pod) in &self.replicas {
            let (steps, next) = self.replica(*ordinal, pod.as_ref());
            actions.extend(steps);
            if next == Next::Waits && self.is_ordered() {
                return actions;
            }
        }
        for pod in &self.condemned {
            let (steps, next) = self.surplus(pod);
            actions.extend(steps);
            if next == Next::Waits && self.is_ordered() {
                return actions;
            }
        }
        actions.extend(self.outdated());
        actions
    }

    /// A pod that should be.
    fn replica(&self, ordinal: i32, pod: Option<&Arc<Pod>>) -> (Vec<Action>, Next) {
        let Some(pod) = pod else {
            let stale = claims::are_stale(self, ordinal, None);
            let steps = if stale { Vec::new() } else { self.create(ordinal) };
            return (steps, Next::Waits);
        };
        // How a pod ended says nothing of the set: an evicted one may have ended well.
        if pods::is_terminal(pod) {
            let going = pods::is_terminating(pod);
            return (if going { Vec::new() } else { self.delete(pod) }, Next::Waits);
        }
        let mut steps = Vec::new();
        if pods::phase(pod) == "Pending" {
            steps.extend(claims::missing(self, ordinal));
        }
        if self.is_away(Some(pod)) {
            return (steps, Next::Waits);
        }
        steps.extend(identity::restored(pod, ordinal));
        (steps, Next::Goes)
    }

    /// A pod that should not be. Of an ordered set it goes only while all others are well, unless
    /// it is itself the first that is not.
    fn surplus(&self, pod: &Arc<Pod>) -> (Vec<Action>, Next) {
        if pods::is_terminating(pod) {
            return (Vec::new(), Next::Waits);
        }
        let lowest_first = self.condemned.iter().rev();
        let sick = lowest_first.filter(|pod| self.is_away(Some(pod))).map(|pod| pod.name_any());
        let is_first_sick = sick.take(1).any(|name| name == pod.name_any());
        if self.is_ordered() && !self.is_available(pod) && !is_first_sick {
            return (Vec::new(), Next::Waits);
        }
        (self.delete(pod), Next::Waits)
    }

    /// Pods of an older template, the highest ordinal first, as many as may be away at once.
    fn outdated(&self) -> Vec<Action> {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return Vec::new();
        }
        let most = strategy.rolling_update.and_then(|r| r.max_unavailable);
        let most = most.map_or(1, |most| scaled(&most, count(self.replicas.len()), true).max(1));
        let away = self.replicas.iter().filter(|(_, pod)| self.is_away(pod.as_ref())).count();
        let mut budget = most - count(away);
        let mut actions = Vec::new();
        let partition = usize::try_from(self.partition()).unwrap_or(0);
        for (_, pod) in self.replicas.iter().skip(partition).rev() {
            let Some(pod) = pod else { continue };
            if made_from(pod) == self.update.name || pods::is_terminating(pod) {
                continue;
            }
            // One that is away already costs nothing.
            if !self.is_away(Some(pod)) {
                if budget <= 0 {
                    continue;
                }
                budget -= 1;
            }
            actions.extend(self.delete(pod));
        }
        actions
    }

    /// How many pods from the first on stay at the current revision.
    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|s| s.rolling_update.as_ref()?.partition).unwrap_or(0)
    }

    /// The pod of this ordinal with its claims.
    fn create(&self, ordinal: i32) -> Vec<Action> {
        let first = self.replicas.first().map_or(0, |(first, _)| *first);
        let stays = ordinal - first < self.partition();
        let revision = if stays { &self.current } else { &self.update };
        let pod = identity::pod(self.set, self.spec, ordinal, revision);
        let mut actions = claims::missing(self, ordinal);
        let what = format!("Pod {} in StatefulSet {}", pod.name_any(), self.set.name_any());
        actions.extend(self.announced("create", &what, "successful", |announce| {
            Action::create(&pod, Some(announce))
        }));
        actions
    }

    fn delete(&self, pod: &Pod) -> Vec<Action> {
        let what = format!("Pod {} in StatefulSet {}", pod.name_any(), self.set.name_any());
        self.announced("delete", &what, "successful", |announce| {
            Action::delete(pod, Some(announce))
        })
    }

    /// An action with upstream's events: how it failed, or that it went well.
    fn announced(
        &self,
        verb: &str,
        what: &str,
        well: &str,
        action: impl Fn(Announce) -> Action,
    ) -> Vec<Action> {
        let (done, failed) = match verb {
            "delete" => ("SuccessfulDelete", "FailedDelete"),
            _ => ("SuccessfulCreate", "FailedCreate"),
        };
        let failed = (failed, format!("{verb} {what} failed error: ").into());
        let announce = Announce { regarding: reference(self.set), done: None, failed };
        // An event is recorded only after what stands before it went well.
        let event = Action::event(self.set, false, done, format!("{verb} {what} {well}"));
        vec![action(announce), event]
    }
}

/// The name of the revision that a pod was made from.
fn made_from(pod: &Pod) -> &str {
    pod.labels().get(REVISION).map(String::as_str).unwrap_or_default()
}
