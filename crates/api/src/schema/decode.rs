//! Reading a body while noting fields that occur twice, which a plain `Value` would hide.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// How many unknown or duplicate fields one body is told of; upstream stops there too.
pub(super) const PROBLEMS_LIMIT_COUNT: usize = 100;

/// Reads a value and the paths of the fields in it that occur more than once
/// (`spec.containers[0].image`), of which the last occurrence counts, as upstream's decoder has
/// it. Works for JSON and YAML alike.
pub fn decode<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<(Value, Vec<String>), D::Error> {
    let trail = Trail::default();
    let value = Tracked(&trail).deserialize(deserializer)?;
    Ok((value, trail.duplicates.into_inner()))
}

/// The paths of all fields in a value, in the order in which they stand there.
pub fn order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let trail = Trail { visited: Some(RefCell::default()), ..Trail::default() };
    Tracked(&trail).deserialize(deserializer)?;
    Ok(trail.visited.map(RefCell::into_inner).unwrap_or_default())
}

/// The message about a field that occurs twice.
pub fn duplicate_field(path: &str) -> String {
    format!("duplicate field {}", crate::status::go_quote(path))
}

/// Where reading is, and what it met.
#[derive(Default)]
struct Trail {
    path: RefCell<String>,
    duplicates: RefCell<Vec<String>>,
    /// All fields, where somebody asks for them.
    visited: Option<RefCell<Vec<String>>>,
}

impl Trail {
    fn inside<T>(&self, step: &str, read: impl FnOnce() -> T) -> T {
        let length = self.path.borrow().len();
        self.path.borrow_mut().push_str(step);
        let result = read();
        self.path.borrow_mut().truncate(length);
        result
    }

    fn member<T>(&self, name: &str, read: impl FnOnce() -> T) -> T {
        let dot = if self.path.borrow().is_empty() { "" } else { "." };
        self.inside(&format!("{dot}{name}"), || {
            if let Some(visited) = &self.visited {
                visited.borrow_mut().push(self.path.borrow().clone());
            }
            read()
        })
    }

    fn note(&self) {
        let mut duplicates = self.duplicates.borrow_mut();
        let path = self.path.borrow();
        if duplicates.len() < PROBLEMS_LIMIT_COUNT && !duplicates.contains(&path) {
            duplicates.push(path.clone());
        }
    }
}

#[derive(Clone, Copy)]
struct Tracked<'t>(&'t Trail);

impl<'de> DeserializeSeed<'de> for Tracked<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tracked<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).map(Value::Number);
        number.ok_or_else(|| E::custom(format_args!("number {value} is not finite")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) =
            self.0.inside(&format!("[{}]", list.len()), || items.next_element_seed(self))?
        {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = self.0.member(&name, || {
                if map.contains_key(&name) {
                    self.0.note();
                }
                members.next_value_seed(self)
            })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_duplicates_and_keeps_the_last() {
        let text = r#"{"a": 1, "b": [{"c": null, "c": "x"}, {"c": true}], "a": -2.5, "a": 3}"#;
        let mut json = serde_json::Deserializer::from_str(text);
        let (value, duplicates) = decode(&mut json).unwrap();
        assert_eq!(value, serde_json::json!({"a": 3, "b": [{"c": "x"}, {"c": true}]}));
        assert_eq!(duplicates, ["b[0].c", "a"]);
        assert_eq!(duplicate_field(&duplicates[0]), r#"duplicate field "b[0].c""#);
    }

    #[test]
    fn fields_are_named_in_their_order() {
        let text = r#"{"b": {"x": 1}, "a": [{"c": 2}], "b": 3}"#;
        let mut json = serde_json::Deserializer::from_str(text);
        assert_eq!(order(&mut json).unwrap(), ["b", "b.x", "a", "a[0].c", "b"]);
    }

    #[test]
    fn reads_what_serde_json_reads() {
        for text in ["null", "[]", "{}", r#"[1, -1, 1.5, "a", false, {"x": {"y": []}}]"#] {
            let plain: Value = serde_json::from_str(text).unwrap();
            let mut json = serde_json::Deserializer::from_str(text);
            assert_eq!(decode(&mut json).unwrap(), (plain, Vec::new()), "{text}");
        }
        assert!(decode(&mut serde_json::Deserializer::from_str("{\"a\": ")).is_err());
    }
}
