//! Selectors: which objects of a list or a watch a client wants to see.
//!
//! The grammar and the messages are upstream's (`k8s.io/apimachinery/pkg/labels`, `.../fields`).

mod field;
mod label;
mod syntax;

pub use field::FieldSelector;
pub use label::{LabelSelector, Operator, Requirement};
pub(crate) use syntax::subdomain_errors;
pub use syntax::{label_key_errors, label_value_errors};

/// Why a selector cannot be used. The API answers 400 with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);
