//! The messages of `openapi.v2`.

use serde_json::Value;

use super::{Form, Message, field, message, named};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("title", 3, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Any),
        ("multipleOf", 6, Form::Number),
        ("maximum", 7, Form::Number),
        ("exclusiveMaximum", 8, Form::Flag),
        ("minimum", 9, Form::Number),
        ("exclusiveMinimum", 10, Form::Flag),
        ("maxLength", 11, Form::Integer),
        ("minLength", 12, Form::Integer),
        ("pattern", 13, Form::Text),
        ("maxItems", 14, Form::Integer),
        ("minItems", 15, Form::Integer),
        ("uniqueItems", 16, Form::Flag),
        ("maxProperties", 17, Form::Integer),
        ("minProperties", 18, Form::Integer),
        ("required", 19, Form::Texts),
        ("enum", 20, Form::Anys),
        ("additionalProperties", 21, Form::Boxed(&SCHEMA)),
        ("type", 22, Form::Wrapped),
        ("items", 23, Form::Boxed(&SCHEMA)),
        ("allOf", 24, Form::Messages(&SCHEMA)),
        ("properties", 25, Form::Named(1, &SCHEMA)),
    ],
    extensions: Some(31),
};

static BODY: Message = Message {
    fields: &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("schema", 5, Form::Message(&SCHEMA)),
    ],
    extensions: Some(6),
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
    extensions: Some(23),
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
    extensions: Some(22),
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Form::Text), ("schema", 2, Form::Boxed(&SCHEMA))],
    extensions: Some(5),
};

/// `ResponseValue`: a response or a reference; only responses occur.
static RESPONSE_VALUE: Message =
    Message { fields: &[("", 1, Form::Message(&RESPONSE))], extensions: None };

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Form::Texts),
        ("summary", 2, Form::Text),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Texts),
        ("consumes", 7, Form::Texts),
        ("parameters", 8, Form::Parameters),
        ("responses", 9, Form::Named(1, &RESPONSE_VALUE)),
        ("schemes", 10, Form::Texts),
    ],
    extensions: Some(13),
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
    extensions: Some(10),
};

static INFO: Message = Message {
    fields: &[("title", 1, Form::Text), ("version", 2, Form::Text)],
    extensions: Some(7),
};

/// Field numbers of `Document`, and of the entries in `Paths` and `Definitions`.
const DOCUMENT_SWAGGER: u32 = 1;
const DOCUMENT_INFO: u32 = 2;
const DOCUMENT_PATHS: u32 = 8;
const DOCUMENT_DEFINITIONS: u32 = 9;
const PATHS_PATH: u32 = 2;
const DEFINITIONS_ENTRY: u32 = 1;

/// The document's first fields.
pub(in crate::openapi) fn head(info: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, DOCUMENT_SWAGGER, b"2.0");
    field(&mut bytes, DOCUMENT_INFO, &message(&INFO, info));
    bytes
}

/// One path of the document.
pub(in crate::openapi) fn path(path: &str, item: &Value) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, PATHS_PATH, &named(path, &message(&PATH_ITEM, item)));
    let mut bytes = Vec::new();
    field(&mut bytes, DOCUMENT_PATHS, &entry);
    bytes
}

/// One definition of the document.
pub(in crate::openapi) fn definition(name: &str, definition: &Value) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, DEFINITIONS_ENTRY, &named(name, &message(&SCHEMA, definition)));
    let mut bytes = Vec::new();
    field(&mut bytes, DOCUMENT_DEFINITIONS, &entry);
    bytes
}

/// `ParametersItem{parameter: Parameter{body | non-body{query | path}}}`.
pub(super) fn parameter(value: &Value) -> Vec<u8> {
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
