//! `x-kubernetes-validations`: rules in CEL along a schema.
//! Source: `pkg/apiserver/schema/cel` of apiextensions-apiserver.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use expression::{CompileError, EvaluateError, Kind, Program, compile};
use serde_json::Value;

use super::list;
use crate::status::{FieldError, FieldErrorKind, Path};

/// The rules of a schema and of what is below it.
#[derive(Debug, Default)]
pub(super) struct Rules {
    own: Vec<Rule>,
    fields: BTreeMap<String, Rules>,
    /// Of all items of a list, or of all unnamed members.
    others: Option<Box<Rules>>,
    /// What tells the items of a list apart; without it nobody knows which was which before.
    keys: Option<Vec<String>>,
    kind: String,
}

/// One rule.
#[derive(Debug)]
struct Rule {
    source: String,
    message: String,
    message_source: String,
    reason: String,
    field_path: String,
    optional_old: bool,
    of: Kind,
    program: OnceLock<Result<Program, CompileError>>,
    message_program: OnceLock<Option<Program>>,
}

/// What CEL knows of a schema's values; what it says nothing of is not there for rules.
fn kind(schema: &Value, whole: bool) -> Option<Kind> {
    if schema["x-kubernetes-int-or-string"] == true {
        return Some(Kind::Any);
    }
    let whole = whole || schema["x-kubernetes-embedded-resource"] == true;
    Some(match (schema["type"].as_str()?, schema["format"].as_str()) {
        ("string", Some("byte")) => Kind::Bytes,
        ("string", Some("date" | "date-time")) => Kind::Timestamp,
        ("string", Some("duration")) => Kind::Duration,
        ("string", _) => Kind::Text,
        ("integer", _) => Kind::Int,
        ("number", _) => Kind::Double,
        ("boolean", _) => Kind::Bool,
        ("array", _) => Kind::list(kind(&schema["items"], false)?),
        ("object", _) if schema["additionalProperties"].is_object() => {
            Kind::map(kind(&schema["additionalProperties"], false)?)
        }
        ("object", _) => {
            let members = schema["properties"].as_object().into_iter().flatten();
            let known = members.filter_map(|(name, one)| Some((name.as_str(), kind(one, false)?)));
            let mut fields: BTreeMap<&str, Kind> = known.collect();
            if whole {
                let meta = Kind::object([("name", Kind::Text), ("generateName", Kind::Text)]);
                fields.extend([
                    ("apiVersion", Kind::Text),
                    ("kind", Kind::Text),
                    ("metadata", meta),
                ]);
            }
            Kind::object(fields)
        }
        _ => return None,
    })
}

/// What the expressions of a rule at this schema know.
pub(super) fn variables(schema: &Value, rule: &Value, whole: bool) -> [(&'static str, Kind); 2] {
    known(kind(schema, whole).unwrap_or_default(), rule["optionalOldSelf"] == true)
}

fn known(of: Kind, optional_old: bool) -> [(&'static str, Kind); 2] {
    let old = if optional_old { Kind::Optional(of.clone().into()) } else { of.clone() };
    [("self", of), ("oldSelf", old)]
}

impl Rules {
    /// Reads the rules of a schema; none where there are none.
    pub(super) fn of(schema: &Value, whole: bool) -> Option<Rules> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let own: Vec<Rule> = list(&schema["x-kubernetes-validations"])
            .iter()
            .map(|rule| Rule {
                source: text(&rule["rule"]),
                message: text(&rule["message"]),
                message_source: text(&rule["messageExpression"]),
                reason: text(&rule["reason"]),
                field_path: text(&rule["fieldPath"]),
                optional_old: rule["optionalOldSelf"] == true,
                of: kind(schema, whole).unwrap_or_default(),
                program: OnceLock::new(),
                message_program: OnceLock::new(),
            })
            .collect();
        let members = schema["properties"].as_object().into_iter().flatten();
        let fields: BTreeMap<String, Rules> = members
            .filter_map(|(name, schema)| Some((name.clone(), Rules::of(schema, false)?)))
            .collect();
        let below = ["items", "additionalProperties"].map(|name| &schema[name]);
        let others = below.into_iter().filter(|schema| schema.is_object());
        let others = others.filter_map(|schema| Rules::of(schema, false)).next().map(Box::new);
        if own.is_empty() && fields.is_empty() && others.is_none() {
            return None;
        }
        let keys = (schema["x-kubernetes-list-type"] == "map")
            .then(|| list(&schema["x-kubernetes-list-map-keys"]).iter().map(text).collect());
        Some(Rules { own, fields, others, keys, kind: text(&schema["type"]) })
    }

    /// What is wrong with a value by the rules; `old` is what stood in its place.
    pub(super) fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &Path,
        out: &mut Vec<FieldError>,
    ) {
        if value.is_null() {
            return;
        }
        let unchanged = old == Some(value);
        for rule in &self.own {
            // What was let pass before is let pass again as long as it stays.
            if !unchanged || rule.is_transition() {
                out.extend(rule.check(value, old, path, &self.kind));
            }
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let rules = self.fields.get(name).or(self.others.as_deref());
                    let before = old.and_then(|old| old.get(name));
                    if let Some(rules) = rules {
                        rules.check(member, before, &path.child(name), out);
                    }
                }
            }
            Value::Array(items) => {
                let Some(rules) = &self.others else { return };
                for (index, item) in items.iter().enumerate() {
                    let before = self.before(item, old);
                    rules.check(item, before, &path.index(index), out);
                }
            }
            _ => {}
        }
    }

    /// The item that had the same keys.
    fn before<'v>(&self, item: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
        let keys = self.keys.as_ref()?;
        let same = |other: &&Value| keys.iter().all(|key| other[key] == item[key]);
        old?.as_array()?.iter().find(same)
    }
}

