//! Who belongs to whom: owner references, and the adoption and release of objects by
//! selector. The one road for every controller that has dependents.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

use crate::action::{Action, Kind};

/// The reference that makes `owner` the managing controller of a dependent.
pub fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The managing controller of `object`, if it has one.
pub fn controller_of<K: Kind>(object: &K) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` is the managing controller of `object`.
pub fn is_controlled_by<K: Kind, O: Kind>(object: &K, owner: &O) -> bool {
    controller_of(object).is_some_and(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
}

/// Parses a selector; one that cannot be parsed selects nothing.
pub fn selector(selector: &LabelSelector) -> Option<Selector> {
    Selector::try_from(selector.clone()).ok()
}

/// The dependents of an owner, and what has to be written for it to be so.
pub struct Claim<K> {
    /// Owned already, or adopted by one of the actions.
    pub owned: Vec<Arc<K>>,
    /// Adoptions and releases.
    pub actions: Vec<Action>,
}

/// Sorts `candidates` into owned ones, orphans to adopt (they match), and owned ones to
/// release (they match no longer). An owner being deleted neither adopts nor releases.
pub fn claim<K: Kind, O: Kind>(
    owner: &O,
    selects: &Selector,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claim<K> {
    claim_with(owner, selects, candidates, None)
}

/// The same for an owner that keeps its dependents by this finalizer: they have it as long as they
/// are its own. One that is let go with it would never end.
pub fn claim_with<K: Kind, O: Kind>(
    owner: &O,
    selects: &Selector,
    candidates: impl IntoIterator<Item = Arc<K>>,
    finalizer: Option<&str>,
) -> Claim<K> {
    let mut claim = Claim { owned: Vec::new(), actions: Vec::new() };
    let leaving = owner.meta().deletion_timestamp.is_some();
    for candidate in candidates {
        let matches = selects.matches(candidate.labels());
        match controller_of(candidate.as_ref()) {
            Some(reference) if Some(&reference.uid) == owner.meta().uid.as_ref() => {
                if matches {
                    claim.owned.push(candidate);
                } else if !leaving {
                    claim.actions.extend(release(candidate.as_ref(), owner, finalizer));
                }
            }
            None if matches && !leaving && candidate.meta().deletion_timestamp.is_none() => {
                let mut adopted = candidate.as_ref().clone();
                adopted.owner_references_mut().push(controller_reference(owner));
                let missing = |name: &&str| !candidate.finalizers().iter().any(|one| one == name);
                if let Some(finalizer) = finalizer.filter(missing) {
                    adopted.finalizers_mut().push(finalizer.to_owned());
                }
                claim.actions.extend(Action::change(candidate.as_ref(), &adopted, ""));
                claim.owned.push(candidate);
            }
            _ => {}
        }
    }
    claim
}

fn release<K: Kind, O: Kind>(object: &K, owner: &O, finalizer: Option<&str>) -> Option<Action> {
    let mut released = object.clone();
    let uid = owner.uid().unwrap_or_default();
    released.owner_references_mut().retain(|reference| reference.uid != uid);
    if released.owner_references().is_empty() {
        released.meta_mut().owner_references = None;
    }
    if let Some(finalizer) = finalizer {
        drop_finalizer(&mut released, finalizer);
    }
    Action::change(object, &released, "")
}

/// Takes a finalizer off.
pub fn drop_finalizer<K: Kind>(object: &mut K, finalizer: &str) {
    object.finalizers_mut().retain(|one| one != finalizer);
    if object.finalizers().is_empty() {
        object.meta_mut().finalizers = None;
    }
}
