//! What can be said of an expression before it meets a value: undeclared names, fields that a
//! declared kind does not have, calls that no library has, and the kind of the result as far as
//! it is plain. The words are cel-go's.

use std::fmt;

use kube_cel::cel::common::ast::operators;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue,
};

use crate::evaluate::SORT_BY_KEYS;
use crate::functions::{self, Refusal};
use crate::kind::{Kind, ListType};
use crate::language::Language;
use crate::library::{OPTIONAL_HAS, OPTIONAL_INDEX, OPTIONAL_SELECT};
use crate::rewrite::OF_OBJECT;

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

/// What is known of an expression and its parts.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// By the numbers of its nodes.
    kinds: Vec<Kind>,
}

impl Checked {
    /// The kind of a node.
    pub(crate) fn kind(&self, node: &IdedExpr) -> Kind {
        self.kinds.get(node.id as usize).cloned().unwrap_or_default()
    }
}

/// Checks an expression, whose nodes are numbered, against its variables.
pub(crate) fn check(
    source: &str,
    root: &IdedExpr,
    variables: &[(String, Kind)],
    language: Language,
) -> Result<Checked, CompileError> {
    let checked = Checked::default();
    let scope = variables.to_vec();
    let errors = Vec::new();
    let mut checker = Checker { source, scope, language, depth: 0, formats: 0, checked, errors };
    checker.visit(root)?;
    if checker.errors.is_empty() {
        return Ok(checker.checked);
    }
    checker.errors.sort_by_key(|(at, _)| *at);
    checker.errors.dedup();
    let words: Vec<String> = checker.errors.into_iter().map(|(_, words)| words).collect();
    Err(CompileError::new(words.join("\n")))
}

struct Checker<'a> {
    source: &'a str,
    scope: Vec<(String, Kind)>,
    language: Language,
    depth: usize,
    /// Calls around that take lists of several types.
    formats: usize,
    checked: Checked,
    /// What is wrong, by where it stands; what it is about counts as anything from there on.
    errors: Vec<(usize, String)>,
}

