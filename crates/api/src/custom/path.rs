//! The simple paths that definitions name fields by: `.spec.replicas`.

use serde_json::{Map, Value};

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.trim_start_matches('.').split('.').filter(|step| !step.is_empty())
}

/// The value at a path.
pub fn get<'v>(object: &'v Value, path: &str) -> &'v Value {
    steps(path).fold(object, |at, step| at.get(step).unwrap_or(&Value::Null))
}

/// Puts a value at a path; objects on the way are made.
pub fn set(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for step in steps(path) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[step];
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_put_there_is_found() {
        let mut object = json!({"spec": {"a": 1}});
        set(&mut object, ".spec.b.c", json!(2));
        assert_eq!(object, json!({"spec": {"a": 1, "b": {"c": 2}}}));
        assert_eq!(get(&object, ".spec.b.c"), &json!(2));
        assert_eq!(get(&object, ".spec.none.c"), &Value::Null);
    }
}
