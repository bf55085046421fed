//! What makes an object legal, in upstream's words and order
//! (k8s.io/kubernetes `pkg/apis/*/validation`, k8s.io/apimachinery `pkg/api/validation`).
//!
//! A rule is a function of a place in the object; [`at::At`] knows the path to it, and
//! [`at::Errors`] takes what is wrong. A row of [`KINDS`] says which rules a kind has of its own;
//! all others get what follows from their schema.

mod admission;
mod aggregation;
mod amounts;
mod at;
mod autoscaler;
mod batch;
mod certificates;
mod classes;
mod config;
mod container;
mod cron;
mod device_selectors;
mod devices;
mod flow;
mod formats;
mod handler;
mod ingress;
mod job_policies;
mod limits;
mod meta;
mod network;
mod pod;
mod pod_update;
mod rbac;
mod records;
mod security;
mod selectors;
mod service;
mod source;
mod status;
mod storage;
mod storage_kinds;
mod structural;
#[cfg(test)]
mod testing;
mod volume;
mod workload;

use crate::custom::definition;
use crate::resource::{Resource, split_api_version};
use crate::status::{FieldError, Path};
use at::{At, Errors};
use serde_json::Value;

/// Rules for an object.
type Rule = fn(&At<'_>, &mut Errors);
/// Rules for a changed object beside its old state.
type ChangeRule = fn(&At<'_>, &At<'_>, &mut Errors);

/// What a changed object has to obey beside the rules for its metadata.
enum Changed {
    /// The rules for a new object.
    Same,
    /// The rules for a new object, then these.
    Then(ChangeRule),
    /// These only.
    Instead(ChangeRule),
}

use Changed::{Instead, Same, Then};

/// Kinds with rules of their own: collection, rules for a new object, rules for a changed one.
const KINDS: &[(&str, Rule, Changed)] = &[
    ("admissionregistration.k8s.io/mutatingadmissionpolicies", admission::mutating_policy, Same),
    (
        "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
        admission::mutating_binding,
        Same,
    ),
    ("admissionregistration.k8s.io/mutatingwebhookconfigurations", admission::configuration, Same),
    (
        "admissionregistration.k8s.io/validatingadmissionpolicies",
        admission::validating_policy,
        Same,
    ),
    (
        "admissionregistration.k8s.io/validatingadmissionpolicybindings",
        admission::validating_binding,
        Same,
    ),
    (
        "admissionregistration.k8s.io/validatingwebhookconfigurations",
        admission::configuration,
        Same,
    ),
    (
        definition::COLLECTION,
        |at, out| out.0.extend(definition::validate(at.value)),
        Instead(|new, old, out| out.0.extend(definition::validate_update(new.value, old.value))),
    ),
    ("apiregistration.k8s.io/apiservices", aggregation::api_service, Same),
    ("apps/controllerrevisions", workload::revision, Then(workload::revision_update)),
    ("apps/daemonsets", workload::daemon_set, Then(workload::fixed_selector)),
    ("apps/deployments", workload::deployment, Then(workload::fixed_selector)),
    ("apps/replicasets", workload::replica_set, Then(workload::fixed_selector)),
    ("apps/statefulsets", workload::stateful_set, Then(workload::stateful_set_update)),
    ("autoscaling/horizontalpodautoscalers", autoscaler::autoscaler, Same),
    ("batch/cronjobs", batch::cron_job, Same),
    ("batch/jobs", batch::job, Then(batch::job_update)),
    (
        "certificates.k8s.io/certificatesigningrequests",
        certificates::request,
        Instead(certificates::unchanged),
    ),
    ("configmaps", config::config_map, Then(config::data_update)),
    ("coordination.k8s.io/leases", records::lease, Same),
    ("discovery.k8s.io/endpointslices", network::slice, Then(network::slice_update)),
    ("endpoints", service::endpoints, Same),
    ("events", records::event, Same),
    ("flowcontrol.apiserver.k8s.io/flowschemas", flow::schema, Same),
    ("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations", flow::level, Same),
    ("limitranges", limits::limit_range, Same),
    ("namespaces", config::namespace, Same),
    (
        "networking.k8s.io/ingressclasses",
        network::ingress_class,
        Then(network::ingress_class_update),
    ),
    (
        "networking.k8s.io/ingresses",
        ingress::created,
        Instead(|new, _, out| ingress::ingress(new, out)),
    ),
    ("networking.k8s.io/ipaddresses", network::address, Instead(network::address_update)),
    ("networking.k8s.io/networkpolicies", network::policy, Same),
    (
        "networking.k8s.io/servicecidrs",
        network::service_range,
        Instead(network::service_range_update),
    ),
    ("node.k8s.io/runtimeclasses", classes::runtime, Then(classes::runtime_update)),
    ("nodes", config::node, Instead(config::node_update)),
    ("persistentvolumeclaims", claim, Then(storage::claim_update)),
    ("persistentvolumes", storage::volume, Then(storage::volume_update)),
    ("pods", pod::created, Instead(pod::updated)),
    ("podtemplates", workload::pod_template_object, Same),
    ("policy/poddisruptionbudgets", workload::disruption_budget, Same),
    (
        "rbac.authorization.k8s.io/clusterrolebindings",
        rbac::cluster_role_binding,
        Then(rbac::binding_update),
    ),
    ("rbac.authorization.k8s.io/clusterroles", rbac::cluster_role, Same),
    ("rbac.authorization.k8s.io/rolebindings", rbac::role_binding, Then(rbac::binding_update)),
    ("rbac.authorization.k8s.io/roles", rbac::role, Same),
    ("replicationcontrollers", workload::replication_controller, Same),
    ("resource.k8s.io/deviceclasses", devices::class, Same),
    ("resource.k8s.io/resourceclaims", devices::claim, Instead(devices::fixed)),
    ("resource.k8s.io/resourceclaimtemplates", devices::template, Instead(devices::fixed)),
    ("resource.k8s.io/resourceslices", devices::slice, Then(devices::slice_update)),
    ("resourcequotas", limits::quota, Then(limits::quota_update)),
    ("scheduling.k8s.io/priorityclasses", classes::priority, Instead(classes::priority_update)),
    ("secrets", config::secret, Then(config::secret_update)),
    ("services", service::service, Instead(service::service_update)),
    ("storage.k8s.io/csidrivers", storage_kinds::driver, Then(storage_kinds::driver_update)),
    ("storage.k8s.io/csinodes", storage_kinds::node, Then(storage_kinds::node_update)),
    (
        "storage.k8s.io/csistoragecapacities",
        storage_kinds::capacity,
        Then(storage_kinds::capacity_update),
    ),
    ("storage.k8s.io/storageclasses", storage_kinds::class, Instead(storage_kinds::class_update)),
    (
        "storage.k8s.io/volumeattachments",
        storage_kinds::attachment,
        Then(storage_kinds::attachment_update),
    ),
    (
        "storage.k8s.io/volumeattributesclasses",
        storage_kinds::attributes_class,
        Then(storage_kinds::attributes_class_update),
    ),
];

/// The group through which Events obey more rules than through the core group.
const EVENTS: &str = "events.k8s.io";

/// Rules for objects that were changed through a view: collection, subresource, rules.
const VIEWS: &[(&str, &str, ChangeRule)] = &[
    ("apps/daemonsets", "status", status::daemon_set),
    ("apps/deployments", "status", status::deployment),
    ("apps/replicasets", "status", status::replica_set),
    ("apps/statefulsets", "status", status::stateful_set),
    ("autoscaling/horizontalpodautoscalers", "status", autoscaler::status),
    ("certificates.k8s.io/certificatesigningrequests", "approval", certificates::approval),
    ("certificates.k8s.io/certificatesigningrequests", "status", certificates::status),
    ("namespaces", "status", status::namespace),
    ("networking.k8s.io/ingresses", "status", status::ingress),
    ("pods", "ephemeralcontainers", pod_update::ephemeral_containers),
    ("pods", "resize", pod_update::resize),
    ("pods", "status", status::pod),
    ("policy/poddisruptionbudgets", "status", status::budget),
    ("replicationcontrollers", "status", status::replica_set),
    ("resource.k8s.io/resourceclaims", "status", devices::claim_status),
    ("resourcequotas", "status", limits::quota_status),
    ("services", "status", status::service),
];

fn claim(object: &At<'_>, out: &mut Errors) {
    storage::claim_spec(&object.get("spec"), out);
}

fn rules(resource: &Resource) -> Option<&'static (&'static str, Rule, Changed)> {
    KINDS.iter().find(|(collection, ..)| *collection == resource.collection())
}

