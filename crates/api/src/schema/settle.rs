//! What is left of a value that was decoded into its type and written again: unknown fields are
//! gone, quantities, times and bytes stand in canonical form.

use super::{Schema, Type};
use crate::status::go_quote;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use serde_json::{Map, Value};

impl Schema<'_> {
    /// Does to a checked value what typed decoding and encoding would do. Unknown fields and
    /// fields that are null go; null in a list or a map becomes the type's zero value. Quantities
    /// become canonical text (`cpu: 0.5` is `"500m"`, and what is finer than thousandths of a
    /// resource is rounded up), times UTC, bytes base64 without line
    /// breaks. A value that does not fit its type stays as it is.
    pub fn prune(&self, value: &mut Value) {
        match (self.kind(), &mut *value) {
            (Type::Object, Value::Object(members)) => {
                members.retain(|name, member| {
                    let field = self.field(name).filter(|_| !member.is_null());
                    field.is_some_and(|field| {
                        field.prune(member);
                        if field.is_resource_list() && self.is_of_core_group() {
                            coarsen(member);
                        }
                        true
                    })
                });
            }
            (Type::Map, Value::Object(members)) => {
                if let Some(schema) = self.additional() {
                    members.values_mut().for_each(|member| schema.prune_item(member));
                }
            }
            (Type::List, Value::Array(items)) => {
                if let Some(schema) = self.items() {
                    items.iter_mut().for_each(|item| schema.prune_item(item));
                }
            }
            (Type::Quantity, Value::String(_) | Value::Number(_)) => replace(value, quantity),
            (Type::Bytes, Value::String(_)) => replace(value, |v| bytes(text(v))),
            (Type::Time, Value::String(_)) => replace(value, |v| seconds(text(v))),
            (Type::MicroTime, Value::String(_)) => replace(value, |v| micros(text(v))),
            _ => {}
        }
    }

    /// Whether this is a map of amounts.
    fn is_resource_list(&self) -> bool {
        self.kind() == Type::Map
            && self.additional().is_some_and(|amount| amount.kind() == Type::Quantity)
    }

    /// Whether the type is one of the core group, whose maps of amounts are all `ResourceList`s.
    fn is_of_core_group(&self) -> bool {
        self.name().is_some_and(|name| name.starts_with("io.k8s.api.core."))
    }

    fn prune_item(&self, value: &mut Value) {
        if value.is_null() {
            *value = match self.kind() {
                Type::String | Type::Bytes => Value::from(""),
                Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => Value::from(0),
                Type::Boolean => Value::from(false),
                Type::Quantity => Value::from("0"),
                Type::Object => Value::Object(Map::new()),
                Type::Any | Type::Time | Type::MicroTime | Type::List | Type::Map => Value::Null,
            };
        }
        self.prune(value);
    }
}

