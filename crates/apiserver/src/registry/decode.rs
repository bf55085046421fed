//! Bodies: from bytes to an object of the kind that the path names.

use api::resource::{Resource, split_api_version};
use api::schema;
use api::status::Status;
use serde_json::Value;

use super::Outcome;
use super::call::Call;
use super::not_json;
use super::twice::Twice;

/// Media types that objects may be sent in.
const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", api::protobuf::MEDIA_TYPE];

/// Members whose values are maps from text to text, where null stands for the empty text
/// instead of for nothing (so does Go's decoder).
const TEXT_MAPS: [&str; 7] =
    ["annotations", "data", "binaryData", "labels", "matchLabels", "nodeSelector", "stringData"];

/// Reads a body of JSON, YAML or protobuf.
pub(crate) fn parse(content_type: &str, body: &[u8]) -> Outcome<Value> {
    tracked(content_type, body).map(|(value, _)| value)
}

/// The same, and the fields that the body has twice.
fn tracked(content_type: &str, body: &[u8]) -> Outcome<(Value, Twice)> {
    let whole = |value| (value, Twice::default());
    match content_type {
        "" | "application/json" | "*/*" => json(body).map_err(|error| {
            let why = not_json::why(body, &error);
            unreadable(&format!("couldn't get version/kind; json parse error: {why}"))
        }),
        "application/yaml" | "application/apply-patch+yaml" => yaml(body),
        api::protobuf::MEDIA_TYPE => {
            api::protobuf::decode(body).map(whole).map_err(|error| unreadable(&error.to_string()))
        }
        _ => Err(Status::unsupported_media_type(&ACCEPTED)),
    }
}

/// Reads JSON, and notes the fields that it has twice.
pub fn json(body: &[u8]) -> serde_json::Result<(Value, Twice)> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let (value, paths) = schema::decode(&mut reader)?;
    reader.end()?;
    Ok((value, Twice::of_json(&paths, body)))
}

/// How YAML is read: of a field that is there twice the last counts.
pub(super) fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
    }
}

/// Reads YAML (of which JSON is a part), and notes the fields that it has twice.
pub fn yaml(body: &[u8]) -> Outcome<(Value, Twice)> {
    let text = std::str::from_utf8(body).map_err(|_| unreadable("the body is not UTF-8"))?;
    let read =
        serde_saphyr::with_deserializer_from_str_with_options(text, yaml_options(), |yaml| {
            schema::decode(yaml)
        });
    let (value, paths) =
        read.map_err(|error| unreadable(&format!("error converting YAML to JSON: {error}")))?;
    // Which lines it is about takes another reading, which most bodies are spared.
    let twice = if paths.is_empty() { Twice::default() } else { Twice::of_yaml(text) };
    Ok((value, twice))
}

const UNREADABLE: &str = "the object provided is unrecognized";

fn unreadable(why: &str) -> Status {
    Status::bad_request(format!("{UNREADABLE}: {why}"))
}

/// The beginning of a body: as text if it may be JSON, else in hexadecimal digits.
fn summary(body: &[u8]) -> String {
    const SHOWN_MAX_BYTES: usize = 30;
    let more = if body.len() > SHOWN_MAX_BYTES { " ..." } else { "" };
    let shown = &body[..body.len().min(SHOWN_MAX_BYTES)];
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => {
            let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{more}")
        }
    }
}

/// Reads the object of a create or an update, and which of its fields were there twice.
pub fn object(call: &Call) -> Outcome<(Value, Twice)> {
    let kind = &call.target.resource.kind;
    let (mut object, duplicates) =
        tracked(&call.content_type(), &call.body).map_err(|mut status| {
            if let Some(why) = status.message.strip_prefix(UNREADABLE) {
                let body = summary(&call.body);
                status.message = format!("{UNREADABLE} (must be of type {kind}){why} ({body})");
            }
            status
        })?;
    if !object.is_object() {
        let body = summary(&call.body);
        let why = "couldn't get version/kind; json parse error: json: cannot unmarshal";
        let (found, into) =
            (type_name(&object), "Go value of type struct { APIVersion string; Kind string }");
        let why =
            format!("{UNREADABLE} (must be of type {kind}): {why} {found} into {into} ({body})");
        return Err(Status::bad_request(why));
    }
    settle_kind(&call.target.resource, &call.target.version, &mut object)?;
    Ok((object, duplicates))
}

