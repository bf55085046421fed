//! CEL as the Kubernetes API uses it: rules of CustomResourceDefinitions, admission policies
//! and match conditions.
//!
//! `kube-cel` brings the parser, values and Kubernetes' function libraries; the rest is here:
//! references are checked against declared [`Kind`]s when an expression is compiled, so that a
//! misspelt field is refused where it is written; evaluation counts what it costs, as upstream does,
//! and what an expression may cost is known before it runs; errors are in the words of cel-go.
//! Evaluation is pure: nothing outside the bindings is reached.

mod budget;
mod cache;
mod check;
mod conversions;
mod estimate;
mod evaluate;
mod functions;
mod kind;
mod language;
mod library;
mod macros;
mod program;
mod rewrite;
mod value;

pub use budget::{Budget, CALL_LIMIT, CONDITIONS_BUDGET, OBJECT_BUDGET};
pub use cache::Cache;
pub use check::CompileError;
pub use estimate::{Sizes, estimate};
pub use kind::{Kind, ListType, escape};
/// The language itself, for callers that add functions of their own.
pub use kube_cel::cel;
pub use language::Language;
pub use program::{EvaluateError, MAX_EXPRESSION_BYTES, Program, compile, compile_as};
