//! What calls cost beside their arguments, by the sizes that these have.
//! Sources: `interpreter/runtimecost.go` and `ext/lists.go` of cel-go, `pkg/cel/library/cost.go` of
//! k8s.io/apiserver.

use kube_cel::cel::Value;
use kube_cel::cel::common::ast::operators as names;
use kube_cel::cel::objects::Opaque;

use super::Answer;
use super::sequences::SORT_BY_KEYS;
use crate::kind::Kind;
use crate::library;

/// What walking along a text costs for each of its characters.
const TEXT: f64 = 0.1;
/// What matching a regular expression costs for each of its characters.
const PATTERN: f64 = 0.25;
/// What asking for a permission costs: an expression can do so twice.
const CHECK: u64 = 350_000;
/// What a list costs that holds the requirements of a selector.
const SELECTOR: u64 = 10;
/// What a requirement costs; the shortest has two characters.
const REQUIREMENT: f64 = 50.0;
/// Characters of a selector for each requirement.
const REQUIREMENT_SHARE: f64 = 0.5;

/// A call as it is counted.
pub(super) struct Called<'c> {
    /// With its namespace.
    pub name: &'c str,
    pub is_member: bool,
    /// Of its arguments, as they are known without values: upstream chooses the way to call a
    /// function by them, and counts one step where several remain.
    pub kinds: Vec<Kind>,
}

/// How large a value is to whoever has to walk along it.
pub(super) fn size(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.chars().count() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        Value::List(items) => items.len() as u64,
        Value::Map(map) => map.map.len() as u64,
        Value::Opaque(opaque) => match library::inside(value.clone()) {
            Ok(Some(inner)) => size(&inner),
            _ => address_size(opaque.as_ref()),
        },
        _ => 1,
    }
}

/// The bytes of an address or of a network's prefix: their types are the library's own, and only
/// what they print says what they are.
fn address_size(opaque: &dyn Opaque) -> u64 {
    let printed = || format!("{:?}", opaque.as_debug());
    match opaque.runtime_type_name() {
        "net.IP" if printed().contains(':') => 16,
        "net.IP" => 4,
        "net.CIDR" => {
            let printed = printed();
            let prefix = printed.rsplit('/').next().unwrap_or_default();
            let digits: String = prefix.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap_or_default().div_ceil(8)
        }
        _ => 1,
    }
}

/// The length of the expression that upstream takes a format for.
fn pattern_size(format: &Value) -> u64 {
    let Value::Opaque(opaque) = format else { return 0 };
    let printed = format!("{:?}", opaque.as_debug());
    let has = |name: &str| printed.contains(name);
    match () {
        () if has("Subdomain") || has("QualifiedName") => 60,
        () if has("Label)") || has("LabelPrefix") => 30,
        () if has("LabelValue") => 40,
        () if has("Uuid") => 85,
        () if has("Byte") => 83,
        () if has("Date") => 73,
        // Upstream's expression for addresses of the web.
        () => 1_000,
    }
}

