//! `x-kubernetes-validations`: rules in CEL along a schema.
//! Source: `pkg/apiserver/schema/cel` of apiextensions-apiserver.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use expression::{
    Budget, CompileError, EvaluateError, Kind, ListType, OBJECT_BUDGET, Program, compile, escape,
};
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
        ("array", _) => Kind::List(kind(&schema["items"], false)?.into(), list_type(schema)),
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

/// What tells the items of a list apart.
fn list_type(schema: &Value) -> ListType {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = list(&schema["x-kubernetes-list-map-keys"]).iter();
            ListType::Map(keys.filter_map(|key| key.as_str().map(escape)).collect())
        }
        _ => ListType::Atomic,
    }
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

    /// The item that had the same keys.
    fn before<'v>(&self, item: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
        let keys = self.keys.as_ref()?;
        let same = |other: &&Value| keys.iter().all(|key| other[key] == item[key]);
        old?.as_array()?.iter().find(same)
    }
}

/// The longest text that a messageExpression may give.
const MESSAGE_BYTES_MAX: usize = 5 << 10;

/// Holds an object against rules: all of them share what they may cost.
pub(super) struct Judge {
    budget: Budget,
    /// Whether something took too long: no further rules are looked at.
    is_over: bool,
    /// What is wrong.
    pub errors: Vec<FieldError>,
}

impl Default for Judge {
    fn default() -> Self {
        Judge { budget: Budget::new(OBJECT_BUDGET), is_over: false, errors: Vec::new() }
    }
}

impl Judge {
    /// What is wrong with a value by the rules; `old` is what stood in its place.
    pub fn check(&mut self, rules: &Rules, value: &Value, old: Option<&Value>, path: &Path) {
        self.descend(rules, value, (old, false), path);
    }

