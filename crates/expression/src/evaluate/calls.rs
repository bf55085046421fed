//! Calls: operators and the functions that are asked most often are answered here, all others by
//! the libraries, which want an expression whose arguments are variables.

use std::sync::Arc;

use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr, operators as names};
use kube_cel::cel::objects::{Map, OptionalValue};
use kube_cel::cel::{ExecutionError, Value};

use super::cost::{self, Called};
use super::sequences::SORT_BY_KEYS;
use super::{Answer, Evaluator, Failure, alive, lists, no_overload, operators, sequences};
use crate::check::NAMESPACES;
use crate::conversions;
use crate::kind::{Kind, ListType};
use crate::library::{self, MAP_INSERT, optional_of, to_key};

/// Upstream gives up at the first argument without a value where there are more than this.
const EAGER_ARGUMENTS_MAX: usize = 2;

impl<'e> Evaluator<'e> {
    pub(super) fn call(&mut self, call: &'e CallExpr) -> Answer {
        match (call.func_name.as_str(), call.target.as_deref(), &call.args[..]) {
            (names::LOGICAL_AND, None, [a, b]) => self.logical(a, b, false),
            (names::LOGICAL_OR, None, [a, b]) => self.logical(a, b, true),
            (names::NOT_STRICTLY_FALSE, None, [of]) => {
                let of = alive(self.value(of))?;
                self.charge(1)?;
                Ok(Value::Bool(!matches!(of, Ok(Value::Bool(false)))))
            }
            (names::IN, None, [one, all]) if self.is_known_set(all) => {
                let one = self.value(one)?;
                let all = self.value(all)?;
                operators::binary(names::IN, one, all).map_or_else(no_overload, answered)
            }
            // Nothing is asked for what stands in for a value that is there.
            ("or" | "orValue", Some(of), [other]) => {
                let of = self.value(of)?;
                match library::inside(of.clone())? {
                    Some(value) if call.func_name == "orValue" => Ok(value),
                    Some(_) => Ok(of),
                    None => self.value(other),
                }
            }
            _ => self.function(call),
        }
    }

    /// Whether this is a list of one plain type that the expression spells out: upstream makes a
    /// set of it once, and looking into that is free.
    fn is_known_set(&self, node: &IdedExpr) -> bool {
        let Some(Value::List(items)) = self.program.constant(node) else { return false };
        let kind = |value: &Value| std::mem::discriminant(value);
        let plain = |value: &Value| {
            matches!(
                value,
                Value::Bool(_)
                    | Value::Int(_)
                    | Value::UInt(_)
                    | Value::Float(_)
                    | Value::String(_)
            )
        };
        items.iter().all(|item| plain(item) && kind(item) == kind(&items[0]))
    }

    fn logical(&mut self, a: &'e IdedExpr, b: &'e IdedExpr, decides: bool) -> Answer {
        let first = alive(self.value(a))?;
        if matches!(first, Ok(Value::Bool(value)) if value == decides) {
            return first;
        }
        let second = alive(self.value(b))?;
        match (first, second) {
            (_, Ok(Value::Bool(value))) if value == decides => Ok(Value::Bool(decides)),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decides)),
            (Err(error), _) | (Ok(Value::Bool(_)), Err(error)) => Err(error),
            _ => no_overload(),
        }
    }

    /// What stands before a function's dot where that is no value.
    fn namespace(&self, call: &'e CallExpr) -> Option<&'e str> {
        match &call.target.as_ref()?.expr {
            Expr::Ident(name) if NAMESPACES.contains(&name.as_str()) => {
                self.variable(name).is_none().then_some(name.as_str())
            }
            _ => None,
        }
    }

    fn function(&mut self, call: &'e CallExpr) -> Answer {
        let namespace = self.namespace(call);
        let target = call.target.as_deref().filter(|_| namespace.is_none());
        let nodes: Vec<&IdedExpr> = target.into_iter().chain(&call.args).collect();
        let mut arguments: Vec<Answer> = Vec::with_capacity(nodes.len());
        for (index, argument) in nodes.iter().enumerate() {
            let value = match index {
                0 => self.first(&call.func_name, argument),
                _ => self.value(argument),
            };
            let value = alive(value)?;
            if value.is_err() && nodes.len() > EAGER_ARGUMENTS_MAX {
                return value;
            }
            arguments.push(value);
        }
        let kinds = nodes.iter().map(|argument| self.program.kind(argument)).collect();
        let name = match namespace {
            Some(namespace) => format!("{namespace}.{}", call.func_name),
            None => call.func_name.clone(),
        };
        let called = Called { name: &name, is_member: target.is_some(), kinds };
        // What the cost is counted by is looked at before the call takes the arguments.
        let before = cost::of(&called, &arguments);
        let values: Result<Vec<Value>, Failure> = arguments.into_iter().collect();
        let result = match values {
            Ok(values) => self.answer(&called, namespace, call, values),
            Err(error) => Err(error),
        };
        self.charge(cost::with_result(&called, before, &result))?;
        result
    }

    fn answer(
        &self,
        called: &Called<'_>,
        namespace: Option<&str>,
        call: &CallExpr,
        mut values: Vec<Value>,
    ) -> Answer {
        if namespace.is_none() && target_less(called, &values) {
            let second = (values.len() == 2).then(|| values.pop()).flatten();
            let first = values.pop().unwrap_or(Value::Null);
            let found = match second {
                Some(second) => by_kind(called, first, second),
                None => operators::unary(called.name, &first),
            };
            return found.map_or_else(no_overload, answered);
        }
        match own(called.name, &mut values) {
            Some(answer) => answered(answer),
            None => self.ask_library(namespace, called.is_member, call, values),
        }
    }

    fn ask_library(
        &self,
        namespace: Option<&str>,
        is_member: bool,
        call: &CallExpr,
        values: Vec<Value>,
    ) -> Answer {
        let named = |name: String| IdedExpr { id: 0, expr: Expr::Ident(name) };
        let mut context = self.library.new_inner_scope();
        let mut arguments = Vec::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            let name = format!("@{index}");
            context.add_variable_from_value(name.as_str(), value);
            arguments.push(named(name));
        }
        let target = match namespace {
            Some(namespace) => Some(named(namespace.to_owned())),
            None if is_member && !arguments.is_empty() => Some(arguments.remove(0)),
            None => None,
        };
        let func_name = call.func_name.clone();
        let asked = CallExpr { func_name, target: target.map(Box::new), args: arguments };
        let asked = IdedExpr { id: 0, expr: Expr::Call(asked) };
        answered(Value::resolve(&asked, &context))
    }
}

