//! Rules for ConfigMaps, Secrets, ServiceAccounts, Namespaces and Nodes.

use super::at::{At, Errors};
use super::{amounts, formats, selectors};
use crate::status::FieldError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeSet;

/// All values of a ConfigMap or a Secret together.
const DATA_LIMIT_BYTES: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";
const POD_CIDR: &str = "node updates may not change podCIDR except from \"\" to valid";

/// Keys that Secrets of a type must have, and an annotation that they must have.
const SECRET_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

/// A ConfigMap.
pub(super) fn config_map(object: &At<'_>, out: &mut Errors) {
    let (data, binary) = (object.get("data"), object.get("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        key_format(&value, key, out);
        if binary.value.get(key).is_some() {
            out.invalid_as(&value, key, "duplicate of key present in binaryData");
        }
        bytes += value.text().len();
    }
    for (key, value) in binary.entries() {
        key_format(&value, key, out);
        if data.value.get(key).is_some() {
            out.invalid_as(&value, key, "duplicate of key present in data");
        }
        bytes += decoded(value.text()).len();
    }
    if bytes > DATA_LIMIT_BYTES {
        // Upstream names no field here.
        out.push(FieldError::too_long("", DATA_LIMIT_BYTES));
    }
}

fn key_format(at: &At<'_>, key: &str, out: &mut Errors) {
    for why in formats::config_key(key) {
        out.invalid_as(at, key, why);
    }
}

fn decoded(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_default()
}

/// A changed ConfigMap or Secret that says it does not change.
pub(super) fn data_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    if !old.get("immutable").is_true() {
        return;
    }
    if !new.get("immutable").is_true() {
        out.forbidden(&new.get("immutable"), IMMUTABLE);
    }
    for field in ["data", "binaryData"] {
        if new.get(field).value != old.get(field).value {
            out.forbidden(&new.get(field), IMMUTABLE);
        }
    }
}

/// A changed Secret.
pub(super) fn secret_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("type"), old.get("type").value);
    data_update(new, old, out);
}

/// A Secret.
pub(super) fn secret(object: &At<'_>, out: &mut Errors) {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let data = object.get("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        key_format(&value, key, out);
        bytes += decoded(value.text()).len();
    }
    if bytes > DATA_LIMIT_BYTES {
        out.too_long(&data, DATA_LIMIT_BYTES);
    }
    let kind = object.get("type").text();
    match kind {
        "kubernetes.io/service-account-token" => {
            let notes = object.get("metadata.annotations");
            let account = notes.value.get(ACCOUNT).and_then(Value::as_str).unwrap_or_default();
            if account.is_empty() {
                out.required(&notes.key(ACCOUNT), "");
            }
        }
        "kubernetes.io/basic-auth" => {
            let has = |key: &str| data.value.get(key).is_some();
            if !has("username") && !has("password") {
                out.required(&data.key("username"), "");
                out.required(&data.key("password"), "");
            }
        }
        _ => required_keys(kind, &data, out),
    }
}

fn required_keys(kind: &str, data: &At<'_>, out: &mut Errors) {
    let keys = SECRET_KEYS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, keys)| keys);
    for key in keys {
        let Some(value) = data.value.get(key).and_then(Value::as_str) else {
            out.required(&data.key(key), "");
            continue;
        };
        if key.starts_with(".docker")
            && serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded(value)).is_err()
        {
            out.invalid_as(&data.key(key), "<secret contents redacted>", "invalid JSON");
        }
    }
}

/// A Namespace.
pub(super) fn namespace(object: &At<'_>, out: &mut Errors) {
    for finalizer in object.get("spec.finalizers").items() {
        let at = finalizer.at(&object.get("spec.finalizers"));
        out.all(&at, formats::qualified_name(finalizer.text()));
        if !finalizer.text().contains('/') && finalizer.text() != "kubernetes" {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            out.invalid(&at, why);
        }
    }
}

/// A Node.
pub(super) fn node(object: &At<'_>, out: &mut Errors) {
    // Upstream's path leads into the metadata.
    selectors::taints(&object.get("spec.taints").named(&object.get("metadata"), "taints"), out);
    node_resources(object, out);
    let cidrs = object.get("spec.podCIDRs");
    cidrs.items().for_each(|cidr| out.all(&cidr, formats::cidr(cidr.text())));
    let families: BTreeSet<bool> = cidrs.items().map(|cidr| cidr.text().contains(':')).collect();
    if cidrs.len() > families.len().max(1) {
        out.invalid(&cidrs, "may specify no more than one CIDR for each IP family");
    }
    let mut seen = BTreeSet::new();
    cidrs.items().for_each(|cidr| out.unique(&cidr, &mut seen));
}

