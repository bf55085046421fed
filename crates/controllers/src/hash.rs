//! The pod template hash that names a ReplicaSet or a ControllerRevision and labels its pods.
//!
//! Upstream hashes Go's own printing of the template; its numbers cannot be had without Go
//! and mean nothing to anyone. Ours hashes the template's canonical JSON; encoding and
//! alphabet are upstream's.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// The hash of `template`; `collision_count` makes another one where two templates met.
pub fn template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let mut hash = Fnv32::default();
    let value = serde_json::to_value(template).unwrap_or_default();
    hash.value(&value);
    if let Some(count) = collision_count {
        hash.bytes(&count.to_le_bytes());
    }
    base::names::safe_encode(&hash.0.to_string())
}

/// FNV-1a, 32 bits (draft-eastlake-fnv).
struct Fnv32(u32);

impl Default for Fnv32 {
    fn default() -> Self {
        Fnv32(0x811c_9dc5)
    }
}

impl Fnv32 {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Feeds a JSON value with its members in name order.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut members: Vec<_> = map.iter().collect();
                members.sort_by_key(|(name, _)| name.as_str());
                self.bytes(b"{");
                for (name, member) in members {
                    self.bytes(name.as_bytes());
                    self.bytes(b":");
                    self.value(member);
                }
                self.bytes(b"}");
            }
            Value::Array(items) => {
                self.bytes(b"[");
                items.iter().for_each(|item| self.value(item));
                self.bytes(b"]");
            }
            scalar => self.bytes(scalar.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collision_changes_the_hash_and_order_does_not() {
        let parse = |text| serde_json::from_str::<PodTemplateSpec>(text).expect("a template");
        let a = parse(r#"{"metadata":{"labels":{"a":"1","b":"2"}}}"#);
        let b = parse(r#"{"metadata":{"labels":{"b":"2","a":"1"}}}"#);
        assert_eq!(template_hash(&a, None), template_hash(&b, None));
        assert_ne!(template_hash(&a, None), template_hash(&a, Some(1)));
    }
}
