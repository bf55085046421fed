//! `cel.bind(name, value, expression)`, which the parser does not know: made a comprehension
//! over nothing whose accumulator is the name, as cel-go does.

use kube_cel::cel::common::ast::{
    ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapEntryExpr, MapExpr,
};

use crate::check::CompileError;

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

fn bound(name: String, value: IdedExpr, body: IdedExpr) -> Expr {
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
