//! The state that a write brings, beside the one that is stored.

use api::status::{FieldError, MODIFIED, Status};
use api::strategy;
use serde_json::{Value, json};

use super::Change;
use super::refusal::invalid;
use crate::registry::call::Target;
use crate::registry::{Outcome, meta};

/// An update that creates must not rely on a state that is not there.
pub(super) fn check_fresh(target: &Target, object: &Value) -> Outcome<()> {
    let uid = meta::uid(object);
    if !uid.is_empty() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
        return Err(Status::conflict(&*target.resource, &target.name, &why));
    }
    match meta::revision(object) {
        Some(_) => Err(Status::not_found(&*target.resource, &target.name)),
        None => Ok(()),
    }
}

/// The new state must be meant for the present one.
pub(super) fn check_state(change: &Change<'_>, object: &Value, live: &Value) -> Outcome<()> {
    let target = change.target;
    let resource = &*target.resource;
    match meta::revision(object) {
        Some(revision) if Some(revision) != meta::revision(live) => {
            return Err(Status::conflict(resource, &target.name, MODIFIED));
        }
        None if change.conditional && !strategy::allows_unconditional_update(resource) => {
            let error = FieldError::invalid(
                "metadata.resourceVersion",
                json!(0),
                "must be specified for an update",
            );
            return Err(invalid(target, &[error]));
        }
        _ => {}
    }
    let (wanted, found) = (meta::uid(object), meta::uid(live));
    if !wanted.is_empty() && wanted != found {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        return Err(Status::conflict(resource, &target.name, &why));
    }
    Ok(())
}

/// What no writer changes: identity, times, and a deletion under way.
pub(super) fn keep_metadata(object: &mut Value, live: &Value, namespaced: bool) {
    for field in
        ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"]
    {
        meta::set(object, field, live["metadata"][field].clone());
    }
    for field in ["name", "namespace", "generateName"] {
        if object["metadata"][field].is_null() || (field == "namespace" && !namespaced) {
            meta::set(object, field, live["metadata"][field].clone());
        }
    }
}

/// Whether two states differ in nothing but the times at which fields were last set.
pub(super) fn same(new: &Value, live: &Value) -> bool {
    members_are_same(new, live, |name, new, live| match name {
        "metadata" => members_are_same(new, live, |name, new, live| match name {
            "managedFields" => owners_are_same(new, live),
            _ => new == live,
        }),
        _ => new == live,
    })
}

fn owners_are_same(new: &Value, live: &Value) -> bool {
    let (Some(new), Some(live)) = (new.as_array(), live.as_array()) else { return new == live };
    // Owners are ordered by time, so that another time may mean another place.
    let is_in_live = |new: &Value| {
        live.iter().any(|live| {
            members_are_same(new, live, |name, new, live| name == "time" || new == live)
        })
    };
    new.len() == live.len() && new.iter().all(is_in_live)
}

/// Compares two objects member by member; what both lack is the same.
fn members_are_same(
    new: &Value,
    live: &Value,
    same: impl Fn(&str, &Value, &Value) -> bool,
) -> bool {
    let (Some(new), Some(live)) = (new.as_object(), live.as_object()) else { return new == live };
    new.len() == live.len()
        && new.iter().all(|(name, new)| live.get(name).is_some_and(|live| same(name, new, live)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_of_owners_do_not_count() {
        let state = |owners: Value, data: &str| json!({"metadata": {"name": "a", "managedFields": owners}, "data": data});
        let owner = |name: &str, time: &str| json!({"manager": name, "time": time});
        let live = state(json!([owner("a", "1"), owner("b", "1")]), "x");
        for (owners, data, expected) in [
            (json!([owner("b", "1"), owner("a", "2")]), "x", true),
            (json!([owner("b", "1"), owner("a", "2")]), "y", false),
            (json!([owner("a", "1"), owner("c", "1")]), "x", false),
            (json!([owner("a", "1")]), "x", false),
        ] {
            assert_eq!(same(&state(owners.clone(), data), &live), expected, "{owners} {data}");
        }
        assert!(!same(&json!({"metadata": {}, "data": "x"}), &json!({"metadata": {}})));
    }
}
