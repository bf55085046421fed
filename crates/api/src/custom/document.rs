//! OpenAPI definitions of defined kinds.
//! Source: `pkg/controller/openapi/builder` of apiextensions-apiserver.

use serde_json::{Map, Value, json};

use super::list;
use crate::openapi::Document;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The name of a kind's definition: the group backwards, version, kind.
pub(crate) fn name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    parts.extend([version, kind]);
    parts.join(".")
}

/// The documents of what a definition serves.
pub fn documents(definition: &Value) -> Vec<Document> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, names) = (text(&spec["group"]), &definition["status"]["acceptedNames"]);
    let (kind, list_kind) = (text(&names["kind"]), text(&names["listKind"]));
    let mut all = Vec::new();
    for version in list(&spec["versions"]).iter().filter(|version| version["served"] == true) {
        let schema = &version["schema"]["openAPIV3Schema"];
        let selectable: Vec<Value> = list(&version["selectableFields"])
            .iter()
            .map(|field| json!({"fieldPath": text(&field["jsonPath"]).trim_start_matches('.')}))
            .collect();
        let version = text(&version["name"]);
        let one = name(&group, &version, &kind);
        let document = |kind: &str, v2: Value, v3: Value| {
            let gvk = json!([{"group": group, "version": version, "kind": kind}]);
            let [v2, v3] = [v2, v3].map(|mut schema| {
                schema["x-kubernetes-group-version-kind"] = gvk.clone();
                schema
            });
            let (group, version) = (group.clone(), version.clone());
            Document { name: name(&group, &version, kind), group, version, v2, v3 }
        };
        let reference = |place: &str, to: &str| json!({"$ref": format!("#/{place}/{to}")});
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        // Of a whole object that may have anything v2 says nothing more.
        let v2 = match open {
            true => json!({"type": "object"}),
            false => whole(simplified(schema), v2_metadata("ObjectMeta")),
        };
        let v3 = whole(schema.clone(), v3_metadata("ObjectMeta"));
        let [v2, v3] = [v2, v3].map(|mut schema| {
            if !selectable.is_empty() {
                schema["x-kubernetes-selectable-fields"] = json!(selectable);
            }
            schema
        });
        all.push(document(&kind, v2, v3));
        let list_of = |place: &str, metadata: Value| {
            let items = json!({"type": "array", "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", text(&names["plural"])),
                "items": reference(place, &one)});
            let list = json!({"type": "object", "required": ["items"], "properties": {"items": items},
                "description": format!("{list_kind} is a list of {kind}")});
            whole(list, metadata)
        };
        let v2 = list_of("definitions", v2_metadata("ListMeta"));
        let v3 = list_of("components/schemas", v3_metadata("ListMeta"));
        all.push(document(&list_kind, v2, v3));
    }
    all
}

fn v2_metadata(kind: &str) -> Value {
    json!({"description": METADATA, "$ref": format!("#/definitions/{META}{kind}")})
}

/// v3 ignores what stands beside a reference.
fn v3_metadata(kind: &str) -> Value {
    let reference = format!("#/components/schemas/{META}{kind}");
    json!({"description": METADATA, "allOf": [{"$ref": reference}]})
}

/// With the members that every object has.
fn whole(mut schema: Value, metadata: Value) -> Value {
    let Some(members) = schema.as_object_mut() else { return json!({"type": "object"}) };
    let properties = members.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties
            .insert("apiVersion".into(), json!({"type": "string", "description": API_VERSION}));
        properties.insert("kind".into(), json!({"type": "string", "description": KIND}));
        properties.insert("metadata".into(), metadata);
    }
    schema
}

/// What OpenAPI v2, and kubectl's reading of it, understand of a schema.
fn simplified(schema: &Value) -> Value {
    let Some(members) = schema.as_object() else { return schema.clone() };
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let loose = open || schema["nullable"] == true || schema["x-kubernetes-int-or-string"] == true;
    let mut kept = Map::new();
    for (name, value) in members {
        let value = match name.as_str() {
            "nullable" | "default" | "oneOf" | "anyOf" | "allOf" | "not" => continue,
            "type" | "items" | "properties" | "additionalProperties" | "required" if loose => {
                continue;
            }
            "items" | "additionalProperties" => simplified(value),
            "properties" => {
                let members = value.as_object().into_iter().flatten();
                members.map(|(name, value)| (name.clone(), simplified(value))).collect()
            }
            _ => value.clone(),
        };
        kept.insert(name.clone(), value);
    }
    Value::Object(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_and_its_list_are_described() {
        let definition = json!({"spec": {"group": "a.test", "versions": [{"name": "v1", "served": true,
            "selectableFields": [{"jsonPath": ".spec.color"}], "schema": {"openAPIV3Schema": {"type": "object", "description": "floats", "properties": {
                "spec": {"type": "object", "nullable": true, "description": "wish"},
                "n": {"type": "integer", "default": 3}}}}}]},
            "status": {"acceptedNames": {"kind": "Boat", "listKind": "BoatList", "plural": "boats"}}});
        let all = documents(&definition);
        let names: Vec<&str> = all.iter().map(|document| document.name.as_str()).collect();
        assert_eq!(names, ["test.a.v1.Boat", "test.a.v1.BoatList"]);
        let [v2, v3] = [&all[0].v2, &all[0].v3];
        assert_eq!(v2["properties"]["spec"], json!({"description": "wish"}));
        assert_eq!(v2["properties"]["n"], json!({"type": "integer"}));
        assert_eq!(v3["properties"]["n"]["default"], 3);
        for schema in [v2, v3] {
            let selectable = json!([{"fieldPath": "spec.color"}]);
            assert_eq!(schema["x-kubernetes-selectable-fields"], selectable);
        }
        assert_eq!(all[1].v3["x-kubernetes-selectable-fields"], Value::Null);
        assert_eq!(
            v3["properties"]["metadata"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        assert_eq!(
            all[1].v2["properties"]["items"]["items"]["$ref"],
            "#/definitions/test.a.v1.Boat"
        );
    }
}