fn answered(answer: Result<Value, ExecutionError>) -> Answer {
    answer.map_err(Failure::Error)
}

/// An operator of two values, of which the first says what tells the items of lists apart.
fn by_kind(called: &Called<'_>, a: Value, b: Value) -> Option<Result<Value, ExecutionError>> {
    match (called.name, called.kinds.first()) {
        (names::EQUALS, Some(kind)) => Some(Ok(Value::Bool(lists::equal(&a, &b, kind)))),
        (names::NOT_EQUALS, Some(kind)) => Some(Ok(Value::Bool(!lists::equal(&a, &b, kind)))),
        (names::ADD, Some(Kind::List(_, of))) if *of != ListType::Atomic => {
            let (Value::List(a), Value::List(b)) = (a, b) else {
                return Some(Err(ExecutionError::NoSuchOverload));
            };
            Some(Ok(lists::joined(a, &b, of)))
        }
        _ => operators::binary(called.name, a, b),
    }
}

/// Whether a call is an operator's.
fn target_less(called: &Called<'_>, values: &[Value]) -> bool {
    let is_name = called.name.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_made = [MAP_INSERT, SORT_BY_KEYS].contains(&called.name);
    !is_name && !is_made && matches!(values.len(), 1 | 2)
}

/// Functions that are answered here.
fn own(name: &str, values: &mut Vec<Value>) -> Option<Result<Value, ExecutionError>> {
    if name == MAP_INSERT {
        return Some(insert(values));
    }
    Some(match (name, &values[..]) {
        ("size", [of]) => conversions::size(of),
        ("dyn", [of]) => Ok(of.clone()),
        ("type", [of]) => Ok(library::type_of(of)),
        ("startsWith", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.starts_with(part.as_str())))
        }
        ("endsWith", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.ends_with(part.as_str())))
        }
        ("contains", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.contains(part.as_str())))
        }
        ("hasValue", [of]) => library::inside(of.clone()).map(|found| Value::Bool(found.is_some())),
        ("value", [of]) => library::inside(of.clone()).and_then(|found| {
            found.ok_or_else(|| {
                ExecutionError::function_error("value", "optional.none() dereference")
            })
        }),
        ("optional.of", [of]) => Ok(optional_of(Some(of.clone()))),
        ("optional.none", []) => Ok(Value::Opaque(Arc::new(OptionalValue::none()))),
        (name, values) => return sequences::call(name, values),
    })
}

/// A map with one entry more, or with those of another.
fn insert(values: &mut Vec<Value>) -> Result<Value, ExecutionError> {
    let mut rest = values.drain(..);
    let (Some(Value::Map(mut base)), Some(more), last) = (rest.next(), rest.next(), rest.next())
    else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let members = Arc::make_mut(&mut base.map);
    let mut add = |key, value| match members.contains_key(&key) {
        true => {
            let why = format!("insert failed: key {key} already exists");
            Err(ExecutionError::function_error("cel.@mapInsert", why))
        }
        false => {
            members.insert(key, value);
            Ok(())
        }
    };
    match (more, last) {
        (key, Some(value)) => add(to_key(&key)?, value)?,
        (Value::Map(added), None) => {
            let mut entries: Vec<_> = added.map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            entries.into_iter().try_for_each(|(key, value)| add(key.clone(), value.clone()))?;
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    }
    Ok(Value::Map(Map { map: base.map }))
}
