//! Rolls a Deployment's ReplicaSets from one template to the next.
//!
//! `plan` works on copies: each step of upstream's controller changes the copies, and at the
//! end the differences become patches. `numbers` has the arithmetic, `revisions` the history,
//! `status` the conditions.

mod numbers;
mod revisions;
mod status;

use std::sync::Arc;

use client::Pod;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::ResourceExt;

pub use self::numbers::scaled;
use self::numbers::{available, replicas, wanted};
use crate::action::{Action, Announce, Plan, reference};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::{hash, owner, pods};

/// Label that tells the pods of one template from those of another.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Deployments.
pub const DEPLOYMENT: Controller =
    Controller { name: "deployment-controller", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    watches.own::<Deployment>();
    watches.dependents::<ReplicaSet, Deployment>(|deployment| {
        owner::selector(&deployment.spec.as_ref()?.selector)
    });
    // Only Recreate waits for pods, and for their going.
    watches.map::<Pod>(|world, pod| {
        let namespace = pod.namespace().unwrap_or_default();
        let set = owner::controller_of(pod)
            .filter(|c| c.kind == "ReplicaSet")
            .and_then(|c| world.get::<ReplicaSet>(&namespace, &c.name));
        let deployment = set.and_then(|set| {
            let name = &owner::controller_of(set.as_ref())?.name;
            world.get::<Deployment>(&namespace, name)
        });
        deployment
            .filter(|d| !numbers::is_rolling(d))
            .map(|d| Key::of(d.as_ref()))
            .into_iter()
            .collect()
    });
}

/// A ReplicaSet as it was and as it shall be.
struct Set {
    before: Option<Arc<ReplicaSet>>,
    now: ReplicaSet,
    delete: bool,
}

/// The copies that the steps work on.
struct Rollout<'a> {
    cx: &'a Cx<'a>,
    before: Arc<Deployment>,
    deployment: Deployment,
    /// Oldest first.
    sets: Vec<Set>,
    /// Index of the set with the current template.
    new: Option<usize>,
    events: Vec<Action>,
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(before) = cx.world.get::<Deployment>(&key.namespace, &key.name) else { return plan };
    let selector = before.spec.as_ref().and_then(|s| owner::selector(&s.selector));
    let Some(selector) = selector.filter(|s| !s.selects_all()) else {
        let note = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.push([Action::event(before.as_ref(), true, "SelectingAll", note.into())]);
        return plan;
    };
    let claim =
        owner::claim(before.as_ref(), &selector, cx.world.list::<ReplicaSet>(&key.namespace));
    plan.push(claim.actions);
    let mut rollout = Rollout::new(cx, before, claim.owned);
    rollout.step(&mut plan);
    rollout.finish(&mut plan);
    plan
}

impl<'a> Rollout<'a> {
    fn new(cx: &'a Cx<'a>, before: Arc<Deployment>, owned: Vec<Arc<ReplicaSet>>) -> Self {
        let set = |set: Arc<ReplicaSet>| Set {
            now: set.as_ref().clone(),
            before: Some(set),
            delete: false,
        };
        let mut sets: Vec<Set> = owned.into_iter().map(set).collect();
        sets.sort_by_key(|set| age(&set.now));
        let deployment = before.as_ref().clone();
        // An API server that fills in more defaults than it did when the Deployment was stored
        // makes the templates differ; the hash in the name still tells whose set it is.
        let named = set_name(&deployment).map(|(name, _)| name);
        let new = sets
            .iter()
            .position(|set| same_template(&deployment, &set.now))
            .or_else(|| sets.iter().position(|set| set.now.metadata.name == named));
        Rollout { cx, before, deployment, sets, new, events: Vec::new() }
    }

