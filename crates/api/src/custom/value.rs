//! Whether values are as their schema says, in upstream's words.
//! Source: `pkg/apiserver/validation` of apiextensions-apiserver and kube-openapi's validators.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{format, list, pattern};
use crate::status::{FieldError, Path, go_quote};

/// Errors of one object; what is more is not told.
const ERRORS_MAX: usize = 100;

/// What is wrong with an object's values.
pub(super) fn validate(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, (object, old), &Path::default(), &mut errors);
    errors.truncate(ERRORS_MAX);
    errors
}

/// What JSON Schema calls the value's type.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a schema says `type: of`, or nothing of the type.
fn is_type(wanted: &str, value: &Value) -> bool {
    match (wanted, value) {
        ("integer", Value::Number(number)) => {
            !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        ("number", Value::Number(_)) => true,
        (wanted, value) => wanted == type_of(value),
    }
}

/// A value, and what stood in its place.
type Changed<'v> = (&'v Value, Option<&'v Value>);

fn check(schema: &Value, (value, old): Changed<'_>, path: &Path, out: &mut Vec<FieldError>) {
    if old == Some(value)
        || out.len() > ERRORS_MAX
        || (value.is_null() && schema["nullable"] == true)
    {
        return;
    }
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let wanted = schema["type"].as_str();
    if int_or_string && !matches!(type_of(value), "integer" | "string") {
        return out.push(wrong_type(path, value, "integer,string"));
    }
    if let Some(wanted) = wanted.filter(|wanted| !int_or_string && !is_type(wanted, value)) {
        return out.push(wrong_type(path, value, wanted));
    }
    alternatives(schema, value, path, out);
    one_of_these(schema, value, path, out);
    match value {
        Value::String(text) => string(schema, text, path, out),
        Value::Number(_) => number(schema, value, path, out),
        Value::Array(items) => array(schema, items, old, path, out),
        Value::Object(_) => object(schema, (value, old), path, out),
        Value::Null | Value::Bool(_) => {}
    }
}

/// As upstream names a field in sentences.
fn name(path: &Path) -> String {
    match path.to_string().as_str() {
        "<nil>" => "body".to_owned(),
        text => format!("{text} in body"),
    }
}

fn says(path: &Path, value: &Value, what: &str) -> FieldError {
    FieldError::invalid(path, value.clone(), format!("{} {what}", name(path)))
}

fn wrong_type(path: &Path, value: &Value, wanted: &str) -> FieldError {
    let found = type_of(value);
    let why = format!("{} must be of type {wanted}: {}", name(path), go_quote(found));
    FieldError::type_invalid(path, found, why)
}

fn one_of_these(schema: &Value, value: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let allowed = list(&schema["enum"]);
    if !allowed.is_empty() && !allowed.contains(value) {
        let texts: Vec<String> = allowed
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let found = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        out.push(FieldError::not_supported(path, found, &texts));
    }
}

/// A bound that is a number; upstream prints whole ones without a point.
fn bound(schema: &Value, name: &str) -> Option<f64> {
    schema[name].as_f64()
}

fn number(schema: &Value, value: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let Some(found) = value.as_f64() else { return };
    if let Some(min) = bound(schema, "minimum") {
        let exclusive = schema["exclusiveMinimum"] == true;
        if found < min || (exclusive && found == min) {
            let or = if exclusive { "" } else { " or equal to" };
            out.push(says(path, value, &format!("should be greater than{or} {min}")));
        }
    }
    if let Some(max) = bound(schema, "maximum") {
        let exclusive = schema["exclusiveMaximum"] == true;
        if found > max || (exclusive && found == max) {
            let or = if exclusive { "" } else { " or equal to" };
            out.push(says(path, value, &format!("should be less than{or} {max}")));
        }
    }
    if let Some(step) = bound(schema, "multipleOf").filter(|step| *step > 0.0)
        && !is_multiple(found, step)
    {
        out.push(says(path, value, &format!("should be a multiple of {step}")));
    }
    if let Some(format) = schema["format"].as_str()
        && !format::number_fits(format, value)
    {
        out.push(says(path, value, &format!("must be of type {format}: {found}")));
    }
}

/// As upstream decides it, so that 0.3 is a multiple of 0.1.
fn is_multiple(value: f64, step: f64) -> bool {
    const EPSILON: f64 = 1e-9;
    let times = if step < 1.0 { 1.0 / step * value } else { value / step };
    let whole = times.trunc();
    times == whole || (times - whole).abs() / (times.abs() + whole.abs()) < EPSILON
}

fn limit(schema: &Value, name: &str) -> Option<usize> {
    schema[name].as_u64().and_then(|limit| usize::try_from(limit).ok())
}

fn string(schema: &Value, text: &str, path: &Path, out: &mut Vec<FieldError>) {
    let value = Value::from(text);
    let length = text.chars().count();
    if let Some(max) = limit(schema, "maxLength").filter(|max| length > *max) {
        out.push(FieldError::too_long(path, max));
    }
    if let Some(min) = limit(schema, "minLength").filter(|min| length < *min) {
        out.push(says(path, &value, &format!("should be at least {min} chars long")));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        match pattern::compiled(pattern) {
            Some(regex) if regex.is_match(text) => {}
            Some(_) => out.push(says(path, &value, &format!("should match '{pattern}'"))),
            None => out.push(says(
                path,
                &value,
                &format!("should match '{pattern}', which cannot be read"),
            )),
        }
    }
    if let Some(format) = schema["format"].as_str()
        && !format::text_fits(format, text)
    {
        let why = format!("{} must be of type {format}: {}", name(path), go_quote(text));
        out.push(FieldError::type_invalid(path, text, why));
    }
}

fn array(
    schema: &Value,
    items: &[Value],
    old: Option<&Value>,
    path: &Path,
    out: &mut Vec<FieldError>,
) {
    if let Some(max) = limit(schema, "maxItems").filter(|max| items.len() > *max) {
        out.push(FieldError::too_many(path, items.len(), max));
    }
    if let Some(min) = limit(schema, "minItems").filter(|min| items.len() < *min) {
        let count = Value::from(items.len());
        out.push(says(path, &count, &format!("should have at least {min} items")));
    }
    if schema["items"].is_object() {
        for (index, item) in items.iter().enumerate() {
            let before = old.and_then(|old| before(schema, item, old));
            check(&schema["items"], (item, before), &path.index(index), out);
        }
    }
    unique(schema, items, path, out);
}

/// The item of a list that is a map by its keys that had the same keys.
fn before<'v>(schema: &Value, item: &Value, old: &'v Value) -> Option<&'v Value> {
    let keys = list(&schema["x-kubernetes-list-map-keys"]);
    let same =
        |other: &&Value| keys.iter().filter_map(Value::as_str).all(|key| other[key] == item[key]);
    list(old).iter().find(same).filter(|_| !keys.is_empty())
}

