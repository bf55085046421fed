//! The claims of a StatefulSet's pods, and to whom they belong: nobody, so that they stay; the set,
//! so that they go with it; or a pod that is one too many, so that they go with that.

use client::Pod;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{Round, identity};
use crate::action::Action;
use crate::context::Key;
use crate::owner;
use crate::world::World;

/// The claims that a pod of this ordinal has, with the names of its volumes.
pub fn wanted(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    ordinal: i32,
) -> impl Iterator<Item = (String, PersistentVolumeClaim)> {
    let templates = spec.volume_claim_templates.iter().flatten();
    templates.map(move |template| {
        let volume = template.name_any();
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        let metadata = ObjectMeta {
            name: Some(format!("{volume}-{}-{ordinal}", set.name_any())),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: template.metadata.annotations.clone(),
            finalizers: template.metadata.finalizers.clone(),
            ..ObjectMeta::default()
        };
        let spec = template.spec.clone();
        (volume, PersistentVolumeClaim { metadata, spec, status: None })
    })
}

/// Sets that a claim is made for: they wait for its going or make it anew.
pub fn sets_of(world: &World, claim: &PersistentVolumeClaim) -> Vec<Key> {
    let name = claim.name_any();
    let makes = |set: &StatefulSet| {
        let templates =
            set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
        let mut starts = templates.map(|t| format!("{}-{}-", t.name_any(), set.name_any()));
        starts.any(|start| name.starts_with(&start))
    };
    let sets = world.list::<StatefulSet>(claim.metadata.namespace.as_deref().unwrap_or_default());
    sets.iter().filter(|set| makes(set)).map(|set| Key::of(set.as_ref())).collect()
}

/// Creates what a pod of this ordinal does not find.
pub fn missing(round: &Round, ordinal: i32) -> Vec<Action> {
    let pod = format!("{}-{ordinal}", round.set.name_any());
    let is_there = |claim: &PersistentVolumeClaim| stored(round, claim).is_some();
    let all = wanted(round.set, round.spec, ordinal).filter(|(_, claim)| !is_there(claim));
    all.flat_map(|(_, claim)| {
        let set = round.set.name_any();
        let what = format!("Claim {} Pod {pod} in StatefulSet {set}", claim.name_any());
        round.announced("create", &what, "success", |announce| {
            Action::create(&claim, Some(announce))
        })
    })
    .collect()
}

/// Whether a claim of this ordinal is on its way out, or goes with an earlier pod of the name.
pub fn are_stale(round: &Round, ordinal: i32, pod: Option<&Pod>) -> bool {
    let name = format!("{}-{ordinal}", round.set.name_any());
    let uid = pod.and_then(|pod| pod.metadata.uid.clone());
    wanted(round.set, round.spec, ordinal).filter_map(|(_, claim)| stored(round, &claim)).any(
        |claim| {
            let of_another = claim.owner_references().iter().any(|owner| {
                owner.kind == "Pod" && owner.name == name && Some(&owner.uid) != uid.as_ref()
            });
            claim.metadata.deletion_timestamp.is_some() || of_another
        },
    )
}

/// Gives the claims of a pod to whom the set's policy says. What somebody else manages stays
/// theirs.
pub fn own(round: &Round, pod: &Pod) -> Vec<Action> {
    let Some(ordinal) = identity::ordinal(&round.set.name_any(), pod) else { return Vec::new() };
    let policy = round.spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    let surplus = !identity::range(round.spec).contains(&ordinal);
    let owner = if surplus && deletes(policy.and_then(|p| p.when_scaled.as_ref())) {
        Some(owner::controller_reference(pod))
    } else if deletes(policy.and_then(|p| p.when_deleted.as_ref())) {
        // A pod too many whose claims stay when it goes leaves them to the set.
        Some(owner::controller_reference(round.set))
    } else {
        None
    };
    let ours = [round.set.uid(), pod.uid()];
    let claims = wanted(round.set, round.spec, ordinal);
    let changes = claims.filter_map(|(_, claim)| stored(round, &claim)).filter_map(|claim| {
        let mut after = claim.as_ref().clone();
        let mut owners = after.metadata.owner_references.take().unwrap_or_default();
        owners.retain(|known| !ours.contains(&Some(known.uid.clone())));
        if !owners.iter().any(|known| known.controller == Some(true)) {
            owners.extend(owner.clone());
        }
        let written = !owners.is_empty() || claim.metadata.owner_references.is_some();
        after.metadata.owner_references = written.then_some(owners);
        Action::change(claim.as_ref(), &after, "")
    });
    changes.collect()
}

fn stored(
    round: &Round,
    claim: &PersistentVolumeClaim,
) -> Option<std::sync::Arc<PersistentVolumeClaim>> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    round.cx.world.get(namespace, claim.metadata.name.as_deref().unwrap_or_default())
}
