//! Objects as sets of paths.

use super::super::*;
use super::{META, Path, Paths};
use crate::schema::{ListType, Schema, Type};
use std::collections::BTreeMap;

/// A place of an object: its schema, and whether it is the whole.
#[derive(Clone, Copy)]
pub(super) struct Spot<'s>(pub(super) Option<Schema<'s>>, pub(super) bool);

impl<'s> Spot<'s> {
    fn below(self, name: &str) -> Self {
        let meta = (self.1 && name == "metadata").then(|| Schema::of_definition(META)).flatten();
        Spot(meta.or_else(|| self.0.and_then(|schema| schema.member(name))), false)
    }

    fn item(self) -> Self {
        Spot(self.0.and_then(|schema| schema.items()), false)
    }

    fn names(self, name: &str) -> bool {
        self.1 && name == "metadata" || self.0.is_some_and(|schema| schema.field(name).is_some())
    }

    fn list(self) -> Option<ListType> {
        self.0.filter(|schema| schema.kind() == Type::List).map(|schema| schema.list_type())
    }

    /// The parts of a value that are owned one by one; `None` where the value is one.
    pub(super) fn parts<'v>(self, value: &'v Value) -> Option<Vec<(String, Spot<'s>, &'v Value)>> {
        let atomic = self.0.is_some_and(|s| {
            s.is_atomic() || !matches!(s.kind(), Type::Object | Type::Map | Type::List)
        });
        match (value, self.list()) {
            _ if atomic => None,
            (Value::Object(members), None) => {
                Some(members.iter().map(|(n, v)| (format!("f:{n}"), self.below(n), v)).collect())
            }
            (Value::Array(items), Some(ListType::Set)) => {
                Some(items.iter().map(|v| (format!("v:{v}"), self.item(), v)).collect())
            }
            (Value::Array(items), Some(ListType::Map)) => {
                Some(items.iter().map(|v| (self.key(v), self.item(), v)).collect())
            }
            _ => None,
        }
    }

    fn key(self, item: &Value) -> String {
        let mut keys = BTreeMap::new();
        for name in self.0.unwrap().map_keys() {
            let field = self.item().0.and_then(|item| item.field(name));
            let default = field.and_then(|field| field.default_value());
            keys.insert(&**name, item.get(&**name).cloned().or(default.map(Value::from)));
        }
        format!("k:{}", serde_json::to_string(&keys).unwrap())
    }
}

/// All paths of a value; those that end in one value have it.
pub(super) fn paths(spot: Spot<'_>, value: &Value) -> BTreeMap<Path, Option<Value>> {
    let mut all = BTreeMap::new();
    for (step, below, part) in spot.parts(value).into_iter().flatten() {
        let whole = below.parts(part).is_none();
        all.insert(vec![step.clone()], whole.then(|| part.clone()));
        for (rest, value) in paths(below, part) {
            all.insert([vec![step.clone()], rest].concat(), value);
        }
    }
    all
}

/// What a configuration owns: single values, items, what data names, and objects without members.
pub(super) fn owned(spot: Spot<'_>, value: &Value) -> Paths {
    let mut set = Paths::new();
    for (step, below, part) in spot.parts(value).into_iter().flatten() {
        let named = step.strip_prefix("f:").is_some_and(|name| spot.names(name));
        if !named || below.parts(part).is_none() || *part == yaml("{}") {
            set.insert(vec![step.clone()]);
        }
        set.extend(owned(below, part).into_iter().map(|rest| [vec![step.clone()], rest].concat()));
    }
    set
}

/// With each field that the schema names and that leads to one of the paths.
pub(super) fn with_named(spot: Spot<'_>, set: &Paths) -> Paths {
    let mut all = set.clone();
    for path in set {
        let mut at = spot;
        for (length, step) in path.iter().enumerate() {
            match step.strip_prefix("f:") {
                Some(name) => {
                    if at.names(name) {
                        all.insert(path[..=length].to_vec());
                    }
                    at = at.below(name);
                }
                None => at = at.item(),
            }
        }
    }
    all
}

/// The live value with all that the configuration sets.
pub(super) fn union(spot: Spot<'_>, live: &Value, config: &Value) -> Value {
    let (Some(mine), Some(theirs)) = (spot.parts(config), spot.parts(live)) else {
        return config.clone();
    };
    let find = |step: &String| theirs.iter().find(|(other, ..)| other == step);
    let mut parts: Vec<(String, Value)> = mine
        .iter()
        .map(|(step, below, part)| {
            let live =
                find(step).map_or_else(|| (*part).clone(), |(.., live)| union(*below, live, part));
            (step.clone(), live)
        })
        .collect();
    let is_mine = |step: &String| mine.iter().any(|(other, ..)| other == step);
    let rest = theirs.iter().filter(|(step, ..)| !is_mine(step));
    parts.extend(rest.map(|(step, _, part)| (step.clone(), (*part).clone())));
    assemble(config, parts)
}

/// The value without what lies at one of the paths, or below.
pub(super) fn without(spot: Spot<'_>, value: &Value, gone: &Paths) -> Value {
    let Some(parts) = spot.parts(value) else { return value.clone() };
    let mut kept = Vec::new();
    for (step, below, part) in
        parts.into_iter().filter(|(step, ..)| !gone.contains([step.clone()].as_slice()))
    {
        let deeper = gone.iter().filter(|path| path[0] == step).map(|path| path[1..].to_vec());
        let part = without(below, part, &deeper.collect());
        kept.push((step, part));
    }
    assemble(value, kept)
}

fn assemble(like: &Value, parts: Vec<(String, Value)>) -> Value {
    if like.is_array() {
        return parts.into_iter().map(|(_, value)| value).collect();
    }
    parts.into_iter().map(|(step, value)| (step[2..].to_owned(), value)).collect()
}

/// The same, with lists of items in one order.
pub(super) fn ordered(spot: Spot<'_>, value: &Value) -> Value {
    let Some(parts) = spot.parts(value) else { return value.clone() };
    let mut parts: Vec<(String, Value)> =
        parts.into_iter().map(|(step, below, part)| (step, ordered(below, part))).collect();
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    assemble(value, parts)
}
