//! Small facts about kinds that the generic verbs ask for, each a list of collections.
//! Source: the registries of k8s.io/kubernetes (`pkg/registry/*/*/strategy.go`, `storage.go`).

use crate::resource::Resource;

/// Collections whose objects carry `metadata.generation`.
const GENERATION: &[&str] = &[
    "admissionregistration.k8s.io/mutatingadmissionpolicies",
    "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
    "admissionregistration.k8s.io/mutatingwebhookconfigurations",
    "admissionregistration.k8s.io/validatingadmissionpolicies",
    "admissionregistration.k8s.io/validatingadmissionpolicybindings",
    "admissionregistration.k8s.io/validatingwebhookconfigurations",
    "apiextensions.k8s.io/customresourcedefinitions",
    "apps/daemonsets",
    "apps/deployments",
    "apps/replicasets",
    "apps/statefulsets",
    "batch/cronjobs",
    "batch/jobs",
    "discovery.k8s.io/endpointslices",
    "flowcontrol.apiserver.k8s.io/flowschemas",
    "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
    "networking.k8s.io/ingressclasses",
    "networking.k8s.io/ingresses",
    "networking.k8s.io/networkpolicies",
    "networking.k8s.io/servicecidrs",
    "pods",
    "podtemplates",
    "policy/poddisruptionbudgets",
    "replicationcontrollers",
    "resource.k8s.io/deviceclasses",
    "resource.k8s.io/resourceslices",
    "scheduling.k8s.io/priorityclasses",
    "storage.k8s.io/csidrivers",
];

/// Collections in which a PUT (or an apply, which may everywhere) makes what is not there.
const CREATE_ON_UPDATE: &[&str] = &[
    "coordination.k8s.io/leases",
    "endpoints",
    "events",
    "limitranges",
    "node.k8s.io/runtimeclasses",
    "rbac.authorization.k8s.io/clusterrolebindings",
    "rbac.authorization.k8s.io/clusterroles",
    "rbac.authorization.k8s.io/rolebindings",
    "rbac.authorization.k8s.io/roles",
    "services",
];

/// Collections in which a PUT must name the resourceVersion that it replaces.
const CONDITIONAL_UPDATE: &[&str] = &[
    "admissionregistration.k8s.io/mutatingadmissionpolicies",
    "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
    "admissionregistration.k8s.io/mutatingwebhookconfigurations",
    "admissionregistration.k8s.io/validatingadmissionpolicies",
    "admissionregistration.k8s.io/validatingadmissionpolicybindings",
    "admissionregistration.k8s.io/validatingwebhookconfigurations",
    "apiextensions.k8s.io/customresourcedefinitions",
    "apiregistration.k8s.io/apiservices",
    "coordination.k8s.io/leases",
    "node.k8s.io/runtimeclasses",
    "policy/poddisruptionbudgets",
    "storage.k8s.io/csidrivers",
    "storage.k8s.io/csinodes",
    "storage.k8s.io/csistoragecapacities",
    "storage.k8s.io/volumeattachments",
];

/// Collections in which a delete answers with the object instead of a `Status`.
const RETURN_DELETED: &[&str] = &[
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "services",
    "storage.k8s.io/csinodes",
    "storage.k8s.io/storageclasses",
    "storage.k8s.io/volumeattachments",
];

fn custom(resource: &Resource) -> bool {
    resource.custom.is_some()
}

/// Whether the server counts changes of this kind's wishes in `metadata.generation`.
pub fn counts_generation(resource: &Resource) -> bool {
    custom(resource) || GENERATION.contains(&resource.collection())
}

/// Whether a PUT creates an object that is not there.
pub fn allows_create_on_update(resource: &Resource) -> bool {
    CREATE_ON_UPDATE.contains(&resource.collection())
}

/// Whether a PUT may leave the resourceVersion out.
pub fn allows_unconditional_update(resource: &Resource) -> bool {
    !custom(resource) && !CONDITIONAL_UPDATE.contains(&resource.collection())
}

/// Whether a delete answers with the object that is gone.
pub fn returns_deleted(resource: &Resource) -> bool {
    RETURN_DELETED.contains(&resource.collection())
}

/// Whether what an object has made stays when nobody says otherwise: so it was before there was a
/// garbage collector, and the versions of that time have kept to it.
pub fn orphans_by_default(resource: &Resource) -> bool {
    ["replicationcontrollers", "batch/jobs"].contains(&resource.collection())
}

/// Whether objects can have dependents at all.
pub fn has_dependents(resource: &Resource) -> bool {
    resource.collection() != "events"
}
