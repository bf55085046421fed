//! CEL as the Kubernetes API uses it: rules of CustomResourceDefinitions, admission policies
//! and match conditions.
//!
//! `kube-cel` brings the language and Kubernetes' function libraries; what it lacks is here:
//! references are checked against declared [`Kind`]s when an expression is compiled, so that a
//! misspelt field is refused where it is written; `cel.bind`, comprehensions over two variables;
//! limits of size and cost, and what an expression may cost before it runs; and errors in the words of cel-go. Evaluation is pure: nothing outside the bindings is reached.

mod cache;
mod check;
mod conversions;
mod cost;
mod estimate;
mod functions;
mod kind;
mod library;
mod macros;
mod program;
mod rewrite;
mod value;

pub use cache::Cache;
pub use check::CompileError;
pub use estimate::{Sizes, estimate};
pub use kind::{Kind, escape};
/// The language itself, for callers that add functions of their own.
pub use kube_cel::cel;
pub use program::{COST_LIMIT, EvaluateError, MAX_EXPRESSION_BYTES, Program, compile};
