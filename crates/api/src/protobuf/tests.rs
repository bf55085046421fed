use super::*;
use crate::schema::Schema;
use serde_json::json;

fn varint(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// A length-delimited field.
fn f(number: usize, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len()), content.to_vec()].concat()
}

/// A number.
fn n(number: usize, value: usize) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn document(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [f(1, api_version.as_bytes()), f(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), f(1, &meta), f(2, raw)].concat()
}

#[test]
fn reads_maps_flattened_messages_and_wrapped_values() {
    let metadata =
        [f(1, b"p"), f(2, b""), f(8, &[]), f(11, &[f(1, b"a"), f(2, b"b")].concat())].concat();
    let handler = f(2, &f(2, &[n(1, 0), n(2, 80)].concat()));
    let probe = [f(1, &handler), n(2, 0), n(3, 5)].concat();
    let quantity = f(1, &[f(1, b"cpu"), f(2, &f(1, b"250m"))].concat());
    let container = [f(1, b"c"), f(2, b"i"), f(8, &quantity), f(10, &probe), n(18, 0)].concat();
    let volume = [f(1, b"v"), f(2, &f(2, &[]))].concat();
    let spec = [f(1, &volume), f(2, &container), n(4, 0), n(21, 0)].concat();
    let pod = [f(1, &metadata), f(2, &spec), f(3, &[])].concat();
    assert_eq!(
        decode(&document("v1", "Pod", &pod)).unwrap(),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
                "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "250m"}},
                        "livenessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 5}}]},
                "status": {}})
    );
}

#[test]
fn bytes_become_base64() {
    let entry = [f(1, b"k"), f(2, b"\x00\xff")].concat();
    let secret = f(2, &entry);
    assert_eq!(decode(&document("v1", "Secret", &secret)).unwrap()["data"]["k"], "AP8=");
}

#[test]
fn delete_options_come_in_any_group() {
    let options = [n(1, 0), f(4, b"Orphan")].concat();
    assert_eq!(
        decode(&document("example.com/v1", "DeleteOptions", &options)).unwrap(),
        json!({"apiVersion": "example.com/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Orphan"})
    );
}

#[test]
fn broken_documents_are_refused() {
    assert_eq!(decode(b"{}"), Err(DecodeError::Prefix));
    assert_eq!(decode(b"k8s\0\x0a\x7f"), Err(DecodeError::Broken));
    assert!(matches!(decode(&document("v1", "Nope", &[])), Err(DecodeError::UnknownKind { .. })));
    assert_eq!(decode(&document("v1", "Pod", &[0x0a, 0x09])), Err(DecodeError::Broken));
}

#[test]
fn every_kind_has_numbers() {
    for resource in crate::resource::RESOURCES.iter() {
        let schema = Schema::of(&resource.group, &resource.versions[0], &resource.kind).unwrap();
        assert!(NUMBERS.contains_key(schema.name().unwrap()), "{}", resource.kind);
    }
    let number = |name: &str, field: &str| {
        NUMBERS[name].entries.iter().find_map(|entry| match entry {
            Entry::Named(number, own) if **own == *field => Some(*number),
            _ => None,
        })
    };
    assert_eq!(number("io.k8s.api.core.v1.PodSpec", "nodeName"), Some(10));
    assert_eq!(number("io.k8s.api.apps.v1.DeploymentSpec", "template"), Some(3));
}

/// What a document says of an object, read again.
fn round(object: &serde_json::Value) -> serde_json::Value {
    decode(&encode(object).unwrap()).unwrap()
}

#[test]
fn writes_what_it_reads() {
    for object in [
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}}]},
            "spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "optional": false}}],
                "terminationGracePeriodSeconds": 0,
                "ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "c"}],
                "containers": [{"name": "c", "args": ["", "-x"], "resources": {"limits": {"cpu": "250m"}},
                    "livenessProbe": {"httpGet": {"port": "http"}, "timeoutSeconds": 5}}]}}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
            "spec": {"user": "u", "extra": {"scopes": ["a", "b"]}}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"renewTime": "1969-12-31T23:59:59.250000Z"}}),
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"},
            "data": {"spec": {"n": [1, null]}}, "revision": 3}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AP8="}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "c"},
            "spec": {"group": "g", "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object",
                "maximum": 1.5, "default": {"a": 1}, "enum": ["x", 2],
                "properties": {"a": {"type": "array", "items": {"type": "string"}, "additionalProperties": false}},
                "additionalProperties": {"type": "integer"}, "dependencies": {"a": ["b"]}}}}]}}),
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "code": 404, "reason": "NotFound",
            "details": {"name": "x", "causes": [{"field": "f"}]}}),
    ] {
        assert_eq!(round(&object), object);
    }
}

#[test]
fn documents_are_upstreams_bytes() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "unknown": [{}]});
    let expected =
        b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x03\x0a\x01a\x1a\x00\x22\x00";
    assert_eq!(encode(&object).unwrap(), expected);
    let frame = event("ADDED", b"xy");
    assert_eq!(frame, b"\0\0\0\x0d\x0a\x05ADDED\x12\x04\x0a\x02xy");
    assert!(encode(&json!({"apiVersion": "example.com/v1", "kind": "Pod"})).is_err());
    let partial = Form::partial().unwrap().message(br#"{"spec":{"a":1},"metadata":{"name":"a"}}"#);
    assert_eq!(partial.unwrap(), b"\x0a\x03\x0a\x01a");
}

#[test]
fn lists_are_made_of_pieces() {
    let form = Form::of("", "v1", "ConfigMap").unwrap();
    let long = "x".repeat(300);
    let maps = ["a", &long].map(|name| json!({"metadata": {"name": name}}));
    let items: Vec<Vec<u8>> =
        maps.iter().map(|map| form.item(map.to_string().as_bytes()).unwrap()).collect();
    let metadata = json!({"resourceVersion": "7", "remainingItemCount": 3});
    let length = items.iter().map(Vec::len).sum();
    let head = list_head("v1", "ConfigMapList", &metadata, length).unwrap();
    let whole = [head, items.concat(), list_tail()].concat();
    assert_eq!(
        decode(&whole).unwrap(),
        json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": maps})
    );
}
