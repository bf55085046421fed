//! An expression, checked and ready.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kube_cel::cel::common::ast::{Expr, IdedExpr};
use kube_cel::cel::parser::Parser;
use kube_cel::cel::{Context, ExecutionError, Value};
use serde_json::Value as Json;
use thiserror::Error;

use crate::budget::{Budget, CALL_LIMIT};
use crate::check::{Checked, CompileError, check};
use crate::evaluate::{self, Evaluator, Failure};
use crate::kind::Kind;
use crate::language::Language;
use crate::{library, macros, rewrite, value};

/// The longest expression.
pub const MAX_EXPRESSION_BYTES: usize = 64 * 1024;

/// Brackets inside of brackets, at most.
const MAX_BRACKETS: usize = 100;

/// Operators and dots in an expression, at most.
const MAX_OPERATORS: usize = 2000;

/// What the parser and the checks may use; it is only reserved, not taken.
const COMPILE_STACK_BYTES: usize = 64 << 20;

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    source: String,
    expression: IdedExpr,
    /// Values that the expression itself spells out, by the numbers of their nodes.
    constants: Vec<Option<Value>>,
    variables: Vec<(String, Kind)>,
    /// Names that the expression uses.
    mentioned: BTreeSet<String>,
    checked: Checked,
    result: Kind,
}

/// Why an expression has no value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EvaluateError {
    /// It takes more steps than one evaluation may.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
    /// It takes more steps than are left for it and all that comes after it.
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    Budget,
    /// It failed, in cel-go's words where they are known.
    #[error("{0}")]
    Failed(String),
}

/// Compiles an expression over these variables.
///
/// # Errors
/// Syntax errors, names that are not declared, fields that a declared kind does not have, and
/// expressions over [`MAX_EXPRESSION_BYTES`].
pub fn compile(source: &str, variables: &[(&str, Kind)]) -> Result<Program, CompileError> {
    compile_as(source, variables, Language::default())
}

/// The same, with what the place of the expression knows beside the language.
///
/// # Errors
/// Those of [`compile`].
pub fn compile_as(
    source: &str,
    variables: &[(&str, Kind)],
    language: Language,
) -> Result<Program, CompileError> {
    if source.len() > MAX_EXPRESSION_BYTES {
        return Err(CompileError::new(format!(
            "ERROR: <input>:-1:0: expression code point size exceeds limit: size: {}, limit {MAX_EXPRESSION_BYTES}",
            source.len()
        )));
    }
    if !is_shallow(source) {
        return Err(CompileError::new("ERROR: <input>:-1:0: expression recursion limit exceeded"));
    }
    // The parser recurses with the input, and so does whoever looks at what it made.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES);
        let compiled = thread.spawn_scoped(scope, || compile_here(source, variables, language));
        let compiled = compiled.map_err(|error| CompileError::new(error.to_string()))?;
        compiled.join().unwrap_or_else(|_| Err(CompileError::new("internal error")))
    })
}

/// Whether brackets and operators are few enough for the stack that compiling has.
fn is_shallow(source: &str) -> bool {
    let (mut depth, mut operators) = (0_usize, 0_usize);
    for character in source.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '!' | '-' | '+' | '*' | '/' | '%' | '?' | '&' | '|' | '<' | '>' | '=' | '.' => {
                operators += 1;
            }
            _ => {}
        }
        if depth > MAX_BRACKETS || operators > MAX_OPERATORS {
            return false;
        }
    }
    true
}

fn compile_here(
    source: &str,
    variables: &[(&str, Kind)],
    language: Language,
) -> Result<Program, CompileError> {
    // The parser is generated code that has met fewer inputs than this server will.
    let parsed = catch_unwind(|| Parser::new().enable_optional_syntax(true).parse(source))
        .map_err(|_| CompileError::new("ERROR: <input>:1:1: Syntax error: unreadable"))?;
    let mut expression = parsed.map_err(|errors| syntax(source, &errors))?;
    macros::expand(&mut expression)?;
    if language.has_bindings {
        rewrite::binds(&mut expression)?;
    }
    if language.has_objects {
        rewrite::objects(&mut expression);
    }
    rewrite::types(&mut expression);
    let optional = variables.iter().filter(|(_, kind)| matches!(kind, Kind::Optional(_)));
    let optional: Vec<&str> = optional.map(|(name, _)| *name).collect();
    rewrite::optionals(&mut expression, &optional);
    rewrite::number(&mut expression, &mut 0);
    let variables: Vec<(String, Kind)> =
        variables.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect();
    let checked = check(source, &expression, &variables, language)?;
    let result = checked.kind(&expression);
    let source = source.to_owned();
    let mut mentioned = BTreeSet::new();
    rewrite::names(&expression, &mut mentioned);
    let constants = Vec::new();
    let mut program =
        Program { source, expression, constants, variables, mentioned, checked, result };
    evaluate::prepare(&mut program);
    Ok(program)
}

