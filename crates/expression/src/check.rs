//! What can be said of an expression before it meets a value: undeclared names, fields that a
//! declared kind does not have, calls that no library has, and the kind of the result as far as
//! it is plain. The words are cel-go's.

use std::fmt;

use kube_cel::cel::common::ast::operators;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue,
};

use crate::kind::Kind;

/// The deepest expression that is evaluated: evaluation recurses, on a small stack.
const MAX_DEPTH: usize = 120;

/// Why an expression was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    message: String,
}

impl CompileError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CompileError {}

/// Checks an expression against its variables and gives the kind of its result.
pub(crate) fn check(
    source: &str,
    root: &IdedExpr,
    variables: &[(String, Kind)],
) -> Result<Kind, CompileError> {
    let mut checker = Checker { source, scope: variables.to_vec(), depth: 0 };
    checker.visit(root)
}

struct Checker<'a> {
    source: &'a str,
    scope: Vec<(String, Kind)>,
    depth: usize,
}

impl Checker<'_> {
    fn visit(&mut self, node: &IdedExpr) -> Result<Kind, CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CompileError::new(format!(
                "ERROR: <input>:-1:0: expression recursion limit exceeded: {MAX_DEPTH}"
            )));
        }
        let kind = self.kind(node);
        self.depth -= 1;
        kind
    }

    fn kind(&mut self, node: &IdedExpr) -> Result<Kind, CompileError> {
        match &node.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.identifier(name),
            Expr::Select(select) => {
                let operand = self.visit(&select.operand)?;
                let Some(kind) = operand.field(&select.field) else {
                    let why = match operand {
                        Kind::Object(_) => format!("undefined field '{}'", select.field),
                        other => {
                            format!("type '{}' does not support field selection", other.name())
                        }
                    };
                    return Err(self.error(&format!(".{}", select.field), &why));
                };
                Ok(if select.test { Kind::Bool } else { kind })
            }
            Expr::List(list) => {
                let mut kinds = Vec::new();
                for element in &list.elements {
                    kinds.push(self.visit(element)?);
                }
                let first = kinds.first().cloned().unwrap_or_default();
                let alike = kinds.iter().all(|kind| *kind == first);
                Ok(Kind::list(if alike { first } else { Kind::Any }))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key)?;
                        self.visit(&entry.value)?;
                    }
                }
                Ok(Kind::map(Kind::Any))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(inner) => self.comprehension(inner),
            // Those of mutating policies have been made maps; the evaluator has no types.
            Expr::Struct(inner) => Err(self.error(
                &inner.type_name,
                &format!("undeclared reference to '{}' (in container '')", inner.type_name),
            )),
            Expr::Unspecified => Err(CompileError::new("ERROR: <input>:1:1: Syntax error: empty")),
        }
    }

    fn identifier(&self, name: &str) -> Result<Kind, CompileError> {
        if let Some((_, kind)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return Ok(kind.clone());
        }
        if TYPES.contains(&name) {
            return Ok(Kind::Any);
        }
        Err(self.error(name, &format!("undeclared reference to '{name}' (in container '')")))
    }

    fn call(&mut self, call: &CallExpr) -> Result<Kind, CompileError> {
        let namespace = call.target.as_ref().and_then(|target| match &target.expr {
            Expr::Ident(name) if NAMESPACES.contains(&name.as_str()) => Some(name.as_str()),
            _ => None,
        });
        let mut kinds = Vec::new();
        if let (Some(target), None) = (&call.target, namespace) {
            kinds.push(self.visit(target)?);
        }
        for argument in &call.args {
            kinds.push(self.visit(argument)?);
        }
        let name = call.func_name.as_str();
        if let Some(kind) = of_operator(name, &kinds) {
            return match kind {
                Ok(kind) => Ok(kind),
                Err(why) => Err(self.error(symbol(name), &why)),
            };
        }
        Ok(match name {
            "matches" | "startsWith" | "endsWith" | "contains" | "isSorted" | "isURL" | "isIP"
            | "isCIDR" | "isQuantity" | "isSemver" | "containsIP" | "containsCIDR"
            | "intersects" | "equivalent" | "hasValue" | "allowed" | "bool" => Kind::Bool,
            "size" | "int" | "indexOf" | "lastIndexOf" => Kind::Int,
            "string" | "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring" | "join"
            | "charAt" | "format" => Kind::Text,
            "double" => Kind::Double,
            "duration" => Kind::Duration,
            "timestamp" => Kind::Timestamp,
            "split" | "findAll" => Kind::list(Kind::Text),
            _ => Kind::Any,
        })
    }

    fn comprehension(&mut self, inner: &ComprehensionExpr) -> Result<Kind, CompileError> {
        let range = self.visit(&inner.iter_range)?;
        if matches!(range, Kind::Bool | Kind::Int | Kind::Double | Kind::Text | Kind::Bytes) {
            let why = format!(
                "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                range.name()
            );
            return Err(self.error("", &why));
        }
        let accumulated = self.visit(&inner.accu_init)?;
        let known = self.scope.len();
        self.scope.push((inner.iter_var.clone(), range.element()));
        self.scope.extend(inner.iter_var2.clone().map(|name| (name, Kind::Any)));
        // What is collected in the steps is not followed through them.
        let collected = match accumulated {
            Kind::List(_) => Kind::list(Kind::Any),
            other => other,
        };
        self.scope.push((inner.accu_var.clone(), collected));
        self.visit(&inner.loop_cond)?;
        self.visit(&inner.loop_step)?;
        let result = self.visit(&inner.result)?;
        self.scope.truncate(known);
        Ok(result)
    }

    /// An error that points at the first place where `text` stands.
    fn error(&self, text: &str, why: &str) -> CompileError {
        let at = if text.is_empty() { 0 } else { find_word(self.source, text).unwrap_or(0) };
        let before = &self.source[..at];
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count());
        let shown = self.source.lines().nth(line).unwrap_or_default();
        CompileError::new(format!(
            "ERROR: <input>:{}:{}: {why}\n | {shown}\n | {}^",
            line + 1,
            column + 1,
            ".".repeat(column)
        ))
    }
}