/// Lists that are sets, or maps by their keys, hold nothing twice.
fn unique(schema: &Value, items: &[Value], path: &Path, out: &mut Vec<FieldError>) {
    let keys = list(&schema["x-kubernetes-list-map-keys"]);
    let key = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.clone()),
        Some("map") => {
            let names = keys.iter().filter_map(Value::as_str);
            Some(names.map(|name| (name.to_owned(), item[name].clone())).collect())
        }
        _ => None,
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(key) = key(item)
            && !seen.insert(key.to_string())
        {
            out.push(FieldError::duplicate(path.index(index), key));
        }
    }
}

fn object(schema: &Value, (value, old): Changed<'_>, path: &Path, out: &mut Vec<FieldError>) {
    let Some(members) = value.as_object() else { return };
    for name in list(&schema["required"]).iter().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            out.push(FieldError::required(path.child(name), ""));
        }
    }
    if let Some(max) = limit(schema, "maxProperties").filter(|max| members.len() > *max) {
        out.push(FieldError::too_many(path, members.len(), max));
    }
    if let Some(min) = limit(schema, "minProperties").filter(|min| members.len() < *min) {
        out.push(says(path, value, &format!("should have at least {min} properties")));
    }
    for (name, member) in members {
        if let Some(schema) = schema["properties"].get(name) {
            let before = old.and_then(|old| old.get(name));
            check(schema, (member, before), &path.child(name), out);
        } else if schema["additionalProperties"].is_object() {
            let before = old.and_then(|old| old.get(name));
            check(&schema["additionalProperties"], (member, before), &path.child(name), out);
        }
    }
    if schema["x-kubernetes-embedded-resource"] == true {
        for name in ["apiVersion", "kind"] {
            if value[name].as_str().is_none_or(str::is_empty) {
                out.push(FieldError::required(path.child(name), "must not be empty"));
            }
        }
    }
}

