//! What an evaluation may come to, asked before it is done: the evaluator counts nothing
//! itself. Nodes of the expression, times the sizes of what each comprehension around them runs
//! over. A range that leads into the bindings, through variables of other comprehensions too, has
//! the size of the largest value that it can be; otherwise it is taken as the largest list or map
//! there is.

use std::collections::HashMap;

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators,
};
use serde_json::Value;

use crate::kind::escape;
use crate::library::{OPTIONAL_INDEX, OPTIONAL_SELECT};

/// Values that a part of an expression can be are followed up to this many.
const FOLLOWED_MAX: usize = 4096;

/// The most that evaluating `expression` with these bindings may cost, in steps.
pub(crate) fn bound(expression: &IdedExpr, bindings: &[(&str, &Value)]) -> u64 {
    let mut sizes = Sizes { bindings, largest: None, locals: HashMap::new() };
    walk(expression, &mut sizes)
}

/// The values that a part of an expression can be; `None` where nobody knows.
type Candidates<'a> = Option<Vec<&'a Value>>;

struct Sizes<'a> {
    bindings: &'a [(&'a str, &'a Value)],
    largest: Option<u64>,
    locals: HashMap<String, Candidates<'a>>,
}

impl<'a> Sizes<'a> {
    /// How many elements a comprehension over this may see.
    fn elements(&mut self, range: &IdedExpr) -> u64 {
        if let Some(values) = self.values(range) {
            return values.into_iter().map(size).max().unwrap_or_default();
        }
        match &range.expr {
            Expr::List(list) => list.elements.len() as u64,
            Expr::Map(map) => map.entries.len() as u64,
            // What is collected is at most one element a turn.
            Expr::Comprehension(inner)
                if matches!(inner.accu_init.expr, Expr::List(_) | Expr::Map(_)) =>
            {
                self.elements(&inner.iter_range)
            }
            Expr::Call(call) => self.made(call),
            _ => self.largest(),
        }
    }

    /// How many elements a call's result may have.
    fn made(&mut self, call: &CallExpr) -> u64 {
        match (call.func_name.as_str(), call.target.as_deref(), &call.args[..]) {
            (operators::ADD, None, [a, b]) => self.elements(a).saturating_add(self.elements(b)),
            (operators::CONDITIONAL, None, [_, a, b]) => self.elements(a).max(self.elements(b)),
            ("orValue" | "or", Some(a), [b]) => self.elements(a).max(self.elements(b)),
            ("split" | "findAll", Some(text), _) => match self.values(text) {
                Some(values) => {
                    let texts = values.iter().filter_map(|value| value.as_str());
                    texts.map(|text| text.len() as u64 + 1).max().unwrap_or(1)
                }
                None => self.largest(),
            },
            _ => self.largest(),
        }
    }

    fn largest(&mut self) -> u64 {
        let bindings = self.bindings;
        *self.largest.get_or_insert_with(|| {
            bindings.iter().map(|(_, value)| largest(value)).max().unwrap_or_default()
        })
    }

