//! Server-side apply and the bookkeeping of field owners (`metadata.managedFields`).
//!
//! Every write leaves behind who set which field; an apply may not change what others own unless
//! it is forced, and takes out what its manager set before and sets no more. Rules:
//! sigs.k8s.io/structured-merge-diff and k8s.io/apimachinery/pkg/util/managedfields.
//!
//! Everything is done on JSON trees along the schema. Only what differs is turned into sets, so
//! that a heartbeat costs in proportion to what it changes.

mod check;
mod compare;
mod element;
mod last_applied;
mod merge;
mod owners;
mod place;
mod set;
#[cfg(test)]
mod tests;
mod versions;

use crate::resource::Resource;
use compare::{Difference, NOBODYS};
use owners::{Operation, Owner, Owners};
use place::Place;
use serde_json::{Map, Value};
use set::Set;
use versions::Versions;

/// The manager whose applies take over from `kubectl apply` without `--server-side`.
const KUBECTL: &str = "kubectl";

/// Who writes, as `managedFields` records it.
#[derive(Debug, Clone)]
pub struct Manager<'a> {
    /// Name of the field manager, for instance `kubectl-client-side-apply`.
    pub name: &'a str,
    /// `apiVersion` the write was made in.
    pub api_version: &'a str,
    /// Subresource that was written, empty for the object itself.
    pub subresource: &'a str,
    /// When, as `metav1.Time` in text.
    pub time: &'a str,
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager, as the message names it: `"kubectl" using apps/v1`.
    pub manager: String,
    /// Path of the field, for instance `.spec.replicas`.
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that the apply would change.
    #[error("Apply failed with {} conflict(s)", .0.len())]
    Conflicts(Vec<Conflict>),
    /// The applied configuration does not fit the schema; the message is upstream's, which
    /// answers 500 with it.
    #[error("{0}")]
    Untyped(String),
    /// The owners recorded in the live object cannot be read.
    #[error("failed to decode managed fields of the live object")]
    Owners,
}

/// Refuses a configuration, as it was sent, that has fields which its schema does not declare, or
/// list items that cannot be told apart.
pub fn check(resource: &Resource, api_version: &str, applied: &Value) -> Result<(), ApplyError> {
    let errors = check::check(Place::of(resource, api_version), applied);
    if errors.is_empty() { Ok(()) } else { Err(untyped(applied, &errors)) }
}

/// What an apply makes of the live object (`None`: there is none yet), which is in the version
/// that the configuration is in. The result says who owns what; its defaults are to be filled in
/// by the caller and belong to nobody. `applied` has passed [`check`].
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    applied: &Value,
    manager: &Manager<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let place = Place::of(resource, manager.api_version);
    let config = written_part(resource, manager.subresource, applied);
    let mut owners = match live {
        Some(live) => {
            Owners::parse(&live["metadata"]["managedFields"]).ok_or(ApplyError::Owners)?
        }
        None => Owners::default(),
    };
    let nothing = nothing(applied);
    if let (Some(live), true) = (live, owners.0.is_empty()) {
        let before = Manager { name: owners::BEFORE_FIRST_APPLY, ..manager.clone() };
        let set = Difference::between(place, &nothing, live).set;
        owners.add(Owner::new(&before, Operation::Update, set));
        owners.drop_empty();
    }
    let request = Request { resource, place, config: &config, manager };
    let object = request.merged(live.unwrap_or(&nothing), &mut owners)?;
    let mut object = match request.settle(live.unwrap_or(&nothing), &object, &mut owners, force) {
        Ok(()) => object,
        Err(conflicts) => {
            let theirs = live.filter(|_| manager.name == KUBECTL);
            let (ours, theirs) = last_applied::allowed(place, theirs, conflicts);
            if !theirs.is_empty() || ours.is_empty() {
                return Err(ApplyError::Conflicts(theirs));
            }
            // What kubectl set by client-side apply is its own.
            return apply(resource, live, applied, manager, true);
        }
    };
    if manager.name == KUBECTL {
        last_applied::refresh(&mut object, applied);
    }
    set_owners(&mut object, owners);
    Ok(object)
}

/// Records in `new` that `manager` set what differs from `live`, for writes that are no apply.
/// Both are in the stored version. Broken or missing owners in `new` are taken from `live`.
pub fn track(resource: &Resource, live: Option<&Value>, new: &mut Value, manager: &Manager<'_>) {
    let given = take_owners(new);
    let nothing = nothing(new);
    let known = live.map_or(&Value::Null, |live| &live["metadata"]["managedFields"]);
    if manager.subresource.is_empty() && Owners::is_reset(&given) && live.is_some() {
        return;
    }
    let mut versions = Versions::new(resource, live.unwrap_or(&nothing), new);
    let keeps = given.is_null() || given == *known || !manager.subresource.is_empty();
    let unchanged = versions.between(manager.api_version).is_none_or(Difference::is_empty);
    if keeps && unchanged {
        put_owners(new, known.clone());
        return;
    }
    let given = if keeps { None } else { Owners::parse(&given).filter(|o| !o.0.is_empty()) };
    let mut owners = given.or_else(|| Owners::parse(known)).unwrap_or_default();
    // An object whose owners were thrown away stays without them until somebody applies.
    if owners.0.is_empty() && live.is_some() {
        return;
    }
    owners.0.retain_mut(|owner| {
        versions.between(&owner.api_version).is_some_and(|difference| {
            owner.set.subtract_paths(difference);
            true
        })
    });
    let mut set = versions.into_set(manager.api_version);
    if live.is_none() && resource.subresource("status").is_some() {
        // A new object starts without a status, whatever its maker sends.
        set.forget_field("status");
    }
    owners.add_changed(manager, set);
    owners.drop_empty();
    owners.cap();
    set_owners(new, owners);
}

