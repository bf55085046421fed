//! Which objects of a list are asked for, as authorizers see it.
//!
//! Selectors only ever narrow a question. So what cannot be read is left out, which asks for more
//! than is wanted, never for less.

use api::selector::{FieldSelector, LabelSelector, Operator, Requirement};
use serde::{Deserialize, Deserializer, Serialize};

/// A part of a selector, in the words of a SubjectAccessReview.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Term {
    /// A field's or a label's name.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values.
    #[serde(deserialize_with = "or_none", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Clients write `null` for a list without anything in it.
fn or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What a question says of the objects that it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// Of fields.
    pub fields: Vec<Term>,
    /// Of labels.
    pub labels: Vec<Term>,
}

/// All objects.
pub(crate) static ALL: Selectors = Selectors { fields: Vec::new(), labels: Vec::new() };

impl Selectors {
    /// Reads both as they stand in a query.
    pub(crate) fn of_query(fields: &str, labels: &str) -> Self {
        Selectors {
            fields: fields_of(fields).unwrap_or_default(),
            labels: labels_of(labels).unwrap_or_default(),
        }
    }

    /// The value that a field must have.
    pub(crate) fn pinned(&self, field: &str) -> Option<&str> {
        let only = self.fields.iter().find(|term| term.key == field && term.operator == "In")?;
        match &only.values[..] {
            [value] => Some(value),
            _ => None,
        }
    }
}

/// The terms of a field selector; `None` where it cannot be read.
pub(crate) fn fields_of(text: &str) -> Option<Vec<Term>> {
    let term = |(field, value, equal): (&str, String, bool)| Term {
        key: field.to_owned(),
        operator: if equal { "In" } else { "NotIn" }.to_owned(),
        values: vec![value],
    };
    FieldSelector::terms(text).ok().map(|terms| terms.into_iter().map(term).collect())
}

/// The terms of a label selector, without comparisons of numbers, which reviews have no words for;
/// `None` where it cannot be read.
pub(crate) fn labels_of(text: &str) -> Option<Vec<Term>> {
    let selector = LabelSelector::parse(text).ok()?;
    Some(selector.requirements().iter().filter_map(term_of).collect())
}

fn term_of(requirement: &Requirement) -> Option<Term> {
    let operator = match requirement.operator {
        Operator::In | Operator::Equals | Operator::DoubleEquals => "In",
        Operator::NotIn | Operator::NotEquals => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        Operator::GreaterThan | Operator::LessThan => return None,
    };
    let Requirement { key, values, .. } = requirement;
    Some(Term { key: key.clone(), operator: operator.to_owned(), values: values.clone() })
}

/// A field's requirement as selectors of fields can say it.
pub(crate) fn is_of_field(term: &Term) -> bool {
    matches!(term.operator.as_str(), "In" | "NotIn") && term.values.len() == 1
}

/// A label's requirement as selectors of labels can say it.
pub(crate) fn is_of_label(term: &Term) -> bool {
    let operator = match term.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return false,
    };
    Requirement::new(&term.key, operator, term.values.clone()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terms: &[Term]) -> String {
        let one = |term: &Term| format!("{} {} {}", term.key, term.operator, term.values.join("|"));
        terms.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn selectors_are_read_as_reviews_say_them() {
        let read = Selectors::of_query(
            r"spec.nodeName=n,status.phase!=Running,a.b==x\,y",
            "a=1,b in (x,y),c,!d,e!=2,f notin (z),g>3",
        );
        assert_eq!(
            shown(&read.fields),
            "a.b In x,y, spec.nodeName In n, status.phase NotIn Running"
        );
        assert_eq!(
            shown(&read.labels),
            "a In 1, b In x|y, c Exists , d DoesNotExist , e NotIn 2, f NotIn z"
        );
        assert_eq!(read.pinned("spec.nodeName"), Some("n"));
        assert_eq!(read.pinned("status.phase"), None);
        // What cannot be read narrows nothing.
        assert_eq!(Selectors::of_query("a", "a=!b"), ALL);
    }
}
