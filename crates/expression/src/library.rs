//! Functions that the evaluator lacks: what macros of two variables need, `type`, `dyn`, and
//! selections of optional values as cel-go has them.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::extractors::{Arguments, This};
use kube_cel::cel::objects::{Key, Map, Opaque, OptionalValue, ValueType};
use kube_cel::cel::{Context, ExecutionError, Value};

use crate::conversions;

/// The pairs of a list or of a map.
pub(crate) const ENTRIES: &str = "@entries";
/// A map with one entry more.
pub(crate) const MAP_INSERT: &str = "@mapInsert";
/// `a.?b`, and `a.b` where `a` is an optional value.
pub(crate) const OPTIONAL_SELECT: &str = "@optionalSelect";
/// `has(a.b)` where `a` is an optional value.
pub(crate) const OPTIONAL_HAS: &str = "@optionalHas";
/// `a[?b]`, and `a[b]` where `a` is an optional value.
pub(crate) const OPTIONAL_INDEX: &str = "@optionalIndex";

/// The types that have a name, and what stands for each.
const TYPES: [&str; 11] = [
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
];

/// A type as a value.
#[derive(Debug, PartialEq, Eq)]
struct TypeName(String);

impl Opaque for TypeName {
    fn runtime_type_name(&self) -> &str {
        "type"
    }
}

type Answer = Result<Value, ExecutionError>;

/// The language with Kubernetes' libraries and no variables.
pub(crate) fn context() -> Context<'static> {
    let mut context = Context::default().with_all();
    conversions::register(&mut context);
    context.add_function(ENTRIES, entries);
    context.add_function(MAP_INSERT, map_insert);
    context.add_function(OPTIONAL_SELECT, select);
    context.add_function(OPTIONAL_INDEX, select);
    context.add_function(OPTIONAL_HAS, |container: Value, key: Value| -> Answer {
        Ok(Value::Bool(found(&container, &key)?.is_some()))
    });
    context.add_function("dyn", |value: Value| -> Answer { Ok(value) });
    context.add_function("type", |value: Value| -> Answer { Ok(type_of(&value)) });
    for name in TYPES {
        context.add_variable_from_value(name, Value::Opaque(Arc::new(TypeName(name.to_owned()))));
    }
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

fn type_of(value: &Value) -> Value {
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

/// A map's entries in the order of its keys, so that no two runs differ.
fn sorted(map: &Map) -> Vec<(&Key, &Value)> {
    let mut all: Vec<_> = map.map.iter().collect();
    all.sort_by(|a, b| a.0.cmp(b.0));
    all
}

fn of_key(key: &Key) -> Value {
    match key {
        Key::Int(value) => Value::Int(*value),
        Key::Uint(value) => Value::UInt(*value),
        Key::Bool(value) => Value::Bool(*value),
        Key::String(text) => Value::String(Arc::clone(text)),
    }
}

fn to_key(value: &Value) -> Result<Key, ExecutionError> {
    value.clone().try_into().map_err(|_| ExecutionError::NoSuchOverload)
}

fn entries(This(container): This<Value>) -> Answer {
    let pair = |first, second| Value::List(Arc::new(vec![first, second]));
    let pairs = match &container {
        Value::List(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| pair(Value::Int(index as i64), item.clone()))
            .collect(),
        Value::Map(map) => {
            sorted(map).into_iter().map(|(key, value)| pair(of_key(key), value.clone())).collect()
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    Ok(Value::List(Arc::new(pairs)))
}

/// Takes a map and either a key and a value or a map of those to add.
fn map_insert(Arguments(args): Arguments) -> Answer {
    let (Some(Value::Map(base)), Some(more)) = (args.first(), args.get(1)) else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let mut members: HashMap<Key, Value> = (*base.map).clone();
    let mut insert = |key: Key, value: Value| match members.insert(key.clone(), value) {
        None => Ok(()),
        Some(_) => {
            let why = format!("insert failed: key {key} already exists");
            Err(ExecutionError::function_error("cel.@mapInsert", why))
        }
    };
    match (more, args.get(2)) {
        (key, Some(value)) => {
            let key = to_key(key)?;
            insert(key, value.clone())?;
        }
        (Value::Map(added), None) => {
            for (key, value) in sorted(added) {
                insert(key.clone(), value.clone())?;
            }
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    }
    Ok(Value::Map(Map { map: Arc::new(members) }))
}

/// What stands at a key or an index of a container, which may be optional itself.
fn found(container: &Value, key: &Value) -> Result<Option<Value>, ExecutionError> {
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

fn select(container: Value, key: Value) -> Answer {
    let found = found(&container, &key)?;
    let optional = found.map_or_else(OptionalValue::none, OptionalValue::of);
    Ok(Value::Opaque(Arc::new(optional)))
}
