//! The move from `kubectl apply` to `kubectl apply --server-side`: what the client recorded in its
//! annotation is its manager's to change, and the annotation is kept up so that there is a way back.

use super::compare::{Difference, fields};
use super::owners::Owner;
use super::place::Place;
use super::set::Set;
use super::{Conflict, NOBODYS};
use serde_json::Value;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most annotations may hold together; a configuration that is longer is not recorded.
const ANNOTATION_MAX_BYTES: usize = 256 << 10;

/// Splits conflicts into those over fields that client-side apply has set and nobody changed
/// since, and the others. Without a `live` object that is to be looked at all are others.
pub(super) fn allowed(
    place: Place<'_>,
    live: Option<&Value>,
    conflicts: Vec<(Owner, Set)>,
) -> (Set, Vec<Conflict>) {
    let recorded = live.and_then(|live| applied_fields(place, live)).unwrap_or_default();
    let mut ours = Set::default();
    let mut theirs = Vec::new();
    for (owner, mut set) in conflicts {
        ours.add(set.common(&recorded));
        set.subtract(&recorded);
        let manager = owner.title();
        let conflict = |field| Conflict { manager: manager.clone(), field };
        theirs.extend(set.paths().into_iter().map(conflict));
    }
    (ours, theirs)
}

/// Fields of the recorded configuration that are still as it has them.
fn applied_fields(place: Place<'_>, live: &Value) -> Option<Set> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    let recorded: Value = serde_json::from_str(text).ok()?;
    let mut set = fields(place, &recorded);
    let difference = Difference::between(place, &recorded, live);
    set.subtract(&difference.set);
    set.subtract(&difference.removed);
    set.strip(&NOBODYS);
    Some(set)
}

/// Writes the configuration into the annotation, where the object has it.
pub(super) fn refresh(object: &mut Value, applied: &Value) {
    let annotations = object.get_mut("metadata").and_then(|m| m.get_mut("annotations"));
    let Some(annotation) = annotations.and_then(|all| all.get_mut(LAST_APPLIED)) else { return };
    let mut applied = applied.clone();
    if let Some(metadata) = applied.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.shift_remove(LAST_APPLIED);
        }
    }
    applied.sort_all_objects();
    let text = format!("{applied}\n");
    if text.len() < ANNOTATION_MAX_BYTES {
        *annotation = Value::String(text);
    }
}