/// Fills in `apiVersion` and `kind` where they were left out and refuses others.
pub fn settle_kind(resource: &Resource, version: &str, object: &mut Value) -> Outcome<()> {
    let expected = resource.api_version(version);
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let (group, given) = split_api_version(&api_version);
    if !kind.is_empty() && kind != *resource.kind {
        let known = api::resource::find_kind(group, given, &kind).is_some();
        let why = if known {
            format!(
                "converting ({given}.{kind}) to ({}.{}): unknown conversion",
                version, resource.kind
            )
        } else {
            format!(
                "no kind {kind:?} is registered for version {api_version:?} in scheme \"coracle\""
            )
        };
        return Err(Status::bad_request(format!(
            "{kind} in version {given:?} cannot be handled as a {}: {why}",
            resource.kind
        )));
    }
    if !api_version.is_empty() && api_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), expected.into());
        fields.insert("kind".to_owned(), resource.kind.as_ref().into());
    }
    if !object["metadata"].is_object() && !object["metadata"].is_null() {
        return Err(Status::bad_request(format!(
            "{} in version {version:?} cannot be handled as a {}: json: cannot unmarshal {} into Go struct field {}.metadata of type v1.ObjectMeta",
            resource.kind,
            resource.kind,
            type_name(&object["metadata"]),
            resource.kind
        )));
    }
    Ok(())
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Drops members that are null, which clients written in Go send for what is not set.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            for (name, value) in fields.iter_mut() {
                if TEXT_MAPS.contains(&name.as_str()) {
                    null_is_empty(value);
                }
                drop_nulls(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn null_is_empty(map: &mut Value) {
    for value in map.as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        if value.is_null() {
            *value = Value::String(String::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_and_json_read_alike() {
        let yaml = parse(
            "application/yaml",
            b"kind: Pod\nmetadata:\n  name: a\n  labels: {on: \"yes\"}\nspec:\n  n: 1\n",
        )
        .unwrap();
        assert_eq!(
            yaml,
            json!({"kind": "Pod", "metadata": {"name": "a", "labels": {"on": "yes"}}, "spec": {"n": 1}})
        );
        for (kind, body, told) in [
            (
                "application/yaml",
                "a: {b: 1, c: x, b: 2}",
                "yaml: unmarshal errors:\n  line 1: key \"b\" already set in map",
            ),
            ("application/json", r#"{"a": {"b": 1, "c": "x", "b": 2}}"#, "duplicate field \"a.b\""),
        ] {
            let (value, twice) = tracked(kind, body.as_bytes()).unwrap();
            assert_eq!(
                (value, twice.errors()),
                (json!({"a": {"b": 2, "c": "x"}}), vec![told.to_owned()])
            );
        }
        assert_eq!(parse("text/plain", b"").unwrap_err().code, 415);
        assert_eq!(parse("application/json", b"{").unwrap_err().code, 400);
    }

    #[test]
    fn kinds_must_fit() {
        let pods = api::resource::find("", "v1", "pods").unwrap();
        let refused =
            |object: Value| settle_kind(pods, "v1", &mut object.clone()).unwrap_err().message;
        assert_eq!(
            refused(json!({"apiVersion": "v1", "kind": "ConfigMap"})),
            "ConfigMap in version \"v1\" cannot be handled as a Pod: converting (v1.ConfigMap) to (v1.Pod): unknown conversion"
        );
        assert_eq!(
            refused(json!({"apiVersion": "v2", "kind": "Pod"})),
            "the API version in the data (v2) does not match the expected API version (v1)"
        );
        let mut bare = json!({});
        settle_kind(pods, "v1", &mut bare).unwrap();
        assert_eq!(bare, json!({"apiVersion": "v1", "kind": "Pod"}));
    }

    #[test]
    fn nulls_are_nothing_but_in_text_maps() {
        let mut object = json!({"a": null, "data": {"k": null}, "l": [{"b": null}]});
        drop_nulls(&mut object);
        assert_eq!(object, json!({"data": {"k": ""}, "l": [{}]}));
    }
}
