//! What schemas within `allOf`, `anyOf`, `oneOf` and `not` may say: they judge values, they do
//! not describe any.
//! Source: `pkg/apiserver/schema/validation.go` of apiextensions-apiserver.

use serde_json::Value;

use super::list;
use crate::status::{FieldError, Path};

/// Words that only a schema outside of them may have, and how upstream refuses each.
const FORBIDDEN: [(&str, &str); 4] = [
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("default", "must be undefined to be structural"),
    ("nullable", "must be false to be structural"),
];

/// Checks the schemas nested in one.
pub(super) fn check(schema: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let either = schema["x-kubernetes-int-or-string"] == true;
    branches(schema, path, either, out);
}

/// `either`: `anyOf` may name the two types of an int-or-string.
fn branches(schema: &Value, path: &Path, either: bool, out: &mut Vec<FieldError>) {
    for word in ["allOf", "anyOf", "oneOf"] {
        for (index, branch) in list(&schema[word]).iter().enumerate() {
            let path = path.child(word).index(index);
            let typed = either && word == "anyOf";
            judge(branch, &path, typed, either && word == "allOf", out);
        }
    }
    if schema["not"].is_object() {
        judge(&schema["not"], &path.child("not"), false, false, out);
    }
}

fn judge(schema: &Value, path: &Path, typed: bool, either: bool, out: &mut Vec<FieldError>) {
    if !typed && schema["type"].as_str().is_some_and(|kind| !kind.is_empty()) {
        out.push(FieldError::forbidden(path.child("type"), FORBIDDEN[0].1));
    }
    for (word, why) in FORBIDDEN {
        let said = match &schema[word] {
            Value::Null => false,
            Value::Bool(said) if word == "nullable" => *said,
            Value::String(text) if word != "default" => !text.is_empty(),
            _ => true,
        };
        if said {
            out.push(FieldError::forbidden(path.child(word), why));
        }
    }
    branches(schema, path, either, out);
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        judge(member, &path.child("properties").key(name), false, false, out);
    }
    if schema["items"].is_object() {
        judge(&schema["items"], &path.child("items"), false, false, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_schemas_only_judge() {
        for (schema, expected) in [
            (json!({"anyOf": [{"required": ["a"]}, {"properties": {"a": {"minimum": 1}}}]}), ""),
            (
                json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
                "",
            ),
            (
                json!({"x-kubernetes-int-or-string": true,
                    "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "a"}]}),
                "",
            ),
            (
                json!({"anyOf": [{"type": "integer"}]}),
                "s.anyOf[0].type: must be empty to be structural",
            ),
            (
                json!({"not": {"properties": {"a": {"default": 1, "nullable": true}}}}),
                "s.not.properties[a].default: must be undefined to be structural; \
                 s.not.properties[a].nullable: must be false to be structural",
            ),
        ] {
            let mut errors = Vec::new();
            check(&schema, &Path::default().child("s"), &mut errors);
            let lines: Vec<String> =
                errors.iter().map(|error| format!("{}: {}", error.path, error.detail)).collect();
            assert_eq!(lines.join("; "), expected, "{schema}");
        }
    }
}