/// What is wrong, with paths. Nearly all objects are legal, and writing down the path to each value
/// takes most of the time that looking at them does: it is done when something was found.
fn located(look: impl Fn(Path) -> Vec<FieldError>) -> Vec<FieldError> {
    if look(Path::unwritten()).is_empty() { Vec::new() } else { look(Path::default()) }
}

/// What is wrong with a new object.
pub fn validate(resource: &Resource, object: &Value) -> Vec<FieldError> {
    located(|path| new_object(resource, At { value: object, path }))
}

fn new_object(resource: &Resource, object: At<'_>) -> Vec<FieldError> {
    let mut out = Errors::default();
    meta::check(resource, &object.get("metadata"), &mut out);
    match rules(resource) {
        Some((_, created, _)) => created(&object, &mut out),
        None => unruled(resource, &object, None, &mut out),
    }
    if resource.group == EVENTS {
        records::event_of_group(&object, &mut out);
    }
    out.0
}

/// Rules of kinds that have none of their own here: what their schema says.
fn unruled(resource: &Resource, object: &At<'_>, old: Option<&Value>, out: &mut Errors) {
    let Some(custom) = &resource.custom else { return structural::check(resource, object, out) };
    let version = object.value["apiVersion"].as_str().unwrap_or_default();
    let version = split_api_version(version).1;
    out.0.extend(match old {
        Some(old) if only_metadata(object.value, old) => {
            custom.validate_kept(version, object.value)
        }
        _ => custom.validate(version, object.value, old),
    });
}

