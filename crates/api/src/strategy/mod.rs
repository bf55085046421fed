//! What differs between kinds when an object is written: defaults, rules, and what a writer may
//! not set. The server's generic verbs call these functions for every kind in this order:
//! decode, `prepare_*`, admission, [`default`], [`validate`] or [`validate_update`], write.
//!
//! Everything here works on `serde_json::Value` in the version the resource is stored in.
//! What a kind has of its own is looked up by its collection; a kind without an entry gets the
//! behaviour that follows from its row in the resource table.

mod defaults;
mod facts;
mod initial;
mod label_keys;
mod validate;
mod views;
mod warnings;

pub use facts::{
    allows_create_on_update, allows_unconditional_update, counts_generation, has_dependents,
    orphans_by_default, returns_deleted,
};

pub use validate::{validate, validate_update};
pub use warnings::warnings;

use crate::custom::definition;
use crate::quota::quantity;
use crate::resource::Resource;
use serde_json::{Map, Value, json};

/// Fills in what the writer left out.
pub fn default(resource: &Resource, version: &str, object: &mut Value) {
    match &resource.custom {
        Some(custom) => custom.default(version, object),
        None if resource.collection() == definition::COLLECTION => definition::default(object),
        None => defaults::fill(resource.collection(), object),
    }
}

/// Makes a new object ready: what only the system may set is dropped, the generation starts.
pub fn prepare_create(resource: &Resource, object: &mut Value) {
    let status = initial::status(resource.collection(), object);
    if resource.subresource("status").is_some() {
        drop_member(object, "status");
    }
    if let Some(status) = status {
        set_member(object, "status", status);
    }
    if resource.collection() == "namespaces" {
        let mut finalizers = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
            finalizers.push(json!("kubernetes"));
        }
        set_member(object, "spec", json!({"finalizers": finalizers}));
        name_label(object);
    }
    if resource.collection() == "batch/jobs" {
        job_selector(object);
    }
    if resource.collection() == "pods" {
        label_keys::merge(object);
    }
    if resource.collection() == "apiregistration.k8s.io/apiservices" {
        local_service(object);
    }
    let generation = if counts_generation(resource) { json!(1) } else { Value::Null };
    set_metadata(object, "generation", generation);
}

/// Makes a changed object ready: each view writes its own part and nothing else, and the
/// generation counts changes of what is wished for.
pub fn prepare_update(resource: &Resource, subresource: &str, new: &mut Value, old: &Value) {
    views::narrow(resource, subresource, new, old);
    if resource.collection() == definition::COLLECTION {
        definition::note_storage(new);
    }
    if resource.collection() == "namespaces" {
        name_label(new);
    }
    let mut generation = old["metadata"]["generation"].clone();
    let wish = !matches!(subresource, "status" | "binding" | "approval");
    if counts_generation(resource) && wish && wish_changed(new, old) {
        generation = json!(generation.as_i64().unwrap_or(0) + 1);
    }
    set_metadata(new, "generation", generation);
}

/// Completes the times of a CertificateSigningRequest's conditions: `now` where a condition is
/// new or has changed its status, what stood there where it has not.
pub fn date_conditions(resource: &Resource, new: &mut Value, old: &Value, now: &str) {
    if resource.collection() != "certificates.k8s.io/certificatesigningrequests" {
        return;
    }
    let before = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let conditions = new.get_mut("status").and_then(|status| status.get_mut("conditions"));
    for condition in conditions.and_then(Value::as_array_mut).into_iter().flatten() {
        let same =
            |old: &&Value| old["type"] == condition["type"] && old["status"] == condition["status"];
        let known = before.iter().find(same).map(|old| old["lastTransitionTime"].clone());
        let since = known.filter(|time| !time.is_null()).unwrap_or_else(|| now.into());
        for (field, time) in [("lastUpdateTime", now.into()), ("lastTransitionTime", since)] {
            if condition[field].is_null() && condition.is_object() {
                condition[field] = time;
            }
        }
    }
}

/// An APIService that the server answers for by itself is available from its beginning.
fn local_service(object: &mut Value) {
    if object["spec"]["service"].is_null() {
        let since = object["metadata"]["creationTimestamp"].clone();
        let condition = json!({"type": "Available", "status": "True", "lastTransitionTime": since,
            "reason": "Local", "message": "Local APIServices are always available"});
        set_member(object, "status", json!({"conditions": [condition]}));
    }
}

