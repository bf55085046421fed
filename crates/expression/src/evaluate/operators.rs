//! Operators over values, with cel-go's answers.

use std::cmp::Ordering;
use std::sync::Arc;

use kube_cel::cel::common::ast::operators as names;
use kube_cel::cel::objects::{AsKeyRef, KeyRef};
use kube_cel::cel::{ExecutionError, Value};

use crate::library::{self, is_optional, optional_of};

type Result<T = Value> = std::result::Result<T, ExecutionError>;

/// What stands at a field; of an optional value an optional one again.
pub(super) fn field(of: &Value, name: &str) -> Result {
    match of {
        Value::Map(map) => {
            let key: &dyn AsKeyRef = &KeyRef::String(name);
            let found = map.map.get(key).cloned();
            found.ok_or_else(|| ExecutionError::no_such_key(name))
        }
        of if is_optional(of) => {
            let key = Value::String(Arc::new(name.to_owned()));
            library::found(of, &key).map(optional_of)
        }
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// What stands at an index or a key.
pub(super) fn index(of: &Value, key: &Value) -> Result {
    match (of, key) {
        (Value::Map(_), Value::String(name)) => field(of, name),
        (Value::List(_), key) if whole(key).is_some() => {
            let place = Value::Int(whole(key).unwrap_or_default());
            let found = library::found(of, &place)?;
            found.ok_or(ExecutionError::IndexOutOfBounds(place))
        }
        (Value::Map(_), key) => library::found(of, key)?.ok_or_else(|| {
            ExecutionError::NoSuchKey(Arc::new(crate::value::to_json(key).to_string()))
        }),
        (of, key) if is_optional(of) => library::found(of, key).map(optional_of),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// A number that can be a place in a list.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::UInt(value) => i64::try_from(*value).ok(),
        Value::Float(value) if value.fract() == 0.0 => Some(*value as i64),
        _ => None,
    }
}

/// An operator of one value.
pub(super) fn unary(name: &str, value: &Value) -> Option<Result> {
    Some(match (name, value) {
        (names::LOGICAL_NOT, Value::Bool(value)) => Ok(Value::Bool(!value)),
        (names::NEGATE, Value::Int(value)) => value
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| ExecutionError::function_error("-_", "integer overflow")),
        (names::NEGATE, Value::Float(value)) => Ok(Value::Float(-value)),
        (names::LOGICAL_NOT | names::NEGATE, _) => Err(ExecutionError::NoSuchOverload),
        _ => return None,
    })
}

/// An operator of two values.
pub(super) fn binary(name: &str, a: Value, b: Value) -> Option<Result> {
    Some(match name {
        names::EQUALS => Ok(Value::Bool(a == b)),
        names::NOT_EQUALS => Ok(Value::Bool(a != b)),
        names::LESS => compare(&a, &b, Ordering::is_lt),
        names::LESS_EQUALS => compare(&a, &b, Ordering::is_le),
        names::GREATER => compare(&a, &b, Ordering::is_gt),
        names::GREATER_EQUALS => compare(&a, &b, Ordering::is_ge),
        names::IN => contains(&a, &b),
        names::ADD => match (a, b) {
            (Value::Bytes(mut a), Value::Bytes(b)) => {
                Arc::make_mut(&mut a).extend_from_slice(&b);
                Ok(Value::Bytes(a))
            }
            (a, b) => a + b,
        },
        names::SUBSTRACT => a - b,
        names::MULTIPLY => a * b,
        names::DIVIDE => a / b,
        names::MODULO => a % b,
        _ => return None,
    })
}

fn compare(a: &Value, b: &Value, holds: fn(Ordering) -> bool) -> Result {
    if let (Value::Bytes(a), Value::Bytes(b)) = (a, b) {
        return Ok(Value::Bool(holds(a.cmp(b))));
    }
    match a.partial_cmp(b) {
        Some(order) => Ok(Value::Bool(holds(order))),
        // What is no number is neither less nor more than one.
        None if matches!(a, Value::Float(_)) || matches!(b, Value::Float(_)) => {
            let number =
                |value: &Value| matches!(value, Value::Float(_) | Value::Int(_) | Value::UInt(_));
            if number(a) && number(b) {
                Ok(Value::Bool(false))
            } else {
                Err(ExecutionError::NoSuchOverload)
            }
        }
        None => Err(ExecutionError::NoSuchOverload),
    }
}

fn contains(one: &Value, all: &Value) -> Result {
    match all {
        Value::List(items) => Ok(Value::Bool(items.contains(one))),
        Value::Map(_) => Ok(Value::Bool(library::found(all, one)?.is_some())),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}
