//! What an expression spells out is made once: literals, lists and maps of them, and conversions of
//! one literal. Upstream does the same, and using such a value costs nothing there.

use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::Evaluator;
use crate::library;
use crate::program::Program;
use crate::rewrite::{self, children};

/// Conversions that are done ahead.
const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

/// A literal's value.
pub(crate) fn literal(literal: &LiteralValue) -> Value {
    match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Bytes(bytes) => Value::Bytes(Arc::new(bytes.inner().to_vec())),
        LiteralValue::Double(value) => Value::Float(*value.inner()),
        LiteralValue::Int(value) => Value::Int(*value.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(text) => Value::String(Arc::new(text.inner().to_owned())),
        LiteralValue::UInt(value) => Value::UInt(*value.inner()),
    }
}

/// Makes the values that a program knows without being asked.
pub(crate) fn prepare(program: &mut Program) {
    let mut found = Vec::new();
    collect(program, program.expression(), &mut found);
    for (place, value) in found {
        program.know(place, value);
    }
}

fn collect(program: &Program, node: &IdedExpr, found: &mut Vec<(u64, Value)>) {
    if is_constant(node) {
        let library = library::shared();
        let made = Evaluator::new(program, &library, Vec::new(), u64::MAX).value(node);
        // What has no value says so when it is asked for it.
        if let Ok(value) = made {
            found.push((node.id, value));
            return;
        }
    }
    for child in children(&node.expr) {
        collect(program, child, found);
    }
}

fn is_constant(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Literal(_) => true,
        Expr::List(list) => {
            list.optional_indices.is_empty() && list.elements.iter().all(is_constant)
        }
        Expr::Map(map) => {
            let of_object = map.entries.iter().any(|entry| entry.id == rewrite::OF_OBJECT);
            !of_object && children(&node.expr).into_iter().all(is_constant)
        }
        Expr::Call(call) => {
            let converts = CONVERSIONS.contains(&call.func_name.as_str()) && call.target.is_none();
            converts && matches!(&call.args[..], [one] if is_constant(one))
        }
        _ => false,
    }
}