/// One apply.
struct Request<'a> {
    resource: &'a Resource,
    place: Place<'a>,
    config: &'a Value,
    manager: &'a Manager<'a>,
}

impl Request<'_> {
    /// The live object with the configuration in it and without what the manager gave up.
    /// The manager owns what it sets from here on.
    fn merged(&self, live: &Value, owners: &mut Owners) -> Result<Value, ApplyError> {
        let mut object = live.clone();
        take_owners(&mut object);
        merge::merge(self.place, &mut object, self.config);
        let mine = compare::fields(self.place, self.config);
        let mut owner = Owner::new(self.manager, Operation::Apply, mine);
        let last = owners.0.iter().position(|other| other.is(&owner));
        let last = last.map(|at| owners.0.remove(at)).map(|last| last.set).unwrap_or_default();
        let mut owned = owner.set.clone();
        owners.0.iter().for_each(|other| owned.add(other.set.clone()));
        merge::prune(self.place, &mut object, &last, &owned);
        owner.set.strip(&NOBODYS);
        owners.0.push(owner);
        Ok(object)
    }

    /// Takes from the other managers what changed; without force that is refused.
    fn settle(
        &self,
        live: &Value,
        object: &Value,
        owners: &mut Owners,
        force: bool,
    ) -> Result<(), Vec<(Owner, Set)>> {
        let mut versions = Versions::new(self.resource, live, object);
        let mut conflicts = Vec::new();
        // The applier's own entry was put last.
        let Some(mine) = owners.0.pop() else { return Ok(()) };
        owners.0.retain_mut(|owner| {
            let Some(difference) = versions.between(&owner.api_version) else { return false };
            let taken = owner.set.common(&difference.set);
            if !force && !taken.is_empty() {
                conflicts.push((owner.clone(), taken));
            }
            owner.set.subtract_paths(difference);
            true
        });
        owners.0.push(mine);
        owners.drop_empty();
        if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
    }
}

impl Set {
    /// Without what a write took over or removed.
    fn subtract_paths(&mut self, difference: &Difference) {
        self.subtract(&difference.set);
        self.subtract(&difference.removed);
    }
}

impl Owners {
    /// Adds what an updater changed, if anything.
    fn add_changed(&mut self, manager: &Manager<'_>, set: Set) {
        if !set.is_empty() {
            self.add(Owner::new(manager, Operation::Update, set));
        }
    }
}

/// The object before it was there: `metadata` alone, as upstream's empty objects.
fn nothing(object: &Value) -> Value {
    let mut nothing = Map::new();
    for name in ["apiVersion", "kind"] {
        nothing.insert(name.to_owned(), object[name].clone());
    }
    nothing.insert("metadata".to_owned(), Value::Object(Map::new()));
    Value::Object(nothing)
}

/// The part of a configuration that a write through `subresource` may own.
fn written_part(resource: &Resource, subresource: &str, applied: &Value) -> Value {
    let mut config = applied.clone();
    take_owners(&mut config);
    if let Value::Object(members) = &mut config {
        match subresource {
            "" if resource.subresource("status").is_some() => {
                members.shift_remove("status");
            }
            "status" => members.retain(|name, _| {
                matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status")
            }),
            _ => {}
        }
    }
    config
}

fn untyped(applied: &Value, errors: &[String]) -> ApplyError {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &applied["metadata"];
    let why = match errors {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let api_version = text(&applied["apiVersion"]);
    let group = if api_version.contains('/') { "" } else { "/" };
    ApplyError::Untyped(format!(
        "failed to create typed patch object ({}/{}; {group}{api_version}, Kind={}): {why}",
        text(&metadata["namespace"]),
        text(&metadata["name"]),
        text(&applied["kind"]),
    ))
}

/// Takes `managedFields` out of an object.
fn take_owners(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|metadata| metadata.shift_remove("managedFields")).unwrap_or_default()
}

fn set_owners(object: &mut Value, owners: Owners) {
    let list = if owners.0.is_empty() { Value::Null } else { owners.into_value() };
    put_owners(object, list);
}

fn put_owners(object: &mut Value, list: Value) {
    if let (false, Some(metadata)) =
        (list.is_null(), object.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("managedFields".to_owned(), list);
    }
}
