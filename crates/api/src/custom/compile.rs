//! A version's schema in the form that server-side apply merges by.

use serde_json::Value;

use crate::schema::{Definition, Field, Merge, Node, Schema, Shape, Struct, Type, Types};

/// The compiled form.
pub(super) struct Compiled(Types);

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compiled")
    }
}

impl Compiled {
    /// Of `openAPIV3Schema`.
    pub(super) fn of(schema: &Value) -> Self {
        let mut root = node(schema);
        if let Shape::Struct(structure) = &mut root.shape {
            for name in ["apiVersion", "kind"] {
                structure.fields.retain(|field| &*field.name != name);
                let node = Node { shape: Shape::Scalar(Type::String), merge: None };
                structure.fields.push(Field { name: name.into(), required: false, node });
            }
            // Its schema is that of all objects.
            structure.fields.retain(|field| &*field.name != "metadata");
            structure.fields.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Compiled(Types::single(Definition { name: "".into(), atomic: false, node: root }))
    }

    pub(super) fn schema(&self) -> Schema<'_> {
        Schema::root(&self.0)
    }
}

fn node(schema: &Value) -> Node {
    let says = |name: &str| schema[name].as_str().map(Box::<str>::from);
    let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
    let merge = Merge {
        list_type: says("x-kubernetes-list-type"),
        keys: keys.filter_map(|key| key.as_str().map(Box::from)).collect(),
        atomic: schema["x-kubernetes-map-type"] == "atomic",
        default: schema.get("default").and_then(|default| match default {
            Value::String(text) => Some(text.as_str().into()),
            _ => None,
        }),
        ..Merge::default()
    };
    Node { shape: shape(schema), merge: Some(Box::new(merge)) }
}

fn shape(schema: &Value) -> Shape {
    if schema["x-kubernetes-int-or-string"] == true {
        return Shape::Scalar(Type::IntOrString);
    }
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true
        || schema["x-kubernetes-embedded-resource"] == true;
    match schema["type"].as_str() {
        Some("string") => Shape::Scalar(Type::String),
        Some("integer") => Shape::Scalar(Type::Int64),
        Some("number") => Shape::Scalar(Type::Number),
        Some("boolean") => Shape::Scalar(Type::Boolean),
        Some("array") => Shape::List(Box::new(node(&schema["items"]))),
        Some("object") if schema["additionalProperties"].is_object() => {
            Shape::Map(Box::new(node(&schema["additionalProperties"])))
        }
        Some("object") => {
            let members = schema["properties"].as_object().into_iter().flatten();
            let mut fields: Vec<Field> = members
                .map(|(name, schema)| Field {
                    name: name.as_str().into(),
                    required: false,
                    node: node(schema),
                })
                .collect();
            fields.sort_by(|a, b| a.name.cmp(&b.name));
            Shape::Struct(Struct { fields, open })
        }
        _ => Shape::Scalar(Type::Any),
    }
}
