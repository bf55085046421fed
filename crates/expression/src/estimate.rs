//! What an expression may cost at worst, before there is a value: the estimate by which rules of
//! definitions are let in or refused, so it has to come to upstream's numbers.
//! Sources: `checker/cost.go` of cel-go, `pkg/cel/library/cost.go` of k8s.io/apiserver.

use std::collections::HashMap;

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators,
};

use crate::Program;
use crate::check::NAMESPACES;
use crate::kind::Kind;
use crate::macros::ACCUMULATOR;

mod calls;
mod range;

use range::Range;

/// What making a list costs.
const LIST: u64 = 10;
/// What making a map costs.
const MAP: u64 = 30;

/// Sizes of values by where they stand: a variable's name, then names of fields, `@items` for
/// the items of a list, `@keys` and `@values` for those of a map.
pub trait Sizes {
    /// The most characters, items or members that there can be; `None` where nothing is known.
    fn most(&self, path: &[String]) -> Option<u64>;
}

/// The most that evaluating a program may cost, in upstream's unit.
pub fn estimate(program: &Program, sizes: &dyn Sizes) -> u64 {
    let mut estimator = Estimator {
        program,
        sizes,
        paths: HashMap::new(),
        computed: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(program.expression()).most
}

/// What is known of the entries of a list or of a map.
#[derive(Clone, Copy)]
struct Entry {
    is_list: bool,
    key: Range,
    value: Range,
}

impl Entry {
    fn union(self, other: Entry) -> Entry {
        let (key, value) = (self.key.union(other.key), self.value.union(other.value));
        Entry { is_list: self.is_list, key, value }
    }
}

/// A variable of a comprehension or of `cel.bind`.
struct Local {
    name: String,
    path: Vec<String>,
    size: Option<Range>,
    entry: Option<Entry>,
}

struct Estimator<'a> {
    program: &'a Program,
    sizes: &'a dyn Sizes,
    paths: HashMap<u64, Vec<String>>,
    computed: HashMap<u64, Range>,
    entries: HashMap<u64, Entry>,
    locals: Vec<Local>,
}

