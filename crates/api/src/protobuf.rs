//! Objects in upstream's protobuf form (`application/vnd.kubernetes.protobuf`), which newer
//! clients send for kinds they know.
//!
//! The wire carries field numbers only: the table made by `cargo xtask generate` turns them into
//! JSON names, and the structural schema says how each value is to be read. What an encoder
//! written in Go sends for "not set" (empty texts, zero numbers, zero times) is left out again,
//! as it is in JSON; fields where an explicit zero means something keep it.
//! Format: k8s.io/apimachinery/pkg/runtime/serializer/protobuf.

use crate::resource::split_api_version;
use crate::schema::{Schema, Type};
use base64::Engine;
use flate2::bufread::GzDecoder;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

/// Media type of the form.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every document begins with.
const MAGIC: &[u8] = b"k8s\0";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// How deep messages may be nested.
const DEPTH_MAX: usize = 64;

static DATA: &[u8] = include_bytes!("../data/protobuf.gz");

static NUMBERS: LazyLock<HashMap<Box<str>, Vec<Entry>>> = LazyLock::new(|| {
    let mut text = String::new();
    let read = GzDecoder::new(DATA).read_to_string(&mut text);
    read.expect("the generated file is part of the binary and a test reads all of it");
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, rest)| (name.into(), entries(&mut rest.chars().peekable()))).collect()
});

/// Fields that upstream holds by pointer: zero, false and the empty text are values there.
const POINTERS: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "attachRequired",
    "automountServiceAccountToken",
    "backoffLimit",
    "backoffLimitPerIndex",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "leaseDurationSeconds",
    "leaseTransitions",
    "maxFailedIndexes",
    "minReplicas",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "partition",
    "podInfoOnMount",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "requiresRepublish",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "startingDeadlineSeconds",
    "storageClassName",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
];

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The document does not begin as it must.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    /// A field's length or number is not what protobuf allows.
    #[error("the protobuf message is cut short or broken")]
    Broken,
    /// Nothing is known of the kind.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// `kind` of the envelope.
        kind: String,
        /// `apiVersion` of the envelope.
        api_version: String,
    },
}

/// A field of a message.
enum Entry {
    Named(u64, Box<str>),
    /// A message whose fields JSON shows in their owner.
    Flattened(u64, Vec<Entry>),
}

