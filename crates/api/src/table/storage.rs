//! Columns of volumes, claims and what provides them.

use super::column::About::{Field, Says};
use super::column::Cell::{Call, Count, Flag, Text};
use super::column::{
    AGE, Column, Context, NAME, at, flag, items, named, number, or, text, text_at, wide,
};
use serde_json::{Value, json};

/// Columns by group and kind.
pub(super) const TABLES: &[(&str, &str, &[Column])] = &[
    ("", "PersistentVolume", VOLUME),
    ("", "PersistentVolumeClaim", CLAIM),
    ("storage.k8s.io", "StorageClass", STORAGE_CLASS),
    ("storage.k8s.io", "VolumeAttributesClass", ATTRIBUTES_CLASS),
    ("storage.k8s.io", "VolumeAttachment", ATTACHMENT),
    ("storage.k8s.io", "CSINode", CSI_NODE),
    ("storage.k8s.io", "CSIDriver", CSI_DRIVER),
    ("storage.k8s.io", "CSIStorageCapacity", CSI_CAPACITY),
    ("resource.k8s.io", "DeviceClass", &[NAME, AGE]),
    ("resource.k8s.io", "ResourceClaim", RESOURCE_CLAIM),
    ("resource.k8s.io", "ResourceClaimTemplate", &[NAME, AGE]),
    ("resource.k8s.io", "ResourceSlice", RESOURCE_SLICE),
];

const VOLUME_SPEC: &str = "api.core.v1.PersistentVolumeSpec";
const VOLUME_STATUS: &str = "api.core.v1.PersistentVolumeStatus";
const CLAIM_SPEC: &str = "api.core.v1.PersistentVolumeClaimSpec";
const CLAIM_STATUS: &str = "api.core.v1.PersistentVolumeClaimStatus";
const CLASS: &str = "api.storage.v1.StorageClass";
const DRIVER_SPEC: &str = "api.storage.v1.CSIDriverSpec";

const VOLUME: &[Column] = &[
    NAME,
    text("Capacity", Field(VOLUME_SPEC, "capacity"), Text("spec.capacity.storage", "0")),
    text(
        "Access Modes",
        Field(VOLUME_SPEC, "accessModes"),
        Call(|object, _| json!(access_modes(at(object, "spec.accessModes")))),
    ),
    text(
        "Reclaim Policy",
        Field(VOLUME_SPEC, "persistentVolumeReclaimPolicy"),
        Text("spec.persistentVolumeReclaimPolicy", ""),
    ),
    text("Status", Field(VOLUME_STATUS, "phase"), Call(phase)),
    text("Claim", Field(VOLUME_SPEC, "claimRef"), Call(claim)),
    text("StorageClass", Says("StorageClass of the pv"), Call(class)),
    text(
        "VolumeAttributesClass",
        Says("VolumeAttributesClass of the pv"),
        Text("spec.volumeAttributesClassName", "<unset>"),
    ),
    text("Reason", Field(VOLUME_STATUS, "reason"), Text("status.reason", "")),
    AGE,
    wide(text("VolumeMode", Field(VOLUME_SPEC, "volumeMode"), Text("spec.volumeMode", "<unset>"))),
];

const CLAIM: &[Column] = &[
    NAME,
    text("Status", Field(CLAIM_STATUS, "phase"), Call(phase)),
    text("Volume", Field(CLAIM_SPEC, "volumeName"), Text("spec.volumeName", "")),
    text("Capacity", Field(CLAIM_STATUS, "capacity"), Call(claim_capacity)),
    text("Access Modes", Field(CLAIM_STATUS, "accessModes"), Call(claim_modes)),
    text("StorageClass", Says("StorageClass of the pvc"), Call(class)),
    text(
        "VolumeAttributesClass",
        Says("VolumeAttributesClass of the pvc"),
        Text("spec.volumeAttributesClassName", "<unset>"),
    ),
    AGE,
    wide(text("VolumeMode", Field(CLAIM_SPEC, "volumeMode"), Text("spec.volumeMode", "<unset>"))),
];

