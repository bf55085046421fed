//! What calls cost beside their arguments, and how large their results are.

use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::Estimator;
use super::range::Range;
use crate::evaluate::SORT_BY_KEYS;
use crate::kind::Kind;

/// What walking along a text costs for each of its characters.
const TEXT: f64 = 0.1;
/// What matching a regular expression costs for each of its characters.
const PATTERN: f64 = 0.25;
/// What the longest expression of a format costs for each character of a text.
const FORMAT: f64 = 128.0 * PATTERN;
/// The longest format.
const FORMAT_MAX: u64 = 64;
/// What a list costs that holds the requirements of a selector.
const SELECTOR: u64 = 10;
/// What a requirement costs, and how many there can be for each character.
const REQUIREMENT: f64 = 50.0;
const REQUIREMENT_SHARE: f64 = 0.5;
/// What asking for a permission costs: an expression can do so twice.
const CHECK: u64 = 350_000;
/// The sizes that an address can have.
const ADDRESS: Range = Range { least: 4, most: 16 };

/// What a call comes to.
pub(super) struct Estimate {
    pub cost: Range,
    pub size: Option<Range>,
}

impl Estimate {
    fn of(cost: Range) -> Self {
        Estimate { cost, size: None }
    }

    fn sized(cost: Range, size: Range) -> Self {
        Estimate { cost, size: Some(size) }
    }
}

