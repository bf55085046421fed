//! What keeps a configuration from being applied: fields that the schema does not declare, values
//! of another type than it says, and list items that cannot be told apart.

use super::place::{Merging, Place};
use serde_json::Value;
use std::collections::BTreeSet;

/// Upstream's messages about a configuration, each with the path it is about.
pub(super) fn check(place: Place<'_>, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    walk(place, value, "", &mut errors);
    errors.truncate(PROBLEMS_LIMIT_COUNT);
    errors
}

/// How many problems one configuration is told of.
const PROBLEMS_LIMIT_COUNT: usize = 100;

fn walk(place: Place<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    if errors.len() >= PROBLEMS_LIMIT_COUNT {
        return;
    }
    if let Some(why) = place.misfit(value) {
        return errors.push(format!("{path}: {why}"));
    }
    match value {
        Value::Object(members) if place.has_fields() => {
            for (name, member) in members {
                let path = format!("{path}.{name}");
                if place.has_field(name) {
                    walk(place.member(name), member, &path, errors);
                } else if !name.is_empty() {
                    errors.push(format!("{path}: field not declared in schema"));
                }
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                walk(place.member(name), member, &format!("{path}.{name}"), errors);
            }
        }
        Value::Array(items) if place.merging(value) == Merging::Items => {
            let mut seen = BTreeSet::new();
            for (at, item) in items.iter().enumerate() {
                match place.element(item) {
                    Err(why) => errors.push(format!("{path}: element {at}: {why}")),
                    Ok(element) if seen.contains(&element) => {
                        errors.push(format!("{path}: duplicate entries for key {element}"));
                    }
                    Ok(element) => {
                        walk(place.item(), item, &format!("{path}{element}"), errors);
                        seen.insert(element);
                    }
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                walk(place.item(), item, &format!("{path}[{at}]"), errors);
            }
        }
        _ => {}
    }
}
