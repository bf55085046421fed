//! From upstream's protobuf form to JSON.

use super::wire::{Fields, Wire};
use super::{DecodeError, Entry, MAGIC, NUMBERS};
use crate::resource::split_api_version;
use crate::schema::{Schema, Type};
use base64::Engine;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// How deep messages may be nested.
const DEPTH_MAX: usize = 64;

/// Reads a document: the envelope says which kind it is.
pub fn decode(document: &[u8]) -> Result<Value, DecodeError> {
    let envelope = document.strip_prefix(MAGIC).ok_or(DecodeError::Prefix)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = lossy(text),
                        (2, Wire::Bytes(text)) => kind = lossy(text),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = split_api_version(&api_version);
    let unknown =
        || DecodeError::UnknownKind { kind: kind.clone(), api_version: api_version.clone() };
    // Options come in the group and version of what they are about, known here or not.
    let options = || Schema::of_definition(DELETE_OPTIONS).filter(|_| kind == "DeleteOptions");
    let schema = Schema::of(group, version, &kind).or_else(options).ok_or_else(unknown)?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.clone().into());
    object.insert("kind".to_owned(), kind.clone().into());
    let numbers = schema.name().and_then(|name| NUMBERS.get(name)).ok_or_else(unknown)?;
    message(schema, &numbers.entries, raw, DEPTH_MAX, &mut object)?;
    Ok(Value::Object(object))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Adds a message's fields to `object`.
