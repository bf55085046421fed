//! JSON to CEL's values and back.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use kube_cel::cel::objects::{Key, Map, OptionalValue};
use kube_cel::cel::{Value, functions};
use serde_json::Value as Json;

use crate::kind::{Kind, escape};

/// A JSON value as CEL sees one of this kind.
pub(crate) fn to_cel(json: &Json, kind: &Kind) -> Value {
    match (kind, json) {
        (Kind::Optional(_), Json::Null) => Value::Opaque(Arc::new(OptionalValue::none())),
        (Kind::Optional(inner), json) => {
            Value::Opaque(Arc::new(OptionalValue::of(to_cel(json, inner))))
        }
        (_, Json::Null) => Value::Null,
        (_, Json::Bool(value)) => Value::Bool(*value),
        (Kind::Double, Json::Number(number)) => Value::Float(number.as_f64().unwrap_or_default()),
        (_, Json::Number(number)) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(value),
            (None, Some(value)) => Value::UInt(value),
            _ => Value::Float(number.as_f64().unwrap_or_default()),
        },
        (kind, Json::String(text)) => text_to_cel(text, kind),
        (kind, Json::Array(items)) => {
            let element = kind.element();
            Value::List(Arc::new(items.iter().map(|item| to_cel(item, &element)).collect()))
        }
        (kind, Json::Object(members)) => {
            let members = members.iter().filter_map(|(name, value)| {
                let (name, kind) = match kind {
                    // What the schema does not know is not there for expressions.
                    Kind::Object(fields) => (escape(name), fields.get(name)?.clone()),
                    Kind::Map(value) => (name.clone(), value.as_ref().clone()),
                    _ => (name.clone(), Kind::Any),
                };
                Some((Key::String(Arc::new(name)), to_cel(value, &kind)))
            });
            Value::Map(Map { map: Arc::new(members.collect::<HashMap<_, _>>()) })
        }
    }
}

/// Texts with a format; what does not have it stays a text, and the schema says so.
fn text_to_cel(text: &str, kind: &Kind) -> Value {
    let made = match kind {
        Kind::Timestamp => functions::timestamp(Arc::new(text.to_owned())).ok(),
        Kind::Duration => functions::duration(Arc::new(text.to_owned())).ok(),
        Kind::Bytes => base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .map(|bytes| Value::Bytes(Arc::new(bytes))),
        _ => None,
    };
    made.unwrap_or_else(|| Value::String(Arc::new(text.to_owned())))
}

/// A CEL value as JSON; what JSON has no form for is null.
pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(map) => {
            let mut members: Vec<(String, Json)> =
                map.map.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect();
            // The map has no order of its own; a result must not differ from run to run.
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(members.into_iter().collect())
        }
        Value::Int(value) => (*value).into(),
        Value::UInt(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(text) => text.as_str().into(),
        Value::Bool(value) => (*value).into(),
        Value::Timestamp(time) => time.to_rfc3339().replace("+00:00", "Z").into(),
        Value::Duration(duration) => format!("{}s", duration.as_seconds_f64()).into(),
        Value::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
            Some(optional) => optional.value().map_or(Json::Null, to_json),
            None => Json::Null,
        },
        _ => Json::Null,
    }
}
