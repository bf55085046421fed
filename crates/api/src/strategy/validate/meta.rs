//! Rules for `metadata` of every kind
//! (k8s.io/apimachinery/pkg/api/validation/objectmeta.go, pkg/apis/core/validation).

use super::at::{At, Errors};
use super::formats::{self, Format};
use crate::resource::{Resource, split_api_version};
use crate::status::FieldError;
use serde_json::Value;

/// All annotations of an object together.
const ANNOTATIONS_LIMIT_BYTES: usize = 256 * 1024;
/// Finalizers that need no domain before their name.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Collections whose objects are named by anything but a DNS subdomain.
const NAMES: &[(&str, Format)] = &[
    ("namespaces", formats::dns_label),
    ("services", formats::dns_label),
    ("events", formats::path_segment),
    ("policy/poddisruptionbudgets", formats::path_segment),
    ("certificates.k8s.io/certificatesigningrequests", formats::path_segment),
    ("apiregistration.k8s.io/apiservices", formats::path_segment),
    ("internal.apiserver.k8s.io/storageversions", formats::path_segment),
    ("networking.k8s.io/ipaddresses", formats::ip_name),
    ("flowcontrol.apiserver.k8s.io/flowschemas", formats::path_segment),
    ("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations", formats::path_segment),
    ("rbac.authorization.k8s.io/clusterrolebindings", formats::path_segment),
    ("rbac.authorization.k8s.io/clusterroles", formats::path_segment),
    ("rbac.authorization.k8s.io/rolebindings", formats::path_segment),
    ("rbac.authorization.k8s.io/roles", formats::path_segment),
];

/// `metadata` of a new object.
pub(super) fn check(resource: &Resource, meta: &At<'_>, out: &mut Errors) {
    let collection = resource.collection();
    let format = NAMES.iter().find(|(name, _)| *name == collection);
    let format = format.map_or(formats::dns_subdomain as Format, |(_, format)| *format);
    let base = meta.get("generateName");
    if !base.text().is_empty() {
        out.all(&base, format(&masked(base.text())));
    }
    let name = meta.get("name");
    if name.text().is_empty() {
        out.required(&name, "name or generateName is required");
    } else {
        out.all(&name, format(name.text()));
    }
    let namespace = meta.get("namespace");
    match (resource.namespaced, namespace.text()) {
        (true, "") => out.required(&namespace, ""),
        (true, text) => out.all(&namespace, formats::dns_label(text)),
        (false, "") => {}
        (false, _) => out.forbidden(&namespace, "not allowed on this type"),
    }
    out.not_negative(&meta.get("generation"));
    common(meta, out);
    for finalizer in meta.get("finalizers").items() {
        out.all(
            &meta.get("finalizers").with(finalizer.value),
            formats::qualified_name(finalizer.text()),
        );
    }
    both_deletions(&meta.get("finalizers"), out);
    if resource.group.is_empty() {
        finalizers(meta, out);
    }
}

/// A generated name may end with a dash in its base, since something follows.
pub(super) fn masked(base: &str) -> String {
    match base.strip_suffix('-') {
        Some(rest) => {
            let kept = rest.char_indices().next_back().map_or("", |(end, _)| &rest[..end]);
            format!("{kept}a")
        }
        None => base.to_owned(),
    }
}

/// What is checked when an object is made and whenever it is changed.
fn common(meta: &At<'_>, out: &mut Errors) {
    labels(&meta.get("labels"), out);
    annotations(&meta.get("annotations"), out);
    owners(&meta.get("ownerReferences"), out);
}

/// A map of labels, in `metadata`, a selector or a node selector.
pub(super) fn labels(at: &At<'_>, out: &mut Errors) {
    for (key, value) in at.entries() {
        label_key(at, key, out);
        for why in formats::label_value(value.text()) {
            out.invalid_as(at, value.text(), why);
        }
    }
}

/// A label's key; the error shows it at `at`.
pub(super) fn label_key(at: &At<'_>, key: &str, out: &mut Errors) {
    for why in formats::qualified_name(key) {
        out.invalid_as(at, key, why);
    }
}

/// A map of annotations.
pub(super) fn annotations(at: &At<'_>, out: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in at.entries() {
        for why in formats::qualified_name(&key.to_lowercase()) {
            out.invalid_as(at, key, why);
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > ANNOTATIONS_LIMIT_BYTES {
        out.too_long(at, ANNOTATIONS_LIMIT_BYTES);
    }
}

fn owners(at: &At<'_>, out: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in at.items() {
        let field = |name: &str| owner.get(name).named(at, name);
        let (_, version) = split_api_version(owner.get("apiVersion").text());
        for (name, missing, why) in [
            ("apiVersion", version.is_empty(), "version must not be empty"),
            ("kind", owner.get("kind").text().is_empty(), "kind must not be empty"),
            ("name", owner.get("name").text().is_empty(), "name must not be empty"),
            ("uid", owner.get("uid").text().is_empty(), "uid must not be empty"),
        ] {
            if missing {
                out.invalid_as(&field(name), owner.get(name).text(), why);
            }
        }
        if owner.get("apiVersion").text() == "v1" && owner.get("kind").text() == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            out.invalid_as(at, owner.value.clone(), why);
        }
        if owner.get("controller").is_true() {
            let name = format!("{}/{}", owner.get("kind").text(), owner.get("name").text());
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                out.invalid(at, why);
            }
            controller.get_or_insert(name);
        }
    }
}

