//! From JSON to upstream's protobuf form, in one pass over the text.

use super::wire::{bytes, nested, number, varint};
use super::{MAGIC, Message, NUMBERS};
use crate::resource::split_api_version;
use crate::schema::{Schema, Type};
use base64::Engine;
use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Why an object has no protobuf form.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Upstream has no messages for the kind.
    #[error("the kind {kind:?} of {api_version:?} has no protobuf form")]
    UnknownKind {
        /// `apiVersion` of the object.
        api_version: String,
        /// `kind` of the object.
        kind: String,
    },
    /// The object's text is no JSON object.
    #[error("reading the object's JSON")]
    Json(#[from] serde_json::Error),
}

/// A kind that has a protobuf form.
#[derive(Clone, Copy)]
pub struct Form {
    schema: Schema<'static>,
    /// `metadata` alone is shown.
    partial: bool,
}

impl Form {
    /// The form of a kind; `None` where upstream has none, as for custom resources.
    pub fn of(group: &str, version: &str, kind: &str) -> Option<Self> {
        if (group, version, kind) == ("meta.k8s.io", "v1", "PartialObjectMetadata") {
            return Self::partial();
        }
        let schema = Schema::of(group, version, kind)?;
        NUMBERS.get(schema.name()?)?;
        Some(Form { schema, partial: false })
    }

    /// The form of `PartialObjectMetadata`: every kind's `metadata` and nothing else.
    pub fn partial() -> Option<Self> {
        Some(Form { schema: Schema::of_definition(OBJECT_META)?, partial: true })
    }

    /// The message of an object that is given as JSON, without the envelope.
    pub fn message(&self, json: &[u8]) -> Result<Vec<u8>, EncodeError> {
        // Names of fields make JSON the longer form, nearly always.
        let mut out = Vec::with_capacity(json.len());
        self.append(json, &mut out)?;
        Ok(out)
    }

    /// The same as an item of a list.
    pub fn item(&self, json: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(json.len());
        nested(&mut out, 2, |out| self.append(json, out))?;
        Ok(out)
    }

    fn append(&self, json: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let schema = self.schema;
        if self.partial {
            Only { schema, out }.deserialize(&mut reader)?;
        } else {
            Fields { schema, out }.deserialize(&mut reader)?;
        }
        Ok(())
    }
}

/// Wraps a message into the envelope that says which kind it is.
pub fn document(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = head(api_version, kind, message.len());
    out.extend_from_slice(message);
    tail(&mut out);
    out
}

/// What stands before a message of `length` bytes.
fn head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + api_version.len() + kind.len() + 24);
    out.extend_from_slice(MAGIC);
    nested(&mut out, 1, |out| {
        bytes(out, 1, api_version.as_bytes());
        bytes(out, 2, kind.as_bytes());
    });
    varint(&mut out, 2 << 3 | 2);
    varint(&mut out, length as u64);
    out
}

/// What stands behind the message: encoding and type of its content, which are the usual ones.
fn tail(out: &mut Vec<u8>) {
    bytes(out, 3, b"");
    bytes(out, 4, b"");
}

/// An object as a document; its own `apiVersion` and `kind` say what it is.
pub fn encode(object: &Value) -> Result<Vec<u8>, EncodeError> {
    let text = |member: &str| object[member].as_str().unwrap_or_default();
    // The document that lists the versions of the core group names none of its own.
    let api_version = match text("apiVersion") {
        "" => "v1",
        given => given,
    };
    let kind = text("kind");
    let (group, version) = split_api_version(api_version);
    let form = Form::of(group, version, kind).ok_or_else(|| EncodeError::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })?;
    let message = form.message(&serde_json::to_vec(object)?)?;
    Ok(document(api_version, kind, &message))
}

