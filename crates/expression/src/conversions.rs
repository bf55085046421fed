//! Functions in whose place the evaluator has less than cel-go: conversions between types, sizes
//! of texts, sums of durations, formats by name.

use std::rc::Rc;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::IdedExpr;
use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::OptionalValue;
use kube_cel::cel::parser::Parser;
use kube_cel::cel::{Context, ExecutionError, Value, functions};

type Answer = Result<Value, ExecutionError>;

/// Puts them into a context.
pub(crate) fn register(context: &mut Context<'_>) {
    context.add_function("string", |This(value): This<Value>| to_text(value));
    context.add_function("int", |This(value): This<Value>| to_int(&value));
    context.add_function("bool", |This(value): This<Value>| to_bool(&value));
    context.add_function("size", |This(value): This<Value>| size(&value));
    context.add_function("sum", |This(list): This<Arc<Vec<Value>>>| sum(&list));
    context.add_function("format.named", |name: Arc<String>| named(name));
}

thread_local! {
    /// The functions that the ones here stand before, and how these are called.
    static BEHIND: Rc<Behind> = Rc::new(Behind::new());
}

struct Behind {
    context: Context<'static>,
    string: IdedExpr,
    named: IdedExpr,
    matches: IdedExpr,
}

impl Behind {
    fn new() -> Self {
        let parsed = |source: &str| Parser::new().parse(source).unwrap_or_default();
        Behind {
            context: Context::default().with_all(),
            string: parsed("string(value)"),
            named: parsed("format.named(value)"),
            matches: parsed("matches('', value)"),
        }
    }

    fn ask(question: impl FnOnce(&Behind) -> &IdedExpr, value: Value) -> Answer {
        let behind = BEHIND.with(Rc::clone);
        let mut context = behind.context.new_inner_scope();
        context.add_variable_from_value("value", value);
        Value::resolve(question(&behind), &context)
    }
}

/// Whether a text is one that the function can be called with.
pub(crate) fn is_valid(function: &str, text: &str) -> bool {
    let text = Arc::new(text.to_owned());
    match function {
        "duration" => functions::duration(text).is_ok(),
        "timestamp" => functions::timestamp(text).is_ok(),
        _ => Behind::ask(|behind| &behind.matches, Value::String(text)).is_ok(),
    }
}

fn text(text: impl Into<String>) -> Answer {
    Ok(Value::String(Arc::new(text.into())))
}

fn failed(function: &str, why: impl Into<String>) -> Answer {
    Err(ExecutionError::function_error(function, why.into()))
}

fn to_text(value: Value) -> Answer {
    match &value {
        Value::Bool(value) => text(value.to_string()),
        Value::Float(value) => text(shortest(*value)),
        Value::Duration(value) => {
            let nanos = value.num_nanoseconds().unwrap_or_default();
            text(format!("{}s", nanos as f64 / 1e9))
        }
        _ => Behind::ask(|behind| &behind.string, value),
    }
}

/// A number as Go's `%g` writes it.
fn shortest(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    value.to_string()
}

fn to_int(value: &Value) -> Answer {
    let range = || failed("int", "integer overflow");
    match value {
        Value::Int(value) => Ok(Value::Int(*value)),
        Value::UInt(value) => i64::try_from(*value).map_or_else(|_| range(), |v| Ok(Value::Int(v))),
        // Beyond these there is no integer of that size.
        Value::Float(value) if *value > i64::MIN as f64 && *value < i64::MAX as f64 => {
            Ok(Value::Int(*value as i64))
        }
        Value::Float(_) => range(),
        Value::String(digits) => digits.parse().map(Value::Int).or_else(|_| {
            failed("int", format!("strconv.ParseInt: parsing {digits:?}: invalid syntax"))
        }),
        Value::Timestamp(time) => Ok(Value::Int(time.timestamp())),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

fn to_bool(value: &Value) -> Answer {
    match value {
        Value::Bool(value) => Ok(Value::Bool(*value)),
        Value::String(word) => match word.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => failed("bool", format!("type conversion error from '{other}' to 'bool'")),
        },
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

pub(crate) fn size(value: &Value) -> Answer {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    Ok(Value::Int(size as i64))
}

fn sum(list: &[Value]) -> Answer {
    let Some((first, others)) = list.split_first() else { return Ok(Value::Int(0)) };
    match first {
        Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Duration(_) => {}
        _ => return Err(ExecutionError::NoSuchOverload),
    }
    others.iter().cloned().try_fold(first.clone(), |sum, next| sum + next)
}

/// A format, where there is one of that name.
fn named(name: Arc<String>) -> Answer {
    let found = Behind::ask(|behind| &behind.named, Value::String(name))?;
    let optional = match found {
        Value::Null => OptionalValue::none(),
        format => OptionalValue::of(format),
    };
    Ok(Value::Opaque(Arc::new(optional)))
}
