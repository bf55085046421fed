//! Strategic merge patches (`application/strategic-merge-patch+json`).

use crate::resource::Resource;
use serde_json::{Map, Value};

/// Why a patch cannot be applied; the message is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatchError(pub String);

/// Merges `patch` into `original`, an object of `resource` in `version`.
pub fn strategic(
    _resource: &Resource,
    _version: &str,
    original: &mut Value,
    patch: &Value,
) -> Result<(), PatchError> {
    merge(original, patch);
    Ok(())
}

/// RFC 7396, and the `$patch` directive on objects.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("delete") => return fields.clear(),
        Some("replace") => fields.clear(),
        _ => {}
    }
    for (name, value) in patch {
        if name.starts_with('$') {
            continue;
        }
        if value.is_null() {
            fields.shift_remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