/// The first piece of a list: envelope and metadata. All items as [`Form::item`] gives them,
/// `items` bytes together, have to follow, and then [`list_tail`].
pub fn list_head(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: usize,
) -> Result<Vec<u8>, EncodeError> {
    let mut meta = Vec::new();
    if let Some(schema) = Schema::of_definition(LIST_META) {
        let json = serde_json::to_vec(metadata)?;
        let mut reader = serde_json::Deserializer::from_slice(&json);
        nested(&mut meta, 1, |out| Fields { schema, out }.deserialize(&mut reader))?;
    }
    let mut out = head(api_version, kind, meta.len() + items);
    out.extend_from_slice(&meta);
    Ok(out)
}

/// The last piece of a list.
pub fn list_tail() -> Vec<u8> {
    let mut out = Vec::new();
    tail(&mut out);
    out
}

/// A frame of a watch: its length in four bytes, then a WatchEvent whose object is a document.
pub fn event(kind: &str, document: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(document.len() + kind.len() + 24);
    out.extend_from_slice(&[0; 4]);
    bytes(&mut out, 1, kind.as_bytes());
    nested(&mut out, 2, |out| bytes(out, 1, document));
    // No object is near 4 GiB; the store refuses those above some MiB.
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// Writes the fields of a JSON object as a message's.
struct Fields<'a> {
    schema: Schema<'static>,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let message = self.schema.name().and_then(|name| NUMBERS.get(name));
        let mut flattened = Flattened::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let schema = self.schema.field(&name);
            let place = message.and_then(|message: &Message| message.place(&name));
            let (Some(schema), Some(place)) = (schema, place) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (Some((field, around)), out) = (place.split_last(), &mut *self.out) else {
                continue;
            };
            let out = if around.is_empty() { out } else { flattened.buffer(around) };
            map.next_value_seed(Field { schema, field: *field, out })?;
        }
        flattened.finish(self.out);
        Ok(())
    }
}

/// The content of messages whose fields JSON shows in their owner, by their numbers from the
/// owner on.
#[derive(Default)]
struct Flattened<'a>(Vec<(&'a [u64], Vec<u8>)>);

