//! How objects lie in the store: JSON bytes whose first members are `apiVersion`, `kind` and
//! `metadata`, without a `resourceVersion`, which the store splices in when it hands out the
//! revision. Lists and watches then copy bytes and never parse them.

use bytes::Bytes;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// The marker after which the store's revision is spliced in.
const METADATA_OPEN: &[u8] = b"\"metadata\":{";

/// Within how many bytes a stored value has said of what kind it is.
const TYPE_MAX_BYTES: usize = 512;

/// The store's view of our values: where the revision goes and which labels they carry.
#[derive(Debug, Default, Clone, Copy)]
pub struct JsonCodec;

impl store::Codec for JsonCodec {
    fn stamp(&self, value: &[u8], revision: u64) -> Bytes {
        store::stamp_member(value, METADATA_OPEN, "resourceVersion", revision)
    }

    fn labels(&self, value: &[u8]) -> store::Labels {
        labels(value)
    }
}

/// The stored form of `object`: fixed first members, no `resourceVersion`, no `selfLink`.
pub fn encode(object: &Value) -> Vec<u8> {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for field in ["apiVersion", "kind"] {
        member(&mut out, field, object.get(field).unwrap_or(&Value::Null));
        out.push(b',');
    }
    out.extend_from_slice(METADATA_OPEN);
    let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut first = true;
    for (name, value) in metadata {
        if matches!(name.as_str(), "resourceVersion" | "selfLink") {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        member(&mut out, name, value);
    }
    out.push(b'}');
    for (name, value) in object {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            out.push(b',');
            member(&mut out, name, value);
        }
    }
    out.push(b'}');
    out
}

/// A stored value without what it says of its kind, as lists of one kind show their items. The
/// value is shared: what is left of it still lacks the brace that it begins with.
pub fn untyped(value: &Bytes) -> (Option<u8>, Bytes) {
    // Names of versions and kinds hold nothing that is escaped, so neither looks like the marker.
    match value.windows(METADATA_OPEN.len()).take(TYPE_MAX_BYTES).position(|at| at == METADATA_OPEN)
    {
        Some(at) => (Some(b'{'), value.slice(at..)),
        None => (None, value.clone()),
    }
}

fn member(out: &mut Vec<u8>, name: &str, value: &Value) {
    // Writing a `Value` into memory has no error to report: its keys are strings.
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
    let _ = serde_json::to_writer(&mut *out, value);
}

/// The labels of a stored value, read without building the rest of it.
pub fn labels(value: &[u8]) -> store::Labels {
    let Some(Value::Object(map)) = extract(value, &["metadata", "labels"]) else {
        return store::Labels::default();
    };
    map.into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(value) => Some((key, value)),
            _ => None,
        })
        .collect()
}

/// The value at `path` in a JSON document, everything else skipped unread. `None` where the
/// path leads nowhere or the document is broken.
pub fn extract(json: &[u8], path: &[&str]) -> Option<Value> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    // The walk ends as soon as the value is found; what follows is deliberately not checked,
    // and comes back as an error that carries nothing.
    let mut found = None;
    let _ = Walk { path, found: &mut found }.deserialize(&mut reader);
    found
}

struct Walk<'a> {
    path: &'a [&'a str],
    found: &'a mut Option<Value>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(serde::Deserialize::deserialize(reader)?);
            return Ok(());
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == self.path[0] {
                return map.next_value_seed(Walk { path: &self.path[1..], found: self.found });
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use store::Codec as _;

    #[test]
    fn stored_form_puts_metadata_before_what_users_choose() {
        let object = json!({"data": {"x": "\"metadata\":{"}, "metadata": {"resourceVersion": "5", "name": "a"},
            "kind": "ConfigMap", "apiVersion": "v1"});
        let stored = encode(&object);
        assert_eq!(
            String::from_utf8(JsonCodec.stamp(&stored, 7).to_vec()).unwrap(),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"7","name":"a"},"data":{"x":"\"metadata\":{"}}"#
        );
    }

    #[test]
    fn items_leave_their_kind_to_the_list() {
        let stored = encode(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {},
            "data": {"x": "\"metadata\":{"}}));
        let (begin, rest) = untyped(&JsonCodec.stamp(&stored, 7));
        let text = [begin.into_iter().collect(), rest.to_vec()].concat();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"metadata":{"resourceVersion":"7"},"data":{"x":"\"metadata\":{"}}"#
        );
    }

    #[test]
    fn stamp_of_empty_metadata_is_still_json() {
        let stored = encode(&json!({"apiVersion": "v1", "kind": "X", "metadata": {}}));
        let value: Value = serde_json::from_slice(&JsonCodec.stamp(&stored, 3)).unwrap();
        assert_eq!(value["metadata"]["resourceVersion"], "3");
    }

    #[test]
    fn extract_reads_only_the_path() {
        let json = br#"{"a":{"b":[1,{"c":2}],"d":"x"},"e":1"#;
        assert_eq!(extract(json, &["a", "d"]), Some(json!("x")));
        assert_eq!(extract(json, &["a", "b"]), Some(json!([1, {"c": 2}])));
        assert_eq!(extract(json, &["a", "z"]), None);
        assert_eq!(extract(br#"{"a":3}"#, &["a", "z"]), None);
    }
}