/// What is wrong with a change; `subresource` is empty for the object itself.
///
/// Views that write one part of a kind have rules of their own in `VIEWS`; for all others only
/// metadata counts. While nothing but metadata changes, only metadata is looked at: an object on
/// its way out is not held up by rules that its old state breaks too. Rules of defined kinds about
/// changes are asked nevertheless, as upstream's are.
pub fn validate_update(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    located(|path| {
        let old = At { value: old, path: path.clone() };
        changed_object(resource, subresource, At { value: new, path }, old)
    })
}

fn changed_object(
    resource: &Resource,
    subresource: &str,
    object: At<'_>,
    before: At<'_>,
) -> Vec<FieldError> {
    let mut out = Errors::default();
    let (new, old) = (object.value, before.value);
    meta::check_update(&object.get("metadata"), &old["metadata"], &mut out);
    let view = VIEWS
        .iter()
        .find(|(collection, name, _)| *collection == resource.collection() && *name == subresource);
    if resource.group == EVENTS && subresource.is_empty() {
        records::event_of_group_update(&object, &before, &mut out);
    }
    if let Some((_, _, changed)) = view {
        changed(&object, &before, &mut out);
    } else if subresource.is_empty() && !only_metadata(new, old) {
        match rules(resource) {
            Some((_, _, Instead(changed))) => changed(&object, &before, &mut out),
            Some((_, created, changed)) => {
                created(&object, &mut out);
                if let Then(changed) = changed {
                    changed(&object, &before, &mut out);
                }
            }
            None => unruled(resource, &object, Some(old), &mut out),
        }
    } else if resource.custom.is_some() {
        unruled(resource, &object, Some(old), &mut out);
    }
    out.0
}

/// Whether nothing but `metadata` differs: rules that came later hold up no finalizer.
fn only_metadata(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let keys = new.keys().chain(old.keys()).filter(|key| *key != "metadata");
    let mut keys = keys.filter(|key| !matches!(key.as_str(), "apiVersion" | "kind"));
    keys.all(|key| new.get(key) == old.get(key))
}

/// What keeps a name from being the host name of a pod.
pub(super) fn host_name_errors(name: &str) -> Vec<String> {
    formats::dns_label(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::RESOURCES;
    use serde_json::json;

    #[test]
    fn every_kind_stands_odd_objects() {
        let odd = [json!({}), json!(null), json!([1]), json!({"metadata": 1, "spec": []})];
        for resource in RESOURCES.iter() {
            for object in &odd {
                assert!(!validate(resource, object).is_empty(), "{}", resource.collection());
                for view in ["", "status", "resize", "ephemeralcontainers"] {
                    validate_update(resource, view, object, &odd[0]);
                }
            }
        }
    }

    #[test]
    fn rules_about_changes_hold_while_only_labels_change() {
        let text =
            |rule: &str| json!({"type": "string", "x-kubernetes-validations": [{"rule": rule}]});
        let schema = json!({"type": "object", "required": ["later"], "properties": {
            "later": {"type": "string"}, "kept": text("self != 'a'"), "moving": text("self != oldSelf")}});
        let names =
            json!({"plural": "ones", "singular": "one", "kind": "One", "listKind": "OneList"});
        let definition = json!({
            "spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
            "status": {"acceptedNames": names,
                "conditions": [{"type": "Established", "status": "True"}]}});
        let source = std::sync::Arc::new(definition.to_string());
        let resources = crate::custom::resources(&definition, source, None);
        let old = json!({"apiVersion": "example.com/v1", "kind": "One", "kept": "a", "moving": "a",
            "metadata": {"name": "one", "uid": "u", "resourceVersion": "1"}});
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "b"});
        let said = |new: &Value| {
            let errors = validate_update(&resources[0], "", new, &old);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        const MOVING: &str = "moving: Invalid value: \"string\": failed rule: self != oldSelf";
        assert_eq!(said(&new), [MOVING]);
        new["moving"] = json!("b");
        assert_eq!(said(&new)[0], "later: Required value");
    }

    #[test]
    fn rows_name_collections() {
        let known = |name: &str| RESOURCES.iter().any(|r| r.collection() == name);
        for (collection, ..) in KINDS {
            assert!(known(collection), "{collection}");
        }
        for (collection, ..) in VIEWS {
            assert!(known(collection), "{collection}");
        }
    }
}