impl<'a> Flattened<'a> {
    fn buffer(&mut self, around: &'a [u64]) -> &mut Vec<u8> {
        let at = self.0.iter().position(|(own, _)| *own == around).unwrap_or_else(|| {
            self.0.push((around, Vec::new()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Innermost first, each into what is around it.
    fn finish(mut self, out: &mut Vec<u8>) {
        while let Some(deepest) = (0..self.0.len()).max_by_key(|at| self.0[*at].0.len()) {
            let (numbers, content) = self.0.swap_remove(deepest);
            match numbers.split_last() {
                Some((field, [])) => bytes(out, *field, &content),
                Some((field, around)) => bytes(self.buffer(around), *field, &content),
                None => {}
            }
        }
    }
}

/// Writes an object's `metadata` and nothing else.
struct Only<'a> {
    schema: Schema<'static>,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Only<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Only<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == "metadata" {
                let schema = self.schema;
                map.next_value_seed(Field { schema, field: 1, out: &mut *self.out })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Writes a value as a field, or as all items of a repeated one. A value that is not of the
/// field's type is left out, as what is not set.
struct Field<'a> {
    schema: Schema<'static>,
    field: u64,
    out: &'a mut Vec<u8>,
}

impl Field<'_> {
    /// A message that wraps a text.
    fn wrapped(self, text: &str) {
        nested(self.out, self.field, |out| bytes(out, 1, text.as_bytes()));
    }

    fn number(self, value: u64) {
        number(self.out, self.field, value);
    }

    /// Where the alternatives of a JSON schema stand: the field's name tells.
    fn alternative(&self) -> Option<&'static str> {
        let name = self.schema.name()?;
        let (_, alternative) = name.split_once("JSONSchemaPropsOr")?;
        Some(alternative)
    }

    fn integer(self, value: i64) {
        match self.schema.kind() {
            Type::Int32 | Type::Int64 => self.number(value as u64),
            Type::Number => self.float(value as f64),
            Type::Quantity => self.wrapped(&value.to_string()),
            Type::IntOrString => nested(self.out, self.field, |out| {
                number(out, 1, 0);
                number(out, 2, value as u64);
            }),
            _ => {}
        }
    }

    fn float(self, value: f64) {
        match self.schema.kind() {
            Type::Number => {
                varint(self.out, self.field << 3 | 1);
                self.out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            Type::Quantity => self.wrapped(&value.to_string()),
            _ => {}
        }
    }

    fn text(self, text: &str) {
        match self.schema.kind() {
            Type::String => bytes(self.out, self.field, text.as_bytes()),
            Type::Bytes => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                bytes(self.out, self.field, &decoded.unwrap_or_default());
            }
            Type::Quantity => self.wrapped(text),
            Type::Time | Type::MicroTime => {
                let Ok(time) = text.parse::<Timestamp>() else { return };
                // Nanoseconds count upwards, before 1970 too.
                let nanos = time.as_nanosecond().rem_euclid(1_000_000_000);
                let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
                nested(self.out, self.field, |out| {
                    number(out, 1, seconds as u64);
                    number(out, 2, nanos as u64);
                });
            }
            Type::IntOrString => nested(self.out, self.field, |out| {
                number(out, 1, 1);
                bytes(out, 3, text.as_bytes());
            }),
            _ => {}
        }
    }
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        if self.schema.kind() != Type::Any || self.alternative().is_some() {
            return reader.deserialize_any(self);
        }
        let raw: Box<RawValue> = serde::Deserialize::deserialize(reader)?;
        if raw.get() != "null" {
            self.wrapped(raw.get());
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match (self.schema.kind(), self.alternative()) {
            (Type::Boolean, _) => self.number(value.into()),
            (_, Some(_)) => nested(self.out, self.field, |out| number(out, 1, value.into())),
            _ => {}
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => self.float(value as f64),
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.float(value);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Field { schema, field, out } = self;
        if let Some(item) = schema.items() {
            while items.next_element_seed(Field { schema: item, field, out: &mut *out })?.is_some()
            {
            }
            return Ok(());
        }
        let alternative = Field { schema, field, out: &mut *out }.alternative();
        let item = match alternative {
            Some("StringArray") => None,
            Some(_) => inner(schema),
            None => {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        };
        nested(out, field, |out| {
            loop {
                let more = match item {
                    Some(schema) => {
                        items.next_element_seed(Field { schema, field: 2, out: &mut *out })?
                    }
                    None => items
                        .next_element::<Cow<'de, str>>()?
                        .map(|text| bytes(out, 2, text.as_bytes())),
                };
                if more.is_none() {
                    return Ok(());
                }
            }
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Field { schema, field, out } = self;
        if schema.kind() == Type::Object {
            return nested(out, field, |out| Fields { schema, out }.visit_map(map));
        }
        if let Some(values) = schema.additional() {
            while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                nested(out, field, |out| {
                    bytes(out, 1, key.as_bytes());
                    map.next_value_seed(MapValue { schema: values, out })
                })?;
            }
            return Ok(());
        }
        let alternative = Field { schema, field, out: &mut *out }.alternative();
        let Some((alternative, schema)) = alternative.zip(inner(schema)) else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        nested(out, field, |out| {
            // A schema in place of a boolean allows what it describes.
            let field = if alternative == "Bool" { 2 } else { 1 };
            if alternative == "Bool" {
                number(out, 1, 1);
            }
            nested(out, field, |out| Fields { schema, out }.visit_map(map))
        })
    }
}

/// The schema within a `JSONSchemaPropsOr...`.
fn inner(schema: Schema<'static>) -> Option<Schema<'static>> {
    let (name, _) = schema.name()?.split_once("Or")?;
    Schema::of_definition(name)
}

/// Writes the value of a map's entry; a list is wrapped in a message of its own.
struct MapValue<'a> {
    schema: Schema<'static>,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MapValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let schema = self.schema;
        if schema.kind() == Type::List {
            return nested(self.out, 2, |out| Field { schema, field: 1, out }.deserialize(reader));
        }
        Field { schema, field: 2, out: self.out }.deserialize(reader)
    }
}
