//! What a schema may say: words that are served, lists and maps that merge, rules in CEL and what
//! these may cost.
//! Source: `ValidateCustomResourceDefinitionOpenAPISchema` in `pkg/apis/apiextensions/validation`.

use std::collections::BTreeSet;

use expression::{Kind, Program, compile, estimate};
use serde_json::Value;

use super::super::{list, rules};
use super::budget::{RULE_LIMIT, SchemaSizes, Times, Total, exceeds};
use super::{field_path, text};
use crate::status::{FieldError, Path};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// Words of JSON schema that are not served.
const NOT_SERVED: [&str; 5] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies"];

/// What is not held against a definition that had it before.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// Items of sets have to be atomic.
    pub atomic_sets: bool,
    /// Keys of lists have to be there always.
    pub sure_keys: bool,
    /// Each rule has to keep within its limit.
    pub limit_rules: bool,
    /// Whether rules can be judged: the schema has nothing else against it.
    pub judge_rules: bool,
}

/// Where a schema stands.
#[derive(Clone)]
struct Place {
    path: Path,
    root: bool,
    /// Why there may be no default.
    no_default: Option<String>,
    /// Within `metadata` and its like.
    meta: bool,
    /// From where on nobody knows which value was which before.
    uncorrelated: Option<Path>,
    /// How often rules run; none within schemas that only judge.
    times: Option<Times>,
}

impl Place {
    fn at(&self, path: Path) -> Self {
        Place { path, root: false, ..self.clone() }
    }

    fn judging(&self, path: Path) -> Self {
        Place { times: None, ..self.at(path) }
    }
}

/// Errors, those of rules apart: they wait until nothing else is wrong.
#[derive(Default)]
struct Found {
    schema: Vec<FieldError>,
    rules: Vec<FieldError>,
}

struct Checker {
    options: Options,
    total: Total,
}

/// What is wrong with a version's schema beside its structure.
pub(super) fn check(schema: &Value, path: &Path, options: Options) -> Vec<FieldError> {
    let mut checker = Checker { options, total: Total::default() };
    let place = Place {
        path: path.clone(),
        root: true,
        no_default: None,
        meta: false,
        uncorrelated: None,
        times: options.judge_rules.then(Times::once),
    };
    let found = checker.visit(schema, &place);
    let mut out = found.schema;
    out.extend(found.rules);
    checker.total.check(path, &mut out);
    out
}

