//! Which fields differ between two states of an object, and which ones a configuration sets.

use super::element::Element;
use super::place::{Merging, Place};
use super::set::{Node, Set};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Members of `metadata` (and of the object itself) that belong to no manager.
pub(super) const NOBODYS: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

static EMPTY_OBJECT: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static EMPTY_LIST: Value = Value::Array(Vec::new());

/// How one state of an object differs from another.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) set: Set,
    /// Fields that are gone.
    pub(super) removed: Set,
}

impl Difference {
    /// What `new` changes of `old`, fields that belong to nobody left out.
    pub(super) fn between(place: Place<'_>, old: &Value, new: &Value) -> Self {
        let mut difference = Self::default();
        for name in names(old, new) {
            let (old, new) = (old.get(name), new.get(name));
            match name {
                "apiVersion" | "kind" => {}
                "metadata" => {
                    let (old, new) = (old.unwrap_or(&EMPTY_OBJECT), new.unwrap_or(&EMPTY_OBJECT));
                    let mut below = Self::default();
                    below.members(place.member(name), old, new, |name| {
                        NOBODYS.contains(&["metadata", name].as_slice())
                    });
                    difference.nest(Element::field(name), below, false, false);
                }
                _ => difference.member(place, name, old, new),
            }
        }
        difference
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    fn nest(&mut self, element: Element, below: Difference, set: bool, removed: bool) {
        if removed || !below.removed.is_empty() {
            let node = Node { member: removed, below: below.removed };
            self.removed.insert(element.clone(), node);
        }
        if set || !below.set.is_empty() {
            self.set.insert(element, Node { member: set, below: below.set });
        }
    }

    fn members(&mut self, place: Place<'_>, old: &Value, new: &Value, skip: impl Fn(&str) -> bool) {
        for name in names(old, new).filter(|name| !skip(name)) {
            self.member(place, name, old.get(name), new.get(name));
        }
    }

    fn member(&mut self, place: Place<'_>, name: &str, old: Option<&Value>, new: Option<&Value>) {
        if old == new {
            return;
        }
        let at = place.member(name);
        let (old, new) = match (old, new) {
            (None, Some(value)) if place.is_always_there(name) => (Some(empty(value)), new),
            (Some(value), None) if place.is_always_there(name) => (old, Some(empty(value))),
            both => both,
        };
        self.step(at, old, new, || Element::field(name));
    }

    /// Both values of one path; not equal.
    fn step(
        &mut self,
        place: Place<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
        element: impl FnOnce() -> Element,
    ) {
        match (old, new) {
            (None, Some(new)) => self.set.insert(element(), everything(place, new)),
            (Some(old), None) => self.removed.insert(element(), everything(place, old)),
            (Some(old), Some(new)) => {
                let mut below = Self::default();
                let merging = merging_of_both(place, old, new);
                match merging {
                    Merging::Members => below.members(place, old, new, |_| false),
                    Merging::Items => below.items(place, old, new),
                    Merging::Whole => {
                        // What was in a value of another shape is gone, what is in this one is new.
                        below.removed = everything(place, old).below;
                        below.set = everything(place, new).below;
                    }
                }
                self.nest(element(), below, merging == Merging::Whole, false);
            }
            (None, None) => {}
        }
    }

    fn items(&mut self, place: Place<'_>, old: &Value, new: &Value) {
        let (old, mut new) = (indexed(place, old), indexed(place, new));
        for (element, olds) in old {
            let news = new.remove(&element).unwrap_or_default();
            match (olds.as_slice(), news.as_slice()) {
                (olds, news) if olds == news => {}
                ([old], [new]) => self.step(place.item(), Some(old), Some(new), || element),
                (olds, []) => {
                    for item in olds {
                        self.removed.insert(element.clone(), everything(place.item(), item));
                    }
                }
                // The same keys more than once: not to be told apart, so they are one value.
                (_, _) => self.set.insert(element, Node::leaf()),
            }
        }
        for (element, items) in new {
            for item in items {
                self.set.insert(element.clone(), everything(place.item(), item));
            }
        }
    }
}

/// Names of the members of either value, each once.
fn names<'v>(old: &'v Value, new: &'v Value) -> impl Iterator<Item = &'v str> {
    let members = |value: &'v Value| value.as_object().into_iter().flat_map(Map::keys);
    let mine = members(new).map(String::as_str);
    mine.chain(members(old).map(String::as_str).filter(|name| new.get(name).is_none()))
}

/// A list's items by what tells them apart.
fn indexed<'v>(place: Place<'_>, list: &'v Value) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut index: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in list.as_array().into_iter().flatten() {
        index.entry(place.stored_element(item)).or_default().push(item);
    }
    index
}

fn merging_of_both(place: Place<'_>, old: &Value, new: &Value) -> Merging {
    match (place.merging(old), place.merging(new)) {
        (old, new) if old == new => old,
        // Null takes the other side's shape.
        (old, _) if new.is_null() => old,
        (_, new) if old.is_null() => new,
        _ => Merging::Whole,
    }
}

/// What upstream's types show of a field that is not set, in the shape of `value`.
fn empty(value: &Value) -> &'static Value {
    if value.is_array() { &EMPTY_LIST } else { &EMPTY_OBJECT }
}

/// A value that came or went as a whole: it and all in it.
fn everything(place: Place<'_>, value: &Value) -> Node {
    let mut below = Set::default();
    match place.merging(value) {
        Merging::Whole => {}
        Merging::Members => {
            for (name, member) in value.as_object().into_iter().flatten() {
                below.insert(Element::field(name), everything(place.member(name), member));
            }
        }
        Merging::Items => {
            for item in value.as_array().into_iter().flatten() {
                below.insert(place.stored_element(item), everything(place.item(), item));
            }
        }
    }
    Node { member: true, below }
}

/// The fields that a configuration sets. Objects and lists that merge by parts are not set
/// themselves, only what is in them.
pub(super) fn fields(place: Place<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    match place.merging(value) {
        Merging::Whole => {}
        Merging::Members => {
            for (name, member) in value.as_object().into_iter().flatten() {
                let at = place.member(name);
                let empty = member.as_object().is_some_and(Map::is_empty);
                let member_of_map = !place.has_field(name);
                let whole = at.merging(member) == Merging::Whole;
                let node =
                    Node { member: empty || member_of_map || whole, below: fields(at, member) };
                set.insert(Element::field(name), node);
            }
        }
        Merging::Items => {
            for item in value.as_array().into_iter().flatten() {
                let below = fields(place.item(), item);
                set.insert(place.stored_element(item), Node { member: true, below });
            }
        }
    }
    set
}