fn each(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn matched(text: u64, pattern: u64) -> u64 {
    each(text.saturating_add(1), TEXT).saturating_mul(each(pattern, PATTERN))
}

/// What visiting all of a value costs; parts of texts are dropped.
fn traversal(value: &Value) -> u64 {
    let text = |bytes: usize| (bytes as f64 * TEXT) as u64;
    match value {
        Value::String(value) => text(value.len()),
        Value::Bytes(bytes) => text(bytes.len()),
        Value::List(items) => items.iter().map(traversal).sum(),
        Value::Map(map) => {
            let members = map.map.iter();
            members.map(|(key, value)| traversal(&library::of_key(key)) + traversal(value)).sum()
        }
        _ => 1,
    }
}

/// What a call costs, as far as its arguments say it. An argument without a value counts as one
/// of size 1.
pub(super) fn of(call: &Called<'_>, arguments: &[Answer]) -> u64 {
    let at = |index: usize| arguments.get(index).and_then(|value| value.as_ref().ok());
    let of = |index: usize| at(index).map_or(1, size);
    let is = |index: usize, kind: &Kind| call.kinds.get(index) == Some(kind);
    let texts = || {
        [Kind::Text, Kind::Bytes].iter().any(|kind| call.kinds.iter().any(|known| known == kind))
    };
    match call.name {
        "check" if call.is_member => CHECK,
        "fieldSelector" | "labelSelector" if arguments.len() == 2 => {
            let requirements = each(each(of(1), REQUIREMENT_SHARE), REQUIREMENT);
            SELECTOR + each(of(1), TEXT) + requirements
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            at(0).map_or(1, traversal)
        }
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => each(of(0), TEXT),
        "ip" if !call.is_member => each(of(0), TEXT),
        "replace" | "split" | "ip.isCanonical" => each(of(0), 2.0 * TEXT),
        "find" | "findAll" => matched(of(0), of(1)),
        "matches" if call.is_member => matched(of(0), of(1)),
        "containsIP" => {
            each(2 * of(0), TEXT) + if is(1, &Kind::Text) { each(of(1), TEXT) } else { 0 }
        }
        "containsCIDR" => {
            let text = if is(1, &Kind::Text) { each(of(1), TEXT) } else { 0 };
            each(2 * of(0), TEXT) + each(of(0), TEXT) + 1 + text
        }
        "validate" => matched(of(1), at(0).map_or(1, pattern_size)),
        "sets.contains" | "sets.intersects" => of(0).saturating_mul(of(1)).saturating_add(1),
        "sets.equivalent" => of(0).saturating_mul(of(1)).saturating_mul(2).saturating_add(1),
        "contains" => each(of(0), TEXT).saturating_mul(each(of(1), TEXT)),
        "startsWith" | "endsWith" | "format" | "strings.quote" => each(of(0), TEXT),
        "bytes" if is(0, &Kind::Text) => each(of(0), TEXT),
        "string" if is(0, &Kind::Bytes) => each(of(0), TEXT),
        names::IN if matches!(call.kinds.get(1), Some(Kind::List(..))) => of(1),
        "flatten" => {
            let depth = match at(1) {
                Some(Value::Int(depth)) => *depth as f64,
                _ => 1.0,
            };
            allocated(of(0) as f64 * depth)
        }
        "distinct" => at(0).map_or(1, compared),
        // Upstream has a function for each type of the items, and counts where it knows which.
        "sort" if is_known_list(call.kinds.first()) => at(0).map_or(1, compared),
        SORT_BY_KEYS if is_known_list(call.kinds.get(1)) => at(1).map_or(1, compared),
        names::EQUALS if at(0).is_some_and(is_opaque) => 1,
        names::EQUALS | names::NOT_EQUALS => each(of(0).min(of(1)), TEXT),
        names::LESS | names::LESS_EQUALS | names::GREATER | names::GREATER_EQUALS if texts() => {
            each(of(0).min(of(1)), TEXT)
        }
        names::ADD if texts() => each(of(0).saturating_add(of(1)), TEXT),
        _ => 1,
    }
}

/// What making a list costs beside its items.
fn allocated(items: f64) -> u64 {
    (items as u64).saturating_add(1 + super::LIST)
}

/// What comparing all items of a list with each other costs.
fn compared(list: &Value) -> u64 {
    let Value::List(items) = list else { return 1 };
    let texts = matches!(items.first(), Some(Value::String(_) | Value::Bytes(_)));
    let all = (items.len() as f64).powi(2);
    allocated(all * if texts { 2.0 + TEXT } else { 2.0 })
}

fn is_known_list(kind: Option<&Kind>) -> bool {
    matches!(kind, Some(Kind::List(element, _)) if **element != Kind::Any)
}

fn is_opaque(value: &Value) -> bool {
    matches!(value, Value::Opaque(_)) && !library::is_optional(value)
}

/// The same, once the result is there.
pub(super) fn with_result(call: &Called<'_>, before: u64, result: &Answer) -> u64 {
    match (call.name, result) {
        ("join", result) => each(result.as_ref().map_or(1, size), 2.0 * TEXT),
        ("slice" | "lists.range" | "reverse", result) => {
            allocated(result.as_ref().map_or(1, size) as f64)
        }
        _ => before,
    }
}
