//! Strategic merge patches (`application/strategic-merge-patch+json`): a merge patch that knows
//! from the schema which lists are merged item by item, and by which key.
//!
//! Rules: k8s.io/apimachinery/pkg/util/strategicpatch, and "Strategic Merge Patch" of the
//! community's API conventions.

mod list;
#[cfg(test)]
mod tests;

use crate::resource::Resource;
use crate::schema::Schema;
use crate::status::go_print;
use serde_json::{Map, Value};

/// Says what is to be done with the object or item it stands in: `replace` or `delete`.
const DIRECTIVE: &str = "$patch";
/// Names the only members that stay beside those of the patch.
const RETAIN_KEYS: &str = "$retainKeys";
/// Begins the name of a member that lists values to be taken out of a list of scalars.
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
/// Begins the name of a member that gives the order of a merged list.
const SET_ORDER: &str = "$setElementOrder";

/// Why a patch cannot be applied; the messages are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is no patch.
    #[error("{0}")]
    Malformed(String),
    /// It is about lists of lists.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// What it says cannot be done.
    #[error("{0}")]
    Impossible(String),
}

impl PatchError {
    /// The HTTP status that upstream answers with.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::ListOfLists => 422,
            Self::Impossible(_) => 500,
        }
    }
}

type Outcome<T> = Result<T, PatchError>;

/// Merges `patch` into `original`, an object of `resource` in `version`.
pub fn strategic(
    resource: &Resource,
    version: &str,
    original: &mut Value,
    patch: &Value,
) -> Outcome<()> {
    let Some(patch) = patch.as_object() else {
        return Err(PatchError::Malformed(
            "error decoding patch: the patch is not an object".to_owned(),
        ));
    };
    let schema = Schema::of(&resource.group, version, &resource.kind);
    merge_object(schema, object(original), patch)
}

/// A value as an object; anything else becomes an empty one.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

fn merge_object(
    schema: Option<Schema<'_>>,
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Outcome<()> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        *original = match directive.as_str() {
            Some("delete") => Map::new(),
            Some("replace") => members_taken(patch),
            _ => return Err(unknown_directive(directive, patch)),
        };
        return Ok(());
    }
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        retain(original, patch, retained)?;
    }
    for (name, order) in addressed(patch, SET_ORDER) {
        let name = name.ok_or_else(|| bad_format("setElementOrder list"))?;
        merge_in_order(schema, name, original, patch, order)?;
    }
    let plain = patch.iter().filter(|(name, _)| !is_directive(name));
    for (name, value) in plain.filter(|(name, _)| !has_order(patch, name)) {
        merge_member(schema.and_then(|schema| schema.member(name)), name, original, value)?;
    }
    for (name, values) in addressed(patch, DELETE_FROM) {
        let name = name.ok_or_else(|| bad_format("primitive list"))?;
        list::remove(original.get_mut(name), values)?;
    }
    Ok(())
}

/// The directives that begin with `prefix`, with the member that each is about.
fn addressed<'p>(
    patch: &'p Map<String, Value>,
    prefix: &'static str,
) -> impl Iterator<Item = (Option<&'p str>, &'p Value)> {
    patch.iter().filter_map(move |(name, value)| {
        Some((name.strip_prefix(prefix)?.strip_prefix('/'), value))
    })
}

fn has_order(patch: &Map<String, Value>, name: &str) -> bool {
    patch.contains_key(&format!("{SET_ORDER}/{name}"))
}

fn is_directive(name: &str) -> bool {
    matches!(name, DIRECTIVE | RETAIN_KEYS)
        || name.starts_with(DELETE_FROM)
        || name.starts_with(SET_ORDER)
}

/// Drops all members but those that `$retainKeys` names, which has to name those of the patch.
fn retain(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    retained: &Value,
) -> Outcome<()> {
    let Some(retained) = retained.as_array() else { return Err(bad_format("retainKeys")) };
    let stays = |name: &str| retained.iter().any(|kept| kept == name);
    let set = patch.iter().filter(|(name, value)| !is_directive(name) && !value.is_null());
    if !set.map(|(name, _)| name).all(|name| stays(name)) {
        return Err(bad_format("retainKeys"));
    }
    original.retain(|name, _| stays(name));
    Ok(())
}

fn merge_member(
    schema: Option<Schema<'_>>,
    name: &str,
    original: &mut Map<String, Value>,
    patch: &Value,
) -> Outcome<()> {
    match (original.get_mut(name), patch) {
        (_, Value::Null) => {
            original.shift_remove(name);
        }
        (Some(Value::Object(own)), Value::Object(patch)) => {
            if schema.is_some_and(|schema| schema.patch_replaces()) {
                own.clone_from(patch);
            } else {
                merge_object(schema, own, patch)?;
            }
        }
        (Some(Value::Array(own)), Value::Array(patch)) => {
            *own = match schema.filter(|schema| schema.patch_merges()) {
                Some(schema) => list::merge(schema, std::mem::take(own), patch)?,
                None => patch.clone(),
            };
        }
        _ => match taken(patch) {
            Some(value) => {
                original.insert(name.to_owned(), value);
            }
            None => {
                original.shift_remove(name);
            }
        },
    }
    Ok(())
}

/// Merges a list whose order the patch gives. An order can stand alone: the list's items do not
/// change then.
fn merge_in_order(
    schema: Option<Schema<'_>>,
    name: &str,
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    order: &Value,
) -> Outcome<()> {
    let order = list::of(order)?;
    let before = original.get(name).map(list::of).transpose()?;
    let given = patch.get(name).map(list::of).transpose()?;
    let field = schema.and_then(|schema| schema.member(name));
    let key = field.and_then(|field| field.patch_merge_key());
    list::check_order(key, given.unwrap_or_default(), order)?;
    let merged = match (before, given) {
        (None, None) => return Ok(()),
        (Some(before), None) => before.to_vec(),
        (None, Some(given)) => given.iter().filter_map(taken).collect(),
        (Some(before), Some(given)) => match field.filter(|field| field.patch_merges()) {
            Some(field) => list::merge(field, before.to_vec(), given)?,
            None => given.to_vec(),
        },
    };
    let places = list::Places::of(key, before.unwrap_or_default())?;
    let merged = list::arrange(key, merged, order, &places)?;
    original.insert(name.to_owned(), Value::Array(merged));
    Ok(())
}

/// What a patch's value is where there is nothing yet: without nulls, and without objects that
/// say what is to be done with something that is there.
fn taken(value: &Value) -> Option<Value> {
    match value {
        Value::Object(members) if members.contains_key(DIRECTIVE) => None,
        Value::Object(members) => Some(Value::Object(members_taken(members))),
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(taken).collect())),
        other => Some(other.clone()),
    }
}

fn members_taken(members: &Map<String, Value>) -> Map<String, Value> {
    let set = members.iter().filter(|(name, value)| !is_directive(name) && !value.is_null());
    set.filter_map(|(name, value)| Some((name.clone(), taken(value)?))).collect()
}

fn bad_format(list: &str) -> PatchError {
    PatchError::Malformed(format!("invalid patch format of {list}"))
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let map = go_print(&Value::Object(patch.clone()));
    PatchError::Impossible(format!("unknown patch type: {} in map: {map}", go_print(directive)))
}
