//! Values against schemas: type mismatches and unknown fields in upstream's words.

use super::decode::PROBLEMS_LIMIT_COUNT;
use super::{Schema, Type, settle};
use crate::status::go_quote;
use serde_json::Value;

/// What a value has that its schema does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The value cannot be decoded; the text is that of upstream's decoder.
    Type(String),
    /// A field that the schema does not know, by its path (`spec.containers[0].foo`).
    Unknown(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Type(message) => f.write_str(message),
            Self::Unknown(path) => write!(f, "unknown field {}", go_quote(path)),
        }
    }
}

/// The message of a request whose body cannot be decoded.
pub fn decode_error(kind: &str, version: &str, why: &str) -> String {
    format!("{kind} in version {} cannot be handled as a {kind}: {why}", go_quote(version))
}

/// What `fieldValidation=Strict` says of unknown and duplicate fields.
pub fn strict_error(problems: &[String]) -> String {
    format!("strict decoding error: {}", problems.join(", "))
}

impl Schema<'_> {
    /// What is wrong with the types and names in `value`: the first mismatch of types and the
    /// first hundred unknown fields. Null stands for an absent value.
    pub fn check(&self, value: &Value) -> Vec<Problem> {
        let mut walk = Walk::default();
        walk.value(*self, None, value);
        walk.problems
    }

    /// Why the outcome of a strategic merge cannot be read, if it cannot: upstream goes from trees to
    /// its types there by another way than from text, which has words of its own.
    pub fn restore_error(&self, value: &Value) -> Option<String> {
        let mut walk = Walk { restores: true, ..Walk::default() };
        walk.value(*self, None, value);
        walk.problems.into_iter().find_map(|problem| match problem {
            Problem::Type(why) => Some(why),
            Problem::Unknown(_) => None,
        })
    }

    /// The type's name in the language upstream is written in, which its messages show.
    fn go_type(&self) -> String {
        match self.kind() {
            Type::String => "string".to_owned(),
            Type::Int32 => "int32".to_owned(),
            Type::Int64 => "int64".to_owned(),
            Type::Number => "float64".to_owned(),
            Type::Boolean => "bool".to_owned(),
            Type::Bytes => "[]uint8".to_owned(),
            Type::List => format!("[]{}", self.items().map_or_else(String::new, |i| i.go_type())),
            Type::Map => {
                format!(
                    "map[string]{}",
                    self.additional().map_or_else(String::new, |v| v.go_type())
                )
            }
            _ => {
                let mut parts = self.name().unwrap_or_default().rsplit('.');
                let (name, package) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                format!("{package}.{name}")
            }
        }
    }
}

/// A walk through a value: where it is, and what it found.
#[derive(Default)]
struct Walk<'v> {
    problems: Vec<Problem>,
    mismatched: bool,
    /// Whether the value comes from a tree and not from text.
    restores: bool,
    /// Path with indices and keys, as strict decoding reports it.
    path: String,
    /// Names of fields only, as type errors report them.
    fields: Vec<&'v str>,
}

impl<'v> Walk<'v> {
    /// `owner` is the object type that the value is, or is in, a field of.
    fn value(&mut self, schema: Schema<'_>, owner: Option<&str>, value: &'v Value) {
        match (schema.kind(), value) {
            (_, Value::Null) | (Type::Any, _) => {}
            (Type::Object, Value::Object(members)) => {
                for (name, member) in members {
                    self.member(schema, name, member);
                }
            }
            (Type::Map, Value::Object(members)) => {
                for (name, member) in members {
                    let Some(below) = schema.additional() else { continue };
                    self.step(name, |walk| walk.value(below, owner, member));
                }
            }
            (Type::List, Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    let Some(below) = schema.items() else { continue };
                    let length = self.path.len();
                    self.path.push_str(&format!("[{i}]"));
                    self.value(below, owner, item);
                    self.path.truncate(length);
                }
            }
            (_, value) => {
                // Upstream's decoder tells of the first mismatch only.
                if !self.mismatched
                    && let Some(message) = self.scalar(schema, owner, value)
                {
                    self.mismatched = true;
                    self.problems.push(Problem::Type(message));
                }
            }
        }
    }

    fn member(&mut self, schema: Schema<'_>, name: &'v str, member: &'v Value) {
        match schema.field(name) {
            Some(field) => {
                self.fields.push(name);
                self.step(name, |walk| walk.value(field, schema.name(), member));
                self.fields.pop();
            }
            None if self.problems.len() < PROBLEMS_LIMIT_COUNT => {
                self.step(name, |walk| walk.problems.push(Problem::Unknown(walk.path.clone())));
            }
            None => {}
        }
    }

    fn step(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        inside(self);
        self.path.truncate(length);
    }

    /// Why a value that is neither walked into nor null does not fit, if it does not.
    fn scalar(&self, schema: Schema<'_>, owner: Option<&str>, value: &Value) -> Option<String> {
        match (schema.kind(), value) {
            (Type::String, Value::String(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Number, Value::Number(_))
            | (Type::IntOrString, Value::String(_)) => None,
            (Type::Int64, Value::Number(n)) if n.is_i64() => None,
            (Type::Int32 | Type::IntOrString, Value::Number(n))
                if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                None
            }
            (Type::Bytes, Value::String(text)) => settle::bytes(text).err(),
            (Type::Time, Value::String(text)) => settle::seconds(text).err(),
            (Type::MicroTime, Value::String(text)) => settle::micros(text).err(),
            (Type::Quantity, Value::String(_) | Value::Number(_)) => settle::quantity(value).err(),
            (Type::Time | Type::MicroTime, _) => Some(format!(
                "json: cannot unmarshal {} into Go value of type string",
                found(value)
            )),
            (Type::IntOrString, _) => {
                Some(format!("json: cannot unmarshal {} into Go value of type int32", found(value)))
            }
            (kind, value) if self.restores => Some(unrestored(schema, kind, value)),
            (kind, value) => Some(self.mismatch(schema, owner, kind, value)),
        }
    }

    fn mismatch(
        &self,
        schema: Schema<'_>,
        owner: Option<&str>,
        kind: Type,
        value: &Value,
    ) -> String {
        let integer = matches!(kind, Type::Int32 | Type::Int64) && value.is_number();
        let found = if integer { format!("number {value}") } else { found(value).to_owned() };
        let target = match owner {
            None => "value".to_owned(),
            Some(owner) => {
                let owner = owner.rsplit('.').next().unwrap_or(owner);
                format!("struct field {owner}.{}", self.fields.join("."))
            }
        };
        format!("json: cannot unmarshal {found} into Go {target} of type {}", schema.go_type())
    }
}

