//! The libraries, and what is missing in them: types as values, and optional values as cel-go has
//! them.

use std::rc::Rc;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::{Key, Opaque, OptionalValue, ValueType};
use kube_cel::cel::{Context, ExecutionError, Value};

use crate::conversions;

/// A map with one entry more.
pub(crate) const MAP_INSERT: &str = "@mapInsert";
/// `a.?b`, and `a.b` where `a` is an optional value.
pub(crate) const OPTIONAL_SELECT: &str = "@optionalSelect";
/// `has(a.b)` where `a` is an optional value.
pub(crate) const OPTIONAL_HAS: &str = "@optionalHas";
/// `a[?b]`, and `a[b]` where `a` is an optional value.
pub(crate) const OPTIONAL_INDEX: &str = "@optionalIndex";

/// The types that have a name, and what stands for each.
pub(crate) const TYPES: [&str; 13] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "optional_type",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
];

/// A type as a value.
#[derive(Debug, PartialEq, Eq)]
struct TypeName(String);

impl Opaque for TypeName {
    fn runtime_type_name(&self) -> &str {
        "type"
    }
}

/// The language with Kubernetes' libraries and no variables.
pub(crate) fn context() -> Context<'static> {
    let mut context = Context::default().with_all();
    conversions::register(&mut context);
    context
}

thread_local! {
    /// Making a context takes longer than evaluating most expressions.
    static SHARED: Rc<Context<'static>> = Rc::new(context());
}

/// The same, made once a thread.
pub(crate) fn shared() -> Rc<Context<'static>> {
    SHARED.with(Rc::clone)
}

pub(crate) fn type_of(value: &Value) -> Value {
    let name = match value {
        Value::Opaque(opaque) => opaque.runtime_type_name().to_owned(),
        other => match other.type_of() {
            ValueType::Bool => "bool".to_owned(),
            ValueType::Int => "int".to_owned(),
            ValueType::UInt => "uint".to_owned(),
            ValueType::Float => "double".to_owned(),
            ValueType::String => "string".to_owned(),
            ValueType::Bytes => "bytes".to_owned(),
            ValueType::List => "list".to_owned(),
            ValueType::Map => "map".to_owned(),
            ValueType::Null => "null_type".to_owned(),
            ValueType::Timestamp => "google.protobuf.Timestamp".to_owned(),
            ValueType::Duration => "google.protobuf.Duration".to_owned(),
            other => other.to_string(),
        },
    };
    Value::Opaque(Arc::new(TypeName(name)))
}

pub(crate) fn of_key(key: &Key) -> Value {
    match key {
        Key::Int(value) => Value::Int(*value),
        Key::Uint(value) => Value::UInt(*value),
        Key::Bool(value) => Value::Bool(*value),
        Key::String(text) => Value::String(Arc::clone(text)),
    }
}

pub(crate) fn to_key(value: &Value) -> Result<Key, ExecutionError> {
    value.clone().try_into().map_err(|_| ExecutionError::NoSuchOverload)
}

/// What stands at a key or an index of a container, which may be optional itself.
pub(crate) fn found(container: &Value, key: &Value) -> Result<Option<Value>, ExecutionError> {
    match (container, key) {
        (Value::Opaque(opaque), _) => match opaque.downcast_ref::<OptionalValue>() {
            Some(optional) => optional.value().map_or(Ok(None), |inner| found(inner, key)),
            None => Err(ExecutionError::NoSuchOverload),
        },
        (Value::Map(map), key) => {
            let key = to_key(key)?;
            Ok(map.map.get(&key).cloned())
        }
        (Value::List(items), Value::Int(index)) => {
            Ok(usize::try_from(*index).ok().and_then(|index| items.get(index)).cloned())
        }
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// Whether a map has a field; an optional value has it where its value does.
pub(crate) fn has(container: &Value, field: &str) -> Result<bool, ExecutionError> {
    match container {
        Value::Map(_) | Value::Opaque(_) => {
            let key = Value::String(Arc::new(field.to_owned()));
            found(container, &key).map(|found| found.is_some())
        }
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// An optional value.
pub(crate) fn optional_of(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// Whether a value is an optional one.
pub(crate) fn is_optional(value: &Value) -> bool {
    matches!(value, Value::Opaque(opaque) if opaque.downcast_ref::<OptionalValue>().is_some())
}

/// What an optional value holds.
pub(crate) fn inside(value: Value) -> Result<Option<Value>, ExecutionError> {
    match &value {
        Value::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
            Some(optional) => Ok(optional.value().cloned()),
            None => Err(ExecutionError::NoSuchOverload),
        },
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// The type of this name.
pub(crate) fn type_named(name: &str) -> Option<Value> {
    let known = TYPES.iter().find(|known| **known == name)?;
    Some(Value::Opaque(Arc::new(TypeName((*known).to_owned()))))
}