fn node_resources(object: &At<'_>, out: &mut Errors) {
    for list in ["status.capacity", "status.allocatable"] {
        let at = object.get(list);
        for (name, amount) in at.entries() {
            amounts::value(name, &amount.named(&at, name), out);
        }
    }
}

/// A changed Node, through whichever view.
pub(super) fn node_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    node_resources(new, out);
    let mut seen: Vec<&Value> = Vec::new();
    for address in new.get("status.addresses").items() {
        if seen.contains(&address.value) {
            out.duplicate(&address, address.value.clone());
        }
        seen.push(address.value);
    }
    let (now, before) = (new.get("spec.podCIDRs"), old.get("spec.podCIDRs"));
    if before.len() > 0 && now.value != before.value {
        out.forbidden(&now, POD_CIDR);
    }
    let (now, before) = (new.get("spec.providerID"), old.get("spec.providerID"));
    if !before.text().is_empty() && now.value != before.value {
        let why = "node updates may not change providerID except from \"\" to valid";
        out.forbidden(&now, why);
    }
    selectors::taints(&new.get("spec.taints"), out);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    #[test]
    fn config_maps_and_secrets() {
        created(
            "configmaps",
            &[
                ("data: {a: b, C_d.e-f: ''}", ""),
                (
                    "{data: {a b: x, c: d}, binaryData: {c: ZA==}}",
                    "data[a b]: Invalid value: \"a b\": a valid config key must…\ndata[c]: Invalid value: \"c\": duplicate of key present in binaryData\nbinaryData[c]: Invalid value: \"c\": duplicate of key present in data",
                ),
                (
                    &format!("data: {{a: {}}}", "x".repeat(super::DATA_LIMIT_BYTES + 1)),
                    ": Too long: may not be more than 1048576 bytes",
                ),
            ],
        );
        created(
            "secrets",
            &[
                ("stringData: {a: b}", ""),
                (
                    "type: kubernetes.io/tls",
                    "data[tls.crt]: Required value\ndata[tls.key]: Required value",
                ),
                (
                    "type: kubernetes.io/basic-auth",
                    "data[username]: Required value\ndata[password]: Required value",
                ),
                (
                    "{type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: no}}",
                    "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid JSON",
                ),
                (
                    "type: kubernetes.io/service-account-token",
                    "metadata.annotations[kubernetes.io/service-account.name]: Required value",
                ),
            ],
        );
        updated(
            "configmaps",
            &[(
                "{immutable: true, data: {a: b}}",
                "{data: {a: c}}",
                "immutable: Forbidden: field is immutable when `immutable` is set\ndata: Forbidden: field is immutable when `immutable` is set",
            )],
        );
        updated(
            "secrets",
            &[(
                "type: a/b",
                "{type: c/d, data: {a: Yg==}}",
                "type: Invalid value: \"c/d\": field is immutable",
            )],
        );
    }

    #[test]
    fn nodes() {
        created(
            "nodes",
            &[
                ("spec: {podCIDRs: [10.42.0.0/24], taints: [{key: a, effect: NoSchedule}]}", ""),
                (
                    "{spec: {podCIDRs: [10.42.0.0/24, 10.42.0.0/24, x], taints: [{key: a b, effect: Never}]}, status: {capacity: {cpu: -1, pods: 1.5}}}",
                    r#"metadata.taints[0].key: Invalid value: "a b": name part must…
                       metadata.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
                       status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0
                       status.capacity.pods: Invalid value: "1500m": must be an integer
                       status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0
                       status.allocatable.pods: Invalid value: "1500m": must be an integer
                       spec.podCIDRs[2]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
                       spec.podCIDRs: Invalid value: ["10.42.0.0/24","10.42.0.0/24","x"]: may specify no more than one CIDR for each IP family
                       spec.podCIDRs[1]: Duplicate value: "10.42.0.0/24""#,
                ),
            ],
        );
        updated(
            "nodes",
            &[
                (
                    "spec: {podCIDRs: [10.42.0.0/24]}",
                    "spec: {podCIDRs: [10.43.0.0/24]}",
                    "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                ),
                ("spec: {}", "spec: {podCIDRs: [10.43.0.0/24]}", ""),
            ],
        );
    }
}
