//! Evaluates expressions and counts what it costs as cel-go does (`interpreter/runtimecost.go`,
//! with the optimisations that Kubernetes turns on), so that what upstream lets run runs here, and
//! what it stops is stopped. The evaluator of `cel` counts nothing and knows neither comprehensions
//! over two variables nor optional values in all places; its values and functions are used.

mod calls;
mod constants;
mod cost;
mod lists;
mod operators;
mod sequences;

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, MapExpr, SelectExpr,
    operators as names,
};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, Value};

use crate::library::{
    self, MAP_INSERT, OPTIONAL_HAS, OPTIONAL_INDEX, OPTIONAL_SELECT, of_key, optional_of, to_key,
};
use crate::macros::ACCUMULATOR;
use crate::program::Program;

pub(crate) use constants::{literal, prepare};
pub(crate) use sequences::SORT_BY_KEYS;

/// What a name, a selection and an index cost.
const STEP: u64 = 1;
/// What making a list costs.
const LIST: u64 = 10;
/// What making a map costs.
const MAP: u64 = 30;
/// What making an object of a mutating policy costs.
const OBJECT: u64 = 40;

/// Why there is no value.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The evaluation came to more than its limit: nothing goes on.
    Cost,
    /// A part of the expression has no value; others may make up for it.
    Error(ExecutionError),
}

impl From<ExecutionError> for Failure {
    fn from(error: ExecutionError) -> Self {
        Failure::Error(error)
    }
}

/// What a part of an expression comes to.
pub(crate) type Answer = Result<Value, Failure>;

/// One evaluation.
pub(crate) struct Evaluator<'e> {
    program: &'e Program,
    library: &'e Context<'e>,
    /// Variables, the innermost last. An accumulator can be an error.
    scope: Vec<(&'e str, Answer)>,
    limit: u64,
    cost: u64,
}

/// Passes on what stops the evaluation as a whole; other errors are values.
fn alive(answer: Answer) -> Result<Answer, Failure> {
    match answer {
        Err(Failure::Cost) => Err(Failure::Cost),
        other => Ok(other),
    }
}

fn no_overload<T>() -> Result<T, Failure> {
    Err(Failure::Error(ExecutionError::NoSuchOverload))
}

/// Whether upstream plans this as one attribute: a variable with what is selected of it.
fn is_attribute(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Ident(_) | Expr::Select(_) => true,
        Expr::Call(call) => matches!(
            call.func_name.as_str(),
            names::INDEX | names::CONDITIONAL | OPTIONAL_SELECT | OPTIONAL_INDEX | OPTIONAL_HAS
        ),
        _ => false,
    }
}

/// Whether an attribute begins with a condition, or only tests: neither costs anything itself.
fn is_free(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Select(select) => select.test || is_conditional_root(node),
        Expr::Call(call) => call.func_name == OPTIONAL_HAS || is_conditional_root(node),
        _ => false,
    }
}

fn is_conditional_root(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Select(select) => is_conditional_root(&select.operand),
        Expr::Call(call) => match call.func_name.as_str() {
            names::CONDITIONAL => true,
            names::INDEX | OPTIONAL_SELECT | OPTIONAL_INDEX | OPTIONAL_HAS => {
                call.args.first().is_some_and(is_conditional_root)
            }
            _ => false,
        },
        _ => false,
    }
}

impl<'e> Evaluator<'e> {
    pub fn new(
        program: &'e Program,
        library: &'e Context<'e>,
        variables: Vec<(&'e str, Value)>,
        limit: u64,
    ) -> Self {
        let scope = variables.into_iter().map(|(name, value)| (name, Ok(value))).collect();
        Evaluator { program, library, scope, limit, cost: 0 }
    }

    /// What was counted so far.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    fn charge(&mut self, cost: u64) -> Result<(), Failure> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Failure::Cost) } else { Ok(()) }
    }

