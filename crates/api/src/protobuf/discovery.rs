//! Aggregated discovery in protobuf. Its messages are in no schema that is served, so their
//! numbers stand here (k8s.io/api/apidiscovery/v2).

use serde_json::Value;

use super::document;
use super::wire::{bytes, nested};

/// Fields of a message: JSON name, number, and the message where it is one.
type Message = &'static [(&'static str, u64, Option<&'static Shape>)];

/// A message of its own, since a constant cannot hold itself.
struct Shape(Message);

const API_VERSION: &str = "apidiscovery.k8s.io/v2";
const KIND: &str = "APIGroupDiscoveryList";

static LIST: Shape = Shape(&[("metadata", 1, Some(&NONE)), ("items", 2, Some(&GROUP))]);
static GROUP: Shape = Shape(&[("metadata", 1, Some(&NAME)), ("versions", 2, Some(&VERSION))]);
static VERSION: Shape =
    Shape(&[("version", 1, None), ("resources", 2, Some(&RESOURCE)), ("freshness", 3, None)]);
static RESOURCE: Shape = Shape(&[
    ("resource", 1, None),
    ("responseKind", 2, Some(&GROUP_VERSION_KIND)),
    ("scope", 3, None),
    ("singularResource", 4, None),
    ("verbs", 5, None),
    ("shortNames", 6, None),
    ("categories", 7, None),
    ("subresources", 8, Some(&SUBRESOURCE)),
]);
static SUBRESOURCE: Shape = Shape(&[
    ("subresource", 1, None),
    ("responseKind", 2, Some(&GROUP_VERSION_KIND)),
    ("acceptedTypes", 3, Some(&GROUP_VERSION_KIND)),
    ("verbs", 4, None),
]);
static GROUP_VERSION_KIND: Shape =
    Shape(&[("group", 1, None), ("version", 2, None), ("kind", 3, None)]);
static NAME: Shape = Shape(&[("name", 1, None)]);
static NONE: Shape = Shape(&[]);

/// An `APIGroupDiscoveryList` as a document.
pub fn discovery(list: &Value) -> Vec<u8> {
    let mut message = Vec::new();
    write(list, &LIST, &mut message);
    document(API_VERSION, KIND, &message)
}

fn write(object: &Value, shape: &Shape, out: &mut Vec<u8>) {
    for (name, number, inner) in shape.0 {
        let value = &object[*name];
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for item in items {
            match (item, inner) {
                (Value::String(text), None) => bytes(out, *number, text.as_bytes()),
                (Value::Object(_), Some(inner)) => {
                    nested(out, *number, |out| write(item, inner, out));
                }
                _ => {}
            }
        }
    }
}