    fn values(&self, node: &IdedExpr) -> Candidates<'a> {
        let found = match &node.expr {
            Expr::Ident(name) => match self.locals.get(name) {
                Some(known) => known.clone()?,
                None => {
                    let bound = self.bindings.iter().find(|(binding, _)| binding == name);
                    vec![bound?.1]
                }
            },
            Expr::Select(select) if !select.test => {
                members(&self.values(&select.operand)?, &select.field)
            }
            // Of what is filtered no more than there is.
            Expr::Comprehension(inner) if is_filter(inner) => self.values(&inner.iter_range)?,
            Expr::Call(call) => self.called(call)?,
            _ => return None,
        };
        (found.len() <= FOLLOWED_MAX).then_some(found)
    }

    fn called(&self, call: &CallExpr) -> Candidates<'a> {
        let text = |node: &IdedExpr| match &node.expr {
            Expr::Literal(kube_cel::cel::common::ast::LiteralValue::String(text)) => {
                Some(text.inner().to_owned())
            }
            _ => None,
        };
        match (call.func_name.as_str(), call.target.as_deref(), &call.args[..]) {
            (operators::INDEX | OPTIONAL_INDEX | OPTIONAL_SELECT, None, [of, key]) => {
                let of = self.values(of)?;
                match text(key) {
                    Some(name) => Some(members(&of, &name)),
                    None => Some(of.into_iter().flat_map(children).collect()),
                }
            }
            ("value", Some(of), []) => self.values(of),
            ("dyn", None, [of]) => self.values(of),
            _ => None,
        }
    }

    /// What the variables of a comprehension can be, put in the place of others of their names.
    fn enter(&mut self, inner: &ComprehensionExpr) -> Vec<(String, Option<Candidates<'a>>)> {
        let of = self.values(&inner.iter_range);
        let one =
            of.filter(|of| of.iter().all(|value| !value.is_object() || inner.iter_var2.is_some()));
        let each = one.map(|of| of.into_iter().flat_map(children).collect::<Vec<_>>());
        let each = each.filter(|each| each.len() <= FOLLOWED_MAX);
        let (first, second) = match &inner.iter_var2 {
            Some(second) => ((inner.iter_var.clone(), None), Some((second.clone(), each))),
            None => ((inner.iter_var.clone(), each), None),
        };
        let made = (inner.accu_var.clone(), self.values(&inner.accu_init));
        let all = [Some(first), second, Some(made)].into_iter().flatten();
        all.map(|(name, values)| (name.clone(), self.locals.insert(name, values))).collect()
    }

    fn leave(&mut self, before: Vec<(String, Option<Candidates<'a>>)>) {
        for (name, value) in before.into_iter().rev() {
            match value {
                Some(value) => drop(self.locals.insert(name, value)),
                None => drop(self.locals.remove(&name)),
            }
        }
    }
}

/// The members of this name that there are.
fn members<'v>(of: &[&'v Value], name: &str) -> Vec<&'v Value> {
    let found = of.iter().filter_map(|value| value.as_object()).flat_map(|members| {
        members.iter().find(|(known, _)| *known == name || escape(known) == name)
    });
    found.map(|(_, value)| value).collect()
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

/// Whether each step keeps its element or does not.
fn is_filter(inner: &ComprehensionExpr) -> bool {
    let Expr::Call(step) = &inner.loop_step.expr else { return false };
    let (operators::CONDITIONAL, [_, kept, _]) = (step.func_name.as_str(), &step.args[..]) else {
        return false;
    };
    let Expr::Call(add) = &kept.expr else { return false };
    match (add.func_name.as_str(), add.args.last().map(|last| &last.expr)) {
        (operators::ADD, Some(Expr::List(list))) => {
            matches!(&list.elements[..], [IdedExpr { expr: Expr::Ident(name), .. }] if *name == inner.iter_var)
        }
        _ => false,
    }
}

fn size(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.len() as u64,
        Value::Object(members) => members.len() as u64,
        _ => 1,
    }
}

/// The size of the largest list, map or text in a value.
fn largest(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(largest).max().unwrap_or_default().max(size(value)),
        Value::Object(members) => {
            members.values().map(largest).max().unwrap_or_default().max(size(value))
        }
        // A text can be split.
        Value::String(text) => text.len() as u64,
        _ => 1,
    }
}

fn walk(node: &IdedExpr, source: &mut Sizes<'_>) -> u64 {
    let below = |nodes: &mut dyn Iterator<Item = &IdedExpr>, source: &mut Sizes<'_>| {
        nodes.map(|node| walk(node, source)).fold(1u64, u64::saturating_add)
    };
    match &node.expr {
        Expr::Call(call) => {
            below(&mut call.target.as_deref().into_iter().chain(&call.args), source)
        }
        Expr::Comprehension(inner) => {
            let times = source.elements(&inner.iter_range);
            let before =
                walk(&inner.iter_range, source).saturating_add(walk(&inner.accu_init, source));
            let outer = source.enter(inner);
            let once =
                walk(&inner.loop_cond, source).saturating_add(walk(&inner.loop_step, source));
            let after = walk(&inner.result, source);
            source.leave(outer);
            before.saturating_add(after).saturating_add(once.saturating_mul(times))
        }
        Expr::List(list) => below(&mut list.elements.iter(), source),
        Expr::Map(map) => {
            let mut parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            });
            below(&mut parts, source)
        }
        Expr::Select(select) => walk(&select.operand, source).saturating_add(1),
        _ => 1,
    }
}
