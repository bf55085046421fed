//! `AdmissionReview`: what a webhook is told of a write.

use api::resource::Resource;
use serde_json::{Value, json};

use super::Attributes;
use super::rules::View;
use crate::user::User;

const GROUP: &str = "admission.k8s.io";

/// `apiVersion` of a review.
pub(super) fn api_version(version: &str) -> String {
    format!("{GROUP}/{version}")
}

/// A request for a webhook that knows the object as `view`. Objects are in the version that
/// `view` names already.
pub(super) fn request(
    attributes: &Attributes<'_>,
    view: &View,
    version: &str,
    uid: &str,
    (object, old): (&Value, &Value),
) -> Value {
    let sub = attributes.subresource;
    let row = view.resource(attributes);
    let mut request = json!({
        "uid": uid,
        "kind": kind(row, &view.version, sub),
        "resource": resource(row, &view.version),
        "requestKind": kind(attributes.resource, attributes.version, sub),
        "requestResource": resource(attributes.resource, attributes.version),
        "operation": attributes.operation.name(),
        "userInfo": user_info(attributes.user),
        "object": object,
        "oldObject": old,
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    let optional = [
        ("subResource", sub),
        ("requestSubResource", sub),
        ("name", attributes.name),
        ("namespace", namespace(attributes)),
    ];
    for (field, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
        request[field] = value.into();
    }
    json!({"kind": "AdmissionReview", "apiVersion": api_version(version), "request": request})
}

/// Of a Namespace the review says that it is in itself.
fn namespace<'a>(attributes: &Attributes<'a>) -> &'a str {
    if attributes.resource.collection() == "namespaces" {
        attributes.name
    } else {
        attributes.namespace
    }
}

/// Who asks, as reviews and policies see it.
pub(super) fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// The kind that is sent: of the object, or of its subresource.
pub(super) fn kind(row: &Resource, version: &str, subresource: &str) -> Value {
    let sub = row.subresource(subresource);
    let own_group = sub.and_then(|sub| sub.group.as_deref()).unwrap_or(&row.group);
    let own_version = sub.and_then(|sub| sub.version.as_deref()).unwrap_or(version);
    let kind = sub.map_or(&row.kind, |sub| &sub.kind);
    json!({"group": own_group, "version": own_version, "kind": kind})
}

/// The resource that is named.
pub(super) fn resource(row: &Resource, version: &str) -> Value {
    json!({"group": row.group, "version": version, "resource": row.plural})
}
