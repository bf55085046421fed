//! Rules for what a pod takes over from elsewhere: its own fields, resources, ConfigMaps, Secrets.

use super::at::{At, Errors};
use super::formats;
use super::{meta, volume};

/// Fields that an environment variable may show.
pub(super) const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that a file of a downward API volume may show.
pub(super) const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Fields that are known at all, beyond those above.
const OTHER_FIELDS: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `env` of a container.
pub(super) fn env(at: &At<'_>, out: &mut Errors) {
    for variable in at.items() {
        let name = variable.get("name");
        if out.needed(&name) {
            out.all(&name, formats::env_name(name.text()));
        }
        value_from(&variable, out);
    }
}

fn value_from(variable: &At<'_>, out: &mut Errors) {
    let Some(from) = variable.get("valueFrom").set() else { return };
    let mut count = 0;
    if let Some(reference) = from.get("fieldRef").set() {
        count += 1;
        object_field(&reference, &ENV_FIELDS, out);
    }
    if let Some(reference) = from.get("resourceFieldRef").set() {
        count += 1;
        resource_field(&reference, false, out);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = from.get(name).set() else { continue };
        count += 1;
        key_selector(&reference, out);
    }
    if let Some(reference) = from.get("fileKeyRef").set() {
        count += 1;
        file_key(&reference, out);
    }
    let why = match (count, variable.get("value").text()) {
        (0, _) => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        }
        (_, text) if !text.is_empty() => "may not be specified when `value` is not empty",
        (1, _) => return,
        _ => "may not have more than one field specified at a time",
    };
    out.invalid_as(&from, "", why);
}

/// `envFrom` of a container.
pub(super) fn env_from(at: &At<'_>, out: &mut Errors) {
    for item in at.items() {
        let prefix = item.get("prefix");
        if !prefix.text().is_empty() {
            out.all(&prefix, formats::env_name(prefix.text()));
        }
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            let Some(reference) = item.get(name).set() else { continue };
            count += 1;
            let name = reference.get("name");
            if out.needed(&name) {
                out.all(&name, formats::dns_subdomain(&meta::masked(name.text())));
            }
        }
        let why = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        // Upstream's path names the list, not the item.
        out.invalid_as(at, "", why);
    }
}

fn file_key(at: &At<'_>, out: &mut Errors) {
    let (key, path, home) = (at.get("key"), at.get("path"), at.get("volumeName"));
    if out.needed(&key) {
        out.all(&key, formats::env_name(key.text()));
    }
    if out.needed(&path) {
        volume::local_path(&path, out);
    }
    if out.needed(&home) {
        out.all(&home, formats::dns_label(home.text()));
    }
}

fn key_selector(at: &At<'_>, out: &mut Errors) {
    let (name, key) = (at.get("name"), at.get("key"));
    out.all(&name, formats::dns_subdomain(name.text()));
    if out.needed(&key) {
        out.all(&key, formats::config_key(key.text()));
    }
}

/// A `fieldRef`.
pub(super) fn object_field(at: &At<'_>, fields: &[&str], out: &mut Errors) {
    let (version, path) = (at.get("apiVersion"), at.get("fieldPath"));
    if !out.needed(&version) || !out.needed(&path) {
        return;
    }
    let text = if path.text() == "spec.host" { "spec.nodeName" } else { path.text() };
    let subscript = text.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let base = subscript.map_or(text, |(base, _)| base);
    let known = match subscript {
        Some(_) => matches!(base, "metadata.annotations" | "metadata.labels"),
        None => [&ENV_FIELDS[..], &VOLUME_FIELDS, &OTHER_FIELDS].concat().contains(&base),
    };
    if version.text() != "v1" {
        let why =
            format!("error converting fieldPath: unsupported pod version: {}", version.text());
        return out.invalid(&path, why);
    }
    if !known {
        let why = format!("error converting fieldPath: field label not supported: {text}");
        return out.invalid(&path, why);
    }
    match subscript {
        Some(("metadata.annotations", key)) => meta::label_key(at, &key.to_lowercase(), out),
        Some((_, key)) => meta::label_key(at, key, out),
        None if fields.contains(&base) => {}
        None => out.not_supported(&path, fields),
    }
}

/// A `resourceFieldRef`; a volume's has to name the container.
pub(super) fn resource_field(at: &At<'_>, volume: bool, out: &mut Errors) {
    let resource = at.get("resource");
    let name = resource.text();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if volume && at.get("containerName").text().is_empty() {
        out.required(&at.get("containerName"), "");
    } else if name.is_empty() {
        out.required(&resource, "");
    } else if !RESOURCES.contains(&name) && !huge {
        out.not_supported(&resource, &RESOURCES);
    }
    divisor(&at.get("divisor"), name, out);
}

fn divisor(at: &At<'_>, resource: &str, out: &mut Errors) {
    let Some(amount) = at.quantity().filter(|amount| !amount.is_zero()) else { return };
    let amount = amount.to_string();
    let bytes = BYTE_DIVISORS.join(", ");
    let (known, why): (&[&str], String) = match resource
        .split_once('.')
        .map_or("", |(_, name)| name)
    {
        "cpu" => (
            &["1m", "1"],
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned(),
        ),
        "memory" => (
            &BYTE_DIVISORS,
            format!("only divisor's values {bytes} are supported with the memory resource"),
        ),
        "ephemeral-storage" => (
            &BYTE_DIVISORS,
            format!(
                "only divisor's values {bytes} are supported with the local ephemeral storage resource"
            ),
        ),
        name if name.starts_with("hugepages-") => (
            &BYTE_DIVISORS,
            format!("only divisor's values {bytes} are supported with the hugepages resource"),
        ),
        _ => return,
    };
    if !known.contains(&amount.as_str()) {
        out.invalid_as(at, resource, why);
    }
}
