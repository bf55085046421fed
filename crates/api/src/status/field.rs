//! Errors in single fields, and paths to fields, as upstream words them
//! (`k8s.io/apimachinery/pkg/util/validation/field`).

use serde_json::Value;
use std::fmt;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A value is needed.
    Required,
    /// The value is malformed or out of bounds.
    Invalid,
    /// The value is not one of those known.
    NotSupported,
    /// The value is legal elsewhere, not here.
    Forbidden,
    /// The value occurs twice.
    Duplicate,
    /// The value has too many bytes.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// The value names something that does not exist.
    NotFound,
    /// Not the user's fault.
    InternalError,
    /// The value has the wrong type.
    TypeInvalid,
}

/// An error in one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path of the field, for instance `spec.containers[0].image`.
    pub path: String,
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The value found; `None` where the message does not show it.
    pub bad_value: Option<Value>,
    /// What would be right; may be empty.
    pub detail: String,
}

impl FieldErrorKind {
    /// The `reason` of the cause in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::InternalError => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::InternalError => "Internal error",
        }
    }
}

impl FieldError {
    /// An error that shows the value.
    pub fn new(
        kind: FieldErrorKind,
        path: impl fmt::Display,
        bad_value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { path: path.to_string(), kind, bad_value, detail: detail.into() }
    }

    /// `Required value`.
    pub fn required(path: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, None, detail)
    }

    /// `Invalid value: "x": detail`.
    pub fn invalid(
        path: impl fmt::Display,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::Invalid, path, Some(value.into()), detail)
    }

    /// `Unsupported value: "x": supported values: "a", "b"`.
    pub fn not_supported(
        path: impl fmt::Display,
        value: impl Into<Value>,
        supported: &[&str],
    ) -> Self {
        let quoted: Vec<String> = supported.iter().map(|value| go_quote(value)).collect();
        let detail = match quoted.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", quoted.join(", ")),
        };
        Self::new(FieldErrorKind::NotSupported, path, Some(value.into()), detail)
    }

    /// `Forbidden: detail`.
    pub fn forbidden(path: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, None, detail)
    }

    /// `Duplicate value: "x"`.
    pub fn duplicate(path: impl fmt::Display, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, Some(value.into()), "")
    }

    /// `Too long: may not be more than 63 bytes`.
    pub fn too_long(path: impl fmt::Display, limit_bytes: usize) -> Self {
        let detail = format!("may not be more than {limit_bytes} bytes");
        Self::new(FieldErrorKind::TooLong, path, None, detail)
    }

    /// `Too many: 5: must have at most 3 items`.
    pub fn too_many(path: impl fmt::Display, count: usize, limit: usize) -> Self {
        let items = if limit == 1 { "item" } else { "items" };
        let detail = format!("must have at most {limit} {items}");
        Self::new(FieldErrorKind::TooMany, path, Some(Value::from(count)), detail)
    }

    /// `Not found: "x"`.
    pub fn not_found(path: impl fmt::Display, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// `Internal error: detail`.
    pub fn internal(path: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::InternalError, path, None, detail)
    }

    /// `Invalid value: "x": detail`, for a value of the wrong type.
    pub fn type_invalid(
        path: impl fmt::Display,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, Some(value.into()), detail)
    }

    /// The message without the path.
    pub fn body(&self) -> String {
        let mut text = self.kind.title().to_owned();
        match &self.bad_value {
            None => {}
            Some(Value::String(value)) => text.push_str(&format!(": {}", go_quote(value))),
            Some(Value::Null) => text.push_str(": \"null\""),
            Some(value) => text.push_str(&format!(": {value}")),
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// Several errors as one text: repeated ones once, several in brackets.
pub(crate) fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// A path to a field that grows as validation descends: `spec.containers[0].env[A]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    text: String,
    unwritten: bool,
}

impl Path {
    /// A path of one field, or of several joined by dots.
    pub fn new(field: &str) -> Self {
        Self { text: field.to_owned(), unwritten: false }
    }

    /// A path that nobody will read, like all that grow from it: it costs nothing.
    pub fn unwritten() -> Self {
        Self { text: String::new(), unwritten: true }
    }

    /// The field below.
    #[must_use]
    pub fn child(&self, field: &str) -> Self {
        self.grown([if self.text.is_empty() { "" } else { "." }, field, ""])
    }

    /// The item of a list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        if self.unwritten { Self::unwritten() } else { self.key(&index.to_string()) }
    }

    /// The entry of a map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.grown(["[", key, "]"])
    }

    fn grown(&self, by: [&str; 3]) -> Self {
        if self.unwritten {
            return Self::unwritten();
        }
        let length = self.text.len() + by.map(str::len).iter().sum::<usize>();
        let mut text = String::with_capacity(length);
        text.push_str(&self.text);
        by.into_iter().for_each(|part| text.push_str(part));
        Self { text, unwritten: false }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "<nil>" } else { &self.text })
    }
}

/// Prints as Go's `%v` does, for messages that have to be upstream's.
pub fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_print).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members.iter().map(|(name, value)| format!("{name}:{}", go_print(value)));
            format!("map[{}]", members.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// Quotes as Go's `%q` does, for messages that have to be upstream's.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\x7f' => {
                quoted.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                quoted.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies_are_upstreams() {
        let path = Path::new("spec").child("ports").index(2).child("name");
        for (error, expected) in [
            (FieldError::required(&path, ""), "spec.ports[2].name: Required value"),
            (
                FieldError::required(&path, "name or generateName is required"),
                "spec.ports[2].name: Required value: name or generateName is required",
            ),
            (
                FieldError::invalid("a", "x\"y", "must be no more than 63 characters"),
                r#"a: Invalid value: "x\"y": must be no more than 63 characters"#,
            ),
            (FieldError::invalid("a", 70000, "no"), "a: Invalid value: 70000: no"),
            (FieldError::invalid("a", Value::Null, "no"), r#"a: Invalid value: "null": no"#),
            (
                FieldError::invalid("a", json!({"b": ["c"]}), "field is immutable"),
                r#"a: Invalid value: {"b":["c"]}: field is immutable"#,
            ),
            (
                FieldError::not_supported("a", "x", &["a", "b"]),
                r#"a: Unsupported value: "x": supported values: "a", "b""#,
            ),
            (FieldError::duplicate("a", "x"), r#"a: Duplicate value: "x""#),
            (FieldError::forbidden("a", "no"), "a: Forbidden: no"),
            (FieldError::too_long("a", 63), "a: Too long: may not be more than 63 bytes"),
            (FieldError::too_many("a", 5, 3), "a: Too many: 5: must have at most 3 items"),
            (FieldError::not_found("a", "x"), r#"a: Not found: "x""#),
            (FieldError::internal("a", "x"), "a: Internal error: x"),
            (FieldError::required(Path::default(), ""), "<nil>: Required value"),
            (FieldError::required(Path::new("data").key("A"), ""), "data[A]: Required value"),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn several_errors_are_bracketed_and_repeats_left_out() {
        let one = FieldError::required("a", "");
        let two = FieldError::required("b", "");
        assert_eq!(aggregate(std::slice::from_ref(&one)), "a: Required value");
        assert_eq!(aggregate(&[one.clone(), two, one]), "[a: Required value, b: Required value]");
    }

    #[test]
    fn quotes_as_go_does() {
        for (text, expected) in
            [("a", r#""a""#), ("ä'\u{1}\n", r#""ä'\x01\n""#), ("\u{a0}\u{85}", r#""\u00a0\u0085""#)]
        {
            assert_eq!(go_quote(text), expected);
        }
    }
}