impl Checker {
    fn visit(&mut self, schema: &Value, place: &Place) -> Found {
        let mut found = Found::default();
        words(schema, place, &mut found.schema);
        self.below(schema, place, &mut found);
        let path = &place.path;
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            found.schema.push(FieldError::invalid(at, false, "must be true or undefined"));
        }
        map_type(schema, path, &mut found.schema);
        list_type(schema, path, self.options.atomic_sets, &mut found.schema);
        list_keys(schema, path, &mut found.schema);
        if self.options.sure_keys {
            sure_keys(schema, path, &mut found.schema);
        }
        let rules = list(&schema["x-kubernetes-validations"]);
        for (index, rule) in rules.iter().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            rule_words(schema, rule, &at, &mut found.schema);
        }
        if let (true, Some(times)) = (found.schema.is_empty(), place.times) {
            for (index, rule) in rules.iter().enumerate() {
                self.rule(schema, rule, index, times, place, &mut found.rules);
            }
        }
        found
    }

    fn below(&mut self, schema: &Value, place: &Place, found: &mut Found) {
        let path = &place.path;
        let mut visit = |checker: &mut Self, schema: &Value, place: &Place| {
            let more = checker.visit(schema, place);
            found.schema.extend(more.schema);
            found.rules.extend(more.rules);
        };
        let times = place.times.map(|times| times.below(schema));
        let others = &schema["additionalProperties"];
        if others.is_object() {
            let mut below = Place { times, ..place.at(path.child("additionalProperties")) };
            if place.meta {
                let why = "inside additionalProperties applying to object metadata";
                below.no_default = Some(why.to_owned());
            }
            visit(self, others, &below);
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let mut below = Place { times, ..place.at(path.child("properties").key(name)) };
            if schema["x-kubernetes-map-type"] == "atomic" {
                below.uncorrelated.get_or_insert_with(|| path.clone());
            }
            let whole = place.root || schema["x-kubernetes-embedded-resource"] == true;
            if whole && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                below.meta = true;
                if place.root {
                    below.no_default = Some(format!("in top-level {name}"));
                }
            }
            visit(self, member, &below);
        }
        if schema["not"].is_object() {
            visit(self, &schema["not"], &place.judging(path.child("not")));
        }
        for word in ["allOf", "oneOf", "anyOf"] {
            for (index, branch) in list(&schema[word]).iter().enumerate() {
                visit(self, branch, &place.judging(path.child(word).index(index)));
            }
        }
        if schema["items"].is_object() {
            let mut below = Place { times, ..place.at(path.child("items")) };
            if schema["x-kubernetes-list-type"] != "map" {
                below.uncorrelated.get_or_insert_with(|| path.clone());
            }
            visit(self, &schema["items"], &below);
        }
    }

    /// A rule's expressions: that they compile, and what they may cost.
    fn rule(
        &mut self,
        schema: &Value,
        rule: &Value,
        index: usize,
        times: Times,
        place: &Place,
        out: &mut Vec<FieldError>,
    ) {
        let at = place.path.child("x-kubernetes-validations").index(index);
        let at_rule = at.child("rule");
        let (variables, sizes) = (rules::variables(schema, rule, place.root), SchemaSizes(schema));
        let compiled = compile(text(&rule["rule"]), &variables);
        match &compiled {
            Ok(program) if program.may_be(&Kind::Bool) => {
                let cost = times.cost(estimate(program, &sizes), schema);
                self.limit("estimated rule cost", cost, &at_rule, out);
            }
            Ok(_) => {
                let why = "cel expression must evaluate to a bool";
                out.push(FieldError::invalid(&at_rule, rule.clone(), why));
            }
            Err(error) => {
                let why = format!("compilation failed: {error}");
                out.push(FieldError::invalid(&at_rule, rule.clone(), why));
            }
        }
        let message = text(&rule["messageExpression"]);
        if !message.trim().is_empty() {
            let at = at.child("messageExpression");
            match compile(message, &variables) {
                Ok(program) if program.may_be(&Kind::Text) => {
                    let cost = estimate(&program, &sizes);
                    self.limit("estimated messageExpression cost", cost, &at, out);
                }
                Ok(_) => {
                    let why = "messageExpression must evaluate to a string";
                    out.push(FieldError::invalid(at, rule.clone(), why));
                }
                Err(error) => {
                    let why = format!("messageExpression compilation failed: {error}");
                    out.push(FieldError::invalid(at, rule.clone(), why));
                }
            }
        }
        before(&compiled, rule, &at, place, out);
    }

    fn limit(&mut self, what: &str, cost: u64, at: &Path, out: &mut Vec<FieldError>) {
        if self.options.limit_rules && cost > RULE_LIMIT {
            out.push(FieldError::forbidden(at, exceeds(what, cost, RULE_LIMIT)));
        }
        self.total.count(cost, at.clone());
    }
}

/// Whether a rule may look at what was before, and says so only where it does.
fn before<E>(
    compiled: &Result<Program, E>,
    rule: &Value,
    at: &Path,
    place: &Place,
    out: &mut Vec<FieldError>,
) {
    if compiled.as_ref().is_ok_and(|program| program.mentions("oldSelf")) {
        if let Some(from) = &place.uncorrelated {
            let why = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {from}"
            );
            out.push(FieldError::invalid(at.child("rule"), rule["rule"].clone(), why));
        }
    } else if !rule["optionalOldSelf"].is_null() {
        let why = "may not be set if oldSelf is not used in rule";
        let given = rule["optionalOldSelf"].clone();
        out.push(FieldError::invalid(at.child("optionalOldSelf"), given, why));
    }
}

