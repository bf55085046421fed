//! Rules for what provides storage: classes, drivers, attachments
//! (k8s.io/kubernetes `pkg/apis/storage/validation`).

use super::at::{At, Errors};
use super::{formats, meta, selectors};
use serde_json::Value;
use std::collections::BTreeSet;

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 << 10;
const DRIVER_NAME_MAX_BYTES: usize = 63;
const NODE_ID_MAX_BYTES: usize = 192;
const TOKEN_MIN_SECONDS: i64 = 600;
const TOKEN_MAX_SECONDS: i64 = 1 << 32;

/// A StorageClass.
pub(super) fn class(object: &At<'_>, out: &mut Errors) {
    provisioner(&object.get("provisioner"), out);
    parameters(&object.get("parameters"), out);
    out.one_of_if_set(&object.get("reclaimPolicy"), &["Delete", "Retain"]);
    out.one_of(&object.get("volumeBindingMode"), &["Immediate", "WaitForFirstConsumer"]);
    for term in object.get("allowedTopologies").items() {
        let requirements = term.get("matchLabelExpressions");
        if requirements.len() == 0 {
            out.required(&requirements, "");
        }
        let mut keys = BTreeSet::new();
        for requirement in requirements.items() {
            let (key, values) = (requirement.get("key"), requirement.get("values"));
            if values.len() == 0 {
                out.required(&values, "");
            }
            let mut seen = BTreeSet::new();
            values.items().for_each(|value| out.unique(&value, &mut seen));
            meta::label_key(&key, key.text(), out);
            out.unique(&key, &mut keys);
        }
    }
}

fn provisioner(at: &At<'_>, out: &mut Errors) {
    if out.needed(at) {
        out.all(at, formats::qualified_name(&at.text().to_lowercase()));
    }
}

fn parameters(at: &At<'_>, out: &mut Errors) {
    if at.len() > PARAMETERS_MAX {
        return out.too_long(at, PARAMETERS_MAX);
    }
    let mut bytes = 0;
    for (key, value) in at.entries() {
        if key.is_empty() {
            out.invalid_as(at, key, "field can not be empty.");
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETERS_MAX_BYTES {
        out.too_long(at, PARAMETERS_MAX_BYTES);
    }
}

/// A changed StorageClass.
pub(super) fn class_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    kept(new, old, &["parameters", "provisioner", "reclaimPolicy"], out);
    out.immutable(&new.get("volumeBindingMode"), old.get("volumeBindingMode").value);
}

fn kept(new: &At<'_>, old: &At<'_>, fields: &[&str], out: &mut Errors) {
    for field in fields {
        if new.get(field).value != old.get(field).value {
            out.forbidden(&new.get(field), format!("updates to {field} are forbidden."));
        }
    }
}

/// A VolumeAttributesClass.
pub(super) fn attributes_class(object: &At<'_>, out: &mut Errors) {
    provisioner(&object.get("driverName"), out);
    let at = object.get("parameters");
    if at.len() == 0 {
        out.required(&at, "must contain at least one key/value pair");
    }
    parameters(&at, out);
}

/// A changed VolumeAttributesClass.
pub(super) fn attributes_class_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    kept(new, old, &["driverName", "parameters"], out);
}

