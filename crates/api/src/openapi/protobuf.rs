//! OpenAPI as protobuf: JSON in, the wire form of gnostic's messages out, driven by tables of field
//! numbers, one set of them for each version.
//!
//! The document is written piece by piece: a message field that occurs several times is merged by
//! every protobuf decoder, so each path and each definition stands in an occurrence of its own.

pub(super) mod v2;
pub(super) mod v3;

use serde_json::Value;

/// A message: JSON member, field number and form; and the number of the repeated field that
/// takes the members whose names begin with `x-`, where it has one.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    extensions: Option<u32>,
}

/// How a JSON value becomes a field.
enum Form {
    Text,
    Texts,
    Flag,
    Integer,
    Number,
    /// Any value, as YAML text in an `Any`.
    Any,
    /// Several of these.
    Anys,
    /// A message around a number, a truth or a text, empty for anything else.
    Scalar,
    Message(&'static Message),
    /// A message, unless there is a reference in its place.
    Own(&'static Message),
    /// A repeated message.
    Messages(&'static Message),
    /// An object as a message of named entries, in the field of that number.
    Named(u32, &'static Message),
    /// A message around repeated texts, in field 1.
    Wrapped,
    /// A message around a message, in field 1.
    Boxed(&'static Message),
    /// A parameter, which is wrapped according to what it is.
    Parameters,
}

fn message(message: &Message, value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, number, form) in message.fields {
        // A field without a name takes the whole value: a message that is one choice of several.
        let member = if name.is_empty() { Some(value) } else { value.get(name) };
        if let Some(member) = member {
            encode(&mut bytes, *number, form, member);
        }
    }
    if let (Some(number), Some(members)) = (message.extensions, value.as_object()) {
        for (name, member) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
            field(&mut bytes, number, &named(name, &any(member)));
        }
    }
    bytes
}

fn encode(bytes: &mut Vec<u8>, number: u32, form: &Form, value: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
    let items = || value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    match form {
        Form::Text => field(bytes, number, &text(value)),
        Form::Texts => items().iter().for_each(|item| field(bytes, number, &text(item))),
        Form::Flag => whole(bytes, number, u64::from(value == true)),
        // A negative one has all its bits, as protobuf's int64.
        Form::Integer => whole(bytes, number, value.as_i64().unwrap_or_default() as u64),
        Form::Number => double(bytes, number, value.as_f64().unwrap_or_default()),
        Form::Any => field(bytes, number, &any(value)),
        Form::Anys => items().iter().for_each(|item| field(bytes, number, &any(item))),
        Form::Scalar => field(bytes, number, &scalar(value)),
        Form::Message(of) => field(bytes, number, &message(of, value)),
        Form::Own(of) if value.get("$ref").is_none() => field(bytes, number, &message(of, value)),
        Form::Own(_) => {}
        Form::Messages(of) => {
            items().iter().for_each(|item| field(bytes, number, &message(of, item)))
        }
        Form::Named(entry, of) => {
            let mut entries = Vec::new();
            for (name, member) in value.as_object().into_iter().flatten() {
                field(&mut entries, *entry, &named(name, &message(of, member)));
            }
            field(bytes, number, &entries);
        }
        Form::Wrapped => {
            let mut texts = Vec::new();
            items().iter().for_each(|item| field(&mut texts, 1, &text(item)));
            field(bytes, number, &texts);
        }
        Form::Boxed(of) => {
            let mut inner = Vec::new();
            field(&mut inner, 1, &message(of, value));
            field(bytes, number, &inner);
        }
        Form::Parameters => {
            items().iter().for_each(|item| field(bytes, number, &v2::parameter(item)))
        }
    }
}

/// `Any{yaml}`; JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, 2, format!("{value}\n").as_bytes());
    bytes
}

/// `DefaultType`: of structures it is known that there are some, not what is in them.
fn scalar(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    match value {
        Value::Number(_) => double(&mut bytes, 1, value.as_f64().unwrap_or_default()),
        Value::Bool(flag) => whole(&mut bytes, 2, u64::from(*flag)),
        Value::String(text) => field(&mut bytes, 3, text.as_bytes()),
        _ => {}
    }
    bytes
}

/// The entry of a map: `{1: name, 2: value}`.
fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + value.len() + 8);
    field(&mut bytes, 1, name.as_bytes());
    field(&mut bytes, 2, value);
    bytes
}

/// A field with a length in front.
fn field(bytes: &mut Vec<u8>, number: u32, content: &[u8]) {
    varint(bytes, u64::from(number) << 3 | 2);
    varint(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

fn whole(bytes: &mut Vec<u8>, number: u32, value: u64) {
    varint(bytes, u64::from(number) << 3);
    varint(bytes, value);
}

fn double(bytes: &mut Vec<u8>, number: u32, value: f64) {
    varint(bytes, u64::from(number) << 3 | 1);
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn encodes_the_wire_form() {
        // Definitions{1: {1: "T", 2: Schema{4: "d", 22: {1: "object"}}}} in field 9 of Document.
        let bytes = v2::definition("T", &json!({"description": "d", "type": "object"}));
        assert_eq!(
            bytes,
            [
                b"\x4a\x15\x0a\x13\x0a\x01T\x12\x0e".as_slice(),
                b"\x22\x01d",
                b"\xb2\x01\x08\x0a\x06object",
            ]
            .concat()
        );
        let mut long = Vec::new();
        varint(&mut long, 300);
        assert_eq!(long, [0xac, 0x02]);
    }

    #[test]
    fn what_restricts_values_is_encoded_in_both_versions() {
        let schema = json!({"minimum": 1, "maxLength": 3, "enum": ["a", 2], "default": true,
            "items": {"$ref": "#/components/schemas/X"}, "x-y": 1});
        assert_eq!(
            v2::definition("T", &schema)[9..],
            [
                b"\x2a\x07\x12\x05true\n".as_slice(),
                b"\x49\x00\x00\x00\x00\x00\x00\xf0\x3f",
                b"\x58\x03",
                b"\xa2\x01\x06\x12\x04\"a\"\n",
                b"\xa2\x01\x04\x12\x022\n",
                b"\xba\x01\x1a\x0a\x18\x0a\x16#/components/schemas/X",
                b"\xfa\x01\x0b\x0a\x03x-y\x12\x04\x12\x021\n",
            ]
            .concat()
        );
        // Document{5: Components{1: Schemas{1: Named{1: "T", 2: SchemaOrReference{1: Schema}}}}}.
        assert_eq!(
            v3::definition("T", &schema),
            [
                b"\x2a\x58\x0a\x56\x0a\x54\x0a\x01T\x12\x4f\x0a\x4d".as_slice(),
                b"\x69\x00\x00\x00\x00\x00\x00\xf0\x3f",
                b"\x78\x03",
                b"\xc2\x01\x06\x12\x04\"a\"\n",
                b"\xc2\x01\x04\x12\x022\n",
                b"\xf2\x01\x1c\x0a\x1a\x12\x18\x0a\x16#/components/schemas/X",
                b"\x8a\x02\x02\x10\x01",
                b"\xa2\x02\x0b\x0a\x03x-y\x12\x04\x12\x021\n",
            ]
            .concat()
        );
    }
}