/// Where `text` stands as a word of its own.
fn find_word(source: &str, text: &str) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |at: &usize| {
        let before = source[..*at].chars().next_back();
        let after = source[*at + text.len()..].chars().next();
        let starts = text.starts_with(is_word) && before.is_some_and(|c| is_word(c) || c == '.');
        let ends = text.ends_with(is_word) && after.is_some_and(is_word);
        !starts && !ends
    };
    source.match_indices(text).map(|(at, _)| at).find(whole)
}

/// Names that are types or library constants.
const TYPES: [&str; 13] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "type",
    "null_type",
    "timestamp",
    "duration",
    "optional",
];

/// Names before a dot that belong to a function's name.
const NAMESPACES: [&str; 9] =
    ["math", "sets", "base64", "optional", "jsonpatch", "format", "ip", "cidr", "strings"];

fn of_literal(literal: &LiteralValue) -> Kind {
    match literal {
        LiteralValue::Boolean(_) => Kind::Bool,
        LiteralValue::Bytes(_) => Kind::Bytes,
        LiteralValue::Double(_) => Kind::Double,
        LiteralValue::Int(_) => Kind::Int,
        LiteralValue::String(_) => Kind::Text,
        LiteralValue::Null | LiteralValue::UInt(_) => Kind::Any,
    }
}

/// The kind that an operator gives, or that no overload takes these operands; `None` for what is
/// no operator.
fn of_operator(name: &str, kinds: &[Kind]) -> Option<Result<Kind, String>> {
    let refuse = || {
        let given: Vec<&str> = kinds.iter().map(Kind::name).collect();
        Err(format!("found no matching overload for '{name}' applied to '({})'", given.join(", ")))
    };
    let is = |kind: &Kind, wanted: &Kind| kind == wanted || *kind == Kind::Any;
    let scalar = |kind: &Kind| {
        matches!(kind, Kind::Bool | Kind::Int | Kind::Double | Kind::Text | Kind::Bytes)
    };
    let clash = |a: &Kind, b: &Kind| scalar(a) && scalar(b) && a != b;
    Some(match (name, kinds) {
        (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, kinds) => {
            if kinds.iter().all(|kind| is(kind, &Kind::Bool)) { Ok(Kind::Bool) } else { refuse() }
        }
        (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => {
            if clash(a, b) {
                refuse()
            } else {
                Ok(Kind::Bool)
            }
        }
        (
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS,
            [a, b],
        ) => {
            // Numbers of different kinds compare.
            let numbers = [a, b].iter().all(|kind| matches!(kind, Kind::Int | Kind::Double));
            if clash(a, b) && !numbers { refuse() } else { Ok(Kind::Bool) }
        }
        (
            operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE,
            [a, b],
        ) => {
            if clash(a, b) {
                refuse()
            } else if a == b && scalar(a) {
                Ok(a.clone())
            } else {
                Ok(Kind::Any)
            }
        }
        (operators::IN | "in", _) | (operators::NOT_STRICTLY_FALSE, _) => Ok(Kind::Bool),
        (operators::INDEX, [of, _]) => Ok(match of {
            Kind::Map(value) => value.as_ref().clone(),
            other => other.element(),
        }),
        (operators::CONDITIONAL, [condition, yes, no]) => {
            if !is(condition, &Kind::Bool) || clash(yes, no) {
                refuse()
            } else if yes == no {
                Ok(yes.clone())
            } else {
                Ok(Kind::Any)
            }
        }
        _ => return None,
    })
}

/// An operator as it is written.
fn symbol(name: &str) -> &str {
    name.trim_matches('_').trim_start_matches('@')
}
