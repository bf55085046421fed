//! Comprehensions over two variables (`list.all(index, value, ...)`, `map.transformMap(key, value,
//! ...)`), those of optional values, and `list.sortBy(item, key)`, which the parser leaves as calls:
//! made what cel-go makes of them.

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, operators,
};

use crate::check::CompileError;
use crate::evaluate::SORT_BY_KEYS;
use crate::library::MAP_INSERT;
use crate::rewrite::{bound, children_mut};

/// The accumulator's name, as the parser's own macros have it.
pub(crate) const ACCUMULATOR: &str = "@result";

/// The name under which `sortBy` has its list.
const SORTED: &str = "@__sortBy_input__";

fn plain(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn call(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    plain(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}

fn result() -> IdedExpr {
    plain(Expr::Ident(ACCUMULATOR.to_owned()))
}

fn bool(value: bool) -> IdedExpr {
    plain(Expr::Literal(LiteralValue::Boolean(value.into())))
}

fn int(value: i64) -> IdedExpr {
    plain(Expr::Literal(LiteralValue::Int(value.into())))
}

fn member(name: &str, target: IdedExpr, args: Vec<IdedExpr>) -> IdedExpr {
    let target = Some(Box::new(target));
    plain(Expr::Call(CallExpr { func_name: name.to_owned(), target, args }))
}

/// Expands every macro that the parser leaves.
pub(crate) fn expand(node: &mut IdedExpr) -> Result<(), CompileError> {
    if let Expr::Call(inner) = &mut node.expr
        && inner.target.is_some()
        && is_macro(&inner.func_name, inner.args.len())
    {
        let taken = std::mem::take(inner);
        node.expr = match taken.func_name.as_str() {
            "optMap" | "optFlatMap" => optional_map(taken)?,
            "sortBy" => sort_by(taken)?,
            _ => expanded(taken)?,
        };
    }
    children_mut(&mut node.expr).into_iter().try_for_each(expand)
}

fn is_macro(name: &str, arguments: usize) -> bool {
    match name {
        "all" | "exists" | "existsOne" | "exists_one" => arguments == 3,
        "optMap" | "optFlatMap" | "sortBy" => arguments == 2,
        "transformList" | "transformMap" | "transformMapEntry" => matches!(arguments, 3 | 4),
        _ => false,
    }
}

fn variable(argument: &IdedExpr) -> Result<String, CompileError> {
    match &argument.expr {
        Expr::Ident(name) => Ok(name.clone()),
        _ => Err(CompileError::new("argument must be a simple name")),
    }
}

fn expanded(macro_call: CallExpr) -> Result<Expr, CompileError> {
    let name = macro_call.func_name;
    let mut args = macro_call.args.into_iter();
    let mut next = || args.next().unwrap_or_default();
    let (first, second) = (variable(&next())?, variable(&next())?);
    let (body, last) = (next(), args.next());
    // Of three arguments the last is what is made, of four the third says for which.
    let (filter, body) = match last {
        Some(transform) => (Some(body), transform),
        None => (None, body),
    };
    let not_false = |value| call(operators::NOT_STRICTLY_FALSE, vec![value]);
    let (init, condition, step, value) = match name.as_str() {
        "all" => (
            bool(true),
            not_false(result()),
            call(operators::LOGICAL_AND, vec![result(), body]),
            result(),
        ),
        "exists" => (
            bool(false),
            not_false(call(operators::LOGICAL_NOT, vec![result()])),
            call(operators::LOGICAL_OR, vec![result(), body]),
            result(),
        ),
        "existsOne" | "exists_one" => {
            let more = call(operators::ADD, vec![result(), int(1)]);
            let step = call(operators::CONDITIONAL, vec![body, more, result()]);
            (int(0), bool(true), step, call(operators::EQUALS, vec![result(), int(1)]))
        }
        "transformList" => {
            let one = plain(Expr::List(ListExpr::new(vec![body])));
            let step = call(operators::ADD, vec![result(), one]);
            (plain(Expr::List(ListExpr::new(Vec::new()))), bool(true), step, result())
        }
        _ => {
            let mut inserted = vec![result()];
            if name == "transformMap" {
                inserted.push(plain(Expr::Ident(first.clone())));
            }
            inserted.push(body);
            let empty = plain(Expr::Map(MapExpr::default()));
            (empty, bool(true), call(MAP_INSERT, inserted), result())
        }
    };
    let step = match filter {
        Some(filter) => call(operators::CONDITIONAL, vec![filter, step, result()]),
        None => step,
    };
    Ok(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: *macro_call.target.unwrap_or_default(),
        iter_var: first,
        iter_var2: Some(second),
        accu_var: ACCUMULATOR.to_owned(),
        accu_init: init,
        loop_cond: condition,
        loop_step: step,
        result: value,
    })))
}

/// `optional.optMap(v, f)` and `optional.optFlatMap(v, f)`: nothing of nothing, else `f` of what
/// there is.
fn optional_map(macro_call: CallExpr) -> Result<Expr, CompileError> {
    let flat = macro_call.func_name == "optFlatMap";
    let target = *macro_call.target.unwrap_or_default();
    let mut args = macro_call.args.into_iter();
    let name = variable(&args.next().unwrap_or_default())?;
    let body = args.next().unwrap_or_default();
    let optional = || plain(Expr::Ident("optional".to_owned()));
    let made = plain(bound(name, member("value", target.clone(), Vec::new()), body));
    let made = if flat { made } else { member("of", optional(), vec![made]) };
    let there = member("hasValue", target, Vec::new());
    let nothing = member("none", optional(), Vec::new());
    Ok(call(operators::CONDITIONAL, vec![there, made, nothing]).expr)
}

/// `list.sortBy(item, key)`: the list in the order of what the key is of each item.
fn sort_by(macro_call: CallExpr) -> Result<Expr, CompileError> {
    let target = *macro_call.target.unwrap_or_default();
    if matches!(target.expr, Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_)) {
        return Err(CompileError::new(
            "sortBy can only be applied to a list, identifier, comprehension, call or select expression",
        ));
    }
    let mut args = macro_call.args.into_iter();
    let item = variable(&args.next().unwrap_or_default())?;
    let key = args.next().unwrap_or_default();
    let input = || plain(Expr::Ident(SORTED.to_owned()));
    let one = plain(Expr::List(ListExpr::new(vec![key])));
    let keys = plain(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: input(),
        iter_var: item,
        iter_var2: None,
        accu_var: ACCUMULATOR.to_owned(),
        accu_init: plain(Expr::List(ListExpr::new(Vec::new()))),
        loop_cond: bool(true),
        loop_step: call(operators::ADD, vec![result(), one]),
        result: result(),
    })));
    Ok(bound(SORTED.to_owned(), target, member(SORT_BY_KEYS, input(), vec![keys])))
}
