use super::*;
use crate::arbitrary::{Arbitrary, cases, seed};
use crate::schema::{Schema, Type};
use serde_json::{Value, json};

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

/// Zero, false and the empty text are left out where upstream's JSON leaves them out.
#[test]
fn what_stands_for_nothing_is_shown_where_it_means_something() {
    let status = [f(1, b"c"), n(4, 0), n(5, 0), f(8, b""), n(9, 0)].concat();
    let volume = [f(1, b"v"), f(2, &f(17, &[n(2, 0), n(4, 0)].concat()))].concat();
    let pod = [f(2, &f(1, &volume)), f(3, &f(8, &status))].concat();
    let pod = decode(&document("v1", "Pod", &pod)).unwrap();
    assert_eq!(
        pod["status"]["containerStatuses"][0],
        json!({"name": "c", "ready": false, "restartCount": 0, "started": false})
    );
    assert_eq!(pod["spec"]["volumes"][0], json!({"name": "v", "fc": {"lun": 0}}));
    let deployment = f(3, &[n(2, 0), n(8, 0)].concat());
    let deployment = decode(&document("apps/v1", "Deployment", &deployment)).unwrap();
    assert_eq!(deployment["status"], json!({"collisionCount": 0}));
    let version = [f(1, b"v1"), n(2, 0), n(3, 0)].concat();
    let definition = decode(&document(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        &f(2, &f(7, &version)),
    ));
    assert_eq!(
        definition.unwrap()["spec"]["versions"][0],
        json!({"name": "v1", "served": false, "storage": false})
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
            Entry::Named { number, name: own, .. } if **own == *field => Some(*number),
            _ => None,
        })
    };
    assert_eq!(number("io.k8s.api.core.v1.PodSpec", "nodeName"), Some(10));
    assert_eq!(number("io.k8s.api.apps.v1.DeploymentSpec", "template"), Some(3));
}

