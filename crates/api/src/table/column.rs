//! What a column is, where its description stands, how its cells are made.

use super::duration::{between, time};
use crate::schema;
use crate::selector::LabelSelector;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// A column of a table.
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// 0 for columns always shown, 1 for those of `-o wide`.
    pub priority: u8,
    about: About,
    cell: Cell,
}

/// Where a column's description comes from.
pub(super) enum About {
    /// Words of its own.
    Says(&'static str),
    /// The description of a field: definition below `io.k8s.` and field.
    Field(&'static str, &'static str),
}

/// How a cell is made. Paths are fields joined by dots.
pub(super) enum Cell {
    /// The value as text; the second stands for a missing or empty one.
    Text(&'static str, &'static str),
    /// A number, zero if missing.
    Number(&'static str),
    /// A truth value and what holds if it is missing.
    Flag(&'static str, bool),
    /// How many items or members there are.
    Count(&'static str),
    /// How long ago that was; the second stands for a missing time.
    Since(&'static str, &'static str),
    /// Anything else.
    Call(fn(&Value, &Context) -> Value),
}

/// What cells need beside the object.
pub(super) struct Context {
    pub(super) now: Timestamp,
}

pub(super) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    about: About::Field("apimachinery.pkg.apis.meta.v1.ObjectMeta", "name"),
    cell: Cell::Text("metadata.name", ""),
};

const CREATION: About =
    About::Field("apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp");

pub(super) const AGE: Column =
    text("Age", CREATION, Cell::Since("metadata.creationTimestamp", "<unknown>"));

pub(super) const CREATED_AT: Column = Column {
    kind: "date",
    ..text("Created At", CREATION, Cell::Text("metadata.creationTimestamp", ""))
};

/// A column of text.
pub(super) const fn text(name: &'static str, about: About, cell: Cell) -> Column {
    Column { name, kind: "string", format: "", priority: 0, about, cell }
}

/// A column of numbers.
pub(super) const fn number(name: &'static str, about: About, cell: Cell) -> Column {
    Column { name, kind: "integer", format: "", priority: 0, about, cell }
}

/// A column of truth values.
pub(super) const fn flag(name: &'static str, about: About, cell: Cell) -> Column {
    Column { name, kind: "boolean", format: "", priority: 0, about, cell }
}

/// The same, shown with `-o wide` only.
pub(super) const fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

/// The same, marked as a name.
pub(super) const fn named(column: Column) -> Column {
    Column { format: "name", ..column }
}

impl Column {
    /// The cell of an object.
    pub(super) fn print(&self, object: &Value, context: &Context) -> Value {
        match self.cell {
            Cell::Text(path, missing) => match at(object, path) {
                Value::Null => json!(missing),
                Value::String(text) if text.is_empty() => json!(missing),
                Value::String(text) => json!(text),
                other => json!(other.to_string()),
            },
            Cell::Number(path) => json!(at(object, path).as_i64().unwrap_or(0)),
            Cell::Flag(path, missing) => json!(at(object, path).as_bool().unwrap_or(missing)),
            Cell::Count(path) => json!(count(at(object, path))),
            Cell::Since(path, missing) => json!(since(at(object, path), missing, context)),
            Cell::Call(print) => print(object, context),
        }
    }

    /// The column's definition in a table.
    pub fn to_json(&self) -> Value {
        let description = match self.about {
            About::Says(text) => text,
            About::Field(definition, field) => {
                DESCRIPTIONS.get(&(definition, field)).map_or("", |text| text)
            }
        };
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": description,
            "priority": self.priority,
        })
    }
}

/// Descriptions of the fields that columns stand for, looked up in the OpenAPI definitions once:
/// a few dozen KiB that would otherwise be in the binary twice.
static DESCRIPTIONS: LazyLock<HashMap<(&str, &str), String>> = LazyLock::new(|| {
    let mut wanted: HashMap<&str, Vec<&str>> = HashMap::new();
    for columns in super::all_columns() {
        for column in columns {
            if let About::Field(definition, field) = column.about {
                wanted.entry(definition).or_default().push(field);
            }
        }
    }
    let mut found = HashMap::new();
    schema::documents(|name, text| {
        let Some(name) = name.strip_prefix("io.k8s.") else { return };
        let Some((definition, fields)) = wanted.get_key_value(name) else { return };
        let document: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        for field in fields {
            let description = document["properties"][*field]["description"].as_str();
            found.insert((*definition, *field), description.unwrap_or_default().to_owned());
        }
    });
    found
});

/// The value at a path of fields joined by dots.
pub(super) fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, name| &value[name])
}

/// The text at a path, empty if there is none.
pub(super) fn text_at<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// Items of a list; none if there is no list.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `missing` in place of an empty text.
pub(super) fn or<'a>(text: &'a str, missing: &'a str) -> &'a str {
    if text.is_empty() { missing } else { text }
}

/// How long ago the time in `value` was.
pub(super) fn since(value: &Value, missing: &str, context: &Context) -> String {
    time(value).map_or_else(|| missing.to_owned(), |time| between(time, context.now))
}

pub(super) fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    }
}

/// A map of labels as `a=b,c=d`, `<none>` if empty.
pub(super) fn labels(value: &Value) -> String {
    let mut pairs: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A `metav1.LabelSelector` as text, `<none>` if it selects nothing or everything.
pub(super) fn selector(value: &Value) -> String {
    match LabelSelector::from_object(value) {
        Ok(selector) => or(&selector.to_string(), "<none>").to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

/// The first `limit` texts, joined; then how many there are more.
pub(super) fn first(texts: &[String], limit: usize, separator: &str) -> String {
    let shown = texts.iter().take(limit).map(String::as_str).collect::<Vec<_>>().join(separator);
    match texts.len().saturating_sub(limit) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// The status of a condition of that type.
pub(super) fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    items(conditions).iter().find(|condition| condition["type"] == kind)
}
