//! Pruning and defaulting along a structural schema.
//! Source: `pkg/apiserver/schema/{pruning,defaulting}` of apiextensions-apiserver.

use serde_json::{Map, Value};

use crate::schema::{Problem, Schema};

/// The type of `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Members of every object that is a whole one, which no schema has to name.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn is(schema: &Value, extension: &str) -> bool {
    schema[extension] == true
}

/// Drops the members that the schema does not know; gives their paths.
pub(super) fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    prune_at(schema, object, &mut String::new(), true, &mut dropped);
    dropped
}

/// Drops the descriptions of a schema.
pub(super) fn forget_words(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    members.retain(|name, value| !(name == "description" && value.is_string()));
    for (name, value) in members {
        match name.as_str() {
            "properties" => {
                value.as_object_mut().into_iter().flatten().for_each(|(_, v)| forget_words(v));
            }
            "items" | "additionalProperties" | "not" => forget_words(value),
            "allOf" | "anyOf" | "oneOf" => {
                value.as_array_mut().into_iter().flatten().for_each(forget_words);
            }
            _ => {}
        }
    }
}

/// The same for a value within an object.
pub(super) fn prune_value(schema: &Value, value: &mut Value) {
    prune_at(schema, value, &mut String::new(), false, &mut Vec::new());
}

fn prune_at(
    schema: &Value,
    value: &mut Value,
    path: &mut String,
    whole: bool,
    dropped: &mut Vec<String>,
) {
    let whole = whole || is(schema, "x-kubernetes-embedded-resource");
    match value {
        Value::Object(members) => prune_members(schema, members, path, whole, dropped),
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter_mut().enumerate() {
                below(path, &format!("[{index}]"), |path| {
                    prune_at(schema, item, path, false, dropped);
                });
            }
        }
        _ => {}
    }
}

fn prune_members(
    schema: &Value,
    members: &mut Map<String, Value>,
    path: &mut String,
    whole: bool,
    dropped: &mut Vec<String>,
) {
    let open = is(schema, "x-kubernetes-preserve-unknown-fields");
    let others = match &schema["additionalProperties"] {
        Value::Bool(true) => Some(&Value::Null),
        others if others.is_object() => Some(others),
        _ => None,
    };
    members.retain(|name, member| {
        if whole && META.contains(&name.as_str()) {
            if name == "metadata" && !path.is_empty() {
                below(path, ".metadata", |path| prune_metadata(member, path, dropped));
            }
            return true;
        }
        let known = schema["properties"].get(name);
        let step = if path.is_empty() { name.clone() } else { format!(".{name}") };
        let mut keep = true;
        below(path, &step, |path| match known.or(others) {
            // What may be anything is kept as it is.
            Some(Value::Null) => {}
            Some(schema) => prune_at(schema, member, path, false, dropped),
            None if open => {}
            None => {
                dropped.push(path.clone());
                keep = false;
            }
        });
        keep
    });
}

/// The same for the metadata of an object within an object, which are of one type everywhere.
fn prune_metadata(metadata: &mut Value, path: &str, dropped: &mut Vec<String>) {
    let Some(schema) = Schema::of_definition(OBJECT_META) else { return };
    for problem in schema.check(metadata) {
        match problem {
            Problem::Unknown(unknown) => dropped.push(format!("{path}.{unknown}")),
            // What does not fit its type is validation's business.
            Problem::Type(_) => return,
        }
    }
    schema.prune(metadata);
}

fn below(path: &mut String, step: &str, act: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(step);
    act(path);
    path.truncate(length);
}

/// Fills in defaults; a null that may not be one counts as missing, and goes where there is no
/// default.
pub(super) fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, member| {
                let schema = schema["properties"]
                    .get(name)
                    .unwrap_or_else(|| &schema["additionalProperties"]);
                let may_be = !schema.is_object() || is(schema, "nullable");
                !member.is_null() || may_be || schema.get("default").is_some()
            });
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                let default = schema.get("default");
                let null = members.get(name).is_some_and(Value::is_null);
                if let Some(default) = default
                    && (!members.contains_key(name) || (null && !is(schema, "nullable")))
                {
                    members.insert(name.clone(), default.clone());
                }
                if let Some(member) = members.get_mut(name) {
                    self::default(schema, member);
                }
            }
            let others = &schema["additionalProperties"];
            if others.is_object() {
                let known = &schema["properties"];
                let unnamed = members.iter_mut().filter(|(name, _)| known.get(name).is_none());
                unnamed.for_each(|(_, member)| {
                    replace_null(others, member);
                    self::default(others, member);
                });
            }
        }
        Value::Array(items) => {
            let schema = &schema["items"];
            items.iter_mut().for_each(|item| {
                replace_null(schema, item);
                default(schema, item);
            });
        }
        _ => {}
    }
}

