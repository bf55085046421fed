//! Small completions of new objects: the default storage and ingress class, finalizers that keep
//! volumes while they are used, the taint of a node that is not known to be ready.

use api::quota::quantity;
use api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};

const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE_CLASSES: &str = "storage.k8s.io/storageclasses";
const INGRESS_CLASSES: &str = "networking.k8s.io/ingressclasses";
/// An older way to name a claim's class.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// Collections and the finalizers that keep their objects while they are used.
const PROTECTED: [(&str, &str); 2] = [
    (CLAIMS, "kubernetes.io/pvc-protection"),
    ("persistentvolumes", "kubernetes.io/pv-protection"),
];
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The class that is marked as default: of several the newest, then the first by name.
fn default_class(attributes: &Attributes<'_>, collection: &str, marks: &[&str]) -> Option<String> {
    let mut classes = attributes.cluster.all(collection);
    classes
        .retain(|class| marks.iter().any(|mark| class["metadata"]["annotations"][mark] == "true"));
    classes.sort_by(|a, b| {
        let key = |class: &Value| meta::text(class, "creationTimestamp").to_owned();
        key(b).cmp(&key(a)).then_with(|| meta::name(a).cmp(meta::name(b)))
    });
    classes.first().map(|class| meta::name(class).to_owned())
}

/// DefaultStorageClass.
pub(super) fn storage_class(attributes: &Attributes<'_>, claim: &mut Value) -> Outcome<()> {
    let named = claim["spec"]["storageClassName"].is_string()
        || claim["metadata"]["annotations"][CLASS_ANNOTATION].is_string();
    if !attributes.is(Operation::Create, CLAIMS) || named {
        return Ok(());
    }
    let marks = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ];
    if let Some(class) = default_class(attributes, STORAGE_CLASSES, &marks) {
        meta::member(claim, "spec").insert("storageClassName".to_owned(), class.into());
    }
    Ok(())
}

/// DefaultIngressClass.
pub(super) fn ingress_class(attributes: &Attributes<'_>, ingress: &mut Value) -> Outcome<()> {
    let named = ingress["spec"]["ingressClassName"].is_string()
        || ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_string();
    if !attributes.is(Operation::Create, "networking.k8s.io/ingresses") || named {
        return Ok(());
    }
    let marks = ["ingressclass.kubernetes.io/is-default-class"];
    if let Some(class) = default_class(attributes, INGRESS_CLASSES, &marks) {
        meta::member(ingress, "spec").insert("ingressClassName".to_owned(), class.into());
    }
    Ok(())
}

/// StorageObjectInUseProtection; a controller takes the finalizer off again.
pub(super) fn protect(attributes: &Attributes<'_>, object: &mut Value) -> Outcome<()> {
    for (collection, finalizer) in PROTECTED {
        let mut finalizers = meta::finalizers(object);
        if attributes.is(Operation::Create, collection)
            && !finalizers.iter().any(|own| own == finalizer)
        {
            finalizers.push(finalizer.to_owned());
            meta::set_finalizers(object, finalizers);
        }
    }
    Ok(())
}

/// TaintNodesByCondition: nothing is put on a new node before somebody has seen it ready.
pub(super) fn taint(attributes: &Attributes<'_>, node: &mut Value) -> Outcome<()> {
    if !attributes.is(Operation::Create, "nodes") {
        return Ok(());
    }
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let own = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
    if !taints.iter().any(own) {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        meta::member(node, "spec").insert("taints".to_owned(), taints.into());
    }
    Ok(())
}

/// PersistentVolumeClaimResize.
pub(super) fn check_resize(attributes: &Attributes<'_>, claim: &Value) -> Outcome<()> {
    let Some(old) = attributes.old.filter(|_| attributes.is(Operation::Update, CLAIMS)) else {
        return Ok(());
    };
    let size = |claim: &Value| {
        quantity(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or_default()
    };
    if size(claim) <= size(old) {
        return Ok(());
    }
    let class = |claim: &Value| {
        let old = claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
        old.or(claim["spec"]["storageClassName"].as_str()).unwrap_or_default().to_owned()
    };
    let expands = || {
        let found = attributes.cluster.find(STORAGE_CLASSES, "", &class(claim));
        class(claim) == class(old)
            && found.is_some_and(|class| class["allowVolumeExpansion"] == true)
    };
    let why = if old["status"]["phase"] != "Bound" {
        "Only bound persistent volume claims can be expanded"
    } else if !expands() {
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    } else {
        return Ok(());
    };
    Err(Status::forbidden(attributes.resource, meta::name(claim), why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes, create};

    #[test]
    fn the_newest_default_class_counts() {
        let class = |name: &str, made: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": made,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}})
        };
        let cluster = Few::default()
            .with(STORAGE_CLASSES, class("a", "2026-01-01T00:00:00Z"))
            .with(STORAGE_CLASSES, class("c", "2026-01-02T00:00:00Z"))
            .with(STORAGE_CLASSES, class("b", "2026-01-02T00:00:00Z"));
        for (spec, expected) in
            [(json!({}), json!("b")), (json!({"storageClassName": ""}), json!(""))]
        {
            let mut claim = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
            create(storage_class, &cluster, ("", "v1", CLAIMS), &mut claim).unwrap();
            assert_eq!(claim["spec"]["storageClassName"], expected);
            create(protect, &cluster, ("", "v1", CLAIMS), &mut claim).unwrap();
            assert_eq!(meta::finalizers(&claim), ["kubernetes.io/pvc-protection"]);
        }
    }

    #[test]
    fn claims_grow_where_their_class_lets_them() {
        let claim = |size: &str, phase: &str, class: &str| {
            json!({"metadata": {"name": "p"}, "spec": {"storageClassName": class,
                "resources": {"requests": {"storage": size}}}, "status": {"phase": phase}})
        };
        let cluster = Few::default().with(
            STORAGE_CLASSES,
            json!({"metadata": {"name": "grows"}, "allowVolumeExpansion": true}),
        );
        for (phase, class, allowed) in
            [("Bound", "grows", true), ("Pending", "grows", false), ("Bound", "fixed", false)]
        {
            let old = claim("1Gi", phase, class);
            let mut write = attributes(&cluster, ("", "v1", CLAIMS), "ns");
            (write.operation, write.old) = (Operation::Update, Some(&old));
            let checked = check_resize(&write, &claim("2Gi", phase, class));
            assert_eq!(checked.is_ok(), allowed, "{phase} {class}");
        }
    }
}