impl Checker<'_> {
    fn visit(&mut self, node: &IdedExpr) -> Result<Kind, CompileError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CompileError::new(format!(
                "ERROR: <input>:-1:0: expression recursion limit exceeded: {MAX_DEPTH}"
            )));
        }
        let kind = self.kind(node)?;
        self.depth -= 1;
        let kinds = &mut self.checked.kinds;
        let place = node.id as usize;
        if kinds.len() <= place {
            kinds.resize(place + 1, Kind::Any);
        }
        kinds[place] = kind.clone();
        Ok(kind)
    }

    fn kind(&mut self, node: &IdedExpr) -> Result<Kind, CompileError> {
        match &node.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => Ok(self.identifier(name)),
            Expr::Select(select) => {
                let operand = self.visit(&select.operand)?;
                let kind = self.field(&operand, &select.field);
                Ok(if select.test { Kind::Bool } else { kind })
            }
            Expr::List(list) => {
                let mut kinds = Vec::new();
                for element in &list.elements {
                    kinds.push(self.visit(element)?);
                }
                self.homogeneous(&kinds, list.elements.iter());
                Ok(Kind::list(common(&kinds)))
            }
            Expr::Map(map) => {
                let (mut kinds, mut values) = (Vec::new(), Vec::new());
                let is_object = map.entries.iter().any(|entry| entry.id == OF_OBJECT);
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key)?;
                        kinds.push(self.visit(&entry.value)?);
                        values.push(&entry.value);
                    }
                }
                if !is_object {
                    self.homogeneous(&kinds, values.into_iter());
                }
                Ok(Kind::map(common(&kinds)))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(inner) => self.comprehension(inner),
            // Those of mutating policies have been made maps; the evaluator has no types.
            Expr::Struct(inner) => {
                let name = &inner.type_name;
                self.error(name, &format!("undeclared reference to '{name}' (in container '')"));
                Ok(Kind::Any)
            }
            Expr::Unspecified => Err(CompileError::new("ERROR: <input>:1:1: Syntax error: empty")),
        }
    }

    fn field(&mut self, operand: &Kind, field: &str) -> Kind {
        if let Some(kind) = operand.field(field) {
            return kind;
        }
        let why = match operand {
            Kind::Object(_) => format!("undefined field '{field}'"),
            other => format!("type '{}' does not support field selection", other.name()),
        };
        let plain = format!(".{field}");
        let optional = format!(".?{field}");
        let written = if find_word(self.source, &plain).is_some() { plain } else { optional };
        self.error(&written, &why);
        Kind::Any
    }

    fn identifier(&mut self, name: &str) -> Kind {
        if let Some((_, kind)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return kind.clone();
        }
        if !TYPES.contains(&name) {
            self.error(name, &format!("undeclared reference to '{name}' (in container '')"));
        }
        Kind::Any
    }

    /// Parts of one literal are of one type.
    fn homogeneous<'n>(&mut self, kinds: &[Kind], nodes: impl Iterator<Item = &'n IdedExpr>) {
        let Some(first) = kinds.iter().find(|kind| **kind != Kind::Any) else { return };
        if self.formats > 0 {
            return;
        }
        for (kind, node) in kinds.iter().zip(nodes) {
            if clash(first, kind) {
                let why = format!("expected type '{}' but found '{}'", first.name(), kind.name());
                let written = written(node);
                self.error(&written, &why);
                return;
            }
        }
    }

    /// The part of a function's name before the dot, where the target is no value.
    fn namespace<'e>(&self, call: &'e CallExpr) -> Option<&'e str> {
        match &call.target.as_ref()?.expr {
            Expr::Ident(name) if NAMESPACES.contains(&name.as_str()) => {
                let hidden = self.scope.iter().any(|(known, _)| known == name);
                (!hidden).then_some(name.as_str())
            }
            _ => None,
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Kind, CompileError> {
        let mut name = call.func_name.clone();
        let mut kinds = Vec::new();
        let mut member = false;
        if let Some(namespace) = self.namespace(call) {
            name = format!("{namespace}.{name}");
        } else if let Some(target) = &call.target {
            kinds.push(self.visit(target)?);
            member = true;
        }
        let is_format = usize::from(member && name == "format");
        self.formats += is_format;
        for argument in &call.args {
            kinds.push(self.visit(argument)?);
        }
        self.formats -= is_format;
        if let (OPTIONAL_SELECT | OPTIONAL_HAS, [container, _], Some(field)) =
            (name.as_str(), &kinds[..], call.args.get(1).and_then(text))
        {
            let container = match container {
                Kind::Optional(inner) => inner.as_ref(),
                other => other,
            };
            let found = self.field(container, field);
            let test = name == OPTIONAL_HAS;
            return Ok(if test { Kind::Bool } else { Kind::Optional(found.into()) });
        }
        if !self.language.has_objects && name.starts_with("jsonpatch.") {
            self.undeclared(&call.func_name, &name);
            return Ok(Kind::Any);
        }
        self.literal_argument(call, &name);
        let found = of_shape(&name, &kinds);
        let found = found.unwrap_or_else(|| functions::result(&name, member, &kinds));
        Ok(found.unwrap_or_else(|refusal| {
            // Operators are pointed at themselves, functions at what opens their arguments.
            let opening = format!("{}(", call.func_name);
            let is_name = call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
            let word = if is_name { opening.as_str() } else { symbol(&call.func_name) };
            match refusal {
                Refusal::Undeclared => self.undeclared(&call.func_name, &name),
                Refusal::NoOverload => self.error(word, &no_overload(&name, member, &kinds)),
            }
            Kind::Any
        }))
    }

    /// Texts that a call can be seen to have no use for.
    fn literal_argument(&mut self, call: &CallExpr, name: &str) {
        let argument = match (name, call.target.is_some(), &call.args[..]) {
            ("duration" | "timestamp", false, [one]) => one,
            ("matches", true, [pattern]) | ("matches", false, [_, pattern]) => pattern,
            _ => return,
        };
        if text(argument).is_some_and(|text| !crate::conversions::is_valid(name, text)) {
            self.error(&written(argument), &format!("invalid {name} argument"));
        }
    }

    /// That there is no function of this name.
    fn undeclared(&mut self, short: &str, name: &str) {
        let why = format!("undeclared reference to '{name}' (in container '')");
        self.error(&format!("{short}("), &why);
    }

    fn comprehension(&mut self, inner: &ComprehensionExpr) -> Result<Kind, CompileError> {
        let range = self.visit(&inner.iter_range)?;
        if range.is_scalar() || matches!(range, Kind::Text | Kind::Bytes | Kind::Opaque(_)) {
            let why = format!(
                "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                range.name()
            );
            self.error("", &why);
        }
        let accumulated = self.visit(&inner.accu_init)?;
        let known = self.scope.len();
        let pairs = inner.iter_var2.is_some();
        self.scope.push((inner.iter_var.clone(), range.key(pairs)));
        self.scope.extend(inner.iter_var2.clone().map(|name| (name, range.value())));
        self.scope.push((inner.accu_var.clone(), accumulated));
        self.visit(&inner.loop_cond)?;
        self.visit(&inner.loop_step)?;
        let mut result = self.visit(&inner.result)?;
        self.scope.truncate(known);
        if let (Expr::Ident(name), Some(added)) = (&inner.result.expr, added(&inner.loop_step))
            && *name == inner.accu_var
        {
            result = self.checked.kind(added);
        }
        Ok(result)
    }

    /// Notes an error that points at the first place where `text` stands.
    fn error(&mut self, text: &str, why: &str) {
        let at = if text.is_empty() { None } else { find_word(self.source, text) };
        let within = if text.ends_with('(') { text.len() - 1 } else { 0 };
        let at = at.map_or(0, |at| at + within);
        let before = &self.source[..at];
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count());
        let shown = self.source.lines().nth(line).unwrap_or_default();
        let words = format!(
            "ERROR: <input>:{}:{}: {why}\n | {shown}\n | {}^",
            line + 1,
            column + 1,
            ".".repeat(column)
        );
        self.errors.push((at, words));
    }
}

