//! Field selectors: `metadata.name=a,status.phase!=Running`.

use super::SelectorError;
use crate::resource::Resource;
use crate::status::go_quote;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// Conditions on fields, all of which must hold. The default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Parses the query parameter; only fields that `resource` lets be selected are allowed.
    pub fn parse(text: &str, resource: &Resource) -> Result<Self, SelectorError> {
        let term = |(field, value, equal): (&str, String, bool)| {
            Ok(Term { field: known_field(field, resource)?, value, equal })
        };
        let terms = Self::terms(text)?.into_iter().map(term).collect::<Result<_, _>>()?;
        Ok(Self { terms })
    }

    /// Fields, values, and whether they must be equal, in order, whatever fields there are.
    pub fn terms(text: &str) -> Result<Vec<(&str, String, bool)>, SelectorError> {
        let mut parts = split_unescaped(text);
        parts.sort_unstable();
        let read = |part| {
            let (field, value, equal) = split_term(part).ok_or_else(|| {
                SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            Ok((field, unescape(value)?, equal))
        };
        parts.into_iter().filter(|part| !part.is_empty()).map(read).collect()
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value this field must have, if only one will do: a list of one object or namespace.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// Whether name and namespace are all that has to be looked at.
    pub fn needs_only_key(&self) -> bool {
        self.terms.iter().all(|t| t.field.starts_with("metadata."))
    }

    /// Whether the terms on name and namespace hold. The others are not looked at.
    pub fn matches_key(&self, namespace: &str, name: &str) -> bool {
        self.terms.iter().all(|term| match term.field.as_str() {
            "metadata.name" => (term.value == name) == term.equal,
            "metadata.namespace" => (term.value == namespace) == term.equal,
            _ => true,
        })
    }

    /// Whether a stored object satisfies every term.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| (field_value(object, &term.field) == term.value) == term.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// The path of a field in a stored object, given its label in a selector.
fn known_field(label: &str, resource: &Resource) -> Result<String, SelectorError> {
    let known = label == "metadata.name"
        || (label == "metadata.namespace" && (resource.namespaced || is_default(resource)))
        || resource.selectable_fields.iter().any(|field| field == label);
    match (resource.group.as_ref(), resource.kind.as_ref(), label) {
        // Clients of long ago send this.
        ("", "Pod", "spec.host") => return Ok("spec.nodeName".to_owned()),
        ("events.k8s.io", _, "reportingController") => return Ok("reportingComponent".to_owned()),
        ("events.k8s.io", _, _) if known => {
            return Ok(label.replacen("regarding.", "involvedObject.", 1));
        }
        _ => {}
    }
    if known { Ok(label.to_owned()) } else { Err(SelectorError(refusal(label, resource))) }
}

/// Whether upstream has no conversion function of its own for field labels of this kind.
fn is_default(resource: &Resource) -> bool {
    resource.selectable_fields.is_empty()
}

fn refusal(label: &str, resource: &Resource) -> String {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("batch", kind) => {
            format!("field label {} not supported for {}", go_quote(label), go_quote(kind))
        }
        ("resource.k8s.io", "ResourceSlice") => {
            format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {label}")
        }
        _ if is_default(resource) => format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            go_quote(label)
        ),
        _ => format!("field label not supported: {label}"),
    }
}

/// A field's value as text; what is missing counts as its type's zero value.
fn field_value<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    let walk = |path: &str| path.split('.').fold(object, |value, name| &value[name]);
    let value = match field {
        "source" => match &object["source"]["component"] {
            Value::String(component) if !component.is_empty() => &object["source"]["component"],
            _ => &object["reportingComponent"],
        },
        "status.successful" => &object["status"]["succeeded"],
        "status.podIPs" => &object["status"]["podIPs"][0]["ip"],
        field => walk(field),
    };
    match (value, field) {
        (Value::String(text), _) => Cow::Borrowed(text),
        (Value::Null, "spec.unschedulable" | "spec.hostNetwork") => Cow::Borrowed("false"),
        (Value::Null, "status.successful" | "status.replicas") => Cow::Borrowed("0"),
        (Value::Null, _) => Cow::Borrowed(""),
        (other, _) => Cow::Owned(other.to_string()),
    }
}

