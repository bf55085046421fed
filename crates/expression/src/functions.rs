//! Which functions there are, what each takes, and what it gives: a table in `functions.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::kind::Kind;

/// One way to call a function: alternatives of each argument by the heads of their names.
struct Overload {
    member: bool,
    arguments: Vec<Vec<&'static str>>,
    result: Kind,
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(read);

/// Why a call is none.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// There is no function of this name.
    Undeclared,
    /// There is one, but not for these arguments.
    NoOverload,
}

/// Each line is `name result overload...`; an overload is `(a,b)` or `target.(a,b)`, and `|`
/// stands between types of which one has to fit.
fn read() -> HashMap<&'static str, Vec<Overload>> {
    let mut table: HashMap<&str, Vec<Overload>> = HashMap::new();
    let lines = include_str!("functions.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(result)) = (words.next(), words.next()) else { continue };
        let result = kind(result);
        let overloads = words.map(|word| overload(word, &result));
        table.entry(name).or_default().extend(overloads);
    }
    table
}

fn overload(word: &'static str, result: &Kind) -> Overload {
    let (target, arguments) = word.split_once('(').unwrap_or((word, ""));
    let target = target.trim_end_matches('.');
    let arguments = arguments.trim_end_matches(')').split(',').filter(|one| !one.is_empty());
    let all = Some(target).filter(|target| !target.is_empty()).into_iter().chain(arguments);
    Overload {
        member: !target.is_empty(),
        arguments: all.map(|one| one.split('|').collect()).collect(),
        result: result.clone(),
    }
}

fn kind(name: &'static str) -> Kind {
    match name {
        "dyn" => Kind::Any,
        "bool" => Kind::Bool,
        "int" => Kind::Int,
        "double" => Kind::Double,
        "string" => Kind::Text,
        "bytes" => Kind::Bytes,
        "timestamp" => Kind::Timestamp,
        "duration" => Kind::Duration,
        "list" => Kind::list(Kind::Any),
        "map" => Kind::map(Kind::Any),
        "optional_type" => Kind::Optional(Kind::Any.into()),
        "list(string)" => Kind::list(Kind::Text),
        opaque => Kind::Opaque(opaque),
    }
}

/// Whether an argument can be one of these types.
fn fits(kind: &Kind, wanted: &[&str]) -> bool {
    *kind == Kind::Any || wanted.iter().any(|name| *name == "dyn" || *name == kind.head())
}

/// What a call gives. `arguments` begins with the target of a `member` call.
pub(crate) fn result(name: &str, member: bool, arguments: &[Kind]) -> Result<Kind, Refusal> {
    let overloads = TABLE.get(name).ok_or(Refusal::Undeclared)?;
    let mut fitting = overloads.iter().filter(|overload| {
        overload.member == member
            && overload.arguments.len() == arguments.len()
            && arguments.iter().zip(&overload.arguments).all(|(kind, wanted)| fits(kind, wanted))
    });
    let first = fitting.next().ok_or(Refusal::NoOverload)?.result.clone();
    Ok(if fitting.all(|other| other.result == first) { first } else { Kind::Any })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        assert_eq!(result("size", true, &[Kind::Text]), Ok(Kind::Int));
        assert_eq!(result("size", false, &[Kind::Int]), Err(Refusal::NoOverload));
        assert_eq!(result("startsWith", true, &[Kind::Int, Kind::Text]), Err(Refusal::NoOverload));
        assert_eq!(result("nothing", false, &[]), Err(Refusal::Undeclared));
        assert_eq!(
            result("quantity", false, &[Kind::Text]),
            Ok(Kind::Opaque("kubernetes.Quantity"))
        );
        assert_eq!(result("_+_", false, &[Kind::Any, Kind::Int]), Ok(Kind::Int));
        assert_eq!(result("_-_", false, &[Kind::Timestamp, Kind::Timestamp]), Ok(Kind::Duration));
        // Every type that the table names is one of the language's or has a dot in its name.
        for (name, overloads) in TABLE.iter() {
            for wanted in overloads.iter().flat_map(|one| one.arguments.iter().flatten()) {
                let known = matches!(kind(wanted), Kind::Opaque(name) if !name.contains('.'));
                assert!(!known, "{name}: {wanted}");
            }
        }
    }
}
