//! Merging a configuration into an object, and taking fields out of one.

use super::element::Element;
use super::place::{Merging, Place};
use super::set::Set;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Sets what `applied` sets; what it does not mention stays.
pub(super) fn merge(place: Place<'_>, live: &mut Value, applied: &Value) {
    match (place.merging(applied), &mut *live, applied) {
        (Merging::Members, Value::Object(live), Value::Object(applied)) => {
            for (name, value) in applied {
                match live.get_mut(name) {
                    Some(live) => merge(place.member(name), live, value),
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Merging::Items, Value::Array(live), Value::Array(applied)) => {
            let old = std::mem::take(live);
            *live = merge_items(place, old, applied);
        }
        _ => *live = applied.clone(),
    }
}

/// Both lists' items: the order is that of the applied list, and items of the live list alone
/// keep their place among their neighbours.
fn merge_items(place: Place<'_>, live: Vec<Value>, applied: &[Value]) -> Vec<Value> {
    let name = |item: &Value| place.stored_element(item);
    let wanted: Vec<(Element, &Value)> = applied.iter().map(|item| (name(item), item)).collect();
    let is_wanted: BTreeSet<&Element> = wanted.iter().map(|(element, _)| element).collect();
    let mut live: Vec<(Element, Option<Value>)> =
        live.into_iter().map(|item| (name(&item), Some(item))).collect();
    let mut first = BTreeMap::new();
    for (at, (element, _)) in live.iter().enumerate() {
        if is_wanted.contains(element) {
            first.entry(element.clone()).or_insert(at);
        }
    }
    // Wanted items that are there already, in the wanted order: they meet their live selves.
    let shared: Vec<&Element> =
        wanted.iter().map(|(element, _)| element).filter(|e| first.contains_key(e)).collect();
    let mut shared = shared.into_iter().peekable();
    let mut merged = Vec::with_capacity(live.len().max(wanted.len()));
    let (mut at, mut next) = (0, 0);
    while at < live.len() || next < wanted.len() {
        if at < live.len() {
            let element = &live[at].0;
            if !is_wanted.contains(element) {
                merged.extend(live[at].1.take());
                at += 1;
                continue;
            }
            let due = shared.peek().is_none_or(|due| *due == element);
            if next >= wanted.len() || !due {
                // Its turn comes where the applied list has it, or has come already.
                at += 1;
                continue;
            }
            if *element == wanted[next].0 {
                at += 1;
            }
        }
        if let Some((element, item)) = wanted.get(next) {
            let found = first.remove(element).and_then(|at| live[at].1.take());
            merged.push(match found {
                Some(mut value) => {
                    merge(place.item(), &mut value, item);
                    value
                }
                None => (*item).clone(),
            });
            if shared.peek() == Some(&element) {
                shared.next();
            }
            next += 1;
        }
    }
    merged
}

/// Takes the members of `set` out of `value`, each with all that is below it. Objects and lists
/// that lose their last member this way stay, empty: whoever owns them wants them.
pub(super) fn remove(place: Place<'_>, value: &mut Value, set: &Set) {
    let stays = |element: &Element, at: Place<'_>, value: &mut Value| match set.get(element) {
        None => true,
        Some(node) if node.member => false,
        Some(node) => {
            remove(at, value, &node.below);
            true
        }
    };
    match (place.merging(value), value) {
        (Merging::Members, Value::Object(members)) => {
            members.retain(|name, value| stays(&Element::field(name), place.member(name), value));
        }
        (Merging::Items, Value::Array(items)) => {
            items.retain_mut(|item| stays(&place.stored_element(item), place.item(), item));
        }
        _ => {}
    }
}

/// Takes out of a merged object what its applier set before and sets no more, unless somebody
/// owns it still. `last` is what the applier owned before, `owned` what all managers own now.
/// Objects with known fields go with their last owned field, and with all that nobody owns.
pub(super) fn prune(place: Place<'_>, merged: &mut Value, last: &Set, owned: &Set) {
    if last.is_empty() {
        return;
    }
    let mut gone = last.with_named_fields(place);
    gone.subtract(&owned.with_named_fields(place));
    remove(place, merged, &gone);
}
