//! Rules for claims of storage and for volumes.

use super::at::{At, Errors};
use super::{amounts, selectors};
use crate::status::FieldError;
use serde_json::Value;

const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Where the data of a PersistentVolume may be.
const SOURCES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "csi",
];

/// `spec` of a PersistentVolumeClaim or of a template for one.
pub(super) fn claim_spec(at: &At<'_>, out: &mut Errors) {
    let modes = at.get("accessModes");
    if modes.len() == 0 {
        out.required(&modes, "at least 1 access mode is required");
    }
    if at.get("selector").is_set() {
        selectors::label_selector(&at.get("selector"), out);
    }
    let mut once = false;
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            out.not_supported(&mode.at(&modes), &ACCESS_MODES);
        }
        once |= mode.text() == "ReadWriteOncePod";
    }
    if once && modes.len() > 1 {
        let why = "may not use ReadWriteOncePod with other access modes";
        out.forbidden(&modes, why);
    }
    let size = at.get("resources.requests.storage");
    match size.quantity() {
        // Upstream writes this path its own way.
        None => out.required(&at.get("resources").key("storage"), ""),
        Some(amount) if amount.is_negative() || amount.is_zero() => {
            let requests = at.get("resources").key("storage");
            out.invalid_as(&requests, amount.to_string(), "must be greater than zero");
        }
        Some(_) => amounts::value("storage", &size, out),
    }
    out.one_of_if_set(&at.get("volumeMode"), &["Block", "Filesystem"]);
}

/// A claim whose wishes do not change once it is made, but for more storage.
pub(super) fn claim_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let mut wished = new.get("spec").value.clone();
    let before = old.get("spec");
    for free in ["resources", "volumeAttributesClassName", "volumeName"] {
        let kept = before.get(free);
        let may = free != "volumeName" || kept.text().is_empty();
        if let (true, Some(wished)) = (may, wished.as_object_mut()) {
            match kept.is_set() {
                true => wished.insert(free.to_owned(), kept.value.clone()),
                false => wished.shift_remove(free),
            };
        }
    }
    if wished != *before.value {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        out.forbidden(&new.get("spec"), why);
    }
    let size = |claim: &At<'_>| claim.get("spec.resources.requests.storage").quantity();
    if let (Some(now), Some(then)) = (size(new), size(old))
        && now < then
    {
        let path = new.get("spec.resources.requests.storage");
        out.forbidden(&path, "field can not be less than status.capacity");
    }
}

/// A PersistentVolume.
pub(super) fn volume(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let (modes, capacity) = (spec.get("accessModes"), spec.get("capacity"));
    if modes.len() == 0 {
        out.required(&modes, "");
    }
    for mode in modes.items().filter(|mode| !ACCESS_MODES.contains(&mode.text())) {
        out.not_supported(&mode.at(&modes), &ACCESS_MODES);
    }
    if capacity.len() == 0 {
        out.required(&capacity, "");
    }
    if capacity.value.get("storage").is_none() || capacity.len() > 1 {
        let shown = capacity.value.as_object().cloned().unwrap_or_default();
        out.push(FieldError::not_supported(&capacity.path, Value::Object(shown), &["storage"]));
    }
    for (name, amount) in capacity.entries() {
        match amount.quantity() {
            Some(found) if found.is_negative() || found.is_zero() => {
                out.invalid_as(&amount, found.to_string(), "must be greater than zero");
            }
            _ => amounts::value(name, &amount, out),
        }
    }
    out.one_of_if_set(&spec.get("persistentVolumeReclaimPolicy"), &["Delete", "Recycle", "Retain"]);
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        match affinity.get("required").is_set() {
            true => selectors::node_selector(&affinity.get("required"), out),
            false => {
                out.required(&affinity.get("required"), "must specify required node constraints")
            }
        }
    }
    sources(&spec, affinity.is_set(), out);
    out.one_of_if_set(&spec.get("volumeMode"), &["Block", "Filesystem"]);
}

/// One source of storage, and not the node's own root to be emptied.
fn sources(spec: &At<'_>, placed: bool, out: &mut Errors) {
    let mut found = false;
    for name in SOURCES {
        let Some(source) = spec.get(name).set() else { continue };
        if found {
            out.forbidden(&source, "may not specify more than 1 volume type");
        }
        found = true;
    }
    if !found {
        out.required(spec, "must specify a volume type");
    }
    for name in ["hostPath", "local"] {
        if spec.get(name).is_set() {
            out.needed(&spec.get(name).get("path"));
        }
    }
    if spec.get("local").is_set() && !placed {
        out.required(&spec.get("nodeAffinity"), "Local volume requires node affinity");
    }
    let recycled = spec.get("persistentVolumeReclaimPolicy");
    if spec.get("hostPath.path").text() == "/" && recycled.text() == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        out.forbidden(&recycled, why);
    }
}

/// A changed PersistentVolume: where its data is stays.
pub(super) fn volume_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let changed = |name: &&&str| {
        let (now, before) = (new.get("spec").get(name), old.get("spec").get(name));
        now.value != before.value
    };
    if SOURCES.iter().find(changed).is_some() {
        let why = "spec.persistentvolumesource is immutable after creation";
        out.forbidden(&new.get("spec.persistentvolumesource"), why);
    }
    out.immutable(&new.get("spec.volumeMode"), old.get("spec.volumeMode").value);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    #[test]
    fn claims_and_volumes() {
        const CLAIM: &str =
            "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}";
        created(
            "persistentvolumeclaims",
            &[
                (CLAIM, ""),
                (
                    "spec: {volumeMode: Tape}",
                    r#"spec.accessModes: Required value: at least 1 access mode is required
                       spec.resources[storage]: Required value
                       spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem""#,
                ),
                (
                    "spec: {accessModes: [Often], resources: {requests: {storage: 0}}}",
                    r#"spec.accessModes: Unsupported value: "Often": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
                       spec.resources[storage]: Invalid value: "0": must be greater than zero"#,
                ),
            ],
        );
        updated(
            "persistentvolumeclaims",
            &[
                (CLAIM, &CLAIM.replace("1Gi", "2Gi"), ""),
                (
                    CLAIM,
                    &CLAIM.replace("Once", "Many"),
                    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
                ),
                (
                    CLAIM,
                    &CLAIM.replace("1Gi", "1Mi"),
                    "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
                ),
            ],
        );
        const VOLUME: &str =
            "spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /x}}";
        created(
            "persistentvolumes",
            &[
                (VOLUME, ""),
                (
                    "spec: {local: {path: /x}, nfs: {}, capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce]}",
                    r#"spec.local: Forbidden: may not specify more than 1 volume type
                       spec.nodeAffinity: Required value: Local volume requires node affinity"#,
                ),
            ],
        );
        updated(
            "persistentvolumes",
            &[(
                VOLUME,
                &VOLUME.replace("/x", "/y"),
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            )],
        );
    }
}