impl Estimator<'_> {
    /// The cost of a call with its arguments, whose costs these are.
    pub(super) fn function(&self, node: &IdedExpr, call: &CallExpr, costs: &[Range]) -> Estimate {
        let sum = costs.iter().fold(Range::default(), |sum, cost| sum.add(*cost));
        let found = self.of_library(call).or_else(|| self.of_language(node, call, costs));
        match found {
            // Conditions say themselves which of their arguments count.
            Some(Estimate { cost, size }) if is_lazy(&call.func_name) => Estimate { cost, size },
            Some(Estimate { cost, size }) => Estimate { cost: cost.add(sum), size },
            None => Estimate::of(sum.add(Range::exactly(1))),
        }
    }

    /// Functions of Kubernetes' own libraries.
    fn of_library(&self, call: &CallExpr) -> Option<Estimate> {
        let target = call.target.as_deref();
        let first = call.args.first();
        let size = |node: &IdedExpr| self.size_or_unknown(node);
        Some(match (call.func_name.as_str(), target) {
            ("check", _) => Estimate::of(Range::exactly(CHECK)),
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target)) => {
                match self.items(target) {
                    Some((items, are_texts)) => {
                        let extra = if are_texts { items.each(TEXT) } else { Range::default() };
                        Estimate::of(size(target).multiply(Range::exactly(1).add(extra)))
                    }
                    None => Estimate::of(size(target).each(TEXT)),
                }
            }
            ("url", None) | ("escapeKey", Some(_)) => {
                Estimate::sized(size(first?).each(TEXT), size(first?))
            }
            ("fieldSelector" | "labelSelector", Some(_)) => {
                let of = size(first?);
                let requirements = of.each(REQUIREMENT_SHARE).each(REQUIREMENT);
                Estimate::of(Range::exactly(SELECTOR).add(of.each(TEXT)).add(requirements))
            }
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target)) => {
                Estimate::sized(size(target).each(TEXT), size(target))
            }
            ("replace", Some(target)) if call.args.len() >= 2 => {
                let of = size(target);
                let result = replaced(of, size(&call.args[0]), size(&call.args[1]));
                Estimate::sized(of.each(2.0 * TEXT), result)
            }
            ("split", Some(target)) => {
                let of = size(target);
                let parts = call.args.get(1).and_then(written_int);
                let parts = parts.map_or(of.most, |parts| parts as u64);
                Estimate::sized(of.each(2.0 * TEXT), Range::up_to(parts))
            }
            ("join", Some(target)) => {
                let list = size(target);
                let items = self.items(target).map(|(items, _)| list.multiply(items));
                let between = Range {
                    least: list.least.saturating_sub(1),
                    most: list.most.saturating_sub(1),
                };
                let separators = first.map(|one| size(one).multiply(between));
                let all = items.unwrap_or_default().add(separators.unwrap_or_default());
                Estimate::sized(all.each(TEXT), all)
            }
            ("find" | "findAll", Some(target)) => {
                let of = size(target);
                let text = of.add(Range::exactly(1)).each(TEXT);
                let cost = text.multiply(size(first?).each(PATTERN));
                Estimate::sized(cost, Range::up_to(of.most))
            }
            ("containsIP" | "containsCIDR", Some(_)) => {
                let mut cost = ADDRESS.add(ADDRESS).each(TEXT);
                if call.func_name == "containsCIDR" {
                    cost = cost.add(ADDRESS.each(TEXT)).add(Range::exactly(1));
                }
                if self.program.kind(first?) == Kind::Text {
                    cost = cost.add(size(first?).each(TEXT));
                }
                Estimate::of(cost)
            }
            ("validate", Some(_)) => Estimate::of(size(first?).each(TEXT).each(FORMAT)),
            (operators::EQUALS, None) => return self.equal_objects(call),
            ("slice" | "flatten" | "reverse" | "distinct" | "sort" | SORT_BY_KEYS, Some(_)) => {
                return self.of_lists(call);
            }
            ("range", Some(_)) if is_namespace(call, "lists") => {
                let size = written_int(first?).map_or(u64::MAX, |size| size.max(0) as u64);
                allocated(1.0, Range::exactly(size))
            }
            ("contains" | "intersects", _) if is_namespace(call, "sets") => {
                let [a, b] = &call.args[..] else { return None };
                Estimate::of(size(a).multiply(size(b)).add(Range::exactly(1)))
            }
            ("equivalent", _) if is_namespace(call, "sets") => {
                let [a, b] = &call.args[..] else { return None };
                let twice = size(a).multiply(size(b)).multiply(Range::exactly(2));
                Estimate::of(twice.add(Range::exactly(1)))
            }
            _ => return None,
        })
    }

    /// Whether two objects of the libraries are the same.
    fn equal_objects(&self, call: &CallExpr) -> Option<Estimate> {
        let [a, b] = &call.args[..] else { return None };
        let Kind::Opaque(name) = self.program.kind(a) else { return None };
        if self.program.kind(b) != Kind::Opaque(name) {
            return None;
        }
        let upto = |most| Range { least: 1, most }.each(TEXT);
        Some(Estimate::of(match name {
            "kubernetes.URL" => upto(self.size(b).map_or(1, |size| size.most)),
            "kubernetes.NamedFormat" => upto(FORMAT_MAX),
            _ => Range::exactly(1),
        }))
    }

    /// Functions that make a list of another.
    fn of_lists(&self, call: &CallExpr) -> Option<Estimate> {
        let target = self.size_or_unknown(call.target.as_deref()?);
        let number = |index: usize, other: u64| {
            let written = call.args.get(index).and_then(written_int);
            written.map_or(other, |number| number.max(0) as u64)
        };
        Some(match call.func_name.as_str() {
            "slice" => {
                let size = number(1, target.most).wrapping_sub(number(0, 0));
                allocated(1.0, Range::exactly(size))
            }
            "flatten" if call.args.is_empty() => allocated(1.0, target),
            "flatten" => allocated(number(0, u64::MAX) as f64, target),
            "reverse" => allocated(1.0, target),
            "distinct" => allocated(2.0, target.multiply(target)),
            _ => {
                let keys = call.args.first().or(call.target.as_deref())?;
                let of = self.size_or_unknown(keys);
                let is_text = match self.program.kind(keys) {
                    Kind::List(key, _) => matches!(*key, Kind::Any | Kind::Text | Kind::Bytes),
                    _ => true,
                };
                allocated(if is_text { 2.0 + TEXT } else { 2.0 }, of.multiply(of))
            }
        })
    }

    /// Functions and operators of the language whose cost is not one step.
    fn of_language(&self, node: &IdedExpr, call: &CallExpr, costs: &[Range]) -> Option<Estimate> {
        let size = |node: &IdedExpr| self.size_or_unknown(node);
        let kind = |node: &IdedExpr| self.program.kind(node);
        let target = call.target.as_deref();
        Some(match (call.func_name.as_str(), target, &call.args[..]) {
            ("format", Some(target), [values]) => {
                Estimate::sized(size(target).each(TEXT), size(target).add(size(values)))
            }
            ("bytes", None, [text]) if kind(text) != Kind::Bytes => {
                let of = size(text);
                let most = of.most.saturating_mul(4);
                Estimate::sized(of.each(TEXT), Range { least: of.least, most })
            }
            ("quote", Some(_), [text]) if is_namespace(call, "strings") => {
                let of = size(text);
                let least = of.least.saturating_add(2);
                let most = of.most.saturating_mul(2).saturating_add(2);
                Estimate::sized(of.each(TEXT), Range { least, most })
            }
            ("string", None, [bytes]) if kind(bytes) == Kind::Bytes => {
                let of = size(bytes);
                let result = Range { least: of.least / 4, most: of.most };
                Estimate::sized(of.each(TEXT), result)
            }
            ("startsWith" | "endsWith", Some(_), [text]) => Estimate::of(size(text).each(TEXT)),
            (operators::IN, None, [_, list]) if !matches!(kind(list), Kind::Map(_)) => {
                Estimate::of(size(list))
            }
            ("matches", Some(target), [pattern]) => {
                let text = size(target).add(Range::exactly(1)).each(TEXT);
                Estimate::of(text.multiply(size(pattern).each(PATTERN)))
            }
            ("contains", Some(target), [text]) => {
                Estimate::of(size(target).each(TEXT).multiply(size(text).each(TEXT)))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, None, [_, _]) => {
                let most = costs[0].most.saturating_add(costs[1].most);
                Estimate::of(Range { least: costs[0].least, most })
            }
            (operators::CONDITIONAL, None, [_, yes, no]) => {
                let cost = costs[0].add(costs[1].union(costs[2]));
                Estimate::sized(cost, size(yes).union(size(no)))
            }
            (operators::ADD, None, [a, b]) => return self.joined(node, a, b),
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                None,
                [a, b],
            ) if kind(a).is_scalar() || kind(b).is_scalar() => return None,
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS
                | operators::EQUALS
                | operators::NOT_EQUALS,
                None,
                [a, b],
            ) => {
                let most = size(a).most.min(size(b).most);
                Estimate::of(Range { least: most.min(1), most }.each(TEXT))
            }
            _ => return None,
        })
    }

    /// Texts and lists put together; numbers are none of these.
    fn joined(&self, node: &IdedExpr, a: &IdedExpr, b: &IdedExpr) -> Option<Estimate> {
        let kinds = [self.program.kind(a), self.program.kind(b)];
        if kinds.iter().any(Kind::is_scalar) || self.program.kind(node).is_scalar() {
            return None;
        }
        let size = self.size_or_unknown(a).add(self.size_or_unknown(b));
        let lists = kinds.iter().any(|kind| matches!(kind, Kind::List(..)));
        Some(Estimate::sized(if lists { Range::exactly(1) } else { size.each(TEXT) }, size))
    }
}