fn both_deletions(at: &At<'_>, out: &mut Errors) {
    let has = |name: &str| at.items().any(|item| item.text() == name);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        out.invalid(at, why);
    }
}

/// What the core group asks of finalizers beyond their form.
fn finalizers(meta: &At<'_>, out: &mut Errors) {
    for finalizer in meta.get("finalizers").items() {
        let name = finalizer.text();
        if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            out.invalid(&finalizer, why);
        }
    }
}

/// `metadata` of a changed object beside its old state.
pub(super) fn check_update(new: &At<'_>, old: &Value, out: &mut Errors) {
    late_finalizers(new, old, out);
    let (now, before) = (new.get("generation").number(), old["generation"].as_i64().unwrap_or(0));
    if now < before {
        out.invalid_as(&new.get("generation"), now, "must not be decremented");
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        out.immutable(&new.get(field), &old[field]);
    }
    common(new, out);
}

/// An object on its way out gets no further finalizers.
fn late_finalizers(new: &At<'_>, old: &Value, out: &mut Errors) {
    if !old["deletionTimestamp"].is_string() {
        return;
    }
    let before = At::root(&old["finalizers"]);
    let is_new = |item: &At<'_>| !before.items().any(|old| old.value == item.value);
    let added: Vec<String> =
        new.get("finalizers").items().filter(is_new).map(|item| item.value.to_string()).collect();
    if !added.is_empty() {
        let names = added.join(", ");
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{names}}}"
        );
        out.push(FieldError::forbidden(&new.get("finalizers").path, why));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};
    use super::*;

    #[test]
    fn new_metadata() {
        created(
            "configmaps",
            &[
                ("metadata: {name: a.b}", ""),
                (
                    "metadata: {name: ''}",
                    "metadata.name: Required value: name or generateName is required",
                ),
                (
                    "metadata: {name: A_b}",
                    r#"metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must…"#,
                ),
                ("metadata: {generateName: web-}", ""),
                (
                    "metadata: {generateName: Web-}",
                    r#"metadata.generateName: Invalid value: "Web-": a lowercase RFC 1123 subdomain…"#,
                ),
                ("metadata: {namespace: ''}", "metadata.namespace: Required value"),
                (
                    "metadata: {namespace: a.b}",
                    r#"metadata.namespace: Invalid value: "a.b": must not contain dots"#,
                ),
                (
                    "metadata: {labels: {'a b': x, c: 'd e'}, annotations: {/x: y, Big: z}}",
                    r#"metadata.labels: Invalid value: "a b": name part must consist of…
                       metadata.labels: Invalid value: "d e": a valid label must be an empty string…
                       metadata.annotations: Invalid value: "/x": prefix part must be non-empty"#,
                ),
                (
                    "metadata: {finalizers: [mine, orphan, foregroundDeletion, a.b/c]}",
                    r#"metadata.finalizers: Invalid value: ["mine","orphan","foregroundDeletion","a.b/c"]: finalizer orphan and foregroundDeletion cannot be both set
                       metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified"#,
                ),
                (
                    "metadata: {ownerReferences: [{kind: Pod, apiVersion: apps/, name: a, uid: u, controller: true}, {kind: '', apiVersion: v1, name: b, controller: true}]}",
                    r#"metadata.ownerReferences.apiVersion: Invalid value: "apps/": version must not be empty
                       metadata.ownerReferences.kind: Invalid value: "": kind must not be empty
                       metadata.ownerReferences.uid: Invalid value: "": uid must not be empty
                       metadata.ownerReferences: Invalid value: …"#,
                ),
            ],
        );
        created(
            "nodes",
            &[(
                "metadata: {namespace: a}",
                "metadata.namespace: Forbidden: not allowed on this type",
            )],
        );
        created(
            "rbac.authorization.k8s.io/clusterroles",
            &[
                ("metadata: {name: 'system:Basic'}", ""),
                (
                    "metadata: {name: a/b}",
                    r#"metadata.name: Invalid value: "a/b": may not contain '/'"#,
                ),
            ],
        );
        let big =
            format!("metadata: {{annotations: {{a: {}}}}}", "x".repeat(ANNOTATIONS_LIMIT_BYTES));
        created(
            "configmaps",
            &[(&big, "metadata.annotations: Too long: may not be more than 262144 bytes")],
        );
    }

    #[test]
    fn changed_metadata() {
        updated(
            "configmaps",
            &[
                (
                    "metadata: {uid: a}",
                    "metadata: {uid: b, labels: {'': x}}",
                    r#"metadata.uid: Invalid value: "b": field is immutable
                    metadata.labels: Invalid value: "": name part must be non-empty
                    metadata.labels: Invalid value: "": name part must consist of…"#,
                ),
                (
                    "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [a/b]}",
                    "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [a/b, c/d]}",
                    r#"metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"c/d"}"#,
                ),
                (
                    "metadata: {generation: 2}",
                    "metadata: {generation: 1}",
                    "metadata.generation: Invalid value: 1: must not be decremented",
                ),
            ],
        );
    }
}
