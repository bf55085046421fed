//! What is known of a variable's values when an expression is compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What tells the items of a list apart (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Their places.
    #[default]
    Atomic,
    /// The items themselves: their order is of no matter.
    Set,
    /// These fields of theirs, by their names in expressions; their order is of no matter.
    Map(Arc<[String]>),
}

/// A CEL type, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Kind {
    /// Anything; checked when it is evaluated.
    #[default]
    Any,
    /// `bool`.
    Bool,
    /// `int`.
    Int,
    /// `double`; JSON's `1` is `1.0` here.
    Double,
    /// `string`.
    Text,
    /// `bytes`, base64 in JSON.
    Bytes,
    /// `google.protobuf.Timestamp`, RFC 3339 in JSON.
    Timestamp,
    /// `google.protobuf.Duration`, Go's notation in JSON.
    Duration,
    /// A list.
    List(Arc<Kind>, ListType),
    /// A map from text; its keys are used as they are.
    Map(Arc<Kind>),
    /// An object with these fields (by their JSON names) and no others.
    Object(Arc<BTreeMap<String, Kind>>),
    /// A value that may be missing, as `optional_type`: a binding that is null or not there.
    Optional(Arc<Kind>),
    /// A value of a library's own type, by its name; no JSON stands for it.
    Opaque(&'static str),
}

impl Kind {
    /// A list of `element`.
    pub fn list(element: Kind) -> Kind {
        Kind::List(Arc::new(element), ListType::Atomic)
    }

    /// A map of `value`.
    pub fn map(value: Kind) -> Kind {
        Kind::Map(Arc::new(value))
    }

    /// An object with these fields.
    pub fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Kind)>) -> Kind {
        let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), kind));
        Kind::Object(Arc::new(fields.collect()))
    }

    /// What stands at this field, by its name in an expression; `None` where there is no such.
    pub(crate) fn field(&self, name: &str) -> Option<Kind> {
        match self {
            Kind::Any | Kind::Optional(_) => Some(Kind::Any),
            Kind::Map(value) => Some(value.as_ref().clone()),
            Kind::Object(fields) => match fields.get(name) {
                Some(kind) if escape(name) == name => Some(kind.clone()),
                _ => {
                    let named = |(field, _): &(&String, &Kind)| escape(field) == name;
                    fields.iter().find(named).map(|(_, kind)| kind.clone())
                }
            },
            _ => None,
        }
    }

    /// What a comprehension over this sees, or an index into it gives.
    pub(crate) fn element(&self) -> Kind {
        match self {
            Kind::List(element, _) => element.as_ref().clone(),
            // Comprehensions see a map's keys, an index its values: both are asked as anything.
            _ => Kind::Any,
        }
    }

    /// What the second variable of a comprehension over this is.
    pub(crate) fn value(&self) -> Kind {
        match self {
            Kind::List(value, _) | Kind::Map(value) => value.as_ref().clone(),
            _ => Kind::Any,
        }
    }

    /// What the first variable of a comprehension over this is, `pairs` where there are two.
    pub(crate) fn key(&self, pairs: bool) -> Kind {
        match self {
            Kind::List(..) if pairs => Kind::Int,
            Kind::Map(_) => Kind::Text,
            other => other.element(),
        }
    }

    /// The type's name without its parameters.
    pub(crate) fn head(&self) -> &'static str {
        match self {
            Kind::Any => "dyn",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Double => "double",
            Kind::Text => "string",
            Kind::Bytes => "bytes",
            Kind::Timestamp => "timestamp",
            Kind::Duration => "duration",
            Kind::List(..) => "list",
            Kind::Map(_) | Kind::Object(_) => "map",
            Kind::Optional(_) => "optional_type",
            Kind::Opaque(name) => name,
        }
    }

    /// The name that cel-go has for it in messages.
    pub fn name(&self) -> String {
        match self {
            Kind::List(element, _) => format!("list({})", element.name()),
            Kind::Map(value) => format!("map(string, {})", value.name()),
            Kind::Optional(value) => format!("optional_type({})", value.name()),
            Kind::Object(_) => "object".to_owned(),
            Kind::Timestamp => "google.protobuf.Timestamp".to_owned(),
            Kind::Duration => "google.protobuf.Duration".to_owned(),
            other => other.head().to_owned(),
        }
    }

    /// Whether each value of this kind is as large as any other.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Kind::Bool | Kind::Int | Kind::Double | Kind::Timestamp | Kind::Duration => true,
            Kind::Optional(value) => value.is_scalar(),
            _ => false,
        }
    }
}

/// Words that are no identifiers in CEL.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field's name as expressions write it (k8s.io/apiserver/pkg/cel/escaping.go).
pub fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        let (text, taken) = match next {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            _ => (&rest[..next.len_utf8()], next.len_utf8()),
        };
        escaped.push_str(text);
        rest = &rest[taken..];
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_upstream() {
        for (name, expected) in [
            ("replicas", "replicas"),
            ("namespace", "__namespace__"),
            ("a-b", "a__dash__b"),
            ("a.b/c", "a__dot__b__slash__c"),
            ("a_b", "a_b"),
            ("a__b", "a__underscores__b"),
            ("ä", "ä"),
        ] {
            assert_eq!(escape(name), expected);
        }
    }
}
