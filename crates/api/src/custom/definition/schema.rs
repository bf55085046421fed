//! A version's schema as a whole: at its root, in its structure, its defaults, and what it may say.

use serde_json::{Value, json};

use super::{shape, structure, text};
use crate::status::{FieldError, Path};

/// A version's schema. `was` is what it was, `old` all versions as they were: what was wrong
/// before may stay so.
pub(super) fn check(
    schema: &Value,
    was: Option<&Value>,
    old: Option<&[Value]>,
    status: bool,
    path: &Path,
    out: &mut Vec<FieldError>,
) {
    let unchanged = was == Some(schema);
    let schema = &schema["openAPIV3Schema"];
    let had = |wrong: fn(&Value) -> bool| {
        let schemas =
            old.into_iter().flatten().map(|version| &version["schema"]["openAPIV3Schema"]);
        schemas.into_iter().any(|schema| shape::anywhere(schema, wrong))
    };
    let not_structural = |version: &Value| {
        !structure::check(&version["schema"]["openAPIV3Schema"], &Path::default()).is_empty()
    };
    if status {
        check_root_with_status(schema, path, out);
    }
    if schema["nullable"] == true {
        let at = format!("{path}.nullable");
        out.push(FieldError::forbidden(at, "nullable cannot be true at the root"));
    }
    let before = out.len();
    if !old.into_iter().flatten().any(not_structural) {
        out.extend(structure::check(schema, path));
        if out.len() == before && !unchanged {
            check_defaults(schema, path, true, out);
        }
    }
    let options = shape::Options {
        atomic_sets: !had(shape::has_loose_items),
        sure_keys: !had(shape::has_unsure_keys),
        limit_rules: !unchanged,
        judge_rules: out.len() == before,
    };
    out.extend(shape::check(schema, path, options));
}

/// Words at the root beside which a schema of `status` alone keeps its meaning, as upstream
/// names them and as they are written.
const WITH_STATUS: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

fn check_root_with_status(schema: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let kind = text(&schema["type"]);
    if !kind.is_empty() && kind != "object" {
        let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        out.push(FieldError::invalid(format!("{path}.type"), kind, why));
        return;
    }
    let says = |value: &Value| !value.is_null() && *value != false && *value != json!({});
    let known = |word: &str| WITH_STATUS.iter().any(|(_, known)| *known == word);
    let words = schema.as_object().into_iter().flatten();
    if words.filter(|(_, value)| says(value)).any(|(word, _)| !known(word)) {
        let allowed: Vec<&str> = WITH_STATUS.iter().map(|(name, _)| *name).collect();
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            allowed.join(" ")
        );
        out.push(FieldError::invalid(path, schema.clone(), why));
    }
}

/// Defaults along the structure of a schema.
fn check_defaults(schema: &Value, path: &Path, root: bool, out: &mut Vec<FieldError>) {
    check_default(schema, path, out);
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        // There may be none there, which is said elsewhere.
        if !(root && matches!(name.as_str(), "metadata" | "apiVersion" | "kind")) {
            check_defaults(member, &path.child("properties").key(name), false, out);
        }
    }
    for word in ["items", "additionalProperties"] {
        if schema[word].is_object() {
            check_defaults(&schema[word], &path.child(word), false, out);
        }
    }
}

fn check_default(schema: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let Some(default) = schema.get("default") else { return };
    let mut pruned = default.clone();
    super::super::structural::prune_value(schema, &mut pruned);
    if pruned != *default {
        let why = "must not have unknown fields";
        out.push(FieldError::invalid(path.child("default"), default.clone(), why));
    }
    for error in super::super::value::validate(schema, default, None) {
        let path = match error.path.as_str() {
            "" | "<nil>" => path.child("default").to_string(),
            below => format!("{}.{below}", path.child("default")),
        };
        out.push(FieldError { path, ..error });
    }
    if let Some(rules) = super::super::rules::Rules::of(schema, false) {
        let mut judge = super::super::rules::Judge::default();
        judge.check(&rules, default, None, &path.child("default"));
        out.extend(judge.errors);
    }
}
