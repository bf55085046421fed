//! A version's schema in the form that server-side apply merges by.

use serde_json::Value;

use crate::schema::{Definition, Field, ListType, Merge, Node, Schema, Shape, Struct, Type, Types};

/// What `metadata` of a whole object within another one is.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

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
            name_kind(&mut structure.fields);
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

/// Whatever a definition says of them, these are text.
fn name_kind(fields: &mut Vec<Field>) {
    for name in ["apiVersion", "kind"] {
        put(fields, name, Node { shape: Shape::Scalar(Type::String), merge: None });
    }
}

fn put(fields: &mut Vec<Field>, name: &str, node: Node) {
    fields.retain(|field| &*field.name != name);
    fields.push(Field { name: name.into(), required: false, node });
}

/// What is built in, as a part of what is not: a table refers to no other.
fn copied(schema: Schema<'_>) -> Node {
    let part = |part: Option<Schema<'_>>| {
        Box::new(part.map_or(Node { shape: Shape::Scalar(Type::Any), merge: None }, copied))
    };
    let shape = match schema.kind() {
        Type::Object => {
            let field = |(name, schema): (&str, Schema<'_>)| Field {
                name: name.into(),
                required: false,
                node: copied(schema),
            };
            let fields = schema.fields().map(field).collect();
            Shape::Struct(Struct { fields, open: schema.is_open() })
        }
        Type::List => Shape::List(part(schema.items())),
        Type::Map => Shape::Map(part(schema.additional())),
        scalar => Shape::Scalar(scalar),
    };
    let list_type = match schema.list_type() {
        ListType::Atomic => "atomic",
        ListType::Set => "set",
        ListType::Map => "map",
    };
    let merge = Merge {
        list_type: Some(list_type.into()),
        keys: schema.map_keys().to_vec(),
        atomic: schema.is_atomic(),
        ..Merge::default()
    };
    Node { shape, merge: Some(Box::new(merge)) }
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
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
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
            if schema["x-kubernetes-embedded-resource"] == true {
                name_kind(&mut fields);
                if let Some(metadata) = Schema::of_definition(OBJECT_META) {
                    put(&mut fields, "metadata", copied(metadata));
                }
            }
            fields.sort_by(|a, b| a.name.cmp(&b.name));
            Shape::Struct(Struct { fields, open })
        }
        _ => Shape::Scalar(Type::Any),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_whole_object_within_another_has_metadata_as_all_have() {
        let compiled = Compiled::of(&json!({"type": "object", "properties": {"template": {
            "type": "object", "x-kubernetes-embedded-resource": true, "properties": {
                "spec": {"type": "object"},
                "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}}}}}));
        let template = compiled.schema().field("template").unwrap();
        let names: Vec<&str> = template.fields().map(|(name, _)| name).collect();
        assert_eq!(names, ["apiVersion", "kind", "metadata", "spec"]);
        assert!(!template.is_open());
        let metadata = template.field("metadata").unwrap();
        assert_eq!(metadata.field("namespace").unwrap().kind(), Type::String);
        assert_eq!(metadata.field("labels").unwrap().additional().unwrap().kind(), Type::String);
        assert_eq!(metadata.field("finalizers").unwrap().list_type(), ListType::Set);
        let owners = metadata.field("ownerReferences").unwrap();
        let keys: Vec<&str> = owners.map_keys().iter().map(|key| &**key).collect();
        assert_eq!(keys, ["uid"]);
        assert!(owners.items().unwrap().is_atomic());
        assert!(metadata.field("unknown").is_none());
    }
}
