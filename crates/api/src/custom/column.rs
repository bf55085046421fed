//! `additionalPrinterColumns`: cells by JSONPath.
//! Source: `pkg/registry/customresource/tableconvertor` of apiextensions-apiserver.

use jiff::Timestamp;
use jsonpath_rust::JsonPath;
use serde_json::{Value, json};

use crate::table::since;

/// A column of a defined kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    path: String,
}

impl Column {
    /// Reads one of a definition.
    pub(super) fn read(column: &Value) -> Self {
        let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
        let description = match text("description") {
            none if none.is_empty() => {
                format!(
                    "Custom resource definition column (in JSONPath format): {}",
                    text("jsonPath")
                )
            }
            given => given,
        };
        Column {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description,
            priority: column["priority"].as_i64().unwrap_or(0),
            path: standard(&text("jsonPath")),
        }
    }

    /// Its `TableColumnDefinition`.
    pub(crate) fn definition(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority,
        })
    }

    /// Its cell for an object.
    pub(crate) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = object.query(&self.path).unwrap_or_default();
        let Some(value) = found.first() else { return Value::Null };
        match self.kind.as_str() {
            "string" => match value {
                Value::Null => Value::Null,
                Value::String(text) => json!(text),
                other => json!(other.to_string()),
            },
            "integer" => match value {
                Value::Number(number) if number.is_f64() => {
                    number.as_f64().map_or(Value::Null, |number| json!(number as i64))
                }
                Value::Number(_) => (*value).clone(),
                _ => Value::Null,
            },
            "number" => {
                if value.is_number() {
                    (*value).clone()
                } else {
                    Value::Null
                }
            }
            "boolean" => {
                if value.is_boolean() {
                    (*value).clone()
                } else {
                    Value::Null
                }
            }
            "date" => match value.as_str() {
                Some(text) => json!(
                    text.parse::<Timestamp>()
                        .map_or_else(|_| "<invalid>".to_owned(), |at| since(at, now))
                ),
                None => Value::Null,
            },
            _ => Value::Null,
        }
    }
}

/// A path of Kubernetes as RFC 9535 writes it: from the root, names that hold dots in brackets.
fn standard(path: &str) -> String {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}');
    let mut out = String::from("$");
    let mut rest = path.strip_prefix('$').unwrap_or(path).chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '.' if rest.peek() == Some(&'.') => {
                rest.next();
                out.push_str("..");
            }
            '.' => step(&mut rest, &mut out),
            '[' => {
                out.push('[');
                bracket(&mut rest, &mut out);
            }
            other => out.push(other),
        }
    }
    out
}

fn step(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let mut name = String::new();
    while let Some(c) = rest.next_if(|c| !matches!(c, '.' | '[')) {
        match c {
            '\\' => name.extend(rest.next()),
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => {}
        "*" => out.push_str("[*]"),
        name => {
            out.push_str("['");
            name.chars().for_each(|c| {
                if c == '\'' || c == '\\' {
                    out.push('\\');
                }
                out.push(c);
            });
            out.push_str("']");
        }
    }
}

/// What is in brackets is written alike, up to quotes.
fn bracket(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let mut quote = None;
    for c in rest.by_ref() {
        out.push(c);
        match (quote, c) {
            (None, ']') => return,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let object = json!({"spec": {"n": 3, "s": "x", "list": [{"a": 1}, {"a": 2}]},
            "metadata": {"labels": {"a.b/c": "dotted"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        for (path, kind, expected) in [
            (".spec.n", "integer", json!(3)),
            (".spec.n", "string", json!("3")),
            (".spec.s", "string", json!("x")),
            (".spec.none", "string", Value::Null),
            (".spec.list[1].a", "integer", json!(2)),
            (".spec.list[*].a", "integer", json!(1)),
            (r".metadata.labels.a\.b/c", "string", json!("dotted")),
            (".metadata.creationTimestamp", "date", json!("5m")),
            (r#".status.conditions[?(@.type=="Ready")].status"#, "string", json!("True")),
            (".spec.s", "integer", Value::Null),
        ] {
            let column = Column::read(&json!({"name": "c", "type": kind, "jsonPath": path}));
            assert_eq!(column.cell(&object, now), expected, "{path}");
        }
    }
}