/// Splits at commas that no backslash protects.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Splits at the first operator that no backslash protects.
fn split_term(part: &str) -> Option<(&str, &str, bool)> {
    let mut escaped = false;
    for (i, c) in part.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        if c == '\\' {
            escaped = true;
        }
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = part[i..].strip_prefix(operator) {
                return Some((&part[..i], value, equal));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => text.push(c),
                next => {
                    let sequence: String = ['\\'].into_iter().chain(next).collect();
                    let message =
                        format!("invalid field selector: invalid escape sequence: {sequence}");
                    return Err(SelectorError(message));
                }
            },
            ',' | '=' => {
                let message = format!("invalid field selector: unescaped character in value: {c}");
                return Err(SelectorError(message));
            }
            c => text.push(c),
        }
    }
    Ok(text)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;
    use serde_json::json;

    fn parse(group: &str, plural: &str, text: &str) -> Result<String, String> {
        let resource = find(group, "v1", plural).unwrap();
        FieldSelector::parse(text, resource).map(|s| s.to_string()).map_err(|e| e.0)
    }

    #[test]
    fn parses_known_fields_only() {
        for (group, plural, text, expected) in [
            ("", "pods", "", Ok("")),
            (
                "",
                "pods",
                "status.phase!=Running,spec.nodeName==n",
                Ok("spec.nodeName=n,status.phase!=Running"),
            ),
            ("", "pods", "spec.host=n", Ok("spec.nodeName=n")),
            ("", "pods", "spec.x=y", Err("field label not supported: spec.x")),
            ("", "pods", "x", Err("invalid selector: 'x'; can't understand 'x'")),
            (
                "",
                "nodes",
                "metadata.namespace=x",
                Err("field label not supported: metadata.namespace"),
            ),
            ("", "configmaps", r"metadata.name=a\,b\=c\\", Ok(r"metadata.name=a\,b\=c\\")),
            (
                "",
                "configmaps",
                r"metadata.name=\a",
                Err(r"invalid field selector: invalid escape sequence: \a"),
            ),
            (
                "",
                "configmaps",
                "metadata.name=a=b",
                Err("invalid field selector: unescaped character in value: ="),
            ),
            (
                "apps",
                "deployments",
                "spec.replicas=1",
                Err(
                    r#""spec.replicas" is not a known field selector: only "metadata.name", "metadata.namespace""#,
                ),
            ),
            ("batch", "jobs", "x=1", Err(r#"field label "x" not supported for "Job""#)),
            ("events.k8s.io", "events", "regarding.kind=Pod", Ok("involvedObject.kind=Pod")),
            ("", "events", "involvedObject.kind=Pod", Ok("involvedObject.kind=Pod")),
        ] {
            let found = parse(group, plural, text);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{plural} {text}");
        }
    }

    #[test]
    fn matches_objects() {
        let pod = json!({"metadata": {"name": "a", "namespace": "b"},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let pods = find("", "v1", "pods").unwrap();
        for (text, expected) in [
            ("", true),
            ("metadata.name=a,metadata.namespace=b,spec.nodeName=n", true),
            ("metadata.name!=a", false),
            ("status.phase=Pending", false),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
        ] {
            assert_eq!(FieldSelector::parse(text, pods).unwrap().matches(&pod), expected, "{text}");
        }
        let nodes = find("", "v1", "nodes").unwrap();
        let selector = FieldSelector::parse("spec.unschedulable=true", nodes).unwrap();
        assert!(selector.matches(&json!({"spec": {"unschedulable": true}})));
        assert!(!selector.matches(&json!({"spec": {}})));
    }

    #[test]
    fn tells_what_can_be_answered_from_the_key() {
        let pods = find("", "v1", "pods").unwrap();
        let selector = FieldSelector::parse("metadata.name=a,spec.nodeName=n", pods).unwrap();
        assert_eq!(selector.exact("metadata.name"), Some("a"));
        assert!(!selector.needs_only_key());
        assert!(selector.matches_key("x", "a"));
        assert!(!selector.matches_key("x", "b"));
    }
}