/// Reads `name=1 2(name=3 ...)` up to the end or a closing parenthesis.
fn entries(text: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Vec<Entry> {
    let mut list = Vec::new();
    loop {
        let mut word = String::new();
        while let Some(c) = text.next_if(|c| !matches!(c, ' ' | '(' | ')')) {
            word.push(c);
        }
        let next = text.next();
        if next == Some('(') {
            list.push(Entry::Flattened(word.parse().unwrap_or(0), entries(text)));
            continue;
        }
        if let Some((name, number)) = word.split_once('=') {
            list.push(Entry::Named(number.parse().unwrap_or(0), name.into()));
        }
        if matches!(next, None | Some(')')) {
            return list;
        }
    }
}

/// Reads a document: the envelope says which kind it is.
pub fn decode(document: &[u8]) -> Result<Value, DecodeError> {
    let envelope = document.strip_prefix(MAGIC).ok_or(DecodeError::Prefix)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = lossy(text),
                        (2, Wire::Bytes(text)) => kind = lossy(text),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = split_api_version(&api_version);
    let unknown =
        || DecodeError::UnknownKind { kind: kind.clone(), api_version: api_version.clone() };
    // Options come in the group and version of what they are about, known here or not.
    let options = || Schema::of_definition(DELETE_OPTIONS).filter(|_| kind == "DeleteOptions");
    let schema = Schema::of(group, version, &kind).or_else(options).ok_or_else(unknown)?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.clone().into());
    object.insert("kind".to_owned(), kind.clone().into());
    let numbers = schema.name().and_then(|name| NUMBERS.get(name)).ok_or_else(unknown)?;
    message(schema, numbers, raw, DEPTH_MAX, &mut object)?;
    Ok(Value::Object(object))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Adds a message's fields to `object`.
fn message(
    schema: Schema<'_>,
    numbers: &[Entry],
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::Broken)?;
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let entry = numbers.iter().find(|entry| match entry {
            Entry::Named(own, _) | Entry::Flattened(own, _) => *own == number,
        });
        match (entry, &wire) {
            (Some(Entry::Flattened(_, inner)), Wire::Bytes(bytes)) => {
                message(schema, inner, bytes, depth, object)?;
            }
            (Some(Entry::Named(_, name)), _) => {
                if let Some(schema) = schema.field(name) {
                    member(schema, name, wire, depth, object)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds one field, or one more item of a repeated one.
fn member(
    schema: Schema<'_>,
    name: &str,
    wire: Wire<'_>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    match schema.kind() {
        Type::List => {
            let Some(items) = schema.items() else { return Ok(()) };
            let list = object.entry(name).or_insert_with(|| json!([]));
            if let (Some(list), Some(item)) = (list.as_array_mut(), value(items, wire, depth)?) {
                list.push(item);
            }
        }
        Type::Map => {
            let (Some(values), Wire::Bytes(bytes)) = (schema.additional(), wire) else {
                return Ok(());
            };
            let (key, item) = pair(values, bytes, depth)?;
            let map = object.entry(name).or_insert_with(|| json!({}));
            if let Some(map) = map.as_object_mut() {
                map.insert(key, item);
            }
        }
        _ => {
            let Some(value) = value(schema, wire, depth)? else { return Ok(()) };
            let nothing = value == json!("") || value == json!(0) || value == json!(false);
            let always = schema.kind() == Type::IntOrString || schema.kind() == Type::Quantity;
            if !nothing || always || POINTERS.contains(&name) {
                object.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// An entry of a map: key and value are fields 1 and 2 of a message.
fn pair(values: Schema<'_>, bytes: &[u8], depth: usize) -> Result<(String, Value), DecodeError> {
    let (mut key, mut item) = (String::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = lossy(text),
            // A list as a map's value is wrapped in a message of its own.
            (2, Wire::Bytes(bytes)) if values.kind() == Type::List => {
                let Some(items) = values.items() else { continue };
                let mut list = Vec::new();
                for field in Fields(bytes) {
                    list.extend(value(items, field?.1, depth)?);
                }
                item = Some(Value::Array(list));
            }
            (2, wire) => item = value(values, wire, depth)?,
            _ => {}
        }
    }
    let empty = match values.kind() {
        Type::String | Type::Bytes => json!(""),
        _ => Value::Null,
    };
    Ok((key, item.unwrap_or(empty)))
}

/// One value; `None` for what stands for nothing.
fn value(schema: Schema<'_>, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, DecodeError> {
    Ok(match (schema.kind(), wire) {
        (Type::String, Wire::Bytes(text)) => Some(lossy(text).into()),
        (Type::Bytes, Wire::Bytes(bytes)) => {
            Some(base64::engine::general_purpose::STANDARD.encode(bytes).into())
        }
        (Type::Boolean, Wire::Number(number)) => Some((number != 0).into()),
        // Negative numbers of 32 bits are sent with 64.
        (Type::Int32, Wire::Number(number)) => Some((number as i32).into()),
        (Type::Int64, Wire::Number(number)) => Some((number as i64).into()),
        (Type::Number, Wire::Number(number)) => Some(json!(f64::from_bits(number))),
        (Type::Quantity, Wire::Bytes(bytes)) => text_field(bytes)?.map(Value::from),
        (Type::Time, Wire::Bytes(bytes)) => {
            time(bytes)?.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into())
        }
        (Type::MicroTime, Wire::Bytes(bytes)) => {
            time(bytes)?.map(|t| t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into())
        }
        (Type::IntOrString, Wire::Bytes(bytes)) => Some(int_or_string(bytes)?),
        (Type::Any, Wire::Bytes(bytes)) => any(schema, bytes, depth)?,
        (Type::Object, Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            if let Some(numbers) = schema.name().and_then(|name| NUMBERS.get(name)) {
                message(schema, numbers, bytes, depth, &mut object)?;
            }
            Some(Value::Object(object))
        }
        _ => return Err(DecodeError::Broken),
    })
}

/// Field 1 of a message that wraps a text.
fn text_field(bytes: &[u8]) -> Result<Option<String>, DecodeError> {
    let mut text = None;
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            text = Some(lossy(bytes));
        }
    }
    Ok(text)
}

/// Seconds and nanoseconds since 1970; an empty message is no time.
fn time(bytes: &[u8]) -> Result<Option<Timestamp>, DecodeError> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(number)) => seconds = number as i64,
            (2, Wire::Number(number)) => nanos = number as i32,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(None);
    }
    Timestamp::new(seconds, nanos).map(Some).map_err(|_| DecodeError::Broken)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = value as i32,
            (3, Wire::Bytes(value)) => text = lossy(value),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// Values without a structure of their own: JSON in field 1 (RawExtension, FieldsV1, JSON), or
/// one of the alternatives of a JSON schema.
fn any(schema: Schema<'_>, bytes: &[u8], depth: usize) -> Result<Option<Value>, DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::Broken)?;
    let name = schema.name().unwrap_or_default();
    let alternative = name.contains("JSONSchemaPropsOr");
    let mut result = None;
    let mut list = Vec::new();
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) if !alternative => {
                result = Some(serde_json::from_slice(bytes).map_err(|_| DecodeError::Broken)?);
            }
            (1, Wire::Number(allowed)) => result = result.or(Some(json!(allowed != 0))),
            (number @ (1 | 2), Wire::Bytes(bytes)) => {
                let inner = name.rsplit_once("Or").map_or(name, |(inner, _)| inner);
                let Some(schema) = Schema::of_definition(inner) else { continue };
                if number == 2 && name.ends_with("OrStringArray") {
                    list.push(lossy(bytes).into());
                    continue;
                }
                let object = value(schema, Wire::Bytes(bytes), depth)?;
                if number == 2 && name.ends_with("OrArray") {
                    list.extend(object);
                } else {
                    result = object;
                }
            }
            _ => {}
        }
    }
    Ok(if list.is_empty() { result } else { Some(Value::Array(list)) })
}

/// A field's content on the wire.
enum Wire<'a> {
    /// A varint, or 32 or 64 bits.
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((key >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or(DecodeError::Broken);
        if field.is_err() {
            // What follows a broken field has no known beginning.
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(
            decode(&document("v1", "Nope", &[])),
            Err(DecodeError::UnknownKind { .. })
        ));
        assert_eq!(decode(&document("v1", "Pod", &[0x0a, 0x09])), Err(DecodeError::Broken));
    }

    #[test]
    fn every_kind_has_numbers() {
        for resource in crate::resource::RESOURCES.iter() {
            let schema =
                Schema::of(&resource.group, &resource.versions[0], &resource.kind).unwrap();
            assert!(NUMBERS.contains_key(schema.name().unwrap()), "{}", resource.kind);
        }
        let number = |name: &str, field: &str| {
            NUMBERS[name].iter().find_map(|entry| match entry {
                Entry::Named(number, own) if **own == *field => Some(*number),
                _ => None,
            })
        };
        assert_eq!(number("io.k8s.api.core.v1.PodSpec", "nodeName"), Some(10));
        assert_eq!(number("io.k8s.api.apps.v1.DeploymentSpec", "template"), Some(3));
    }
}