/// A part of an expression as it may stand in the source: texts with their quotes.
fn written(node: &IdedExpr) -> String {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => format!("'{}'", text.inner()),
        Expr::Literal(LiteralValue::Int(value)) => value.inner().to_string(),
        Expr::Literal(LiteralValue::Boolean(value)) => value.inner().to_string(),
        Expr::Ident(name) => name.clone(),
        _ => String::new(),
    }
}

/// Where `text` stands as a word of its own.
fn find_word(source: &str, text: &str) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |at: &usize| {
        let before = source[..*at].chars().next_back();
        let after = source[*at + text.len()..].chars().next();
        let member = |c| c == '.' && !text.ends_with('(');
        let starts = text.starts_with(is_word) && before.is_some_and(|c| is_word(c) || member(c));
        let ends = text.ends_with(is_word) && after.is_some_and(is_word);
        !starts && !ends
    };
    source.match_indices(text).map(|(at, _)| at).find(whole)
}

/// Names that are types or library constants.
const TYPES: [&str; 15] = [
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
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
];

/// Names before a dot that belong to a function's name.
pub(crate) const NAMESPACES: [&str; 8] =
    ["sets", "lists", "optional", "jsonpatch", "format", "ip", "cidr", "strings"];

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

/// What all of these are.
fn common(kinds: &[Kind]) -> Kind {
    match kinds.split_first() {
        Some((first, others)) if others.iter().all(|kind| kind == first) => first.clone(),
        _ => Kind::Any,
    }
}

/// The list that each step of a comprehension adds to what it collects.
fn added(step: &IdedExpr) -> Option<&IdedExpr> {
    let Expr::Call(call) = &step.expr else { return None };
    match (call.func_name.as_str(), &call.args[..]) {
        (operators::CONDITIONAL, [_, then, _]) => added(then),
        (operators::ADD, [_, one]) => matches!(one.expr, Expr::List(_)).then_some(one),
        _ => None,
    }
}