const STORAGE_CLASS: &[Column] = &[
    named(text("Name", NAME_ABOUT, Call(class_name))),
    text("Provisioner", Field(CLASS, "provisioner"), Text("provisioner", "")),
    text("ReclaimPolicy", Field(CLASS, "reclaimPolicy"), Text("reclaimPolicy", "Delete")),
    text(
        "VolumeBindingMode",
        Field(CLASS, "volumeBindingMode"),
        Text("volumeBindingMode", "Immediate"),
    ),
    text(
        "AllowVolumeExpansion",
        Field(CLASS, "allowVolumeExpansion"),
        Flag("allowVolumeExpansion", false),
    ),
    AGE,
];

const NAME_ABOUT: super::column::About = Field("apimachinery.pkg.apis.meta.v1.ObjectMeta", "name");

const ATTRIBUTES_CLASS: &[Column] = &[
    named(text("Name", NAME_ABOUT, Call(class_name))),
    text(
        "DriverName",
        Field("api.storage.v1.VolumeAttributesClass", "driverName"),
        Text("driverName", ""),
    ),
    AGE,
];

const ATTACHMENT: &[Column] = &[
    NAME,
    named(text(
        "Attacher",
        Field("api.storage.v1.VolumeAttachmentSpec", "attacher"),
        Text("spec.attacher", ""),
    )),
    text(
        "PV",
        Field("api.storage.v1.VolumeAttachmentSource", "persistentVolumeName"),
        Text("spec.source.persistentVolumeName", ""),
    ),
    text(
        "Node",
        Field("api.storage.v1.VolumeAttachmentSpec", "nodeName"),
        Text("spec.nodeName", ""),
    ),
    flag(
        "Attached",
        Field("api.storage.v1.VolumeAttachmentStatus", "attached"),
        Flag("status.attached", false),
    ),
    AGE,
];

const CSI_NODE: &[Column] = &[
    NAME,
    number(
        "Drivers",
        Says("Drivers indicates the number of CSI drivers registered on the node"),
        Count("spec.drivers"),
    ),
    AGE,
];

const CSI_DRIVER: &[Column] = &[
    NAME,
    flag("AttachRequired", Field(DRIVER_SPEC, "attachRequired"), Flag("spec.attachRequired", true)),
    flag(
        "PodInfoOnMount",
        Field(DRIVER_SPEC, "podInfoOnMount"),
        Flag("spec.podInfoOnMount", false),
    ),
    flag(
        "StorageCapacity",
        Field(DRIVER_SPEC, "storageCapacity"),
        Flag("spec.storageCapacity", false),
    ),
    text("TokenRequests", Field(DRIVER_SPEC, "tokenRequests"), Call(token_requests)),
    flag(
        "RequiresRepublish",
        Field(DRIVER_SPEC, "requiresRepublish"),
        Flag("spec.requiresRepublish", false),
    ),
    text("Modes", Field(DRIVER_SPEC, "volumeLifecycleModes"), Call(lifecycle_modes)),
    AGE,
];

const CSI_CAPACITY: &[Column] = &[
    NAME,
    text(
        "StorageClassName",
        Field("api.storage.v1.CSIStorageCapacity", "storageClassName"),
        Text("storageClassName", ""),
    ),
    text(
        "Capacity",
        Field("api.storage.v1.CSIStorageCapacity", "capacity"),
        Text("capacity", "<unset>"),
    ),
];

const RESOURCE_CLAIM: &[Column] = &[
    NAME,
    text(
        "State",
        Says("A summary of the current state (allocated, pending, reserved, etc.)."),
        Call(claim_state),
    ),
    AGE,
];

const RESOURCE_SLICE: &[Column] = &[
    NAME,
    text("Node", Field("api.resource.v1.ResourceSliceSpec", "nodeName"), Text("spec.nodeName", "")),
    text("Driver", Field("api.resource.v1.ResourceSliceSpec", "driver"), Text("spec.driver", "")),
    text("Pool", Field("api.resource.v1.ResourcePool", "name"), Text("spec.pool.name", "")),
    AGE,
];