fn replace_null(schema: &Value, value: &mut Value) {
    if let Some(default) = schema.get("default").filter(|_| !is(schema, "nullable"))
        && value.is_null()
    {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "integer", "default": 3},
                "n": {"type": "string", "nullable": true, "default": "x"},
                "list": {"type": "array", "items": {"type": "object", "properties": {
                    "k": {"type": "string"}, "d": {"type": "boolean", "default": true}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object",
                    "properties": {"z": {"type": "string", "default": "zz"}}}},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"in": {"type": "object"}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true},
                "any": {"type": "object", "additionalProperties": true}}}}})
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut object = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "odd": 1},
            "top": 1, "spec": {"a": 1, "odd": 2, "list": [{"k": "v", "odd": 3}], "map": {"x": {"y": 1}},
            "open": {"other": {"x": 1}, "in": {"odd": 1}}, "pod": {"kind": "Pod", "metadata": {"name": "p", "odd": 1}, "odd": 1},
            "any": {"x": {"y": 1}}}});
        let mut dropped = prune(&schema(), &mut object);
        dropped.sort();
        assert_eq!(
            dropped.join(" "),
            "spec.list[0].odd spec.map.x.y spec.odd spec.open.in.odd spec.pod.metadata.odd spec.pod.odd top"
        );
        assert_eq!(
            object["spec"],
            json!({"a": 1, "list": [{"k": "v"}], "map": {"x": {}}, "open": {"other": {"x": 1}, "in": {}},
                "pod": {"kind": "Pod", "metadata": {"name": "p"}}, "any": {"x": {"y": 1}}})
        );
    }

    #[test]
    fn defaults_fill_what_is_missing() {
        let mut object =
            json!({"spec": {"n": null, "a": null, "open": null, "list": [{}], "map": {"x": {}}}});
        default(&schema(), &mut object);
        assert_eq!(
            object,
            json!({"spec": {"n": null, "a": 3, "list": [{"d": true}], "map": {"x": {"z": "zz"}}}})
        );
    }

    /// A generator of its own: a seed is all that a failure needs to be seen again.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % sides
        }

        /// Any value, of names that the schema knows and of others.
        fn value(&mut self, depth: u64) -> Value {
            const NAMES: [&str; 12] = [
                "spec", "a", "n", "list", "map", "open", "pod", "any", "k", "z", "odd", "metadata",
            ];
            match self.roll(if depth == 0 { 4 } else { 9 }) {
                0 => Value::Null,
                1 => json!(self.roll(9)),
                2 => json!("text"),
                3 => json!(true),
                4 => (0..self.roll(4)).map(|_| self.value(depth - 1)).collect(),
                _ => {
                    let mut members = Map::new();
                    for _ in 0..self.roll(7) {
                        let name = NAMES[self.roll(12) as usize];
                        members.insert(name.to_owned(), self.value(depth - 1));
                    }
                    members.into()
                }
            }
        }
    }

    #[test]
    fn whatever_comes_pruning_and_defaulting_settle_at_once() {
        for seed in 1..3000_u64 {
            let given = json!({"spec": Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)).value(5), "odd": seed});
            let mut pruned = given.clone();
            prune(&schema(), &mut pruned);
            assert_eq!(prune(&schema(), &mut pruned.clone()).join(" "), "", "{seed}: {given}");
            let mut settled = pruned;
            default(&schema(), &mut settled);
            assert_eq!(prune(&schema(), &mut settled.clone()).join(" "), "", "{seed}: {given}");
            let mut again = settled.clone();
            default(&schema(), &mut again);
            assert_eq!(again, settled, "{seed}: {given}");
        }
    }
}