    /// `within` tells whether something that the value is a part of is as it was: then so is the
    /// value, also where nobody knows which one of a list it was before.
    fn descend(
        &mut self,
        rules: &Rules,
        value: &Value,
        (old, within): (Option<&Value>, bool),
        path: &Path,
    ) {
        if value.is_null() || self.is_over {
            return;
        }
        let unchanged = within || old == Some(value);
        for rule in &rules.own {
            // What was let pass before is let pass again as long as it stays.
            if !unchanged || rule.is_transition() {
                self.hold(rule, value, old, (path, &rules.kind));
            }
            if self.is_over {
                return;
            }
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let (below, path) = match (rules.fields.get(name), rules.others.as_deref()) {
                        (Some(below), _) => (below, path.child(name)),
                        (None, Some(below)) => (below, path.key(name)),
                        (None, None) => continue,
                    };
                    let before = old.and_then(|old| old.get(name));
                    self.descend(below, member, (before, unchanged), &path);
                }
            }
            Value::Array(items) => {
                let Some(below) = &rules.others else { return };
                for (index, item) in items.iter().enumerate() {
                    let before = rules.before(item, old);
                    self.descend(below, item, (before, unchanged), &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn hold(
        &mut self,
        rule: &Rule,
        value: &Value,
        old: Option<&Value>,
        (path, kind): (&Path, &str),
    ) {
        let invalid = |why: String| FieldError::invalid(path, kind, why);
        let program = match rule.program() {
            Ok(program) => program,
            Err(error) => {
                return self.errors.push(invalid(format!("rule compile error: {error}")));
            }
        };
        if old.is_none() && rule.is_transition() && !rule.optional_old {
            return;
        }
        let null = Value::Null;
        let bindings = [("self", value), ("oldSelf", old.unwrap_or(&null))];
        match program.evaluate_within(&bindings, &mut self.budget) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => {
                let (error, is_over) = rule.violated(&bindings, &mut self.budget, (path, kind));
                self.errors.push(error);
                self.is_over = is_over;
            }
            Err(error) => {
                self.is_over = matches!(error, EvaluateError::Budget | EvaluateError::Cost);
                self.errors.push(invalid(rule.broken(&error)));
            }
        }
    }
}

/// What a messageExpression comes to.
enum Message {
    Made(String),
    /// The plain message has to do.
    None,
    /// It took too long, in these words.
    Over(String),
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

    /// The error of a rule that does not hold, and whether no further ones are looked at.
    fn violated(
        &self,
        bindings: &[(&str, &Value)],
        budget: &mut Budget,
        (path, kind): (&Path, &str),
    ) -> (FieldError, bool) {
        let path = match self.field_path.as_str() {
            "" => path.to_string(),
            below => format!("{path}{below}")
                .trim_start_matches("<nil>")
                .trim_start_matches('.')
                .to_owned(),
        };
        let why = match self.made(bindings, budget) {
            Message::Over(why) => return (FieldError::invalid(&path, kind, why), true),
            Message::Made(text) => text,
            Message::None if self.message.is_empty() => {
                format!("failed rule: {}", self.source.trim())
            }
            Message::None => self.message.clone(),
        };
        let error = |kind, shown| FieldError::new(kind, &path, shown, why);
        let error = match self.reason.as_str() {
            "FieldValueRequired" => error(FieldErrorKind::Required, None),
            "FieldValueForbidden" => error(FieldErrorKind::Forbidden, None),
            "FieldValueDuplicate" => {
                let value = bindings.first().map_or(Value::Null, |(_, value)| (*value).clone());
                FieldError::duplicate(&path, value)
            }
            _ => error(FieldErrorKind::Invalid, Some(kind.into())),
        };
        (error, false)
    }

    /// Why a rule has no value.
    fn broken(&self, error: &EvaluateError) -> String {
        let rule = self.name();
        match error {
            EvaluateError::Budget => error.to_string(),
            EvaluateError::Cost => format!(
                "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
            ),
            EvaluateError::Failed(text) if text.starts_with("no such overload") => format!(
                "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
            ),
            EvaluateError::Failed(text) => format!("{text} evaluating rule: {rule}"),
        }
    }

    /// The rule's message, or the rule.
    fn name(&self) -> &str {
        if self.message.is_empty() { &self.source } else { &self.message }
    }

    fn made(&self, bindings: &[(&str, &Value)], budget: &mut Budget) -> Message {
        if self.message_source.is_empty() {
            return Message::None;
        }
        let program = self
            .message_program
            .get_or_init(|| compile(&self.message_source, &self.variables()).ok());
        let Some(program) = program else { return Message::None };
        match program.evaluate_within(bindings, budget) {
            Ok(Value::String(text)) => match text.trim() {
                text if text.is_empty() || text.contains('\n') => Message::None,
                text if text.len() > MESSAGE_BYTES_MAX => Message::None,
                text => Message::Made(text.to_owned()),
            },
            Err(EvaluateError::Budget) => Message::Over(
                "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
            ),
            Err(EvaluateError::Cost) => Message::Over(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                self.message_source
            )),
            _ => Message::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(schema: Value, new: Value, old: Option<Value>) -> String {
        let rules = Rules::of(&schema, true).expect("rules");
        let mut judge = Judge::default();
        judge.check(&rules, &new, old.as_ref(), &Path::default());
        judge.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn under_spec(rule: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [rule],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "word": {"type": "string"}}}}})
    }

    fn judged(schema: &Value, value: &Value, steps: u64) -> Vec<String> {
        let rules = Rules::of(schema, true).expect("rules");
        let mut judge = Judge { budget: Budget::new(steps), ..Judge::default() };
        judge.check(&rules, value, None, &Path::default());
        judge.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_share_what_they_may_cost() {
        let of = |rules: Value| {
            json!({"type": "object", "properties": {"list": {"type": "array", "items": {
                "type": "object", "x-kubernetes-validations": rules,
                "properties": {"n": {"type": "integer"}}}}}})
        };
        let items = |count: usize| json!({"list": vec![json!({"n": 1}); count]});
        let cheap = of(json!([{"rule": "self.n == 1"}]));
        assert_eq!(judged(&cheap, &items(3), 9), Vec::<String>::new());
        // The fourth would need three steps more.
        const OVER: &str = "validation failed due to running out of cost budget, no further validation rules will be run";
        let expected = format!("list[3]: Invalid value: \"object\": {OVER}");
        assert_eq!(judged(&cheap, &items(9), 11), [expected]);
        // So would its message.
        let wordy =
            of(json!([{"rule": "self.n == 2", "messageExpression": "string(self.n) + '!'"}]));
        assert_eq!(judged(&wordy, &items(1), 7), ["list[0]: Invalid value: \"object\": 1!"]);
        let expected = "list[0]: Invalid value: \"object\": messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
        assert_eq!(judged(&wordy, &items(2), 6), [expected]);
        // One evaluation has a limit of its own.
        let costly = json!({"type": "object", "x-kubernetes-validations": [
            {"rule": "self.l.all(x, self.l.all(y, x + y >= 0))"}, {"rule": "false"}],
            "properties": {"l": {"type": "array", "items": {"type": "integer"}}}});
        let expected = "<nil>: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.l.all(x, self.l.all(y, x + y >= 0))";
        assert_eq!(judged(&costly, &json!({"l": vec![1; 400]}), OBJECT_BUDGET), [expected]);
    }

    #[test]
    fn lists_are_compared_as_their_schema_says() {
        let list = |words: Value, items: Value| {
            let mut list = json!({"type": "array", "items": items});
            list.as_object_mut().unwrap().extend(words.as_object().unwrap().clone());
            list
        };
        let text = json!({"type": "string"});
        let keyed = json!({"type": "object", "properties": {"a.b": text, "v": text}});
        let schema = |rule: &str| {
            json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
                "set": list(json!({"x-kubernetes-list-type": "set"}), text.clone()),
                "plain": list(json!({}), text.clone()),
                "map": list(json!({"x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["a.b"]}), keyed.clone())}})
        };
        let pair = |key: &str, value: &str| json!({"a.b": key, "v": value});
        let value = json!({"set": ["x", "y"], "plain": ["y", "x"],
            "map": [pair("1", "one"), pair("2", "two")]});
        for (rule, holds) in [
            ("self.set == self.plain", true),
            ("self.plain == self.set", false),
            ("self.map == [self.map[1], self.map[0]]", true),
            ("(self.map + [self.map[1]]).size() == 2", true),
        ] {
            let said = judged(&schema(rule), &value, OBJECT_BUDGET);
            assert_eq!(said.is_empty(), holds, "{rule}: {said:?}");
        }
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

    #[test]
    fn what_stays_is_held_against_rules_about_changes_alone() {
        let text =
            |rule: &str| json!({"type": "string", "x-kubernetes-validations": [{"rule": rule}]});
        let schema = |rule: &str| {
            let item =
                json!({"type": "object", "properties": {"f": text(rule), "g": {"type": "string"}}});
            json!({"type": "object", "properties": {
                "field": text(rule),
                "plain": {"type": "array", "items": text(rule)},
                "map": {"type": "object", "additionalProperties": item}}})
        };
        let old = json!({"field": "a", "plain": ["a"], "map": {"x": {"f": "a"}}});
        let check = |rule: &str, new: &Value| wrong(schema(rule), new.clone(), Some(old.clone()));
        assert_eq!(check("self != 'a'", &old), "");
        let changed = "failed rule: self != oldSelf";
        let expected = ["field", "map[x].f"]
            .map(|at| format!("{at}: Invalid value: \"string\": {changed}"))
            .join("; ");
        assert_eq!(check("self != oldSelf", &old), expected);
        // A list whose items nobody can tell apart stays as a whole or not at all.
        let mut new = old.clone();
        new["plain"] = json!(["a", "b"]);
        new["map"]["x"]["g"] = json!("more");
        let expected = "plain[0]: Invalid value: \"string\": failed rule: self != 'a'";
        assert_eq!(check("self != 'a'", &new), expected);
    }
}