/// Words that may not be here, and values that they may not have.
fn words(schema: &Value, place: &Place, out: &mut Vec<FieldError>) {
    let path = &place.path;
    let kind = text(&schema["type"]);
    if !kind.is_empty() && !TYPES.contains(&kind) {
        out.push(FieldError::not_supported(path.child("type"), kind, &TYPES));
    }
    if let (Some(reason), Some(_)) = (&place.no_default, schema.get("default")) {
        let why = format!("must not be set {reason}");
        out.push(FieldError::forbidden(path.child("default"), why));
    }
    for word in NOT_SERVED {
        let empty = schema[word].as_object().is_some_and(|members| members.is_empty());
        if !schema[word].is_null() && !empty && schema[word] != "" {
            out.push(FieldError::forbidden(path.child(word), format!("{word} is not supported")));
        }
    }
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        out.push(FieldError::forbidden(path.child("type"), why));
    }
    if schema["items"].is_array() {
        let why = "items must be a schema object and not an array";
        out.push(FieldError::forbidden(path.child("items"), why));
    }
    if place.meta && schema["x-kubernetes-embedded-resource"] == true {
        let why = "must not be used inside of resource meta";
        out.push(FieldError::forbidden(path.child("x-kubernetes-embedded-resource"), why));
    }
    if schema["uniqueItems"] == true {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        out.push(FieldError::forbidden(path.child("uniqueItems"), why));
    }
    let named = schema["properties"].as_object().is_some_and(|members| !members.is_empty());
    let others = &schema["additionalProperties"];
    if named && (others.is_object() || *others == false) {
        let why = "additionalProperties and properties are mutual exclusive";
        out.push(FieldError::forbidden(path.child("additionalProperties"), why));
    }
}

/// That a word is only said of a type.
fn only_of(schema: &Value, wanted: &str, word: &str, path: &Path, out: &mut Vec<FieldError>) {
    let kind = text(&schema["type"]);
    if !schema[word].is_null() && kind != wanted {
        let why = format!("must be {wanted} if {word} is specified");
        let at = path.child("type");
        out.push(match kind {
            "" => FieldError::required(at, why),
            kind => FieldError::invalid(at, kind, why),
        });
    }
}

fn map_type(schema: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let word = "x-kubernetes-map-type";
    only_of(schema, "object", word, path, out);
    let known = ["atomic", "granular"];
    if !schema[word].is_null() && !known.contains(&text(&schema[word])) {
        out.push(FieldError::not_supported(path.child(word), schema[word].clone(), &known));
    }
}

fn list_type(schema: &Value, path: &Path, atomic_sets: bool, out: &mut Vec<FieldError>) {
    let word = "x-kubernetes-list-type";
    only_of(schema, "array", word, path, out);
    if atomic_sets && let Some((word, shown)) = loose_item(schema) {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        out.push(FieldError::invalid(path.child("items").child(word), shown, why));
    }
    let known = ["atomic", "set", "map"];
    if !schema[word].is_null() && !known.contains(&text(&schema[word])) {
        out.push(FieldError::not_supported(path.child(word), schema[word].clone(), &known));
    }
}

/// What makes the items of a set merge, so that they are no items of a set.
fn loose_item(schema: &Value) -> Option<(&'static str, Value)> {
    let items = &schema["items"];
    if schema["type"] != "array" || schema["x-kubernetes-list-type"] != "set" {
        return None;
    }
    let (list_type, map_type) = ("x-kubernetes-list-type", "x-kubernetes-map-type");
    match text(&items["type"]) {
        "array" if !items[list_type].is_null() && items[list_type] != "atomic" => {
            Some((list_type, items[list_type].clone()))
        }
        "object" if items[map_type] != "atomic" => Some((map_type, items[map_type].clone())),
        _ => None,
    }
}

fn list_keys(schema: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let (type_word, word) = ("x-kubernetes-list-type", "x-kubernetes-list-map-keys");
    let (list_type, keys) = (&schema[type_word], list(&schema[word]));
    if !keys.is_empty() && *list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        out.push(match list_type {
            Value::Null => FieldError::required(path.child(type_word), why),
            given => FieldError::invalid(path.child(type_word), given.clone(), why),
        });
    }
    if *list_type != "map" {
        return;
    }
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        out.push(FieldError::required(path.child(word), why));
    }
    let items = &schema["items"];
    if !items.is_object() {
        let why = "must have a schema if x-kubernetes-list-type is map";
        out.push(FieldError::required(path.child("items"), why));
    } else if items["type"] != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        let at = path.child("items").child("type");
        out.push(FieldError::invalid(at, text(&items["type"]), why));
    } else {
        let mut seen = BTreeSet::new();
        for key in keys.iter().map(text) {
            let at = path.child(word);
            match items["properties"].get(key).map(|member| text(&member["type"])) {
                None => {
                    let why = "entries must all be names of item properties";
                    out.push(FieldError::invalid(&at, schema[word].clone(), why));
                }
                Some("array" | "object") => {
                    let at = path.child("items").child("properties").key(key).child("type");
                    let why =
                        "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    out.push(FieldError::invalid(at, items["type"].clone(), why));
                }
                Some(_) => {}
            }
            if !seen.insert(key) {
                let why = "must not contain duplicate entries";
                out.push(FieldError::invalid(&at, schema[word].clone(), why));
            }
        }
    }
}