/// Access modes in short, in upstream's order.
fn access_modes(modes: &Value) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let held = SHORT.iter().filter(|(mode, _)| items(modes).iter().any(|held| held == mode));
    held.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn phase(object: &Value, _: &Context) -> Value {
    let deleted = !object["metadata"]["deletionTimestamp"].is_null();
    json!(if deleted { "Terminating" } else { text_at(object, "status.phase") })
}

fn claim(volume: &Value, _: &Context) -> Value {
    let claim = at(volume, "spec.claimRef");
    if claim.is_null() {
        return json!("");
    }
    json!(format!("{}/{}", text_at(claim, "namespace"), text_at(claim, "name")))
}

/// The storage class: an old annotation wins over the field.
fn class(object: &Value, _: &Context) -> Value {
    let annotation = &object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    json!(annotation.as_str().unwrap_or_else(|| text_at(object, "spec.storageClassName")))
}

fn is_bound(claim: &Value) -> bool {
    !text_at(claim, "spec.volumeName").is_empty()
}

fn claim_capacity(claim: &Value, _: &Context) -> Value {
    json!(if is_bound(claim) { or(text_at(claim, "status.capacity.storage"), "0") } else { "" })
}

fn claim_modes(claim: &Value, _: &Context) -> Value {
    json!(if is_bound(claim) {
        access_modes(at(claim, "status.accessModes"))
    } else {
        String::new()
    })
}

fn class_name(class: &Value, _: &Context) -> Value {
    const DEFAULT: [&str; 3] = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
        "volumeattributesclass.alpha.kubernetes.io/is-default-class",
    ];
    let annotations = &class["metadata"]["annotations"];
    let default = DEFAULT.iter().any(|name| annotations[*name] == "true");
    let name = text_at(class, "metadata.name");
    json!(if default { format!("{name} (default)") } else { name.to_owned() })
}

fn token_requests(driver: &Value, _: &Context) -> Value {
    let requests = at(driver, "spec.tokenRequests");
    if requests.is_null() {
        return json!("<unset>");
    }
    json!(items(requests).iter().map(|r| text_at(r, "audience")).collect::<Vec<_>>().join(","))
}

fn lifecycle_modes(driver: &Value, _: &Context) -> Value {
    let modes = items(at(driver, "spec.volumeLifecycleModes")).iter().filter_map(Value::as_str);
    json!(or(&modes.collect::<Vec<_>>().join(","), "<none>"))
}

fn claim_state(claim: &Value, _: &Context) -> Value {
    let deleted = !claim["metadata"]["deletionTimestamp"].is_null();
    let allocated = !at(claim, "status.allocation").is_null();
    let reserved = allocated && !items(at(claim, "status.reservedFor")).is_empty();
    let states = [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ];
    let states = states.iter().filter(|(holds, _)| *holds).map(|(_, state)| *state);
    json!(states.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use crate::table::tests::cells;

    #[test]
    fn rows() {
        for (group, kind, object, expected) in [
            (
                "",
                "PersistentVolume",
                r#"{"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"}, "storageClassName": "local"}, "status": {"phase": "Bound"}}"#,
                "v | 1Gi | RWO,RWX | Retain | Bound | n/c | local | <unset> |  | <unknown> | <unset>",
            ),
            (
                "",
                "PersistentVolumeClaim",
                r#"{"metadata": {"name": "c"}, "spec": {"volumeMode": "Filesystem", "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"}}"#,
                "c | Pending |  |  |  |  | <unset> | <unknown> | Filesystem",
            ),
            (
                "storage.k8s.io",
                "StorageClass",
                r#"{"metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"}"#,
                "s (default) | p | Delete | Immediate | #false | <unknown>",
            ),
            (
                "storage.k8s.io",
                "CSIDriver",
                r#"{"metadata": {"name": "d"}, "spec": {"volumeLifecycleModes": ["Persistent", "Ephemeral"]}}"#,
                "d | #true | #false | #false | <unset> | #false | Persistent,Ephemeral | <unknown>",
            ),
            (
                "resource.k8s.io",
                "ResourceClaim",
                r#"{"metadata": {"name": "c"}, "status": {"allocation": {}, "reservedFor": [{}]}}"#,
                "c | allocated,reserved | <unknown>",
            ),
        ] {
            assert_eq!(cells(group, kind, object), expected);
        }
    }
}