/// Syntax errors as cel-go prints them.
fn syntax(source: &str, errors: &kube_cel::cel::ParseErrors) -> CompileError {
    let lines: Vec<String> = errors
        .errors
        .iter()
        .map(|error| {
            let (line, column) = (error.pos.0.max(1) as usize, error.pos.1.max(1) as usize);
            let shown = source.lines().nth(line - 1).unwrap_or_default();
            let what = error.msg.trim_start_matches("Syntax error: ");
            format!(
                "ERROR: <input>:{line}:{column}: Syntax error: {what}\n | {shown}\n | {}^",
                ".".repeat(column - 1)
            )
        })
        .collect();
    CompileError::new(lines.join("\n"))
}

impl Program {
    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn expression(&self) -> &IdedExpr {
        &self.expression
    }

    pub(crate) fn kind(&self, node: &IdedExpr) -> Kind {
        self.checked.kind(node)
    }

    /// Whether there is a variable of this name.
    pub(crate) fn has_variable(&self, name: &str) -> bool {
        self.variables.iter().any(|(known, _)| known == name)
    }

    /// The kind of its value, as far as it is known without one.
    pub fn result(&self) -> &Kind {
        &self.result
    }

    /// Whether the value can be of this kind.
    pub fn may_be(&self, kind: &Kind) -> bool {
        self.result == Kind::Any || self.result == *kind
    }

    /// Whether the expression uses the variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.mentioned.contains(variable)
    }

    /// The names that the expression selects of a variable, `variables.name`.
    pub fn selected(&self, variable: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        selections(&self.expression, variable, &mut found);
        found
    }

    /// A value that the expression itself spells out.
    pub(crate) fn constant(&self, node: &IdedExpr) -> Option<&Value> {
        self.constants.get(node.id as usize)?.as_ref()
    }

    pub(crate) fn know(&mut self, place: u64, value: Value) {
        let place = place as usize;
        if self.constants.len() <= place {
            self.constants.resize(place + 1, None);
        }
        self.constants[place] = Some(value);
    }

    /// The value for these bindings. Declared variables without one are not there: expressions
    /// that use them fail.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub fn evaluate(&self, bindings: &[(&str, &Json)]) -> Result<Json, EvaluateError> {
        self.evaluate_within(bindings, &mut Budget::new(u64::MAX))
    }

    /// The same, for one of several evaluations that share a budget.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub fn evaluate_within(
        &self,
        bindings: &[(&str, &Json)],
        budget: &mut Budget,
    ) -> Result<Json, EvaluateError> {
        self.run(bindings, budget, &library::shared())
    }

    /// The same, and the caller adds functions of its own to what the expression sees (an
    /// authorizer, say).
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub fn evaluate_with(
        &self,
        bindings: &[(&str, &Json)],
        budget: &mut Budget,
        extend: impl FnOnce(&mut Context<'_>),
    ) -> Result<Json, EvaluateError> {
        let mut context = library::context();
        extend(&mut context);
        self.run(bindings, budget, &context)
    }

    fn run(
        &self,
        bindings: &[(&str, &Json)],
        budget: &mut Budget,
        library: &Context<'_>,
    ) -> Result<Json, EvaluateError> {
        // The libraries have met fewer inputs than this server will.
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            let variables = self.bound(bindings);
            let mut evaluator = Evaluator::new(self, library, variables, CALL_LIMIT);
            let found = evaluator.value(&self.expression);
            (found.map(|found| value::to_json(&found)), evaluator.cost())
        }));
        let Ok((found, cost)) = evaluated else {
            return Err(EvaluateError::Failed("internal error".to_owned()));
        };
        budget.spend(cost)?;
        found.map_err(|failure| match failure {
            Failure::Cost => EvaluateError::Cost,
            Failure::Error(error) => EvaluateError::Failed(words(&error)),
        })
    }

    /// The variables that the expression speaks of and that have a value.
    fn bound(&self, bindings: &[(&str, &Json)]) -> Vec<(&str, Value)> {
        let mentioned = self.variables.iter().filter(|(name, _)| self.mentions(name));
        mentioned
            .filter_map(|(name, kind)| {
                let given = bindings.iter().find(|(binding, _)| binding == name);
                let json = match (given, kind) {
                    (Some((_, json)), _) => json,
                    (None, Kind::Optional(_)) => &Json::Null,
                    (None, _) => return None,
                };
                Some((name.as_str(), value::to_cel(json, kind)))
            })
            .collect()
    }

    /// Whether this is nothing but a literal.
    pub fn is_literal(&self) -> bool {
        matches!(self.expression.expr, Expr::Literal(_))
    }
}

fn selections<'e>(node: &'e IdedExpr, variable: &str, found: &mut BTreeSet<&'e str>) {
    if let Expr::Select(select) = &node.expr
        && matches!(&select.operand.expr, Expr::Ident(name) if name == variable)
    {
        found.insert(&select.field);
    }
    for child in rewrite::children(&node.expr) {
        selections(child, variable, found);
    }
}

/// An evaluator's error in cel-go's words.
fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedUnaryOperator(..)
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnexpectedType { .. } => "no such overload".to_owned(),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(value) => {
            format!("index out of bounds: {}", value::to_json(value))
        }
        ExecutionError::UndeclaredReference(name) => format!("no such attribute(s): {name}"),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
