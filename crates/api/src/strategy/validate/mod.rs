//! What makes an object legal, in upstream's words and order
//! (k8s.io/kubernetes `pkg/apis/*/validation`, k8s.io/apimachinery `pkg/api/validation`).
//!
//! A rule is a function of a place in the object; [`at::At`] knows the path to it, and
//! [`at::Errors`] takes what is wrong. A row of [`KINDS`] says which rules a kind has of its own.

mod at;
mod formats;
mod meta;
#[cfg(test)]
mod testing;

use crate::resource::Resource;
use crate::status::FieldError;
use at::{At, Errors};
use serde_json::Value;

/// What is wrong with a new object.
pub fn validate(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut out = Errors::default();
    let object = At::root(object);
    meta::check(resource, &object.get("metadata"), &mut out);
    super::rules::check(resource.collection(), object.value, &mut out.0);
    out.0
}

/// What is wrong with a change, beside what [`validate`] says of the new state.
/// `subresource` is empty for the object itself.
pub fn validate_update(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let mut out = Errors::default();
    meta::check_update(&At::root(new).get("metadata"), &old["metadata"], &mut out);
    if subresource.is_empty() {
        super::rules::check_update(resource.collection(), new, old, &mut out.0);
    }
    out.0
}