/// A Job that does not bring its own selector gets one that only its own pods can match.
fn job_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true || !job["spec"]["template"].is_object() {
        return;
    }
    let (name, uid) = (job["metadata"]["name"].clone(), job["metadata"]["uid"].clone());
    let template = &mut job["spec"]["template"];
    let mut labels = template["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    for (label, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        labels.insert(label.to_owned(), value.clone());
    }
    set_metadata(template, "labels", Value::Object(labels));
    let own = json!({"batch.kubernetes.io/controller-uid": uid});
    match job["spec"]["selector"]["matchLabels"].as_object_mut() {
        Some(labels) => labels.extend(own.as_object().cloned().unwrap_or_default()),
        None => job["spec"]["selector"] = json!({"matchLabels": own}),
    }
}

/// Every namespace can be selected by its name.
fn name_label(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].clone();
    let mut labels = namespace["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if name.is_string() {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
        set_metadata(namespace, "labels", Value::Object(labels));
    }
}

/// Whether anything but `metadata` and `status` differs.
fn wish_changed(new: &Value, old: &Value) -> bool {
    let empty = Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let wish =
        |name: &&String| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status");
    new.keys().chain(old.keys()).filter(wish).any(|name| new.get(name) != old.get(name))
}

/// The pod's quality of service class: `Guaranteed`, `Burstable` or `BestEffort`
/// (k8s.io/kubernetes/pkg/apis/core/helper/qos).
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let containers = ["containers", "initContainers"].map(|list| spec[list].as_array());
    // What a pod says for itself as a whole counts alone.
    let holders: Vec<&Value> = match spec["resources"].is_object() {
        true => vec![spec],
        false => containers.into_iter().flatten().flatten().collect(),
    };
    let (mut any, mut all) = (false, true);
    for holder in holders {
        for resource in ["cpu", "memory"] {
            let given = |kind: &str| {
                let amount = quantity(&holder["resources"][kind][resource]);
                amount.filter(|amount| !amount.is_zero())
            };
            let (request, limit) = (given("requests"), given("limits"));
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn set_member(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

fn drop_member(object: &mut Value, name: &str) {
    if let Some(object) = object.as_object_mut() {
        object.shift_remove(name);
    }
}

fn copy_member(new: &mut Value, old: &Value, name: &str) {
    match old.get(name) {
        Some(value) => set_member(new, name, value.clone()),
        None => drop_member(new, name),
    }
}

fn set_metadata(object: &mut Value, field: &str, value: Value) {
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else { return };
    if value.is_null() {
        metadata.shift_remove(field);
    } else {
        metadata.insert(field.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    #[test]
    fn generation_counts_wishes_not_status() {
        let deployments = find("apps", "v1", "deployments").unwrap();
        let mut object =
            json!({"metadata": {"name": "a"}, "spec": {"replicas": 1}, "status": {"replicas": 9}});
        prepare_create(deployments, &mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "a", "generation": 1}, "spec": {"replicas": 1}, "status": {}
            })
        );

        let mut status = object.clone();
        status["status"] = json!({"replicas": 1});
        status["spec"]["replicas"] = json!(7);
        prepare_update(deployments, "status", &mut status, &object);
        assert_eq!(status["spec"]["replicas"], 1);
        assert_eq!(status["metadata"]["generation"], 1);

        let mut spec = status.clone();
        spec["spec"]["replicas"] = json!(2);
        spec["status"] = json!({});
        prepare_update(deployments, "", &mut spec, &status);
        assert_eq!(spec["metadata"]["generation"], 2);
        assert_eq!(spec["status"]["replicas"], 1);
    }

    #[test]
    fn quality_of_service() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
                "Burstable",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (json!({"requests": {"cpu": "0m"}}), "BestEffort"),
        ] {
            assert_eq!(qos_class(&pod(resources.clone())), expected);
            let mut whole = pod(json!({"requests": {"cpu": "1m"}}));
            whole["spec"]["resources"] = resources;
            assert_eq!(qos_class(&whole), expected, "the pod's own");
        }
    }
}
