//! What the rules of a definition may cost: sizes that a schema allows, how often a rule can run
//! for one object, and the limits of both.
//! Sources: `pkg/cel/common/schemas.go` of k8s.io/apiserver, `cel_validation.go` and the limits
//! of `validation.go` in `pkg/apis/apiextensions/validation` of apiextensions-apiserver.

use expression::{Sizes, escape};
use serde_json::Value;

use super::super::list;
use super::text;
use crate::status::{FieldError, Path};

/// The most that one rule may cost for one object.
pub(super) const RULE_LIMIT: u64 = 10_000_000;
/// The most that all rules of a schema may cost for one object.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// How many of the most expensive rules are named.
const NAMED_MAX: usize = 4;
/// The largest request (`DefaultMaxRequestSizeBytes`): what has no bound is as large as fits in.
const REQUEST_BYTES: u64 = 3 * 1024 * 1024;

/// The least bytes that a value of a schema has as JSON.
fn least_bytes(schema: &Value) -> u64 {
    if schema["x-kubernetes-int-or-string"] == true {
        return 1;
    }
    match (text(&schema["type"]), text(&schema["format"])) {
        ("string", "duration") => 3,
        ("string", "date") => 12,
        ("string", "date-time") => 21,
        ("boolean", _) => 4,
        ("number" | "integer", _) => 1,
        ("object", _) if !schema["additionalProperties"].is_object() => {
            let needed = list(&schema["required"]).iter().map(text);
            let members = needed.filter_map(|name| Some((name, schema["properties"].get(name)?)));
            // A quoted name, a colon and a comma beside each value that nobody fills in.
            let bytes = members
                .filter(|(_, member)| member.get("default").is_none())
                .map(|(name, member)| name.len() as u64 + least_bytes(member) + 4);
            2 + bytes.sum::<u64>()
        }
        _ => 2,
    }
}

fn number(schema: &Value, word: &str) -> Option<u64> {
    schema[word].as_i64().map(|number| u64::try_from(number).unwrap_or(0))
}

/// The most items, members or bytes that a value of a schema has.
fn most(schema: &Value) -> u64 {
    let by_length = || number(schema, "maxLength").map(|length| length.saturating_mul(4));
    if schema["x-kubernetes-int-or-string"] == true {
        return by_length().unwrap_or(REQUEST_BYTES - 2);
    }
    match (text(&schema["type"]), text(&schema["format"])) {
        ("array", _) => number(schema, "maxItems")
            .unwrap_or_else(|| (REQUEST_BYTES - 2) / (least_bytes(&schema["items"]) + 1)),
        ("object", _) if schema["additionalProperties"].is_object() => {
            let least = least_bytes(&schema["additionalProperties"]);
            number(schema, "maxProperties").unwrap_or((REQUEST_BYTES - 2) / (least + 6))
        }
        ("string", "byte") => number(schema, "maxLength").unwrap_or(REQUEST_BYTES - 2),
        ("string", "duration" | "date-time") => 32,
        ("string", "date") => 12,
        ("string", _) => by_length().unwrap_or_else(|| {
            let words = list(&schema["enum"]).iter().map(|word| text(word).len() as u64);
            words.max().unwrap_or(REQUEST_BYTES - 2)
        }),
        _ => 0,
    }
}

/// The sizes that a rule at this schema meets.
pub(super) struct SchemaSizes<'a>(pub &'a Value);

impl Sizes for SchemaSizes<'_> {
    fn most(&self, path: &[String]) -> Option<u64> {
        let mut schema = self.0;
        for (place, step) in path.iter().enumerate().skip(1) {
            schema = match step.as_str() {
                "@items" if schema["items"].is_object() => &schema["items"],
                "@values" if schema["additionalProperties"].is_object() => {
                    &schema["additionalProperties"]
                }
                // Of keys nothing is known, and upstream takes them as of no size.
                "@keys" if schema["additionalProperties"].is_object() => {
                    return (place + 1 == path.len()).then_some(0);
                }
                name => {
                    let mut members = schema["properties"].as_object()?.iter();
                    members.find(|(member, _)| escape(member) == name)?.1
                }
            };
        }
        Some(most(schema))
    }
}

/// How often a rule can run for one object; `None` where the schema sets no bound.
#[derive(Clone, Copy)]
pub(super) struct Times(Option<u64>);

impl Times {
    /// A rule at the root.
    pub fn once() -> Self {
        Times(Some(1))
    }

    /// For what is below a schema.
    pub fn below(self, schema: &Value) -> Self {
        let each = match text(&schema["type"]) {
            "object" if !schema["additionalProperties"].is_null() => {
                number(schema, "maxProperties")
            }
            "array" => number(schema, "maxItems"),
            _ => Some(1),
        };
        Times(self.0.zip(each).map(|(times, each)| times.saturating_mul(each)))
    }

    /// What a rule of this cost may come to for one object.
    pub fn cost(self, once: u64, schema: &Value) -> u64 {
        let times = self.0.unwrap_or_else(|| REQUEST_BYTES / (least_bytes(schema) + 1));
        once.saturating_mul(times)
    }
}

/// What all rules of a schema cost together.
#[derive(Default)]
pub(super) struct Total {
    sum: u64,
    largest: Vec<(u64, Path)>,
}

impl Total {
    /// Counts a rule.
    pub fn count(&mut self, cost: u64, path: Path) {
        self.sum = self.sum.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.largest.push((cost, path));
            self.largest.sort_by_key(|one| std::cmp::Reverse(one.0));
            self.largest.truncate(NAMED_MAX);
        }
    }

    /// What is wrong with the sum.
    pub fn check(&self, path: &Path, out: &mut Vec<FieldError>) {
        if self.sum <= SCHEMA_LIMIT {
            return;
        }
        for (_, path) in &self.largest {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            out.push(FieldError::forbidden(path, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        out.push(FieldError::forbidden(path, exceeds(what, self.sum, SCHEMA_LIMIT)));
    }
}

/// That something costs more than it may.
pub(super) fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_follow_from_the_schema() {
        let text = json!({"type": "string"});
        for (schema, least, largest) in [
            (text.clone(), 2, 3_145_726),
            (json!({"type": "string", "maxLength": 10}), 2, 40),
            (json!({"type": "string", "enum": ["a", "four"]}), 2, 4),
            (json!({"type": "array", "items": text}), 2, 1_048_575),
            (json!({"type": "array", "maxItems": 3, "items": text}), 2, 3),
            (json!({"type": "object", "additionalProperties": text}), 2, 393_215),
            (json!({"type": "integer"}), 1, 0),
            (
                json!({"type": "object", "required": ["ab", "c", "d"], "properties": {
                "ab": text, "c": {"type": "boolean"}, "d": {"type": "string", "default": "x"}}}),
                2 + 8 + 9,
                0,
            ),
            (json!({"x-kubernetes-int-or-string": true}), 1, 3_145_726),
        ] {
            assert_eq!((least_bytes(&schema), most(&schema)), (least, largest), "{schema}");
        }
    }

    #[test]
    fn factors_are_said_as_upstream() {
        for (cost, expected) in
            [(12_000_000, "1.200000x"), (30_000_000, "3.0x"), (u64::MAX, "more than 100x")]
        {
            let said = exceeds("estimated rule cost", cost, RULE_LIMIT);
            assert!(
                said.contains(&format!("exceeds budget by factor of {expected} (try")),
                "{said}"
            );
        }
    }
}