impl Rule {
    fn program(&self) -> &Result<Program, CompileError> {
        self.program.get_or_init(|| compile(&self.source, &self.variables()))
    }

    fn variables(&self) -> [(&'static str, Kind); 2] {
        known(self.of.clone(), self.optional_old)
    }

    fn is_transition(&self) -> bool {
        self.program().as_ref().is_ok_and(|program| program.mentions("oldSelf"))
    }

    fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &Path,
        kind: &str,
    ) -> Option<FieldError> {
        let program = match self.program() {
            Ok(program) => program,
            Err(error) => {
                return Some(FieldError::invalid(
                    path,
                    kind,
                    format!("rule compile error: {error}"),
                ));
            }
        };
        if old.is_none() && self.is_transition() && !self.optional_old {
            return None;
        }
        let null = Value::Null;
        let bindings = [("self", value), ("oldSelf", old.unwrap_or(&null))];
        let why = match program.evaluate(&bindings) {
            Ok(Value::Bool(true)) => return None,
            Ok(_) => self.message(&bindings),
            Err(error) => return Some(self.broken(&error, path, kind)),
        };
        let path = match self.field_path.as_str() {
            "" => path.to_string(),
            below => format!("{path}{below}")
                .trim_start_matches("<nil>")
                .trim_start_matches('.')
                .to_owned(),
        };
        let error = |kind, shown| FieldError::new(kind, &path, shown, why.clone());
        Some(match self.reason.as_str() {
            "FieldValueRequired" => error(FieldErrorKind::Required, None),
            "FieldValueForbidden" => error(FieldErrorKind::Forbidden, None),
            "FieldValueDuplicate" => FieldError::duplicate(&path, value.clone()),
            _ => error(FieldErrorKind::Invalid, Some(kind.into())),
        })
    }

    fn broken(&self, error: &EvaluateError, path: &Path, kind: &str) -> FieldError {
        let text = error.to_string();
        let rule = self.name();
        let why = if text.starts_with("no such overload") {
            format!(
                "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
            )
        } else if *error == EvaluateError::Cost {
            format!(
                "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
            )
        } else {
            format!("{text} evaluating rule: {rule}")
        };
        FieldError::invalid(path, kind, why)
    }

    /// The rule's message, or the rule.
    fn name(&self) -> &str {
        if self.message.is_empty() { &self.source } else { &self.message }
    }

    fn message(&self, bindings: &[(&str, &Value)]) -> String {
        if !self.message_source.is_empty() {
            let made = self
                .message_program
                .get_or_init(|| compile(&self.message_source, &self.variables()).ok());
            let made = made.as_ref().and_then(|program| program.evaluate(bindings).ok());
            let made = made.as_ref().and_then(Value::as_str).map(str::trim);
            if let Some(text) = made.filter(|text| !text.is_empty() && !text.contains('\n')) {
                return text.to_owned();
            }
        }
        match self.message.as_str() {
            "" => format!("failed rule: {}", self.source.trim()),
            message => message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(schema: Value, new: Value, old: Option<Value>) -> String {
        let mut out = Vec::new();
        let rules = Rules::of(&schema, true).expect("rules");
        rules.check(&new, old.as_ref(), &Path::default(), &mut out);
        out.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn under_spec(rule: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [rule],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "word": {"type": "string"}}}}})
    }

    #[test]
    fn rules_hold_or_say_why_not() {
        let spec = |spec: Value| json!({"spec": spec});
        for (rule, new, old, expected) in [
            (json!({"rule": "self.min <= self.max"}), json!({"min": 1, "max": 2}), None, ""),
            (
                json!({"rule": "self.min <= self.max"}),
                json!({"min": 3, "max": 2}),
                None,
                r#"spec: Invalid value: "object": failed rule: self.min <= self.max"#,
            ),
            (
                json!({"rule": "self.min <= self.max", "message": "too small"}),
                json!({"min": 3, "max": 2}),
                None,
                r#"spec: Invalid value: "object": too small"#,
            ),
            (
                json!({"rule": "self.min <= self.max", "messageExpression": "'max is ' + string(self.max)", "fieldPath": ".max"}),
                json!({"min": 3, "max": 2}),
                None,
                r#"spec.max: Invalid value: "object": max is 2"#,
            ),
            (
                json!({"rule": "self.word == oldSelf.word", "message": "fixed"}),
                json!({"word": "b"}),
                None,
                "",
            ),
            (
                json!({"rule": "self.word == oldSelf.word", "message": "fixed"}),
                json!({"word": "b"}),
                Some(json!({"word": "a"})),
                r#"spec: Invalid value: "object": fixed"#,
            ),
            (
                json!({"rule": "!oldSelf.hasValue() || oldSelf.value().min <= self.min", "optionalOldSelf": true}),
                json!({"min": 1}),
                Some(json!({"min": 2})),
                r#"spec: Invalid value: "object": failed rule: !oldSelf.hasValue() || oldSelf.value().min <= self.min"#,
            ),
            (
                json!({"rule": "self.min < self.max"}),
                json!({"min": 3, "max": 2}),
                Some(json!({"min": 3, "max": 2})),
                "",
            ),
        ] {
            assert_eq!(
                wrong(under_spec(rule.clone()), spec(new), old.map(spec)),
                expected,
                "{rule}"
            );
        }
    }
}
