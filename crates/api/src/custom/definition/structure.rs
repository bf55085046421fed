//! What makes a schema structural: it says of each field what it is, and what stands within
//! `allOf`, `anyOf`, `oneOf` and `not` only judges values.
//! Source: `pkg/apiserver/schema/{validation,complete}.go` of apiextensions-apiserver.

use serde_json::{Value, json};

use super::super::list;
use super::text;
use crate::status::{FieldError, Path};

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Words that only a schema outside of the nested ones may have, and how upstream refuses each.
const OUTER_ONLY: [(&str, &str); 14] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("externalDocs", "must be undefined to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

const OPEN: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const EITHER: &str = "x-kubernetes-int-or-string";

/// Everything that keeps a schema from being structural, by the alphabet.
pub(super) fn check(schema: &Value, path: &Path) -> Vec<FieldError> {
    let mut out = Vec::new();
    invariants(schema, Level::Root, path, &mut out);
    complete(schema, schema, path, path, &mut out);
    out.sort_by_cached_key(ToString::to_string);
    out
}

fn members(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn invariants(schema: &Value, level: Level, path: &Path, out: &mut Vec<FieldError>) {
    let kind = text(&schema["type"]);
    let is = |word: &str| schema[word] == true;
    if schema["items"].is_object() {
        invariants(&schema["items"], Level::Item, &path.child("items"), out);
    } else if kind == "array" {
        out.push(FieldError::required(path.child("items"), "must be specified"));
    }
    for (name, member) in members(schema) {
        invariants(member, Level::Field, &path.child("properties").key(name), out);
    }
    others(schema, level, path, out);
    for word in [OPEN, EMBEDDED] {
        if is(EITHER) && is(word) {
            let why = "must be false if x-kubernetes-int-or-string is true";
            out.push(FieldError::invalid(path.child(word), true, why));
        }
    }
    let (any_of, first_all_of) = (is_either(schema), is_either(&schema["allOf"][0]));
    judging(schema, any_of, first_all_of, path, out);
    if is(EMBEDDED) && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        out.push(match kind {
            "" => FieldError::required(path.child("type"), why),
            kind => FieldError::invalid(path.child("type"), kind, why),
        });
    } else if kind.is_empty() && !is(EITHER) && !is(OPEN) {
        let what = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        out.push(FieldError::required(path.child("type"), what));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        out.push(FieldError::invalid(path.child("type"), kind, "must be object at the root"));
    }
    whole(schema, level, path, out);
    if is(EMBEDDED) && !is(OPEN) && members(schema).next().is_none() {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        out.push(FieldError::required(path.child("properties"), why));
    }
}

/// `additionalProperties`.
fn others(schema: &Value, level: Level, path: &Path, out: &mut Vec<FieldError>) {
    let others = &schema["additionalProperties"];
    let path = path.child("additionalProperties");
    if others.is_null() {
        return;
    }
    if level == Level::Root {
        out.push(FieldError::forbidden(&path, "must not be used at the root"));
    }
    if schema[EMBEDDED] == true {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        out.push(FieldError::forbidden(&path, why));
    }
    if others.is_object() {
        invariants(others, Level::Field, &path, out);
    }
}

/// The members that all objects have, of a schema for whole ones.
fn whole(schema: &Value, level: Level, path: &Path, out: &mut Vec<FieldError>) {
    let is_whole = level == Level::Root || schema[EMBEDDED] == true;
    let member = |name: &str| schema["properties"].get(name);
    let at = |name: &str| path.child("properties").key(name);
    for (name, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        let Some(kind) = member(name).map(|member| text(&member["type"])) else { continue };
        if is_whole && kind != wanted {
            let why = format!("must be {wanted}");
            out.push(FieldError::invalid(at(name).child("type"), kind, why));
        }
    }
    if let (Level::Root, Some(metadata)) = (level, member("metadata")) {
        let named = |name: &String| matches!(name.as_str(), "name" | "generateName");
        let few = members(metadata).all(|(name, _)| named(name));
        let known = ["type", "properties", "default", "description"];
        let says_more = metadata
            .as_object()
            .is_some_and(|words| words.keys().any(|word| !known.contains(&word.as_str())));
        if !few || says_more || !text(&metadata["description"]).is_empty() {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            out.push(FieldError::forbidden(at("metadata"), why));
        }
    }
}

/// Whether `anyOf` says "an integer or a text".
fn is_either(schema: &Value) -> bool {
    schema["anyOf"] == json!([{"type": "integer"}, {"type": "string"}])
}

/// The schemas nested in one. `any_of`: `anyOf` is how an int-or-string is written;
/// `first_all_of`: the first of `allOf` has such an `anyOf`.
fn judging(
    schema: &Value,
    any_of: bool,
    first_all_of: bool,
    path: &Path,
    out: &mut Vec<FieldError>,
) {
    for word in ["anyOf", "allOf", "oneOf"] {
        if word == "anyOf" && any_of {
            continue;
        }
        for (index, branch) in list(&schema[word]).iter().enumerate() {
            let any_of = word == "allOf" && index == 0 && first_all_of;
            nested(branch, any_of, &path.child(word).index(index), out);
        }
    }
    if schema["not"].is_object() {
        nested(&schema["not"], false, &path.child("not"), out);
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && super::super::pattern::compiled(pattern).is_none()
    {
        let why = format!("must be a valid regular expression, but isn't: {pattern}");
        out.push(FieldError::invalid(path.child("pattern"), pattern, why));
    }
}

fn nested(schema: &Value, any_of: bool, path: &Path, out: &mut Vec<FieldError>) {
    judging(schema, any_of, false, path, out);
    if schema["items"].is_object() {
        nested(&schema["items"], false, &path.child("items"), out);
    }
    for (name, member) in members(schema) {
        nested(member, false, &path.child("properties").key(name), out);
    }
    for (word, why) in OUTER_ONLY {
        let said = match &schema[word] {
            Value::Null => false,
            // What may be false says something by being there where there is no zero value.
            Value::Bool(said) if word != "default" && word != "additionalProperties" => *said,
            Value::String(text) if word != "default" => !text.is_empty(),
            Value::Array(items) if word != "default" => !items.is_empty(),
            _ => true,
        };
        if said {
            out.push(FieldError::forbidden(path.child(word), why));
        }
    }
    if schema["properties"].get("metadata").is_some() {
        let why = "must not be specified in a nested context";
        out.push(FieldError::forbidden(path.child("properties").key("metadata"), why));
    }
}

/// Whether all that the nested schemas of the root speak of is described outside of them.
fn complete(judge: &Value, schema: &Value, at: &Path, judge_at: &Path, out: &mut Vec<FieldError>) {
    let schema = Some(schema);
    if judge["not"].is_object() {
        described(&judge["not"], schema, at, &judge_at.child("not"), out);
    }
    for word in ["allOf", "anyOf", "oneOf"] {
        for (index, branch) in list(&judge[word]).iter().enumerate() {
            described(branch, schema, at, &judge_at.child(word).index(index), out);
        }
    }
}

fn described(
    judge: &Value,
    schema: Option<&Value>,
    at: &Path,
    judge_at: &Path,
    out: &mut Vec<FieldError>,
) {
    let Some(schema) = schema else {
        out.push(FieldError::required(at, format!("because it is defined in {judge_at}")));
        return;
    };
    complete(judge, schema, at, judge_at, out);
    if judge["items"].is_object() {
        let items = Some(&schema["items"]).filter(|items| items.is_object());
        described(&judge["items"], items, &at.child("items"), &judge_at.child("items"), out);
    }
    for (name, member) in members(judge) {
        let below = |path: &Path| path.child("properties").key(name);
        let known = schema["properties"].get(name);
        described(member, known, &below(at), &below(judge_at), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(schema: &Value) -> String {
        let errors = check(schema, &Path::new("s"));
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn of_x(x: Value) -> Value {
        json!({"type": "object", "properties": {"x": x}})
    }

    #[test]
    fn structural_schemas_pass() {
        for schema in [
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}}}}),
            of_x(
                json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            ),
            of_x(
                json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            ),
            of_x(json!({"x-kubernetes-int-or-string": true,
                "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "a"}]})),
            of_x(json!({"type": "object", "properties": {"a": {"type": "integer"}},
                "anyOf": [{"required": ["a"]}, {"properties": {"a": {"minimum": 1}}}]})),
        ] {
            assert_eq!(wrong(&schema), "", "{schema}");
        }
    }

    #[test]
    fn what_is_not_structural_is_said() {
        for (schema, expected) in [
            (json!({"properties": {}}), "s.type: Required value: must not be empty at the root"),
            (
                json!({"type": "array", "items": {}}),
                "s.items.type: Required value: must not be empty for specified array items; s.type: Invalid value: \"array\": must be object at the root",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "s.additionalProperties: Forbidden: must not be used at the root",
            ),
            (
                of_x(json!({"type": "array"})),
                "s.properties[x].items: Required value: must be specified",
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "string"}, "kind": {"type": "integer"}}}),
                "s.properties[kind].type: Invalid value: \"integer\": must be string; s.properties[metadata].type: Invalid value: \"string\": must be object",
            ),
            (
                of_x(json!({"x-kubernetes-embedded-resource": true})),
                "s.properties[x].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields; s.properties[x].type: Required value: must be object if x-kubernetes-embedded-resource is true",
            ),
            (
                of_x(
                    json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
                ),
                "s.properties[x].x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
            ),
            (
                of_x(
                    json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "string"}, {"type": "integer"}]}),
                ),
                "s.properties[x].anyOf[0].type: Forbidden: must be empty to be structural; s.properties[x].anyOf[1].type: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "object", "allOf": [{"properties": {"a": {"minimum": 1}}}]}),
                "s.properties[a]: Required value: because it is defined in s.allOf[0].properties[a]",
            ),
            (
                json!({"type": "object", "properties": {"x": {"type": "array", "items": {"type": "string"}}},
                    "not": {"anyOf": [{"properties": {"x": {"items": {"properties": {"b": {}}}}}}]}}),
                "s.properties[x].items.properties[b]: Required value: because it is defined in s.not.anyOf[0].properties[x].items.properties[b]",
            ),
            (
                of_x(
                    json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"properties": {"a":
                    {"default": 1, "nullable": true, "x-kubernetes-list-type": "set", "x-kubernetes-validations": [{"rule": "true"}]}}}]}),
                ),
                "s.properties[x].oneOf[0].properties[a].default: Forbidden: must be undefined to be structural; \
                 s.properties[x].oneOf[0].properties[a].nullable: Forbidden: must be false to be structural; \
                 s.properties[x].oneOf[0].properties[a].x-kubernetes-list-type: Forbidden: must be undefined to be structural; \
                 s.properties[x].oneOf[0].properties[a].x-kubernetes-validations: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object"}}, "not": {"properties": {"metadata": {}}}}),
                "s.not.properties[metadata]: Forbidden: must not be specified in a nested context",
            ),
        ] {
            assert_eq!(wrong(&schema), expected, "{schema}");
        }
    }
}
