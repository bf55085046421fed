//! What an evaluation may come to, asked before it is done: the evaluator counts nothing
//! itself. Nodes of the expression, times the sizes of what each comprehension around them runs
//! over. Where a range is a plain path into the bindings its size is known; otherwise it is
//! taken as the largest list or map there is.

use std::collections::HashMap;

use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use serde_json::Value;

use crate::kind::escape;

/// The most that evaluating `expression` with these bindings may cost, in steps.
pub(crate) fn bound(expression: &IdedExpr, bindings: &[(&str, &Value)]) -> u64 {
    let mut largest = None;
    let mut sizes = Sizes { bindings, largest: &mut largest, locals: HashMap::new() };
    walk(expression, &mut sizes)
}

struct Sizes<'a> {
    bindings: &'a [(&'a str, &'a Value)],
    largest: &'a mut Option<u64>,
    locals: HashMap<String, ()>,
}

impl Sizes<'_> {
    fn elements(&mut self, range: &IdedExpr) -> u64 {
        if let Expr::List(list) = &range.expr {
            return list.elements.len() as u64;
        }
        if let Some(value) = self.path(range) {
            return size(value);
        }
        let bindings = self.bindings;
        *self.largest.get_or_insert_with(|| {
            bindings.iter().map(|(_, value)| largest(value)).max().unwrap_or_default()
        })
    }
}

impl Sizes<'_> {
    /// The value that a chain of selections names.
    fn path(&self, node: &IdedExpr) -> Option<&Value> {
        match &node.expr {
            Expr::Ident(name) if !self.locals.contains_key(name) => {
                self.bindings.iter().find(|(binding, _)| binding == name).map(|(_, value)| *value)
            }
            Expr::Select(select) if !select.test => {
                let members = self.path(&select.operand)?.as_object()?;
                members
                    .iter()
                    .find(|(name, _)| **name == select.field || escape(name) == select.field)
                    .map(|(_, value)| value)
            }
            _ => None,
        }
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
            let once =
                walk(&inner.loop_cond, source).saturating_add(walk(&inner.loop_step, source));
            walk(&inner.iter_range, source)
                .saturating_add(walk(&inner.accu_init, source))
                .saturating_add(walk(&inner.result, source))
                .saturating_add(once.saturating_mul(times))
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
