//! Definitions of OpenAPI v2 turned into schemas of v3.

use serde_json::{Map, Value, json};

/// Turns one definition. The two types that are a string or a number say so in v3 only.
pub(super) fn definition(name: &str, definition: Value) -> Value {
    let mut schema = turn(definition);
    let number = match name.rsplit('.').next() {
        Some("Quantity") => "number",
        Some("IntOrString") => "integer",
        _ => return schema,
    };
    if let Some(members) = schema.as_object_mut() {
        members.remove("type");
        members.insert("oneOf".to_owned(), json!([{"type": "string"}, {"type": number}]));
    }
    schema
}

fn turn(schema: Value) -> Value {
    let Value::Object(members) = schema else { return schema };
    let alone = members.len() == 1;
    let mut turned = Map::new();
    for (key, value) in members {
        match key.as_str() {
            "$ref" => {
                let target = value.as_str().unwrap_or_default();
                let target = target.replace("#/definitions/", "#/components/schemas/");
                if alone {
                    turned.insert(key, json!(target));
                } else {
                    // v3 ignores what stands beside a reference.
                    turned.insert("allOf".to_owned(), json!([{"$ref": target}]));
                }
            }
            "items" | "additionalProperties" => {
                turned.insert(key, turn(value));
            }
            "properties" => {
                let Value::Object(fields) = value else { continue };
                let fields = fields.into_iter().map(|(name, field)| (name, turn(field)));
                turned.insert(key, fields.collect());
            }
            _ => {
                turned.insert(key, value);
            }
        }
    }
    Value::Object(turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_references_and_unions() {
        for (name, v2, v3) in [
            (
                "a.Pod",
                json!({"properties": {"spec": {"$ref": "#/definitions/a.Spec", "description": "d"},
                    "items": {"items": {"$ref": "#/definitions/a.X"}, "type": "array"}}}),
                json!({"properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/a.Spec"}], "description": "d"},
                    "items": {"items": {"$ref": "#/components/schemas/a.X"}, "type": "array"}}}),
            ),
            (
                "x.Quantity",
                json!({"type": "string", "description": "q"}),
                json!({"description": "q", "oneOf": [{"type": "string"}, {"type": "number"}]}),
            ),
            (
                "x.IntOrString",
                json!({"type": "string", "format": "int-or-string"}),
                json!({"format": "int-or-string", "oneOf": [{"type": "string"}, {"type": "integer"}]}),
            ),
        ] {
            assert_eq!(definition(name, v2), v3);
        }
    }
}