fn text(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Whether no value is of both kinds.
fn clash(a: &Kind, b: &Kind) -> bool {
    *a != Kind::Any && *b != Kind::Any && a.head() != b.head()
}

fn no_overload(name: &str, member: bool, kinds: &[Kind]) -> String {
    let names: Vec<String> = kinds.iter().map(Kind::name).collect();
    let applied = match (member, names.split_first()) {
        (true, Some((target, others))) => format!("{target}.({})", others.join(", ")),
        _ => format!("({})", names.join(", ")),
    };
    format!("found no matching overload for '{name}' applied to '{applied}'")
}

/// The kind that a call gives whose result has the shape of what it takes; `None` for others.
fn of_shape(name: &str, kinds: &[Kind]) -> Option<Result<Kind, Refusal>> {
    let either = |a: &Kind, b: &Kind| if a == b { a.clone() } else { Kind::Any };
    Some(match (name, kinds) {
        (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => match clash(a, b) {
            true => Err(Refusal::NoOverload),
            false => Ok(Kind::Bool),
        },
        // What is added takes after what it is added to.
        (operators::ADD, [Kind::List(a, of), Kind::List(b, _)]) => {
            Ok(Kind::List(either(a, b).into(), of.clone()))
        }
        (operators::INDEX, [of, key]) => index(of, key),
        (OPTIONAL_INDEX, [of, key]) => {
            let of = match of {
                Kind::Optional(inner) => inner.as_ref(),
                other => other,
            };
            index(of, key).map(|kind| Kind::Optional(kind.into()))
        }
        (operators::CONDITIONAL, [condition, yes, no]) => {
            if clash(condition, &Kind::Bool) || clash(yes, no) {
                Err(Refusal::NoOverload)
            } else {
                Ok(either(yes, no))
            }
        }
        ("dyn", [_]) => Ok(Kind::Any),
        ("optional.of" | "optional.ofNonZeroValue", [value]) => {
            Ok(Kind::Optional(value.clone().into()))
        }
        ("value", [Kind::Optional(value)]) | ("orValue", [Kind::Optional(value), _]) => {
            Ok(value.as_ref().clone())
        }
        ("min" | "max", [Kind::List(element, _)]) => Ok(element.as_ref().clone()),
        ("sort", [Kind::List(key, _)]) | (SORT_BY_KEYS, [_, Kind::List(key, _)])
            if !is_comparable(key) =>
        {
            Err(Refusal::NoOverload)
        }
        ("sort" | "reverse" | "distinct", [Kind::List(element, _)])
        | ("slice", [Kind::List(element, _), _, _])
        | (SORT_BY_KEYS, [Kind::List(element, _), _]) => {
            Ok(Kind::List(element.clone(), ListType::Atomic))
        }
        ("optional.unwrap" | "unwrapOpt", [Kind::List(element, _)]) => match element.as_ref() {
            Kind::Optional(value) => Ok(Kind::List(value.clone(), ListType::Atomic)),
            Kind::Any => Ok(Kind::list(Kind::Any)),
            _ => Err(Refusal::NoOverload),
        },
        _ => return None,
    })
}

/// Whether values of this kind have an order.
fn is_comparable(kind: &Kind) -> bool {
    match kind {
        Kind::List(..) | Kind::Map(_) | Kind::Object(_) | Kind::Optional(_) | Kind::Opaque(_) => {
            false
        }
        Kind::Any
        | Kind::Bool
        | Kind::Int
        | Kind::Double
        | Kind::Text
        | Kind::Bytes
        | Kind::Timestamp
        | Kind::Duration => true,
    }
}

fn index(of: &Kind, key: &Kind) -> Result<Kind, Refusal> {
    match of {
        Kind::List(element, _) if !clash(key, &Kind::Int) => Ok(element.as_ref().clone()),
        Kind::Map(value) => Ok(value.as_ref().clone()),
        Kind::Any | Kind::Object(_) | Kind::Optional(_) => Ok(Kind::Any),
        _ => Err(Refusal::NoOverload),
    }
}

/// An operator as it is written.
fn symbol(name: &str) -> &str {
    name.trim_matches('_').trim_start_matches('@')
}
