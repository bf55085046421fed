//! The messages of `openapi.v3`, in which a reference may stand for most of them.

use serde_json::Value;

use super::{Form, Message, field, message, named};

static SCHEMA: Message = Message {
    fields: &[
        ("nullable", 1, Form::Flag),
        ("title", 9, Form::Text),
        ("multipleOf", 10, Form::Number),
        ("maximum", 11, Form::Number),
        ("exclusiveMaximum", 12, Form::Flag),
        ("minimum", 13, Form::Number),
        ("exclusiveMinimum", 14, Form::Flag),
        ("maxLength", 15, Form::Integer),
        ("minLength", 16, Form::Integer),
        ("pattern", 17, Form::Text),
        ("maxItems", 18, Form::Integer),
        ("minItems", 19, Form::Integer),
        ("uniqueItems", 20, Form::Flag),
        ("maxProperties", 21, Form::Integer),
        ("minProperties", 22, Form::Integer),
        ("required", 23, Form::Texts),
        ("enum", 24, Form::Anys),
        ("type", 25, Form::Text),
        ("allOf", 26, Form::Messages(&SCHEMA_OR_REFERENCE)),
        ("oneOf", 27, Form::Messages(&SCHEMA_OR_REFERENCE)),
        ("anyOf", 28, Form::Messages(&SCHEMA_OR_REFERENCE)),
        ("not", 29, Form::Message(&SCHEMA)),
        ("items", 30, Form::Boxed(&SCHEMA_OR_REFERENCE)),
        ("properties", 31, Form::Named(1, &SCHEMA_OR_REFERENCE)),
        ("additionalProperties", 32, Form::Boxed(&SCHEMA_OR_REFERENCE)),
        ("default", 33, Form::Scalar),
        ("description", 34, Form::Text),
        ("format", 35, Form::Text),
    ],
    extensions: Some(36),
};

/// `Reference{_ref}` in field 2.
static SCHEMA_OR_REFERENCE: Message = Message {
    fields: &[("", 1, Form::Own(&SCHEMA)), ("$ref", 2, Form::Wrapped)],
    extensions: None,
};

static PARAMETER: Message = Message {
    fields: &[
        ("name", 1, Form::Text),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("schema", 10, Form::Message(&SCHEMA_OR_REFERENCE)),
    ],
    extensions: Some(14),
};

/// `ParameterOrReference`, `RequestBodyOrReference` and `ResponseOrReference`: no references occur.
static PARAMETER_OR_REFERENCE: Message =
    Message { fields: &[("", 1, Form::Message(&PARAMETER))], extensions: None };
static BODY_OR_REFERENCE: Message =
    Message { fields: &[("", 1, Form::Message(&BODY))], extensions: None };
static RESPONSE_OR_REFERENCE: Message =
    Message { fields: &[("", 1, Form::Message(&RESPONSE))], extensions: None };

static MEDIA_TYPE: Message =
    Message { fields: &[("schema", 1, Form::Message(&SCHEMA_OR_REFERENCE))], extensions: Some(5) };

static BODY: Message = Message {
    fields: &[
        ("description", 1, Form::Text),
        ("content", 2, Form::Named(1, &MEDIA_TYPE)),
        ("required", 3, Form::Flag),
    ],
    extensions: Some(4),
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Form::Text), ("content", 3, Form::Named(1, &MEDIA_TYPE))],
    extensions: Some(5),
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Form::Texts),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("parameters", 6, Form::Messages(&PARAMETER_OR_REFERENCE)),
        ("requestBody", 7, Form::Message(&BODY_OR_REFERENCE)),
        ("responses", 8, Form::Named(2, &RESPONSE_OR_REFERENCE)),
    ],
    extensions: Some(13),
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 4, Form::Message(&OPERATION)),
        ("put", 5, Form::Message(&OPERATION)),
        ("post", 6, Form::Message(&OPERATION)),
        ("delete", 7, Form::Message(&OPERATION)),
        ("patch", 10, Form::Message(&OPERATION)),
        ("parameters", 13, Form::Messages(&PARAMETER_OR_REFERENCE)),
    ],
    extensions: Some(14),
};

static INFO: Message = Message {
    fields: &[("title", 1, Form::Text), ("version", 6, Form::Text)],
    extensions: Some(7),
};

/// Field numbers of `Document`, and of what leads to the entries in `Paths` and `Components`.
const DOCUMENT_OPENAPI: u32 = 1;
const DOCUMENT_INFO: u32 = 2;
const DOCUMENT_PATHS: u32 = 4;
const DOCUMENT_COMPONENTS: u32 = 5;
const PATHS_PATH: u32 = 1;
const COMPONENTS_SCHEMAS: u32 = 1;
const SCHEMAS_ENTRY: u32 = 1;

/// The document's first fields.
pub(in crate::openapi) fn head(info: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, DOCUMENT_OPENAPI, b"3.0.0");
    field(&mut bytes, DOCUMENT_INFO, &message(&INFO, info));
    bytes
}

/// One path of the document.
pub(in crate::openapi) fn path(path: &str, item: &Value) -> Vec<u8> {
    within(&[DOCUMENT_PATHS, PATHS_PATH], named(path, &message(&PATH_ITEM, item)))
}

/// One schema of the document.
pub(in crate::openapi) fn definition(name: &str, definition: &Value) -> Vec<u8> {
    let entry = named(name, &message(&SCHEMA_OR_REFERENCE, definition));
    within(&[DOCUMENT_COMPONENTS, COMPONENTS_SCHEMAS, SCHEMAS_ENTRY], entry)
}

/// Messages within each other, the outermost first.
fn within(numbers: &[u32], content: Vec<u8>) -> Vec<u8> {
    numbers.iter().rev().fold(content, |content, number| {
        let mut bytes = Vec::new();
        field(&mut bytes, *number, &content);
        bytes
    })
}
