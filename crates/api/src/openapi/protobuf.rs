//! OpenAPI v2 as protobuf: JSON in, the wire form of gnostic's `openapi.v2` messages out, driven
//! by tables of field numbers.
//!
//! The document is written piece by piece: a message field that occurs several times is merged by
//! every protobuf decoder, so each path and each definition stands in an occurrence of its own.

use serde_json::Value;

/// A message: JSON member, field number and form; and the number of the repeated field that
/// takes the members whose names begin with `x-`.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    extensions: u32,
}

/// How a JSON value becomes a field.
enum Form {
    Text,
    Texts,
    Flag,
    /// Any value, as YAML text in an `Any`.
    Any,
    Message(&'static Message),
    /// A repeated message.
    Messages(&'static Message),
    /// An object as a message of named entries, in field 1.
    Named(&'static Message),
    /// A message around repeated texts, in field 1.
    Wrapped,
    /// A message around a message, in field 1.
    Boxed(&'static Message),
    /// A parameter, which is wrapped according to what it is.
    Parameters,
}

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("title", 3, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Any),
        ("required", 19, Form::Texts),
        ("additionalProperties", 21, Form::Boxed(&SCHEMA)),
        ("type", 22, Form::Wrapped),
        ("items", 23, Form::Boxed(&SCHEMA)),
        ("allOf", 24, Form::Messages(&SCHEMA)),
        ("properties", 25, Form::Named(&SCHEMA)),
    ],
    extensions: 31,
};

static BODY: Message = Message {
    fields: &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("schema", 5, Form::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY: Message = Message {
    fields: &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 6, Form::Text),
        ("format", 7, Form::Text),
        ("uniqueItems", 20, Form::Flag),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 5, Form::Text),
        ("format", 6, Form::Text),
        ("uniqueItems", 19, Form::Flag),
    ],
    extensions: 22,
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Form::Text), ("schema", 2, Form::Boxed(&SCHEMA))],
    extensions: 5,
};

/// `ResponseValue`: a response or a reference; only responses occur.
static RESPONSE_VALUE: Message =
    Message { fields: &[("", 1, Form::Message(&RESPONSE))], extensions: 0 };

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Form::Texts),
        ("summary", 2, Form::Text),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Texts),
        ("consumes", 7, Form::Texts),
        ("parameters", 8, Form::Parameters),
        ("responses", 9, Form::Named(&RESPONSE_VALUE)),
        ("schemes", 10, Form::Texts),
    ],
    extensions: 13,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, Form::Message(&OPERATION)),
        ("put", 3, Form::Message(&OPERATION)),
        ("post", 4, Form::Message(&OPERATION)),
        ("delete", 5, Form::Message(&OPERATION)),
        ("patch", 8, Form::Message(&OPERATION)),
        ("parameters", 9, Form::Parameters),
    ],
    extensions: 10,
};

static INFO: Message =
    Message { fields: &[("title", 1, Form::Text), ("version", 2, Form::Text)], extensions: 7 };

/// Field numbers of `Document`, and of the entries in `Paths` and `Definitions`.
const DOCUMENT_SWAGGER: u32 = 1;
const DOCUMENT_INFO: u32 = 2;
const DOCUMENT_PATHS: u32 = 8;
const DOCUMENT_DEFINITIONS: u32 = 9;
const PATHS_PATH: u32 = 2;
const DEFINITIONS_ENTRY: u32 = 1;

/// The document's first fields.
pub(super) fn head(info: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, DOCUMENT_SWAGGER, b"2.0");
    field(&mut bytes, DOCUMENT_INFO, &message(&INFO, info));
    bytes
}

/// One path of the document.
pub(super) fn path(path: &str, item: &Value) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, PATHS_PATH, &named(path, &message(&PATH_ITEM, item)));
    let mut bytes = Vec::new();
    field(&mut bytes, DOCUMENT_PATHS, &entry);
    bytes
}

/// One definition of the document.
pub(super) fn definition(name: &str, definition: &Value) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, DEFINITIONS_ENTRY, &named(name, &message(&SCHEMA, definition)));
    let mut bytes = Vec::new();
    field(&mut bytes, DOCUMENT_DEFINITIONS, &entry);
    bytes
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
    for (name, member) in value.as_object().into_iter().flatten() {
        if name.starts_with("x-") {
            field(&mut bytes, message.extensions, &named(name, &any(member)));
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
        Form::Flag => {
            varint(bytes, u64::from(number) << 3);
            varint(bytes, u64::from(value == true));
        }
        Form::Any => field(bytes, number, &any(value)),
        Form::Message(of) => field(bytes, number, &message(of, value)),
        Form::Messages(of) => {
            items().iter().for_each(|item| field(bytes, number, &message(of, item)))
        }
        Form::Named(of) => {
            let mut entries = Vec::new();
            for (name, member) in value.as_object().into_iter().flatten() {
                field(&mut entries, 1, &named(name, &message(of, member)));
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
        Form::Parameters => items().iter().for_each(|item| field(bytes, number, &parameter(item))),
    }
}

/// `ParametersItem{parameter: Parameter{body | non-body{query | path}}}`.
fn parameter(value: &Value) -> Vec<u8> {
    let wrap = |number: u32, inner: &[u8]| {
        let mut bytes = Vec::new();
        field(&mut bytes, number, inner);
        bytes
    };
    let parameter = match value["in"].as_str() {
        Some("body") => wrap(1, &message(&BODY, value)),
        Some("path") => wrap(2, &wrap(4, &message(&PATH_PARAMETER, value))),
        _ => wrap(2, &wrap(3, &message(&QUERY, value))),
    };
    wrap(1, &parameter)
}

/// `Any{yaml}`; JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, 2, format!("{value}\n").as_bytes());
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
        let bytes = definition("T", &json!({"description": "d", "type": "object"}));
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
}
