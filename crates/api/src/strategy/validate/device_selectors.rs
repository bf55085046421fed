//! Expressions that choose devices: they compile for what a device is, and what they may cost is
//! known before there is one.
//! Source: `cel/compile.go` of k8s.io/dynamic-resource-allocation.

use std::sync::LazyLock;

use expression::{Kind, Language, Sizes, compile_as, estimate};

use super::at::{At, Errors};
use crate::status::FieldError;

const SELECTORS_MAX: usize = 32;
const EXPRESSION_MAX_BYTES: usize = 10 << 10;
/// The most that an expression may cost for one device.
const COST_MAX: u64 = 1_000_000;
/// The longest name of a driver, and of a domain.
const DOMAIN_MAX: u64 = 63;
/// The longest name of an attribute within its domain.
const NAME_MAX: u64 = 32;
/// The longest value.
const VALUE_MAX: u64 = 64;
/// The most attributes and capacities of one device.
const ATTRIBUTES_MAX: u64 = 32;

/// What expressions know of a device: attributes and capacities by domain and name.
static DEVICE: LazyLock<Kind> = LazyLock::new(|| {
    let quantity = Kind::Opaque("kubernetes.Quantity");
    Kind::object([
        ("driver", Kind::Text),
        ("attributes", Kind::map(Kind::map(Kind::Any))),
        ("capacity", Kind::map(Kind::map(quantity))),
        ("allowMultipleAllocations", Kind::Bool),
    ])
});

/// How large the parts of a device can be.
struct OfDevice;

impl Sizes for OfDevice {
    fn most(&self, path: &[String]) -> Option<u64> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match names[..] {
            ["device", "driver"] => Some(DOMAIN_MAX),
            ["device", "attributes" | "capacity"] => Some(ATTRIBUTES_MAX),
            ["device", "attributes" | "capacity", "@keys"] => Some(DOMAIN_MAX),
            ["device", "attributes" | "capacity", "@values"] => Some(ATTRIBUTES_MAX),
            ["device", "attributes" | "capacity", "@values", "@keys"] => Some(NAME_MAX),
            // Whatever the attribute is called.
            ["device", "attributes", "@values", _] => Some(VALUE_MAX),
            _ => None,
        }
    }
}

/// Rules for selectors of a class or of a request.
pub(super) fn selectors(list: &At<'_>, out: &mut Errors) {
    if list.len() > SELECTORS_MAX {
        out.push(FieldError::too_many(&list.path, list.len(), SELECTORS_MAX));
    }
    for selector in list.items() {
        let expression = selector.get("cel.expression");
        if !selector.get("cel").is_set() {
            out.required(&selector.get("cel"), "");
        } else if expression.text().len() > EXPRESSION_MAX_BYTES {
            out.too_long(&expression, EXPRESSION_MAX_BYTES);
        } else if let Err(wrong) = judge(expression.text()) {
            match wrong {
                Wrong::Invalid(why) => out.invalid_as(&expression, expression.text(), why),
                Wrong::Costly => out.forbidden(&expression, "too complex, exceeds cost limit"),
            }
        }
    }
}

/// Why an expression chooses no devices.
enum Wrong {
    Invalid(String),
    Costly,
}

fn judge(source: &str) -> Result<u64, Wrong> {
    let program = compile_as(source, &[("device", DEVICE.clone())], Language::DEVICE)
        .map_err(|error| Wrong::Invalid(format!("compilation failed: {error}")))?;
    if !program.may_be(&Kind::Bool) {
        let found = program.result().name();
        let why = format!("must evaluate to bool or the unknown type, not {found}");
        return Err(Wrong::Invalid(why));
    }
    let cost = estimate(&program, &OfDevice);
    if cost > COST_MAX { Err(Wrong::Costly) } else { Ok(cost) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expressions of upstream's tests, with what these say that they cost at most.
    #[test]
    fn costs_are_upstreams() {
        const NAME: &str = r#"device.attributes["dra.example.com"].name"#;
        for (source, expected) in [
            ("true".to_owned(), 0),
            (r#""no-such-domain" in device.attributes"#.to_owned(), 3),
            (r#"device.driver == """#.to_owned(), 2),
            (r#"device.driver == "dra.example.com""#.to_owned(), 4),
            (NAME.to_owned(), 4),
            (r#"device.attributes["dra.example.com"]["name"]"#.to_owned(), 4),
            (r#"cel.bind(dra, device.attributes["dra.example.com"], dra.name)"#.to_owned(), 15),
            (format!("{NAME} > 0"), 5),
            (format!(r#"{NAME} == "fish""#), 5),
            (format!("{NAME}.size() == 2"), 6),
            (format!("{NAME}.exists(x, x > 0)"), 5 + (3 + 3) * 64),
            (format!(r#"{NAME}.isGreaterThan(quantity("0"))"#), 6),
        ] {
            match judge(&source) {
                Ok(cost) => assert_eq!(cost, expected, "{source}"),
                Err(Wrong::Invalid(why)) => panic!("{source}: {why}"),
                Err(Wrong::Costly) => panic!("{source}: too much"),
            }
        }
    }

    #[test]
    fn what_chooses_nothing_is_refused() {
        let said = |source: &str| match judge(source) {
            Ok(cost) => cost.to_string(),
            Err(Wrong::Invalid(why)) => why.lines().next().unwrap_or_default().to_owned(),
            Err(Wrong::Costly) => "too much".to_owned(),
        };
        for (source, expected) in [
            ("1", "must evaluate to bool or the unknown type, not int"),
            (
                "device.nothing == 1",
                "compilation failed: ERROR: <input>:1:7: undefined field 'nothing'",
            ),
            (
                "device.driver > 1",
                "compilation failed: ERROR: <input>:1:15: found no matching overload for '_>_' applied to '(string, int)'",
            ),
            (
                r#"device.capacity["a"].b == 1"#,
                "compilation failed: ERROR: <input>:1:24: found no matching overload for '_==_' applied to '(kubernetes.Quantity, int)'",
            ),
            (
                "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a + b + c != d))))",
                "too much",
            ),
            ("device.allowMultipleAllocations", "2"),
        ] {
            assert_eq!(said(source), expected, "{source}");
        }
        assert!(said("?!").contains("Syntax error"));
    }
}