/// What a document says of an object, read again.
fn round(object: &Value) -> Value {
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
    // Go's `Verbs` is a message of its own.
    let list = json!({"apiVersion": "v1", "kind": "APIResourceList", "groupVersion": "v1",
        "resources": [{"name": "a", "verbs": ["get", "list"]}]});
    let resource = b"\x0a\x01a\x22\x0b\x0a\x03get\x0a\x04list";
    let message = [&b"\x0a\x02v1\x12\x10"[..], resource].concat();
    let encoded = encode(&list).unwrap();
    assert!(encoded.windows(message.len()).any(|window| window == message), "{encoded:?}");
    assert_eq!(decode(&encoded).unwrap(), list);
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

/// How deep the objects go that chance makes.
const DEPTH: usize = 7;

/// Something of the schema's type that is not nothing; `None` where there is no such thing.
fn any_value(random: &mut fastrand::Rng, schema: Schema<'_>, depth: usize) -> Option<Value> {
    let word = |random: &mut fastrand::Rng| {
        (0..random.usize(1..9)).map(|_| random.alphanumeric()).collect::<String>()
    };
    Some(match schema.kind() {
        Type::String => word(random).into(),
        Type::Int32 => random.i32(1..).into(),
        Type::Int64 => random.i64(i64::MIN..0).into(),
        Type::Number => json!(f64::from(random.i32(1..)) + 0.5),
        Type::Boolean => true.into(),
        Type::Bytes => "AP8B".into(),
        Type::Time => "2026-11-29T17:00:00Z".into(),
        Type::MicroTime => "2026-11-29T17:00:00.000250Z".into(),
        Type::Quantity => format!("{}Mi", random.u16(1..1000)).into(),
        Type::IntOrString if random.bool() => random.i32(..).into(),
        Type::IntOrString => word(random).into(),
        Type::Any if schema.name().is_some_and(|name| name.contains("JSONSchemaPropsOr")) => {
            return None;
        }
        Type::Any => json!({word(random): [1, null, "x"]}),
        Type::List => {
            let items = schema.items()?;
            let some = (0..random.usize(1..3)).map(|_| any_value(random, items, depth));
            Value::Array(some.collect::<Option<_>>()?)
        }
        Type::Map => {
            let mut map = serde_json::Map::new();
            map.insert(word(random), any_value(random, schema.additional()?, depth)?);
            Value::Object(map)
        }
        Type::Object => {
            let depth = depth.checked_sub(1)?;
            let mut object = serde_json::Map::new();
            for (name, field) in schema.fields() {
                if has_number(schema, name)
                    && random.u8(..) < 150
                    && let Some(value) = any_value(random, field, depth)
                {
                    object.insert(name.to_owned(), value);
                }
            }
            Value::Object(object)
        }
    })
}

/// Whether upstream's messages have a field, as far as the source of the numbers knows.
fn has_number(schema: Schema<'_>, field: &str) -> bool {
    let message = schema.name().and_then(|name| NUMBERS.get(name));
    message.is_some_and(|message| message.place(field).is_some())
}

#[test]
fn every_field_has_a_number() {
    let mut without = Vec::new();
    crate::schema::documents(|name, _| {
        let Some(schema) = Schema::of_definition(name).filter(|_| NUMBERS.contains_key(name))
        else {
            return;
        };
        let fields = schema.fields().map(|(field, _)| field);
        let fields = fields.filter(|field| !matches!(*field, "apiVersion" | "kind"));
        let fields = fields.filter(|field| !has_number(schema, field));
        without.extend(fields.map(|field| format!("{name}.{field}")));
    });
    assert_eq!(without, Vec::<String>::new());
}

#[test]
fn objects_of_every_kind_survive() {
    let mut random = fastrand::Rng::with_seed(20_261_129);
    for resource in crate::resource::RESOURCES.iter() {
        for version in &resource.versions {
            let schema = Schema::of(&resource.group, version, &resource.kind).unwrap();
            for _ in 0..20 {
                let mut object = any_value(&mut random, schema, DEPTH).unwrap();
                object["apiVersion"] = resource.api_version(version).into();
                object["kind"] = resource.kind.as_ref().into();
                assert!(schema.check(&object).is_empty(), "{object}");
                schema.prune(&mut object);
                assert_same(&round(&object), &object, &resource.kind);
            }
        }
    }
}

/// Zeros, empty texts, lists and objects: which of them count is decided at the first reading, and
/// what was read then stays as it is.
#[test]
fn what_was_read_is_read_again() {
    let mut arbitrary = Arbitrary::new(seed(), 100);
    for resource in crate::resource::RESOURCES.iter() {
        for version in &resource.versions {
            let schema = Schema::of(&resource.group, version, &resource.kind).unwrap();
            for _ in 0..cases(4) {
                let mut object = arbitrary.value(schema, DEPTH).unwrap();
                object["apiVersion"] = resource.api_version(version).into();
                object["kind"] = resource.kind.as_ref().into();
                assert!(schema.check(&object).is_empty(), "{object}");
                schema.prune(&mut object);
                let once = round(&object);
                assert!(schema.check(&once).is_empty(), "{once}");
                assert_same(&round(&once), &once, &resource.kind);
            }
        }
    }
}

/// Says where two trees differ.
#[track_caller]
fn assert_same(found: &Value, expected: &Value, at: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let names = found.keys().chain(expected.keys());
            for name in names {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(name).cloned().unwrap_or_default()
                };
                assert_same(&of(found), &of(expected), &format!("{at}.{name}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            for (found, expected) in found.iter().zip(expected) {
                assert_same(found, expected, &format!("{at}[]"));
            }
        }
        _ => assert_eq!(found, expected, "{at}"),
    }
}

/// Bytes that nobody wrote are refused or read, and nothing else.
#[test]
fn damaged_documents_never_break_the_reader() {
    let mut random = fastrand::Rng::with_seed(7);
    let pod = crate::resource::find("", "v1", "pods").unwrap();
    let schema = Schema::of("", "v1", "Pod").unwrap();
    for _ in 0..2_000 {
        let mut object = any_value(&mut random, schema, DEPTH).unwrap();
        object["apiVersion"] = "v1".into();
        object["kind"] = pod.kind.as_ref().into();
        let mut document = encode(&object).unwrap();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(4..document.len());
            match random.u8(..3) {
                0 => document.truncate(at.max(5)),
                1 => document[at] = random.u8(..),
                _ => document.insert(at, 0xff),
            }
        }
        let _ = decode(&document);
    }
}
