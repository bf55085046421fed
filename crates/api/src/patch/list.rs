//! Lists in a strategic merge patch: merged by key or as sets of scalars, and brought into order.

use super::{DIRECTIVE, Outcome, PatchError, bad_format, merge_object, object, taken};
use crate::schema::Schema;
use crate::status::go_print;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// Where the items of a list stand, by what tells them apart.
pub(super) struct Places(HashMap<Value, usize>);

impl Places {
    /// Of a list whose items are told apart by `key`, or are scalars. The first of equals counts.
    pub(super) fn of(key: Option<&str>, items: &[Value]) -> Outcome<Self> {
        let mut places = HashMap::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            places.entry(identity(key, item)?.clone()).or_insert(at);
        }
        Ok(Self(places))
    }
}

/// A value that has to be a list.
pub(super) fn of(value: &Value) -> Outcome<&[Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong_type("[]interface {}", value))
}

/// Takes scalars out of a list (`$deleteFromPrimitiveList`).
pub(super) fn remove(list: Option<&mut Value>, values: &Value) -> Outcome<()> {
    let Some(values) = values.as_array() else { return Err(bad_format("primitive list")) };
    if let Some(list) = list.and_then(Value::as_array_mut) {
        let gone: HashSet<&Value> = values.iter().collect();
        list.retain(|own| !gone.contains(own));
    }
    Ok(())
}

/// Both lists as one, by the key of the schema or, of scalars, by their value. What the patch
/// names stands in the patch's order.
pub(super) fn merge(
    schema: Schema<'_>,
    original: Vec<Value>,
    patch: &[Value],
) -> Outcome<Vec<Value>> {
    let Some(first) = original.first().or(patch.first()) else { return Ok(original) };
    if first.is_array() {
        return Err(PatchError::ListOfLists);
    }
    if original.iter().chain(patch).any(|item| go_type(item) != go_type(first)) {
        let lists = Value::Array(vec![Value::Array(original), Value::Array(patch.to_vec())]);
        return Err(PatchError::Impossible(format!(
            "list element types are not identical: {}",
            go_print(&lists)
        )));
    }
    match (first, schema.patch_merge_key()) {
        (Value::Object(_), Some(key)) => merge_by_key(schema.items(), key, original, patch),
        (Value::Object(_), None) => Err(PatchError::Impossible(
            "cannot merge lists without merge key for type struct".to_owned(),
        )),
        _ => {
            let places = Places::of(None, &original)?;
            let mut known = HashSet::new();
            let both = original.into_iter().chain(patch.iter().cloned());
            let merged = both.filter(|value| known.insert(value.clone())).collect();
            arrange(None, merged, patch, &places)
        }
    }
}

fn merge_by_key(
    items: Option<Schema<'_>>,
    key: &str,
    mut original: Vec<Value>,
    patch: &[Value],
) -> Outcome<Vec<Value>> {
    let (special, plain): (Vec<&Value>, Vec<&Value>) =
        patch.iter().partition(|item| item.get(DIRECTIVE).is_some());
    let mut replaces = false;
    let mut gone = HashSet::new();
    for item in special {
        match item[DIRECTIVE].as_str() {
            Some("delete") => {
                gone.insert(identity(Some(key), item)?);
            }
            Some("replace") => replaces = true,
            Some("merge") => {
                let why = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Impossible(why.to_owned()));
            }
            _ => {
                let members = item.as_object().cloned().unwrap_or_default();
                return Err(super::unknown_directive(&item[DIRECTIVE], &members));
            }
        }
    }
    if replaces {
        let items: Vec<Value> = plain.into_iter().filter_map(taken).collect();
        return Places::of(Some(key), &items).map(|_| items);
    }
    original.retain(|item| item.get(key).is_none_or(|own| !gone.contains(own)));
    let places = Places::of(Some(key), &original)?;
    let mut known = places.0.clone();
    let mut merged = original;
    for item in &plain {
        let wanted = identity(Some(key), item)?;
        match (known.get(wanted), item.as_object()) {
            (Some(at), Some(item)) => merge_object(items, object(&mut merged[*at]), item)?,
            _ => {
                known.insert(wanted.clone(), merged.len());
                merged.extend(taken(item));
            }
        }
    }
    let order: Vec<Value> = plain.into_iter().cloned().collect();
    arrange(Some(key), merged, &order, &places)
}

/// Brings a merged list into order. Items that `order` names stand as it has them; each of the
/// others stands before the next of those that came after it in the list that was there, which
/// `before` tells.
pub(super) fn arrange(
    key: Option<&str>,
    merged: Vec<Value>,
    order: &[Value],
    before: &Places,
) -> Outcome<Vec<Value>> {
    let order = Places::of(key, order)?;
    let mut named = Vec::new();
    let mut others = Vec::new();
    for item in merged {
        let identity = identity(key, &item)?;
        let was = before.0.get(identity).copied();
        match order.0.get(identity).copied() {
            Some(at) => named.push((at, was, item)),
            None => others.push((was, item)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(was, _)| was.unwrap_or(usize::MAX));
    let mut list = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    for (limit, other) in others {
        let stands_before =
            |was: Option<usize>| !matches!((limit, was), (Some(limit), Some(was)) if limit < was);
        while let Some((.., item)) = named.next_if(|(_, was, _)| stands_before(*was)) {
            list.push(item);
        }
        list.push(other);
    }
    list.extend(named.map(|(.., item)| item));
    Ok(list)
}

/// Refuses an order that does not name the items of the patch, in the patch's order.
pub(super) fn check_order(key: Option<&str>, patch: &[Value], order: &[Value]) -> Outcome<()> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let wanted = identity(key, item)?;
        loop {
            let Some(next) = rest.next() else {
                let [patch, order] =
                    [patch, order].map(|list| go_print(&Value::Array(list.to_vec())));
                return Err(PatchError::Impossible(format!(
                    "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
                )));
            };
            if identity(key, next)? == wanted {
                break;
            }
        }
    }
    Ok(())
}

/// What tells an item from the others.
fn identity<'v>(key: Option<&str>, item: &'v Value) -> Outcome<&'v Value> {
    let Some(key) = key else { return Ok(item) };
    let Some(members) = item.as_object() else {
        return Err(wrong_type(go_type(&Value::Object(Map::new())), item));
    };
    members.get(key).ok_or_else(|| {
        PatchError::Impossible(format!(
            "map: {} does not contain declared merge key: {key}",
            go_print(item)
        ))
    })
}

fn wrong_type(expected: &str, found: &Value) -> PatchError {
    PatchError::Impossible(format!("expected a {expected}, but received a {}", go_type(found)))
}

/// The type that upstream's decoder gives a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
