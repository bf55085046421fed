//! What is changed in an expression between parser and evaluator: `cel.bind`, which the parser
//! does not know (made a comprehension over nothing whose accumulator is the name, as cel-go
//! does), objects of mutating policies, and selections of optional values.

use std::collections::BTreeSet;

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapEntryExpr,
    MapExpr, operators,
};

use crate::check::CompileError;
use crate::library::{OPTIONAL_HAS, OPTIONAL_INDEX, OPTIONAL_SELECT, TYPES};

/// The number of entries that stand for fields of an object of a mutating policy.
pub(crate) const OF_OBJECT: u64 = u64::MAX;

/// Replaces every `cel.bind`, innermost last.
pub(crate) fn binds(node: &mut IdedExpr) -> Result<(), CompileError> {
    if let Expr::Call(call) = &mut node.expr {
        let on_cel = call
            .target
            .as_ref()
            .is_some_and(|target| matches!(&target.expr, Expr::Ident(name) if name == "cel"));
        if on_cel && call.func_name == "bind" {
            let Ok([name, value, body]) = <[IdedExpr; 3]>::try_from(std::mem::take(&mut call.args))
            else {
                return Err(CompileError::new("cel.bind() takes three arguments"));
            };
            let Expr::Ident(name) = name.expr else {
                return Err(CompileError::new(
                    "cel.bind() variable names must be simple identifiers",
                ));
            };
            node.expr = bound(name, value, body);
        }
    }
    for child in children_mut(&mut node.expr) {
        binds(child)?;
    }
    Ok(())
}

/// Makes maps of `Object{...}`, `Object.spec{...}` and `JSONPatch{...}`, the types that mutating
/// policies have: the evaluator has maps only.
pub(crate) fn objects(node: &mut IdedExpr) {
    let of_policy = |name: &str| {
        let name = name.trim_start_matches('.');
        name == "JSONPatch" || name == "Object" || name.starts_with("Object.")
    };
    if let Expr::Struct(made) = &mut node.expr
        && of_policy(&made.type_name)
    {
        let entries = std::mem::take(&mut made.entries).into_iter().map(|mut entry| {
            if let EntryExpr::StructField(field) = entry.expr {
                entry.id = OF_OBJECT;
                let key = LiteralValue::String(field.field.into());
                entry.expr = EntryExpr::MapEntry(MapEntryExpr {
                    key: IdedExpr { id: 0, expr: Expr::Literal(key) },
                    value: field.value,
                    optional: field.optional,
                });
            }
            entry
        });
        node.expr = Expr::Map(MapExpr { entries: entries.collect() });
    }
    for child in children_mut(&mut node.expr) {
        objects(child);
    }
}

/// Gives selections of optional values their meaning, `variables` being those of which it is
/// known: `a.?b`, `a[?b]`, and whatever is selected of such a value is an optional value again.
pub(crate) fn optionals(node: &mut IdedExpr, variables: &[&str]) {
    for child in children_mut(&mut node.expr) {
        optionals(child, variables);
    }
    let call =
        |name: &str, args| Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args });
    match &mut node.expr {
        Expr::Call(inner) if inner.args.len() == 2 => {
            let renamed = match inner.func_name.as_str() {
                operators::OPT_SELECT => OPTIONAL_SELECT,
                operators::OPT_INDEX => OPTIONAL_INDEX,
                operators::INDEX if is_optional(&inner.args[0], variables) => OPTIONAL_INDEX,
                _ => return,
            };
            renamed.clone_into(&mut inner.func_name);
        }
        Expr::Select(select) if is_optional(&select.operand, variables) => {
            let field = LiteralValue::String(std::mem::take(&mut select.field).into());
            let name = if select.test { OPTIONAL_HAS } else { OPTIONAL_SELECT };
            let field = IdedExpr { id: 0, expr: Expr::Literal(field) };
            node.expr = call(name, vec![std::mem::take(&mut *select.operand), field]);
        }
        _ => {}
    }
}

fn is_optional(node: &IdedExpr, variables: &[&str]) -> bool {
    match &node.expr {
        Expr::Ident(name) => variables.contains(&name.as_str()),
        Expr::Call(call) => [OPTIONAL_SELECT, OPTIONAL_INDEX].contains(&call.func_name.as_str()),
        _ => false,
    }
}

/// Makes names of the types that have dots in theirs.
pub(crate) fn types(node: &mut IdedExpr) {
    if let Expr::Select(select) = &node.expr
        && let Expr::Select(inner) = &select.operand.expr
        && matches!(&inner.operand.expr, Expr::Ident(name) if name == "google")
    {
        let name = format!("google.{}.{}", inner.field, select.field);
        if TYPES.contains(&name.as_str()) {
            node.expr = Expr::Ident(name);
        }
    }
    children_mut(&mut node.expr).into_iter().for_each(types);
}

/// Collects the names that stand alone, or before a dot, in an expression.
pub(crate) fn names(node: &IdedExpr, found: &mut BTreeSet<String>) {
    if let Expr::Ident(name) = &node.expr {
        found.insert(name.clone());
    }
    children(&node.expr).into_iter().for_each(|child| names(child, found));
}

/// Gives each node a number of its own, from 1.
pub(crate) fn number(node: &mut IdedExpr, last: &mut u64) {
    *last += 1;
    node.id = *last;
    for child in children_mut(&mut node.expr) {
        number(child, last);
    }
}

pub(crate) fn bound(name: String, value: IdedExpr, body: IdedExpr) -> Expr {
    let plain = |expr| IdedExpr { id: 0, expr };
    Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: plain(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_var: name.clone(),
        accu_init: value,
        loop_cond: plain(Expr::Literal(LiteralValue::Boolean(false.into()))),
        loop_step: plain(Expr::Ident(name)),
        result: body,
    }))
}

/// The expressions right below one.
pub(crate) fn children_mut(expr: &mut Expr) -> Vec<&mut IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::Comprehension(inner) => {
            let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } =
                inner.as_mut();
            vec![iter_range, accu_init, loop_cond, loop_step, result]
        }
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .flat_map(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
                EntryExpr::StructField(field) => vec![&mut field.value],
            })
            .collect(),
        Expr::Select(select) => vec![&mut select.operand],
        Expr::Struct(made) => made
            .entries
            .iter_mut()
            .filter_map(|entry| match &mut entry.expr {
                EntryExpr::StructField(field) => Some(&mut field.value),
                EntryExpr::MapEntry(_) => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The expressions right below one, to look at.
pub(crate) fn children(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(inner) => {
            let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } =
                inner.as_ref();
            vec![iter_range, accu_init, loop_cond, loop_step, result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })
            .collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(made) => made
            .entries
            .iter()
            .filter_map(|entry| match &entry.expr {
                EntryExpr::StructField(field) => Some(&field.value),
                EntryExpr::MapEntry(_) => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}