/// A CSIDriver.
pub(super) fn driver(object: &At<'_>, out: &mut Errors) {
    driver_name(&object.get("metadata.name").named(object, "name"), out);
    let spec = object.get("spec");
    // Upstream names the first field its own way.
    let attach = spec.get("attachRequired").named(&spec, "attachedRequired");
    let flags = ["podInfoOnMount", "storageCapacity", "seLinuxMount"].map(|name| spec.get(name));
    for flag in [attach].into_iter().chain(flags).filter(|flag| !flag.is_set()) {
        out.required(&flag, "");
    }
    let policy = spec.get("fsGroupPolicy");
    out.one_of_if_set(&policy, &["File", "None", "ReadWriteOnceWithFSType"]);
    let mut audiences = BTreeSet::new();
    for request in spec.get("tokenRequests").items() {
        out.unique(&request.get("audience"), &mut audiences);
        let seconds = request.get("expirationSeconds");
        if seconds.is_set() && seconds.number() < TOKEN_MIN_SECONDS {
            out.invalid(&seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds.number() > TOKEN_MAX_SECONDS {
            out.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.items() {
        out.one_of(&mode.at(&modes), &["Ephemeral", "Persistent"]);
    }
}

fn driver_name(at: &At<'_>, out: &mut Errors) {
    if !out.needed(at) {
        return;
    }
    if at.text().len() > DRIVER_NAME_MAX_BYTES {
        out.too_long(at, DRIVER_NAME_MAX_BYTES);
    }
    out.all(at, formats::dns_subdomain(&at.text().to_lowercase()));
}

/// A changed CSIDriver.
pub(super) fn driver_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let (now, before) = (new.get("spec"), old.get("spec"));
    let attach = now.get("attachRequired").named(&now, "attachedRequired");
    out.immutable(&attach, before.get("attachRequired").value);
    out.immutable(&now.get("volumeLifecycleModes"), before.get("volumeLifecycleModes").value);
}

/// A CSINode.
pub(super) fn node(object: &At<'_>, out: &mut Errors) {
    let mut names = BTreeSet::new();
    for driver in object.get("spec.drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        driver_name(&name, out);
        out.needed(&id);
        if id.text().len() > NODE_ID_MAX_BYTES {
            out.invalid(&id, format!("must be {NODE_ID_MAX_BYTES} characters or less"));
        }
        let count = driver.get("allocatable.count");
        // Upstream's path names the driver's limits only.
        out.not_negative(&count);
        out.unique(&name, &mut names);
        let mut keys = BTreeSet::new();
        for key in driver.get("topologyKeys").items() {
            let at = key.at(&driver);
            out.needed(&at);
            out.unique(&at, &mut keys);
            out.all(&at, formats::qualified_name(key.text()));
        }
    }
}

/// A changed CSINode: what a driver said of itself stays.
pub(super) fn node_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let plain = |driver: &Value| {
        let mut driver = driver.clone();
        if let Some(fields) = driver.as_object_mut() {
            fields.shift_remove("allocatable");
        }
        driver
    };
    for before in old.get("spec.drivers").items() {
        for driver in new.get("spec.drivers").items() {
            let same = driver.get("name").text() == before.get("name").text();
            if same && plain(driver.value) != plain(before.value) {
                let at = driver.named(&At::root(&Value::Null), "CSINodeDriver");
                out.invalid(&at, "field is immutable");
            }
        }
    }
}

/// A CSIStorageCapacity.
pub(super) fn capacity(object: &At<'_>, out: &mut Errors) {
    let class = object.get("storageClassName");
    out.all(&class, formats::dns_subdomain(class.text()));
    for field in ["capacity", "maximumVolumeSize"] {
        let at = object.get(field);
        if at.quantity().is_some_and(|amount| amount.is_negative()) {
            out.invalid(&at, "must be greater than or equal to 0");
        }
    }
    selectors::label_selector(&object.get("nodeTopology"), out);
}

/// A changed CSIStorageCapacity.
pub(super) fn capacity_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    for field in ["nodeTopology", "storageClassName"] {
        out.immutable(&new.get(field), old.get(field).value);
    }
}

/// A VolumeAttachment.
pub(super) fn attachment(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let (attacher, node) = (spec.get("attacher"), spec.get("nodeName"));
    driver_name(&attacher, out);
    let source = spec.get("source");
    let volume = source.get("persistentVolumeName");
    match (source.get("inlineVolumeSpec").is_set(), volume.is_set()) {
        (false, false) => out.required(
            &source,
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ),
        (true, true) => out.forbidden(
            &source,
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ),
        (false, true) if volume.text().is_empty() => {
            out.required(&volume, "must specify non empty persistentVolumeName");
        }
        (false, true) => out.all(&volume, formats::dns_subdomain(volume.text())),
        (true, false) => {}
    }
    out.all(&node, formats::dns_subdomain(node.text()));
}

/// A changed VolumeAttachment.
pub(super) fn attachment_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("spec"), old.get("spec").value);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    #[test]
    fn storage_classes() {
        created(
            "storage.k8s.io/storageclasses",
            &[
                ("provisioner: a.b/c", ""),
                (
                    "{provisioner: a b, reclaimPolicy: Recycle, volumeBindingMode: Later, allowedTopologies: [{}, {matchLabelExpressions: [{key: a, values: [b, b]}, {key: a}]}]}",
                    r#"provisioner: Invalid value: "a b": name part must consist of…
                       reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"
                       volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"
                       allowedTopologies[0].matchLabelExpressions: Required value
                       allowedTopologies[1].matchLabelExpressions[0].values[1]: Duplicate value: "b"
                       allowedTopologies[1].matchLabelExpressions[1].values: Required value
                       allowedTopologies[1].matchLabelExpressions[1].key: Duplicate value: "a""#,
                ),
            ],
        );
        updated(
            "storage.k8s.io/storageclasses",
            &[(
                "provisioner: a",
                "{provisioner: b, parameters: {c: d}, reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer}",
                r#"parameters: Forbidden: updates to parameters are forbidden.
                   provisioner: Forbidden: updates to provisioner are forbidden.
                   reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.
                   volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable"#,
            )],
        );
        created(
            "storage.k8s.io/volumeattributesclasses",
            &[
                ("{driverName: a, parameters: {b: c}}", ""),
                (
                    "parameters: {}",
                    "driverName: Required value\nparameters: Required value: must contain at least one key/value pair",
                ),
            ],
        );
    }

    #[test]
    fn drivers_and_attachments() {
        created(
            "storage.k8s.io/csidrivers",
            &[
                ("spec: {}", ""),
                (
                    "spec: {fsGroupPolicy: Never, volumeLifecycleModes: [Eternal], tokenRequests: [{audience: a, expirationSeconds: 1}, {audience: a}]}",
                    r#"spec.fsGroupPolicy: Unsupported value: "Never": supported values: "File", "None", "ReadWriteOnceWithFSType"
                       spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes
                       spec.tokenRequests[1].audience: Duplicate value: "a"
                       spec.volumeLifecycleModes: Unsupported value: "Eternal": supported values: "Ephemeral", "Persistent""#,
                ),
            ],
        );
        updated(
            "storage.k8s.io/csidrivers",
            &[(
                "spec: {}",
                "spec: {attachRequired: false, podInfoOnMount: true}",
                "spec.attachedRequired: Invalid value: false: field is immutable",
            )],
        );
        created(
            "storage.k8s.io/csinodes",
            &[(
                "spec: {drivers: [{name: a, nodeID: b, topologyKeys: [k, k]}, {name: a}]}",
                r#"spec.drivers[0]: Duplicate value: "k"
                   spec.drivers[1].nodeID: Required value
                   spec.drivers[1].name: Duplicate value: "a""#,
            )],
        );
        created(
            "storage.k8s.io/volumeattachments",
            &[
                ("spec: {attacher: a, nodeName: node, source: {persistentVolumeName: v}}", ""),
                (
                    "spec: {nodeName: NODE}",
                    r#"spec.attacher: Required value
                       spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName
                       spec.nodeName: Invalid value: "NODE": a lowercase RFC 1123 subdomain…"#,
                ),
            ],
        );
        created(
            "storage.k8s.io/csistoragecapacities",
            &[
                ("{storageClassName: a, capacity: 1Gi}", ""),
                (
                    "{storageClassName: A, capacity: -1}",
                    r#"storageClassName: Invalid value: "A": a lowercase RFC 1123 subdomain…
                       capacity: Invalid value: -1: must be greater than or equal to 0"#,
                ),
            ],
        );
    }
}
