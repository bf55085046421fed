//! Lists cut, flattened and put in order, and lists of optional values.
//! Source: `ext/lists.go` of cel-go, whose words the errors are in.

use std::cmp::Ordering;
use std::sync::Arc;

use kube_cel::cel::{ExecutionError, Value};

use crate::library;

type Answer = Result<Value, ExecutionError>;

/// What `list.sortBy(item, key)` is made of: the list, in the order of other values.
pub(crate) const SORT_BY_KEYS: &str = "@sortByAssociatedKeys";

/// The longest list that `lists.range` makes: as many steps as one evaluation may take.
const RANGE_MAX: i64 = crate::CALL_LIMIT as i64;

fn list(items: Vec<Value>) -> Answer {
    Ok(Value::List(Arc::new(items)))
}

fn failed(name: &str, why: String) -> Answer {
    Err(ExecutionError::function_error(name, why))
}

/// A function of lists; `None` where this is none.
pub(super) fn call(name: &str, values: &[Value]) -> Option<Answer> {
    Some(match (name, values) {
        ("slice", [Value::List(items), Value::Int(start), Value::Int(end)]) => {
            slice(items, *start, *end)
        }
        ("flatten", [Value::List(items)]) => list(flatten(items, 1)),
        ("flatten", [Value::List(items), Value::Int(depth)]) => match u64::try_from(*depth) {
            Ok(depth) => list(flatten(items, depth)),
            Err(_) => failed("flatten", "level must be non-negative".to_owned()),
        },
        ("lists.range", [Value::Int(size)]) => range(*size),
        ("sort", [Value::List(items)]) => sort(items, items),
        (SORT_BY_KEYS, [Value::List(items), Value::List(keys)]) => sort(items, keys),
        ("optional.unwrap" | "unwrapOpt", [Value::List(items)]) => unwrap(items),
        _ => return None,
    })
}

fn slice(items: &[Value], start: i64, end: i64) -> Answer {
    let asked = format!("cannot slice({start}, {end}), ");
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return failed("slice", asked + "negative indexes not supported");
    };
    if from > to {
        return failed("slice", asked + "start index must be less than or equal to end index");
    }
    match items.get(from..to) {
        Some(part) => list(part.to_vec()),
        None => failed("slice", format!("{asked}list is length {}", items.len())),
    }
}

fn flatten(items: &[Value], depth: u64) -> Vec<Value> {
    let flat = |item: &Value| match item {
        Value::List(inner) if depth > 0 => flatten(inner, depth - 1),
        other => vec![other.clone()],
    };
    items.iter().flat_map(flat).collect()
}

fn range(size: i64) -> Answer {
    match size {
        ..0 => failed("lists.range", format!("lists.range: size must be non-negative, got {size}")),
        0..=RANGE_MAX => list((0..size).map(Value::Int).collect()),
        _ => failed(
            "lists.range",
            format!("lists.range: size {size} exceeds maximum allowed ({RANGE_MAX})"),
        ),
    }
}

/// The items in the order of their keys.
fn sort(items: &[Value], keys: &[Value]) -> Answer {
    let Some(first) = keys.first() else { return list(items.to_vec()) };
    if order(first, first).is_none() {
        return failed("sort", "list elements must be comparable".to_owned());
    }
    if keys.iter().any(|key| order(first, key).is_none()) {
        return failed("sort", "list elements must have the same type".to_owned());
    }
    let mut pairs: Vec<(&Value, &Value)> = keys.iter().zip(items).collect();
    // All keys are of one type, so that all pairs of them have an order.
    pairs.sort_by(|(a, _), (b, _)| order(a, b).unwrap_or(Ordering::Equal));
    list(pairs.into_iter().map(|(_, item)| item.clone()).collect())
}

/// The order of two values of the same type, where it has one. It is a total one: sorting by
/// another panics.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    Some(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::UInt(a), Value::UInt(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => return None,
    })
}

/// What there is in a list of optional values.
fn unwrap(items: &[Value]) -> Answer {
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        found.extend(library::inside(item.clone())?);
    }
    list(found)
}