    fn step(&mut self, plan: &mut Plan) {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return self.plain_status();
        }
        self.note_pause();
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
        if paused || self.was_scaled() {
            self.update_new_set();
            self.scale();
            if paused {
                self.clean_up();
            }
            return self.plain_status();
        }
        if numbers::is_rolling(&self.deployment) {
            self.ensure_new_set();
            if !self.grow_new() && !self.shrink_old() && self.is_complete() {
                self.clean_up();
            }
        } else {
            self.recreate();
        }
        self.rollout_status(plan);
    }

    /// Old pods go first; only when all are gone does the new set grow.
    fn recreate(&mut self) {
        self.update_new_set();
        let mut scaled_down = false;
        for index in self.old() {
            scaled_down |= self.scale_set(index, 0);
        }
        if scaled_down || self.old_pods_run() {
            return;
        }
        self.ensure_new_set();
        if let Some(new) = self.new {
            self.scale_set(new, wanted(&self.deployment));
        }
        if self.is_complete() {
            self.clean_up();
        }
    }

    fn old_pods_run(&self) -> bool {
        let namespace = self.deployment.namespace().unwrap_or_default();
        let all = self.cx.world.list::<Pod>(&namespace);
        let old: Vec<_> = self.old().map(|index| &self.sets[index].now).collect();
        all.iter().any(|pod| {
            !pods::is_terminal(pod)
                && old.iter().any(|set| owner::is_controlled_by(pod.as_ref(), *set))
        })
    }

    /// Indices of all sets but the new one.
    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |index| Some(*index) != new)
    }

    fn sum(&self, indices: impl Iterator<Item = usize>, of: fn(&ReplicaSet) -> i32) -> i32 {
        indices.map(|index| of(&self.sets[index].now)).sum()
    }

    /// The set with the current template, made where there is none.
    fn ensure_new_set(&mut self) {
        if self.new.is_some() {
            return self.update_new_set();
        }
        let Some(spec) = self.deployment.spec.clone() else { return };
        let Some((name, hash)) = set_name(&self.deployment) else { return };
        let namespace = self.deployment.namespace().unwrap_or_default();
        if self.cx.world.get::<ReplicaSet>(&namespace, &name).is_some() {
            // Another owner's set has the name: try another hash next time.
            let status = self.deployment.status.get_or_insert_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            return;
        }
        let set = self.fresh_set(name, &hash, spec);
        self.sets.push(Set { before: None, now: set, delete: false });
        let index = self.sets.len() - 1;
        self.new = Some(index);
        let all = self.sum(0..index, replicas);
        let size = numbers::new_set_replicas(&self.deployment, all, 0);
        if let Some(spec) = &mut self.sets[index].now.spec {
            spec.replicas = Some(size);
        }
        self.annotate_new_set(index, false);
        self.note_new_set(index, true);
        if size > 0 {
            self.scaled_event(index, 0, size);
        }
    }

    fn fresh_set(
        &self,
        name: String,
        hash: &str,
        spec: k8s_openapi::api::apps::v1::DeploymentSpec,
    ) -> ReplicaSet {
        let mut template = spec.template;
        let labels = &mut template.metadata.get_or_insert_default().labels;
        labels.get_or_insert_default().insert(TEMPLATE_HASH.into(), hash.into());
        let labels = labels.clone();
        let mut selector: LabelSelector = spec.selector;
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.into(), hash.into());
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.deployment.namespace(),
                labels,
                owner_references: Some(vec![owner::controller_reference(&self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(k8s_openapi::api::apps::v1::ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: Some(0),
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }

    /// Brings annotations and `minReadySeconds` of an existing new set up to date.
    fn update_new_set(&mut self) {
        let Some(index) = self.new else { return };
        self.annotate_new_set(index, true);
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        if let Some(spec) = &mut self.sets[index].now.spec
            && spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)
        {
            spec.min_ready_seconds = min_ready;
        }
        self.note_new_set(index, false);
    }

    /// Sets the size of a set; says whether that changed anything.
    fn scale_set(&mut self, index: usize, size: i32) -> bool {
        let set = &mut self.sets[index].now;
        let from = replicas(set);
        if from == size {
            return false;
        }
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(size);
        }
        revisions::annotate_size(set, &self.deployment);
        self.scaled_event(index, from, size);
        true
    }

    fn scaled_event(&mut self, index: usize, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let name = self.sets[index].now.name_any();
        let note = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.events.push(Action::event(&self.deployment, false, "ScalingReplicaSet", note));
    }

    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        // A set that this very plan makes has its first size already.
        if self.sets[new].before.is_none() {
            return true;
        }
        let (size, all) = (replicas(&self.sets[new].now), self.sum(0..self.sets.len(), replicas));
        let target = match wanted(&self.deployment) {
            same if same == size => return false,
            fewer if fewer < size => fewer,
            _ => numbers::new_set_replicas(&self.deployment, all, size),
        };
        self.scale_set(new, target)
    }

    /// Takes away old replicas: broken ones first, then as many as availability allows.
    fn shrink_old(&mut self) -> bool {
        if self.sum(self.old(), replicas) == 0 {
            return false;
        }
        let everything = 0..self.sets.len();
        let floor = wanted(&self.deployment) - numbers::max_unavailable(&self.deployment);
        let new_unavailable =
            self.new.map_or(0, |i| replicas(&self.sets[i].now) - available(&self.sets[i].now));
        let mut budget = self.sum(everything.clone(), replicas) - floor - new_unavailable;
        if budget <= 0 {
            return false;
        }
        let mut scaled = false;
        for index in self.old() {
            let (size, up) = (replicas(&self.sets[index].now), available(&self.sets[index].now));
            let broken = (size - up).clamp(0, budget.max(0));
            budget -= broken;
            scaled |= self.scale_set(index, size - broken);
        }
        let mut surplus = self.sum(everything, available) - floor;
        for index in self.old() {
            let size = replicas(&self.sets[index].now);
            let down = size.min(surplus.max(0));
            surplus -= down;
            scaled |= self.scale_set(index, size - down);
        }
        scaled
    }

    /// Whether the Deployment's own size has changed since its sets were last scaled.
    fn was_scaled(&self) -> bool {
        self.sets.iter().filter(|set| replicas(&set.now) > 0).any(|set| {
            let desired = set.now.annotations().get(numbers::DESIRED_REPLICAS);
            desired
                .and_then(|n| n.parse::<i32>().ok())
                .is_some_and(|desired| desired != wanted(&self.deployment))
        })
    }

    /// Spreads a change of size over all sets in proportion to theirs.
    fn scale(&mut self) {
        let target = wanted(&self.deployment);
        let active: Vec<usize> =
            (0..self.sets.len()).filter(|i| replicas(&self.sets[*i].now) > 0).collect();
        let only = match active.as_slice() {
            [] => self.new.or_else(|| self.old().last()),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(only) = only {
            self.scale_set(only, target);
            return;
        }
        if self.is_saturated() {
            for index in self.old() {
                self.scale_set(index, 0);
            }
        } else if numbers::is_rolling(&self.deployment) && !active.is_empty() {
            self.scale_in_proportion(active);
        }
    }

    fn is_saturated(&self) -> bool {
        let target = wanted(&self.deployment);
        self.new.is_some_and(|new| {
            let set = &self.sets[new].now;
            let desired = set.annotations().get(numbers::DESIRED_REPLICAS);
            replicas(set) == target
                && desired.and_then(|n| n.parse().ok()) == Some(target)
                && available(set) == target
        })
    }

    fn scale_in_proportion(&mut self, mut active: Vec<usize>) {
        let target = wanted(&self.deployment);
        let allowed = if target > 0 { target + numbers::max_surge(&self.deployment) } else { 0 };
        let to_add = allowed - self.sum(active.iter().copied(), replicas);
        // The largest first; of equal ones the newer grows and the older shrinks.
        active.sort_by_key(|index| {
            let tie = i64::try_from(*index).unwrap_or(0);
            (-replicas(&self.sets[*index].now), if to_add > 0 { -tie } else { tie })
        });
        let mut added = 0;
        let sizes: Vec<(usize, i32)> = active
            .iter()
            .map(|index| {
                let set = &self.sets[*index].now;
                let part = numbers::proportion(set, &self.deployment, to_add, added);
                added += part;
                (*index, replicas(set) + part)
            })
            .collect();
        for (rank, (index, size)) in sizes.into_iter().enumerate() {
            let leftover = if rank == 0 { to_add - added } else { 0 };
            if !self.scale_set(index, (size + leftover).max(0)) {
                revisions::annotate_size(&mut self.sets[index].now, &self.deployment);
            }
        }
    }

    /// Turns the changed copies into actions.
    fn finish(self, plan: &mut Plan) {
        let announce = Announce {
            regarding: reference(self.before.as_ref()),
            done: None,
            failed: ("ReplicaSetCreateError", "Failed to create new replica set: ".into()),
        };
        let status = Action::change(
            &Deployment {
                metadata: self.deployment.metadata.clone(),
                ..self.before.as_ref().clone()
            },
            &self.deployment,
            "status",
        );
        let known_failure = self.cx.failure.is_some();
        if known_failure {
            plan.push(status.clone());
        }
        for set in &self.sets {
            match &set.before {
                None => plan.push([Action::create(&set.now, Some(announce.clone()))]),
                Some(before) if set.delete => plan.push([Action::delete(before.as_ref(), None)]),
                Some(before) => plan.push(Action::change(before.as_ref(), &set.now, "")),
            }
        }
        plan.push(self.events);
        let annotated = Deployment {
            metadata: self.deployment.metadata.clone(),
            ..self.before.as_ref().clone()
        };
        plan.push(Action::change(self.before.as_ref(), &annotated, ""));
        if !known_failure {
            plan.push(status);
        }
    }
}

/// Name of the set for the present template, and the hash in it.
fn set_name(deployment: &Deployment) -> Option<(String, String)> {
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = hash::template_hash(&deployment.spec.as_ref()?.template, collisions);
    Some((format!("{}-{hash}", deployment.name_any()), hash))
}

fn age(set: &ReplicaSet) -> (Option<jiff::Timestamp>, String) {
    (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.name_any())
}

/// Whether the set was made from the Deployment's present template.
fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let (Some(spec), Some(template)) =
        (&deployment.spec, set.spec.as_ref().and_then(|s| s.template.as_ref()))
    else {
        return false;
    };
    let mut bare = template.clone();
    if let Some(meta) = &mut bare.metadata
        && let Some(labels) = &mut meta.labels
    {
        labels.remove(TEMPLATE_HASH);
        if labels.is_empty() {
            meta.labels = None;
        }
    }
    let mut wanted = spec.template.clone();
    for template in [&mut bare, &mut wanted] {
        // `metadata: {creationTimestamp: null}` and no metadata say the same.
        template.metadata.get_or_insert_default();
    }
    bare == wanted
}

#[cfg(test)]
mod tests;