impl Estimator<'_> {
    fn cost(&mut self, node: &IdedExpr) -> Range {
        match &node.expr {
            Expr::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |l| l.path.clone());
                self.paths.insert(node.id, path);
                Range::exactly(1)
            }
            Expr::Select(select) => {
                let operand = self.cost(&select.operand);
                if select.test {
                    return operand;
                }
                let mut path = self.path(&select.operand);
                path.push(select.field.clone());
                self.paths.insert(node.id, path);
                let of = self.program.kind(&select.operand);
                let steps = matches!(of, Kind::Map(_) | Kind::Object(_));
                operand.add(Range::exactly(u64::from(steps)))
            }
            Expr::Call(call) => self.call(node, call),
            Expr::List(list) => {
                let mut sum = Range::exactly(LIST);
                let mut items = Range::default();
                for (index, element) in list.elements.iter().enumerate() {
                    sum = sum.add(self.cost(element));
                    let size = self.size_or_unknown(element);
                    items = if index == 0 { size } else { items.union(size) };
                }
                let entry = Entry { is_list: true, key: Range::exactly(1), value: items };
                self.entries.insert(node.id, entry);
                sum
            }
            Expr::Map(map) => {
                let mut sum = Range::exactly(MAP);
                let mut sizes: Option<(Range, Range)> = None;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    sum = sum.add(self.cost(&entry.key)).add(self.cost(&entry.value));
                    let (key, value) =
                        (self.size_or_unknown(&entry.key), self.size_or_unknown(&entry.value));
                    sizes =
                        Some(sizes.map_or((key, value), |(k, v)| (k.union(key), v.union(value))));
                }
                let (key, value) = sizes.unwrap_or_default();
                self.entries.insert(node.id, Entry { is_list: false, key, value });
                sum
            }
            Expr::Comprehension(inner) => match is_bind(inner) {
                true => self.bind(node, inner),
                false => self.comprehension(node, inner),
            },
            _ => Range::default(),
        }
    }

    fn bind(&mut self, node: &IdedExpr, inner: &ComprehensionExpr) -> Range {
        let sum = self.cost(&inner.iter_range).add(self.cost(&inner.accu_init));
        self.push_local(&inner.accu_var, &inner.accu_init);
        let sum = sum.add(self.cost(&inner.result));
        let (size, entry) = (self.size(&inner.result), self.entry(&inner.result));
        self.locals.pop();
        self.computed.extend(size.map(|size| (node.id, size)));
        self.entries.extend(entry.map(|entry| (node.id, entry)));
        sum
    }

    fn comprehension(&mut self, node: &IdedExpr, inner: &ComprehensionExpr) -> Range {
        let mut sum = self.cost(&inner.iter_range).add(self.cost(&inner.accu_init));
        let before = self.locals.len();
        self.push_local(&inner.accu_var, &inner.accu_init);
        match &inner.iter_var2 {
            Some(second) => {
                self.push_loop(&inner.iter_var, &inner.iter_range, true);
                self.push_loop(second, &inner.iter_range, false);
            }
            None => {
                let by_key = !self.is_list(&inner.iter_range);
                self.push_loop(&inner.iter_var, &inner.iter_range, by_key);
            }
        }
        let once = self.cost(&inner.loop_cond).add(self.cost(&inner.loop_step));
        let step = self.entry(&inner.loop_step);
        self.locals.truncate(before + 1);
        sum = sum.add(self.cost(&inner.result));
        self.locals.truncate(before);
        let times = self.size_or_unknown(&inner.iter_range);
        match &inner.accu_init.expr {
            Expr::Literal(_) => {
                let size = self.size(&inner.accu_init);
                self.computed.extend(size.map(|size| (node.id, size)));
            }
            Expr::List(_) | Expr::Map(_) => {
                self.computed.insert(node.id, times);
                self.entries.extend(step.map(|entry| (node.id, entry)));
            }
            _ => {}
        }
        sum.add(times.multiply(once))
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn push_local(&mut self, name: &str, value: &IdedExpr) {
        let (path, size, entry) = (self.path(value), self.size(value), self.entry(value));
        self.locals.push(Local { name: name.to_owned(), path, size, entry });
    }

    fn is_list(&self, range: &IdedExpr) -> bool {
        let known = self.entry(range).map(|entry| entry.is_list);
        known.unwrap_or_else(|| matches!(self.program.kind(range), Kind::List(..)))
    }

    fn push_loop(&mut self, name: &str, range: &IdedExpr, key: bool) {
        let step = match (self.is_list(range), key) {
            (true, true) => "@indices",
            (true, false) => "@items",
            (false, true) => "@keys",
            (false, false) => "@values",
        };
        let size = self.entry(range).map(|entry| if key { entry.key } else { entry.value });
        let mut path = self.path(range);
        path.push(step.to_owned());
        self.locals.push(Local { name: name.to_owned(), path, size, entry: None });
    }

    /// Where a value stands; empty where it is made by the expression.
    fn path(&self, node: &IdedExpr) -> Vec<String> {
        if let Expr::Ident(name) = &node.expr
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&node.id).cloned().unwrap_or_default()
    }

    fn known_size(&self, path: &[String]) -> Option<Range> {
        let first = path.first()?;
        (first != ACCUMULATOR).then(|| self.sizes.most(path)).flatten().map(Range::up_to)
    }

    fn size(&self, node: &IdedExpr) -> Option<Range> {
        if let Some(size) = self.computed.get(&node.id) {
            return Some(*size);
        }
        if let Some(size) = written_size(node) {
            return Some(Range::exactly(size));
        }
        if let Some(size) = self.known_size(&self.path(node)) {
            return Some(size);
        }
        if self.program.kind(node).is_scalar() {
            return Some(Range::exactly(1));
        }
        match &node.expr {
            Expr::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn size_or_unknown(&self, node: &IdedExpr) -> Range {
        self.size(node).unwrap_or(Range::UNKNOWN)
    }

    fn entry(&self, node: &IdedExpr) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&node.id) {
            return Some(*entry);
        }
        match &node.expr {
            Expr::Ident(name) => self.local(name)?.entry,
            _ => None,
        }
    }

    /// The sizes of a list's items, and whether they are texts; upstream takes what may be anything
    /// for a text.
    fn items(&self, list: &IdedExpr) -> Option<(Range, bool)> {
        let kind = self.program.kind(list);
        let Kind::List(element, _) = &kind else { return None };
        let mut path = self.path(list);
        if !path.is_empty() {
            path.push("@items".to_owned());
        }
        let size = self.known_size(&path).unwrap_or(Range::UNKNOWN);
        Some((size, matches!(**element, Kind::Text | Kind::Bytes)))
    }

    /// Whether this is the first part of a function's name and no value.
    fn is_namespace(&self, target: &IdedExpr) -> bool {
        let Expr::Ident(name) = &target.expr else { return false };
        let is_variable = self.local(name).is_some() || self.program.has_variable(name);
        NAMESPACES.contains(&name.as_str()) && !is_variable
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Range {
        let costs: Vec<Range> = call.args.iter().map(|argument| self.cost(argument)).collect();
        let name = call.func_name.as_str();
        if name == "dyn"
            && let [argument] = &call.args[..]
        {
            let (size, entry) = (self.size(argument), self.entry(argument));
            self.computed.extend(size.map(|size| (node.id, size)));
            self.entries.extend(entry.map(|entry| (node.id, entry)));
            return costs[0].add(Range::exactly(1));
        }
        let target = match call.target.as_deref() {
            Some(target) if !self.is_namespace(target) => self.cost(target),
            _ => Range::default(),
        };
        let estimate = self.function(node, call, &costs);
        if name == operators::INDEX
            && let Some(container) = call.args.first()
        {
            let step = if self.is_list(container) { "@items" } else { "@values" };
            let mut path = self.path(container);
            path.push(step.to_owned());
            self.paths.insert(node.id, path);
            let size = self.entry(container).map(|entry| entry.value);
            self.computed.extend(size.map(|size| (node.id, size)));
        }
        let both = match (name, &call.args[..]) {
            (operators::ADD, [a, b]) | (operators::CONDITIONAL, [_, a, b]) => {
                self.entry(a).zip(self.entry(b))
            }
            _ => None,
        };
        self.entries.extend(both.map(|(a, b)| (node.id, a.union(b))));
        self.computed.extend(estimate.size.map(|size| (node.id, size)));
        target.add(estimate.cost)
    }
}

fn is_bind(inner: &ComprehensionExpr) -> bool {
    let empty = matches!(&inner.iter_range.expr, Expr::List(list) if list.elements.is_empty());
    let never = matches!(&inner.loop_cond.expr, Expr::Literal(LiteralValue::Boolean(value)) if !*value.inner());
    empty && never && inner.accu_var != ACCUMULATOR
}

/// The size of what the expression itself says.
fn written_size(node: &IdedExpr) -> Option<u64> {
    Some(match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => text.inner().chars().count() as u64,
        Expr::Literal(LiteralValue::Bytes(bytes)) => bytes.inner().len() as u64,
        Expr::Literal(_) => 1,
        Expr::List(list) => list.elements.len() as u64,
        Expr::Map(map) => map.entries.len() as u64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
