//! One step of a path to a field, as FieldsV1 writes it.

use serde_json::Value;
use std::cmp::Ordering;
use std::fmt;

/// A step: `f:name` (a field), `k:{"name":"a"}` (an item told by its keys), `v:"x"` (an item told
/// by its value) or `i:0` (an item told by its place).
///
/// The text is the whole truth: it is canonical (keys ordered by name, no spaces), so that equal
/// steps are equal texts, and nothing is parsed to compare, intersect or write sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element(Box<str>);

impl Element {
    /// A field of an object.
    pub(super) fn field(name: &str) -> Self {
        let mut text = String::with_capacity(name.len() + 2);
        text.push_str("f:");
        text.push_str(name);
        Self(text.into())
    }

    /// An item of a list that is told by some of its fields.
    pub(super) fn keys(mut pairs: Vec<(&str, &Value)>) -> Self {
        pairs.sort_unstable_by_key(|(name, _)| *name);
        let mut text = String::from("k:{");
        for (at, (name, value)) in pairs.into_iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            // A name is a JSON string as `Value` prints one.
            text.push_str(&format!("{comma}{}:{value}", Value::from(name)));
        }
        text.push('}');
        Self(text.into())
    }

    /// An item of a list of scalars.
    pub(super) fn value(value: &Value) -> Self {
        Self(format!("v:{value}").into())
    }

    /// Reads a step; `None` where the text is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(2)?;
        match kind {
            "f:" => Some(Self(text.into())),
            "i:" => rest.parse::<i64>().ok().map(|_| Self(text.into())),
            "v:" => serde_json::from_str(rest).ok().map(|value| Self::value(&value)),
            "k:" => {
                let Ok(Value::Object(keys)) = serde_json::from_str(rest) else { return None };
                Some(Self::keys(keys.iter().map(|(name, value)| (name.as_str(), value)).collect()))
            }
            _ => None,
        }
    }

    /// The text, as FieldsV1 has it.
    pub(super) fn into_text(self) -> String {
        self.0.into()
    }

    /// The field's name, where this is a field.
    pub(super) fn name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }

    fn rank(&self) -> u8 {
        match self.0.as_bytes().first() {
            Some(b'f') => 0,
            Some(b'k') => 1,
            Some(b'v') => 2,
            _ => 3,
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As messages show a step: `.name`, `[name="a"]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rest) = self.0.split_at(2);
        match kind {
            "f:" => write!(f, ".{rest}"),
            "v:" => write!(f, "[={rest}]"),
            "k:" => {
                let keys: Value = serde_json::from_str(rest).unwrap_or_default();
                let pairs = keys.as_object().into_iter().flatten();
                let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
            _ => write!(f, "[{rest}]"),
        }
    }
}