/// A mismatch between a tree and a type.
fn unrestored(schema: Schema<'_>, kind: Type, value: &Value) -> String {
    let found = match value {
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
        other => found(other),
    };
    match kind {
        Type::Object => format!("cannot restore struct from: {found}"),
        Type::Map => format!("cannot restore map from {found}"),
        Type::List | Type::Bytes => format!("cannot restore slice from {found}"),
        // Go can make a text or a whole number of such a number, which is not what is wanted.
        Type::String if found == "int64" => format!("cannot convert int64 to {}", schema.go_type()),
        Type::Int32 | Type::Int64 if value.is_number() => {
            format!("cannot convert {found} to {}", schema.go_type())
        }
        _ => format!("unrecognized type: {}", schema.go_type()),
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(group: &str, kind: &str, value: Value) -> String {
        let problems = Schema::of(group, "v1", kind).unwrap().check(&value);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_a_tree_cannot_be_made_into() {
        let pod = Schema::of("", "v1", "Pod").unwrap();
        for (value, expected) in [
            (json!({"metadata": {"labels": {"a": "b"}}, "spec": {"foo": 1}}), None),
            (json!({"metadata": {"labels": "invalid"}}), Some("cannot restore map from string")),
            (json!({"metadata": {"labels": {"a": 1}}}), Some("cannot convert int64 to string")),
            (json!({"metadata": {"labels": {"a": true}}}), Some("unrecognized type: string")),
            (json!({"spec": []}), Some("cannot restore struct from: slice")),
            (json!({"spec": {"containers": {}}}), Some("cannot restore slice from map")),
            (json!({"spec": {"hostNetwork": "yes"}}), Some("unrecognized type: bool")),
            (
                json!({"spec": {"activeDeadlineSeconds": 1.5}}),
                Some("cannot convert float64 to int64"),
            ),
        ] {
            assert_eq!(pod.restore_error(&value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn finds_unknown_fields_and_wrong_types() {
        for (group, kind, value, expected) in [
            ("", "Pod", json!({"spec": {"containers": [{"name": "a", "image": null}]}}), ""),
            (
                "",
                "Pod",
                json!({"spec": {"foo": 1, "containers": [{}, {"bar": 2}]}, "x": {}}),
                r#"unknown field "spec.foo"; unknown field "spec.containers[1].bar"; unknown field "x""#,
            ),
            (
                "apps",
                "Deployment",
                json!({"spec": {"replicas": "3"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                "apps",
                "Deployment",
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"containers": "x"}}),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"containers": [{"image": 1}]}}),
                "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
            ),
            (
                "",
                "ConfigMap",
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            ("", "Pod", json!([]), "json: cannot unmarshal array into Go value of type v1.Pod"),
            ("", "Secret", json!({"data": {"a": "?"}}), "illegal base64 data at input byte 0"),
            (
                "",
                "Pod",
                json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x", "memory": 1}}}]}}),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                "",
                "Service",
                json!({"spec": {"ports": [{"targetPort": "a"}, {"targetPort": 1}, {"targetPort": true}]}}),
                "json: cannot unmarshal bool into Go value of type int32",
            ),
            (
                "",
                "Pod",
                json!({"metadata": {"creationTimestamp": "x"}}),
                r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#,
            ),
        ] {
            assert_eq!(check(group, kind, value), expected);
        }
        assert_eq!(
            decode_error("Pod", "v1", &strict_error(&[r#"unknown field "spec.foo""#.to_owned()])),
            r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo""#
        );
    }
}
