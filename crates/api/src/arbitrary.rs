//! Values that chance makes along a schema, and what remains of a failing case when all is taken
//! out of it that it can fail without.

use crate::schema::{ListType, Schema, Type};
use serde_json::{Map, Value, json};

/// Seed of every test that rolls dice; another one by `CORACLE_SEED`.
const SEED: u64 = 20_261_129;

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    let other = std::env::var("CORACLE_SEED").ok();
    other.and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

/// How many cases a property is tried with; `CORACLE_CASES` multiplies them.
pub(crate) fn cases(usual: u64) -> u64 {
    let factor = std::env::var("CORACLE_CASES").ok();
    usual * factor.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Makes values.
pub(crate) struct Arbitrary {
    pub(crate) random: fastrand::Rng,
    /// How many fields of an object are there, of 256.
    pub(crate) density: u8,
}

impl Arbitrary {
    pub(crate) fn new(seed: u64, density: u8) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), density }
    }

    /// True `parts` times of 256.
    pub(crate) fn chance(&mut self, parts: u8) -> bool {
        self.random.u8(..) < parts
    }

    /// One of few words, so that two values often meet.
    pub(crate) fn word(&mut self) -> &'static str {
        ["a", "b", "c", "d", ""][self.random.usize(..64) % 17 % 5]
    }

    /// A value of the schema's type; `None` where the depth does not suffice for one. Items that
    /// are told apart differ.
    pub(crate) fn value(&mut self, schema: Schema<'_>, depth: usize) -> Option<Value> {
        Some(match schema.kind() {
            Type::String => self.word().into(),
            Type::Int32 | Type::Int64 => self.random.i32(0..3).into(),
            Type::Number => json!(f64::from(self.random.i32(0..3)) + 0.5),
            Type::Boolean => self.random.bool().into(),
            Type::Bytes => ["", "AP8B"][self.random.usize(..2)].into(),
            Type::Time => {
                ["2026-11-29T17:00:00Z", "1969-12-31T23:59:59Z"][self.random.usize(..2)].into()
            }
            Type::MicroTime => "2026-11-29T17:00:00.000250Z".into(),
            Type::Quantity => ["0", "1", "100m", "2Gi"][self.random.usize(..4)].into(),
            Type::IntOrString if self.random.bool() => self.random.i32(0..3).into(),
            Type::IntOrString => self.word().into(),
            Type::Any => json!({self.word(): [1, null, self.word()]}),
            Type::List => Value::Array(self.items(schema, depth)),
            Type::Map => {
                let values = schema.additional()?;
                let mut map = Map::new();
                for _ in 0..self.random.usize(..3) {
                    map.insert(self.word().to_owned(), self.value(values, depth)?);
                }
                Value::Object(map)
            }
            Type::Object => {
                let depth = depth.checked_sub(1)?;
                let mut object = Map::new();
                for (name, field) in schema.fields() {
                    if self.chance(self.density)
                        && let Some(value) = self.value(field, depth)
                    {
                        object.insert(name.to_owned(), value);
                    }
                }
                Value::Object(object)
            }
        })
    }

    /// Items of a list, none of them twice where that matters.
    pub(crate) fn items(&mut self, schema: Schema<'_>, depth: usize) -> Vec<Value> {
        let mut items: Vec<Value> = Vec::new();
        for _ in 0..self.random.usize(..4) {
            let Some(mut item) = schema.items().and_then(|items| self.value(items, depth)) else {
                continue;
            };
            self.give_keys(schema, &mut item);
            if !items.iter().any(|other| same_item(schema, other, &item)) {
                items.push(item);
            }
        }
        items
    }

    /// Sets the fields that tell an item from others; one with a default may be left out.
    pub(crate) fn give_keys(&mut self, schema: Schema<'_>, item: &mut Value) {
        let Some(fields) = item.as_object_mut() else { return };
        for key in keys(schema) {
            let Some(field) = schema.items().and_then(|items| items.field(key)) else { continue };
            if field.default_value().is_some() && self.random.bool() {
                fields.shift_remove(key);
            } else if !fields.contains_key(key)
                && let Some(value) = self.value(field, 1)
            {
                fields.insert(key.to_owned(), value);
            }
        }
    }
}

/// The fields that tell the items of a list apart, for apply or for a strategic merge.
pub(crate) fn keys<'a>(schema: Schema<'a>) -> Vec<&'a str> {
    let mut keys: Vec<&str> = schema.map_keys().iter().map(AsRef::as_ref).collect();
    keys.extend(schema.patch_merge_key().filter(|key| !keys.contains(key)));
    keys
}

/// Whether two items may not be in one list.
fn same_item(schema: Schema<'_>, one: &Value, other: &Value) -> bool {
    let scalars_merge = schema.list_type() == ListType::Set || schema.patch_merges();
    match (schema.patch_merge_key(), schema.map_keys()) {
        (Some(key), _) => one[key] == other[key],
        (None, []) => scalars_merge && one == other,
        (None, keys) => keys.iter().all(|key| {
            let field = schema.items().and_then(|items| items.field(key));
            let default = field.and_then(|field| field.default_value()).map(Value::from);
            let of = |item: &Value| item.get(&**key).cloned().or(default.clone());
            of(one) == of(other)
        }),
    }
}

/// The value with one of its parts left out or made smaller, in every way there is.
pub(crate) fn smaller(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let mut without = members.clone();
                without.shift_remove(name);
                all.push(Value::Object(without));
                for member in smaller(member) {
                    let mut with = members.clone();
                    with.insert(name.clone(), member);
                    all.push(Value::Object(with));
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let mut without = items.clone();
                without.remove(at);
                all.push(Value::Array(without));
                for item in smaller(item) {
                    let mut with = items.clone();
                    with[at] = item;
                    all.push(Value::Array(with));
                }
            }
        }
        _ => {}
    }
    all
}

/// Makes a failing case smaller as long as it fails.
pub(crate) fn shrink<T>(mut case: T, ways: impl Fn(&T) -> Vec<T>, fails: impl Fn(&T) -> bool) -> T {
    while let Some(less) = ways(&case).into_iter().find(|less| fails(less)) {
        case = less;
    }
    case
}