fn message(
    schema: Schema<'_>,
    numbers: &[Entry],
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::Broken)?;
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let entry = numbers.iter().find(|entry| match entry {
            Entry::Named { number: own, .. } | Entry::Flattened(own, _) => *own == number,
        });
        match (entry, &wire) {
            (Some(Entry::Flattened(_, inner)), Wire::Bytes(bytes)) => {
                message(schema, inner, bytes, depth, object)?;
            }
            (Some(Entry::Named { name, shown, .. }), _) => {
                if let Some(schema) = schema.field(name) {
                    member((schema, *shown), name, wire, depth, object)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds one field, or one more item of a repeated one. What stands for nothing is added where it
/// is shown.
fn member(
    (schema, shown): (Schema<'_>, bool),
    name: &str,
    wire: Wire<'_>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    match schema.kind() {
        Type::List => {
            let Some(items) = schema.items() else { return Ok(()) };
            let list = object.entry(name).or_insert_with(|| json!([]));
            if let (Some(list), Some(item)) = (list.as_array_mut(), value(items, wire, depth)?) {
                list.push(item);
            }
        }
        Type::Map => {
            let (Some(values), Wire::Bytes(bytes)) = (schema.additional(), wire) else {
                return Ok(());
            };
            let (key, item) = pair(values, bytes, depth)?;
            let map = object.entry(name).or_insert_with(|| json!({}));
            if let Some(map) = map.as_object_mut() {
                map.insert(key, item);
            }
        }
        _ => {
            let Some(value) = value(schema, wire, depth)? else { return Ok(()) };
            let nothing = value == json!("") || value == json!(0) || value == json!(false);
            let always = matches!(schema.kind(), Type::IntOrString | Type::Quantity | Type::Any);
            if !nothing || always || shown {
                object.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// An entry of a map: key and value are fields 1 and 2 of a message.
fn pair(values: Schema<'_>, bytes: &[u8], depth: usize) -> Result<(String, Value), DecodeError> {
    let (mut key, mut item) = (String::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = lossy(text),
            // A list as a map's value is wrapped in a message of its own.
            (2, Wire::Bytes(bytes)) if values.kind() == Type::List => {
                let Some(items) = values.items() else { continue };
                let mut list = Vec::new();
                for field in Fields(bytes) {
                    list.extend(value(items, field?.1, depth)?);
                }
                item = Some(Value::Array(list));
            }
            (2, wire) => item = value(values, wire, depth)?,
            _ => {}
        }
    }
    let empty = match values.kind() {
        Type::String | Type::Bytes => json!(""),
        _ => Value::Null,
    };
    Ok((key, item.unwrap_or(empty)))
}

/// One value; `None` for what stands for nothing.
fn value(schema: Schema<'_>, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, DecodeError> {
    Ok(match (schema.kind(), wire) {
        (Type::String, Wire::Bytes(text)) => Some(lossy(text).into()),
        (Type::Bytes, Wire::Bytes(bytes)) => {
            Some(base64::engine::general_purpose::STANDARD.encode(bytes).into())
        }
        (Type::Boolean, Wire::Number(number)) => Some((number != 0).into()),
        // Negative numbers of 32 bits are sent with 64.
        (Type::Int32, Wire::Number(number)) => Some((number as i32).into()),
        (Type::Int64, Wire::Number(number)) => Some((number as i64).into()),
        (Type::Number, Wire::Number(number)) => Some(json!(f64::from_bits(number))),
        (Type::Quantity, Wire::Bytes(bytes)) => text_field(bytes)?.map(Value::from),
        (Type::Time, Wire::Bytes(bytes)) => {
            time(bytes)?.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into())
        }
        (Type::MicroTime, Wire::Bytes(bytes)) => {
            time(bytes)?.map(|t| t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into())
        }
        (Type::IntOrString, Wire::Bytes(bytes)) => Some(int_or_string(bytes)?),
        (Type::Any, Wire::Bytes(bytes)) => any(schema, bytes, depth)?,
        (Type::Object, Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            if let Some(numbers) = schema.name().and_then(|name| NUMBERS.get(name)) {
                message(schema, &numbers.entries, bytes, depth, &mut object)?;
            }
            Some(Value::Object(object))
        }
        _ => return Err(DecodeError::Broken),
    })
}

/// Field 1 of a message that wraps a text.
fn text_field(bytes: &[u8]) -> Result<Option<String>, DecodeError> {
    let mut text = None;
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            text = Some(lossy(bytes));
        }
    }
    Ok(text)
}

/// Seconds and nanoseconds since 1970; an empty message is no time.
fn time(bytes: &[u8]) -> Result<Option<Timestamp>, DecodeError> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(number)) => seconds = number as i64,
            (2, Wire::Number(number)) => nanos = number as i32,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(None);
    }
    Timestamp::new(seconds, nanos).map(Some).map_err(|_| DecodeError::Broken)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = value as i32,
            (3, Wire::Bytes(value)) => text = lossy(value),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// Values without a structure of their own: JSON in field 1 (RawExtension, FieldsV1, JSON), or
/// one of the alternatives of a JSON schema.
fn any(schema: Schema<'_>, bytes: &[u8], depth: usize) -> Result<Option<Value>, DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::Broken)?;
    let name = schema.name().unwrap_or_default();
    let alternative = name.contains("JSONSchemaPropsOr");
    let mut result = None;
    let mut list = Vec::new();
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) if !alternative => {
                result = Some(serde_json::from_slice(bytes).map_err(|_| DecodeError::Broken)?);
            }
            (1, Wire::Number(allowed)) => result = result.or(Some(json!(allowed != 0))),
            (number @ (1 | 2), Wire::Bytes(bytes)) => {
                let inner = name.rsplit_once("Or").map_or(name, |(inner, _)| inner);
                let Some(schema) = Schema::of_definition(inner) else { continue };
                if number == 2 && name.ends_with("OrStringArray") {
                    list.push(lossy(bytes).into());
                    continue;
                }
                let object = value(schema, Wire::Bytes(bytes), depth)?;
                if number == 2 && name.ends_with("OrArray") {
                    list.extend(object);
                } else {
                    result = object;
                }
            }
            _ => {}
        }
    }
    Ok(if list.is_empty() { result } else { Some(Value::Array(list)) })
}