fn alternatives(schema: &Value, value: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let wrong = |schema: &Value| {
        let mut errors = Vec::new();
        check(schema, (value, None), path, &mut errors);
        errors
    };
    let refuse = |what: String| {
        FieldError::invalid(path, "", format!("{} {what}", go_quote(&path.to_string())))
    };
    let branches = |name: &str| list(&schema[name]);
    if !branches("allOf").is_empty() {
        let errors: Vec<_> = branches("allOf").iter().flat_map(wrong).collect();
        if !errors.is_empty() {
            out.push(refuse("must validate all the schemas (allOf)".to_owned()));
            out.extend(errors);
        }
    }
    if !branches("anyOf").is_empty() {
        let tried: Vec<_> = branches("anyOf").iter().map(wrong).collect();
        if tried.iter().all(|errors| !errors.is_empty()) {
            out.push(refuse("must validate at least one schema (anyOf)".to_owned()));
            out.extend(tried.into_iter().min_by_key(Vec::len).unwrap_or_default());
        }
    }
    if !branches("oneOf").is_empty() {
        let tried: Vec<_> = branches("oneOf").iter().map(wrong).collect();
        match tried.iter().filter(|errors| errors.is_empty()).count() {
            1 => {}
            0 => {
                let none = "must validate one and only one schema (oneOf). Found none valid";
                out.push(refuse(none.to_owned()));
                out.extend(tried.into_iter().min_by_key(Vec::len).unwrap_or_default());
            }
            many => out.push(refuse(format!(
                "must validate one and only one schema (oneOf). Found {many} valid alternatives"
            ))),
        }
    }
    if schema["not"].is_object() && wrong(&schema["not"]).is_empty() {
        out.push(refuse("must not validate the schema (not)".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_said_as_upstream_does() {
        for (schema, value, expected) in [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"a: Invalid value: "string": a in body must be of type integer: "string""#,
            ),
            (json!({"type": "integer"}), json!(3.0), ""),
            (
                json!({"type": "integer", "maximum": 9}),
                json!(10),
                "a: Invalid value: 10: a in body should be less than or equal to 9",
            ),
            (
                json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
                json!(1),
                "a: Invalid value: 1: a in body should be greater than 1",
            ),
            (
                json!({"type": "string", "enum": ["x", "y"]}),
                json!("z"),
                r#"a: Unsupported value: "z": supported values: "x", "y""#,
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                r#"a: Invalid value: "b": a in body should match '^a+$'"#,
            ),
            (
                json!({"type": "string", "maxLength": 2}),
                json!("abc"),
                "a: Too long: may not be more than 2 bytes",
            ),
            (
                json!({"type": "string", "minLength": 2}),
                json!("a"),
                r#"a: Invalid value: "a": a in body should be at least 2 chars long"#,
            ),
            (
                json!({"type": "string"}),
                json!(null),
                r#"a: Invalid value: "null": a in body must be of type string: "null""#,
            ),
            (json!({"type": "string", "nullable": true}), json!(null), ""),
            (json!({"type": "object", "required": ["b"]}), json!({}), "a.b: Required value"),
            (
                json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
                json!(["x", 2]),
                "a: Too many: 2: must have at most 1 item; a[1]: Invalid value: \"integer\": a[1] in body must be of type string: \"integer\"",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set"}),
                json!(["x", "x"]),
                r#"a[1]: Duplicate value: "x""#,
            ),
            (json!({"x-kubernetes-int-or-string": true}), json!("50%"), ""),
            (
                json!({"oneOf": [{"required": ["x"]}, {"required": ["y"]}]}),
                json!({"x": 1, "y": 1}),
                r#"a: Invalid value: "": "a" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                r#"a: Invalid value: "x": a in body must be of type date-time: "x""#,
            ),
        ] {
            let root = json!({"type": "object", "properties": {"a": schema}});
            let errors = validate(&root, &json!({"a": value}), None);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts.join("; "), expected, "{root}");
        }
    }
}
