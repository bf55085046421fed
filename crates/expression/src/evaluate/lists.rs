//! Lists whose items are told apart by what they are or by their keys: they are equal in any order,
//! and adding to them adds what is not there yet.
//! Source: `pkg/cel/common/values.go` of k8s.io/apiserver.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::objects::{AsKeyRef, Key, KeyRef};

use crate::kind::{Kind, ListType};
use crate::value::to_json;

/// What an item is known by.
fn identity(item: &Value, of: &ListType) -> String {
    match (of, item) {
        (ListType::Map(keys), Value::Map(map)) => {
            let part = |key: &String| {
                let key: &dyn AsKeyRef = &KeyRef::String(key);
                map.map.get(key).map_or_else(String::new, |value| to_json(value).to_string())
            };
            keys.iter().map(part).collect::<Vec<_>>().join("\n")
        }
        _ => to_json(item).to_string(),
    }
}

/// Whether two values are the same, the first of which is of this kind.
pub(super) fn equal(a: &Value, b: &Value, kind: &Kind) -> bool {
    match (kind, a, b) {
        (Kind::List(element, ListType::Atomic), Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b, element))
        }
        (Kind::List(element, of), Value::List(a), Value::List(b)) => {
            let known: HashMap<String, &Value> =
                b.iter().map(|item| (identity(item, of), item)).collect();
            let same = |item: &Value| {
                let other = known.get(&identity(item, of));
                other.is_some_and(|other| equal(item, other, element))
            };
            a.len() == b.len() && a.iter().all(same)
        }
        (Kind::Object(_) | Kind::Map(_), Value::Map(a), Value::Map(b)) => {
            let same = |(key, value): (&Key, &Value)| {
                let kind = match key {
                    Key::String(name) => kind.field(name).unwrap_or_default(),
                    _ => Kind::Any,
                };
                b.map.get(key).is_some_and(|other| equal(value, other, &kind))
            };
            a.map.len() == b.map.len() && a.map.iter().all(same)
        }
        _ => a == b,
    }
}

/// A list with the items of another: those that it has keep their places, and of those with keys
/// the other's values count.
pub(super) fn joined(mut list: Arc<Vec<Value>>, more: &[Value], of: &ListType) -> Value {
    let items = Arc::make_mut(&mut list);
    let mut places: HashMap<String, usize> =
        items.iter().enumerate().map(|(place, item)| (identity(item, of), place)).collect();
    for item in more {
        let identity = identity(item, of);
        match places.get(&identity) {
            Some(place) => items[*place] = item.clone(),
            None => {
                places.insert(identity, items.len());
                items.push(item.clone());
            }
        }
    }
    Value::List(list)
}