/// That what tells the items of a list apart is always there.
fn sure_keys(schema: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let items = &schema["items"];
    let list_type = text(&schema["x-kubernetes-list-type"]);
    if !items.is_object() || !["set", "map"].contains(&list_type) {
        return;
    }
    let at = path.child("items");
    if items["nullable"] == true {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        out.push(FieldError::forbidden(at.child("nullable"), why));
    }
    if list_type != "map" {
        return;
    }
    for key in list(&schema["x-kubernetes-list-map-keys"]) {
        let Some(member) = items["properties"].get(text(key)) else { continue };
        let at = at.child("properties").key(text(key));
        if !list(&items["required"]).contains(key) && member.get("default").is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            out.push(FieldError::required(at.child("default"), why));
        }
        if member["nullable"] == true {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            out.push(FieldError::forbidden(at.child("nullable"), why));
        }
    }
}

/// Whether a schema, or one below it, had this against it.
pub(super) fn anywhere(schema: &Value, wrong: fn(&Value) -> bool) -> bool {
    let Some(words) = schema.as_object() else { return false };
    wrong(schema)
        || words.iter().any(|(word, inner)| match word.as_str() {
            "properties" => {
                inner.as_object().is_some_and(|all| all.values().any(|one| anywhere(one, wrong)))
            }
            "allOf" | "anyOf" | "oneOf" => list(inner).iter().any(|one| anywhere(one, wrong)),
            "items" | "additionalProperties" | "not" => anywhere(inner, wrong),
            _ => false,
        })
}

/// Whether a list is a set whose items merge.
pub(super) fn has_loose_items(schema: &Value) -> bool {
    loose_item(schema).is_some()
}

/// Whether a list has keys that may be missing.
pub(super) fn has_unsure_keys(schema: &Value) -> bool {
    let mut out = Vec::new();
    sure_keys(schema, &Path::default(), &mut out);
    !out.is_empty()
}

/// What a rule says beside its expressions.
fn rule_words(schema: &Value, rule: &Value, at: &Path, out: &mut Vec<FieldError>) {
    let given = |field: &str| text(&rule[field]);
    let broken = |text: &str| text.contains(['\n', '\r']);
    let (source, message) = (given("rule").trim(), given("message"));
    let at_message = at.child("message");
    if source.is_empty() {
        out.push(FieldError::required(at.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        let why = "message must be non-empty if specified";
        out.push(FieldError::invalid(at_message, message, why));
    } else if broken(message.trim()) {
        let why = "message must not contain line breaks";
        out.push(FieldError::invalid(at_message, message, why));
    } else if broken(source) && message.is_empty() {
        let why = "message must be specified if rule contains line breaks";
        out.push(FieldError::required(at_message, why));
    }
    let expression = given("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        out.push(FieldError::required(at.child("messageExpression"), why));
    }
    if !rule["reason"].is_null() && !REASONS.contains(&given("reason")) {
        let at = at.child("reason");
        out.push(FieldError::not_supported(at, rule["reason"].clone(), &REASONS));
    }
    let (path, at) = (given("fieldPath"), at.child("fieldPath"));
    if path.is_empty() {
        return;
    }
    if path.trim().is_empty() {
        let why = "fieldPath must be non-empty if specified";
        out.push(FieldError::invalid(&at, path, why));
    }
    if broken(path) {
        out.push(FieldError::invalid(&at, path, "fieldPath must not contain line breaks"));
    }
    if field_path::find(schema, path).is_err() {
        out.push(FieldError::invalid(&at, path, "fieldPath must be a valid path"));
    }
}

#[cfg(test)]
mod tests;
