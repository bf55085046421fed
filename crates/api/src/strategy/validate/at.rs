//! Where a rule looks, and where it writes down what is wrong.
//!
//! Rules are functions of a place in the JSON object; typed structs were turned down because an
//! absent field and its zero value have to look alike, as they do to upstream's rules, and because
//! every kind has rules but only some kinds have types here.

use crate::member::member;
use crate::status::{FieldError, FieldErrorKind, Path};
use base::Quantity;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A value in an object and the path that leads to it.
#[derive(Clone)]
pub(super) struct At<'v> {
    pub value: &'v Value,
    pub path: Path,
}

/// What stands where an object has nothing.
static NOTHING: Value = Value::Null;

impl<'v> At<'v> {
    /// The object itself.
    pub fn root(value: &'v Value) -> Self {
        Self { value, path: Path::default() }
    }

    /// The field below; null where there is none. Names joined by dots go down several fields.
    pub fn get(&self, names: &str) -> At<'v> {
        let mut value = self.value;
        let mut path = self.path.clone();
        for name in names.split('.') {
            value = member(value, name).unwrap_or(&NOTHING);
            path = path.child(name);
        }
        At { value, path }
    }

    /// The same value under another field's path: upstream names some fields differently.
    pub fn named(&self, parent: &At<'_>, name: &str) -> At<'v> {
        At { value: self.value, path: parent.path.child(name) }
    }

    /// The same value under another path.
    pub fn at(&self, other: &At<'_>) -> At<'v> {
        At { value: self.value, path: other.path.clone() }
    }

    /// The path to an entry of a map, with nothing there.
    pub fn key(&self, key: &str) -> At<'static> {
        At { value: &NOTHING, path: self.path.key(key) }
    }

    /// Another value under this path.
    pub fn with<'w>(&self, value: &'w Value) -> At<'w> {
        At { value, path: self.path.clone() }
    }

    /// The items of a list.
    pub fn items(&self) -> impl Iterator<Item = At<'v>> + use<'v> {
        let path = self.path.clone();
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(i, value)| At { value, path: path.index(i) })
    }

    /// The entries of a map.
    pub fn entries(&self) -> impl Iterator<Item = (&'v str, At<'v>)> + use<'v> {
        let path = self.path.clone();
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(move |(key, value)| (key.as_str(), At { value, path: path.key(key) }))
    }

    /// Whether there is a value.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The same place, where there is a value.
    pub fn set(self) -> Option<At<'v>> {
        self.is_set().then_some(self)
    }

    /// The text; empty where there is none.
    pub fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number; 0 where there is none.
    pub fn number(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    /// Whether the value is `true`.
    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// How many items or entries there are; 0 where there is no list or map.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(entries) => entries.len(),
            _ => 0,
        }
    }

    /// The amount, where the value is one.
    pub fn quantity(&self) -> Option<Quantity> {
        match self.value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }

    /// The entries of a map of texts.
    pub fn map(&self) -> Option<&'v Map<String, Value>> {
        self.value.as_object()
    }
}

/// What is wrong, in the order in which it was found.
#[derive(Default)]
pub(super) struct Errors(pub Vec<FieldError>);

impl Errors {
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub fn required(&mut self, at: &At<'_>, detail: &str) {
        self.push(FieldError::required(&at.path, detail));
    }

    pub fn invalid(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.invalid_as(at, at.value.clone(), detail);
    }

    /// The error shows another value than the one that stands there.
    pub fn invalid_as(&mut self, at: &At<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(FieldError::invalid(&at.path, value, detail));
    }

    /// One error for each message about a text.
    pub fn all(&mut self, at: &At<'_>, messages: impl IntoIterator<Item = String>) {
        for message in messages {
            self.invalid_as(at, at.text(), message);
        }
    }

    pub fn forbidden(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.push(FieldError::forbidden(&at.path, detail));
    }

    pub fn not_supported(&mut self, at: &At<'_>, supported: &[&str]) {
        let shown = if at.is_set() { at.value.clone() } else { Value::from("") };
        self.push(FieldError::not_supported(&at.path, shown, supported));
    }

    pub fn duplicate(&mut self, at: &At<'_>, value: impl Into<Value>) {
        self.push(FieldError::duplicate(&at.path, value));
    }

    pub fn not_found(&mut self, at: &At<'_>, value: impl Into<Value>) {
        self.push(FieldError::not_found(&at.path, value));
    }

    pub fn too_long(&mut self, at: &At<'_>, limit_bytes: usize) {
        self.push(FieldError::too_long(&at.path, limit_bytes));
    }

    pub fn too_many(&mut self, at: &At<'_>, limit: usize) {
        self.push(FieldError::too_many(&at.path, at.len(), limit));
    }

    /// A text that has to be there and to be one of a few.
    pub fn one_of(&mut self, at: &At<'_>, supported: &[&str]) {
        match at.text() {
            "" => self.required(at, ""),
            text if supported.contains(&text) => {}
            _ => self.not_supported(at, supported),
        }
    }

    /// A text that, where it is there, has to be one of a few.
    pub fn one_of_if_set(&mut self, at: &At<'_>, supported: &[&str]) {
        if at.is_set() && !supported.contains(&at.text()) {
            self.not_supported(at, supported);
        }
    }

    /// A text that has to be there; says whether it is.
    pub fn needed(&mut self, at: &At<'_>) -> bool {
        let missing = at.text().is_empty();
        if missing {
            self.required(at, "");
        }
        !missing
    }

    /// `field is immutable`.
    pub fn immutable(&mut self, new: &At<'_>, old: &Value) {
        if new.value != old {
            self.push(FieldError::new(
                FieldErrorKind::Invalid,
                &new.path,
                Some(new.value.clone()),
                "field is immutable",
            ));
        }
    }

    /// A number that must not be negative.
    pub fn not_negative(&mut self, at: &At<'_>) {
        if at.number() < 0 {
            self.invalid(at, "must be greater than or equal to 0");
        }
    }

    /// A name that must not stand in a list twice.
    pub fn unique<'v>(&mut self, at: &At<'v>, seen: &mut BTreeSet<&'v str>) {
        if !seen.insert(at.text()) {
            self.duplicate(at, at.text());
        }
    }
}