/// A call that makes a list; its items cost so much each.
fn allocated(factor: f64, items: Range) -> Estimate {
    Estimate::sized(items.each(factor).add(Range::exactly(1 + super::LIST)), items)
}

/// Whether a function's name begins with this and a dot.
fn is_namespace(call: &CallExpr, name: &str) -> bool {
    let target = call.target.as_deref().map(|target| &target.expr);
    matches!(target, Some(Expr::Ident(found)) if found == name)
}

/// A number that the expression itself says.
fn written_int(node: &IdedExpr) -> Option<i64> {
    match &node.expr {
        Expr::Literal(LiteralValue::Int(number)) => Some(*number.inner()),
        _ => None,
    }
}

fn is_lazy(name: &str) -> bool {
    matches!(name, operators::LOGICAL_AND | operators::LOGICAL_OR | operators::CONDITIONAL)
}

/// The size of a text in which one thing is replaced by another, everywhere.
fn replaced(of: Range, what: Range, with: Range) -> Range {
    let share = |size: u64, part: u64| (size as f64 / part as f64).ceil() as u64;
    let most = if what.least == 0 {
        of.most.saturating_add(1).saturating_mul(with.most).saturating_add(of.most)
    } else if with.most <= what.least {
        of.most
    } else {
        share(of.most, what.least).saturating_mul(with.most)
    };
    let least = if what.most == 0 {
        of.least.saturating_add(1).saturating_mul(with.least).saturating_add(of.least)
    } else if what.most <= with.least {
        of.least
    } else {
        share(of.least, what.most).saturating_mul(with.least)
    };
    Range { least, most }
}