    pub fn value(&mut self, node: &'e IdedExpr) -> Answer {
        if let Some(known) = self.program.constant(node) {
            return Ok(known.clone());
        }
        match &node.expr {
            Expr::Literal(value) => Ok(literal(value)),
            Expr::Ident(name) => self.named(name),
            Expr::Call(call) if call.func_name == names::CONDITIONAL => self.conditional(call),
            _ if is_attribute(node) => self.attribute(node),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map),
            Expr::Comprehension(inner) => self.comprehension(inner),
            _ => no_overload(),
        }
    }

    fn named(&mut self, name: &str) -> Answer {
        match self.variable(name) {
            Some(known) => {
                let known = known.clone();
                self.charge(STEP)?;
                known
            }
            None => self.type_named(name),
        }
    }

    fn variable(&self, name: &str) -> Option<&Answer> {
        self.scope.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn type_named(&self, name: &str) -> Answer {
        let found = library::type_named(name);
        found.ok_or_else(|| ExecutionError::UndeclaredReference(Arc::new(name.to_owned())).into())
    }

    fn attribute(&mut self, node: &'e IdedExpr) -> Answer {
        let found = alive(self.chain(node))?;
        if !is_free(node) {
            self.charge(STEP)?;
        }
        found
    }

    /// An attribute without what it costs as a whole: what is selected of it counts.
    fn chain(&mut self, node: &'e IdedExpr) -> Answer {
        match &node.expr {
            Expr::Ident(name) => match self.variable(name) {
                Some(known) => known.clone(),
                None => self.type_named(name),
            },
            Expr::Select(select) => self.select(select),
            Expr::Call(call) if call.func_name == names::CONDITIONAL => self.conditional(call),
            Expr::Call(call) => match &call.args[..] {
                [of, key] if is_attribute(node) => self.indexed(&call.func_name, of, key),
                _ => self.value(node),
            },
            _ => self.value(node),
        }
    }

    fn select(&mut self, select: &'e SelectExpr) -> Answer {
        let of = self.chain(&select.operand)?;
        self.charge(STEP)?;
        match select.test {
            true => library::has(&of, &select.field).map(Value::Bool).map_err(Failure::Error),
            false => operators::field(&of, &select.field).map_err(Failure::Error),
        }
    }

    fn indexed(&mut self, name: &str, of: &'e IdedExpr, key: &'e IdedExpr) -> Answer {
        let of = self.chain(of)?;
        let key = alive(self.branch(key))?;
        self.charge(STEP)?;
        let key = key?;
        match name {
            OPTIONAL_HAS => Ok(Value::Bool(library::found(&of, &key)?.is_some())),
            names::INDEX => operators::index(&of, &key).map_err(Failure::Error),
            _ => Ok(optional_of(library::found(&of, &key)?)),
        }
    }

    /// A branch of a condition, or a key: attributes do not cost anything as a whole there.
    fn branch(&mut self, node: &'e IdedExpr) -> Answer {
        match self.program.constant(node).is_none() && is_attribute(node) {
            true => self.chain(node),
            false => self.value(node),
        }
    }

    fn conditional(&mut self, call: &'e CallExpr) -> Answer {
        let [condition, yes, no] = &call.args[..] else { return no_overload() };
        match self.value(condition)? {
            Value::Bool(true) => self.branch(yes),
            Value::Bool(false) => self.branch(no),
            _ => no_overload(),
        }
    }

    fn list(&mut self, list: &'e ListExpr) -> Answer {
        let mut items = Vec::with_capacity(list.elements.len());
        for (index, element) in list.elements.iter().enumerate() {
            let value = self.value(element)?;
            match list.optional_indices.contains(&index) {
                true => items.extend(library::inside(value)?),
                false => items.push(value),
            }
        }
        self.charge(LIST)?;
        Ok(Value::List(Arc::new(items)))
    }

    fn map(&mut self, map: &'e MapExpr) -> Answer {
        let mut members = HashMap::with_capacity(map.entries.len());
        let mut is_object = false;
        for entry in &map.entries {
            is_object |= entry.id == crate::rewrite::OF_OBJECT;
            let EntryExpr::MapEntry(entry) = &entry.expr else { return no_overload() };
            let key = to_key(&self.value(&entry.key)?)?;
            let value = self.value(&entry.value)?;
            let value = if entry.optional { library::inside(value)? } else { Some(value) };
            members.extend(value.map(|value| (key, value)));
        }
        self.charge(if is_object { OBJECT } else { MAP })?;
        Ok(Value::Map(Map { map: Arc::new(members) }))
    }

    fn comprehension(&mut self, inner: &'e ComprehensionExpr) -> Answer {
        let range = self.value(&inner.iter_range)?;
        let initial = alive(self.value(&inner.accu_init))?;
        let outside = self.scope.len();
        self.scope.push((&inner.accu_var, initial));
        for (first, second) in turns(&range, inner.iter_var2.is_some())? {
            self.scope.push((&inner.iter_var, Ok(first)));
            let second = inner.iter_var2.as_deref().zip(second);
            self.scope.extend(second.map(|(name, value)| (name, Ok(value))));
            let goes_on = alive(self.value(&inner.loop_cond))?;
            if matches!(goes_on, Ok(Value::Bool(false))) {
                break;
            }
            let made = alive(self.value(&inner.loop_step))?;
            self.scope.truncate(outside + 1);
            self.scope[outside].1 = made;
        }
        self.scope.truncate(outside + 1);
        let result = self.value(&inner.result);
        self.scope.truncate(outside);
        result
    }

    /// The accumulator, which the step that asks for it replaces: it is taken, so that lists grow
    /// where they are.
    fn accumulated(&mut self) -> Answer {
        self.charge(STEP)?;
        let place = self.scope.iter_mut().rev().find(|(name, _)| *name == ACCUMULATOR);
        place.map_or_else(no_overload, |(_, value)| std::mem::replace(value, Ok(Value::Null)))
    }

    /// A value that a call takes first.
    fn first(&mut self, name: &str, node: &'e IdedExpr) -> Answer {
        let grows = matches!(name, names::ADD | MAP_INSERT);
        match &node.expr {
            Expr::Ident(of) if grows && of == ACCUMULATOR => self.accumulated(),
            _ => self.value(node),
        }
    }
}

/// What the variables of a comprehension are, turn by turn; maps in the order of their keys, so
/// that no two runs differ.
fn turns(range: &Value, pairs: bool) -> Result<Vec<(Value, Option<Value>)>, Failure> {
    Ok(match range {
        Value::List(items) if pairs => items
            .iter()
            .enumerate()
            .map(|(index, item)| (Value::Int(index as i64), Some(item.clone())))
            .collect(),
        Value::List(items) => items.iter().map(|item| (item.clone(), None)).collect(),
        Value::Map(map) => {
            let mut entries: Vec<(&Key, &Value)> = map.map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            let pair = |(key, value): (&Key, &Value)| (of_key(key), pairs.then(|| value.clone()));
            entries.into_iter().map(pair).collect()
        }
        _ => return no_overload(),
    })
}

#[cfg(test)]
mod tests;