/// Rounds amounts to what upstream keeps of them.
fn coarsen(amounts: &mut Value) {
    for amount in amounts.as_object_mut().into_iter().flat_map(Map::values_mut) {
        // Of canonical texts these alone can be finer than thousandths.
        if text(amount).ends_with(['n', 'u']) || text(amount).contains('e') {
            replace(amount, |amount| {
                let parsed = text(amount).parse::<base::Quantity>();
                parsed.map(|fine| fine.coarse().to_string()).map_err(|error| error.to_string())
            });
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn replace(value: &mut Value, canonical: impl Fn(&Value) -> Result<String, String>) {
    if let Ok(text) = canonical(value) {
        *value = Value::String(text);
    }
}

/// Canonical form of a quantity, or what upstream says of it.
pub(super) fn quantity(value: &Value) -> Result<String, String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let parsed: Result<base::Quantity, _> = text.trim().parse();
    parsed.map(|quantity| quantity.to_string()).map_err(|error| error.to_string())
}

/// Canonical base64: upstream's decoder passes over line breaks and stray bits at the end.
pub(super) fn bytes(text: &str) -> Result<String, String> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match LENIENT.decode(&joined) {
        Ok(bytes) => Ok(LENIENT.encode(bytes)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) => at,
                base64::DecodeError::InvalidLastSymbol { offset, .. } => offset,
                // The group of four that is cut short.
                _ => joined.len() / 4 * 4,
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

/// `metav1.Time`: UTC, whole seconds.
pub(super) fn seconds(text: &str) -> Result<String, String> {
    time(text, "2006-01-02T15:04:05Z07:00")
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// `metav1.MicroTime`: UTC, microseconds.
pub(super) fn micros(text: &str) -> Result<String, String> {
    time(text, "2006-01-02T15:04:05.000000Z07:00")
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

/// An RFC 3339 time; `layout` is the form's name in upstream's message.
fn time(text: &str, layout: &str) -> Result<Timestamp, String> {
    // The parser takes ISO 8601 forms that RFC 3339 does not have.
    let shaped = text.len() >= "2006-01-02T15:04:05Z".len() && text.as_bytes()[10] == b'T';
    let parsed = text.parse().ok().filter(|_| shaped);
    parsed.ok_or_else(|| {
        let quoted = go_quote(text);
        format!("parsing time {quoted} as {}: cannot parse {quoted} as \"2006\"", go_quote(layout))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prunes_as_typed_decoding_does() {
        let mut pod = json!({"x": 1, "metadata": {"name": "a", "labels": {"b": null}, "uid": null},
            "spec": {"containers": [{"name": "c", "y": 2}], "nodeName": null}});
        Schema::of("", "v1", "Pod").unwrap().prune(&mut pod);
        assert_eq!(
            pod,
            json!({"metadata": {"name": "a", "labels": {"b": ""}},
                "spec": {"containers": [{"name": "c"}]}})
        );
        let mut revision = json!({"data": {"anything": {"at": null}}, "revision": 1});
        let kept = revision.clone();
        Schema::of("apps", "v1", "ControllerRevision").unwrap().prune(&mut revision);
        assert_eq!(revision, kept);
    }

    #[test]
    fn makes_values_canonical() {
        let mut pod = json!({"metadata": {"creationTimestamp": "2026-01-01T02:00:00.5+01:00"},
            "spec": {"containers": [{"resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "x": 3, "bad": "?"}}}]}});
        Schema::of("", "v1", "Pod").unwrap().prune(&mut pod);
        assert_eq!(
            pod,
            json!({"metadata": {"creationTimestamp": "2026-01-01T01:00:00Z"},
                "spec": {"containers": [{"resources": {"limits": {"cpu": "500m", "memory": "1Gi", "x": "3", "bad": "?"}}}]}})
        );
        let mut pod = json!({"spec": {"overhead": {"a": "100u", "b": "1.5m", "c": "-1n", "d": "1e-4", "e": "1.5"}}});
        Schema::of("", "v1", "Pod").unwrap().prune(&mut pod);
        assert_eq!(
            pod["spec"]["overhead"],
            json!({"a": "1m", "b": "2m", "c": "-1m", "d": "1e-3", "e": "1500m"})
        );
        let device = json!({"consumedCapacity": {"a": "100u"}});
        let mut claim = json!({"status": {"allocation": {"devices": {"results": [device]}}}});
        let kept = claim.clone();
        Schema::of("resource.k8s.io", "v1", "ResourceClaim").unwrap().prune(&mut claim);
        assert_eq!(claim, kept, "the capacity of a device is no list of resources");
        let mut secret = json!({"data": {"a": "YWJj\nZGVm\r\n", "b": "YWJj"}});
        Schema::of("", "v1", "Secret").unwrap().prune(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "YWJjZGVm", "b": "YWJj"}}));
        let mut lease = json!({"spec": {"renewTime": "2026-01-01T00:00:00Z"}});
        Schema::of("coordination.k8s.io", "v1", "Lease").unwrap().prune(&mut lease);
        assert_eq!(lease, json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}));
    }

    #[test]
    fn refuses_with_upstreams_words() {
        for (found, expected) in [
            (bytes("YQ"), "illegal base64 data at input byte 0"),
            (bytes("YWJjZA"), "illegal base64 data at input byte 4"),
            (bytes("YW?j"), "illegal base64 data at input byte 2"),
            (quantity(&json!("1x")), "unable to parse quantity's suffix"),
            (
                seconds("2026-01-01 00:00:00Z"),
                r#"parsing time "2026-01-01 00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse "2026-01-01 00:00:00Z" as "2006""#,
            ),
        ] {
            assert_eq!(found, Err(expected.to_owned()));
        }
    }
}
