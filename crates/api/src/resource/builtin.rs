//! Built-in kinds of Kubernetes 1.36: all that a default upstream API server serves (its stable
//! APIs; beta and alpha ones are off by default since 1.24). Source of the facts: upstream's
//! published discovery documents.

use super::{Resource, STANDARD_VERBS, Subresource, Text, VIEW_VERBS};
use std::borrow::Cow;

/// Verbs of reviews and bindings.
const CREATE: &[&str] = &["create"];
const CONNECT: &[&str] = &["create", "get"];
const GET: &[&str] = &["get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const READ: &[&str] = &["get", "list"];
const UPDATE: &[&str] = &["update"];
/// Namespaces cannot be deleted as a collection.
const NAMESPACE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

const ALL: &[&str] = &["all"];
const EXTENSIONS: &[&str] = &["api-extensions"];

/// One row: the scope is the first letter ('N'amespaced or 'C'luster), then kind, plural, short
/// names, categories and subresources separated by spaces.
struct Row(char, &'static str, &'static str, &'static str, &'static [&'static str], &'static str);

/// A group, its versions (preferred and storage version first) and its kinds by plural name.
type GroupRows = (&'static str, &'static [&'static str], &'static [Row]);

const ROWS: &[GroupRows] = &[
    (
        "",
        &["v1"],
        &[
            Row('N', "Binding", "bindings", "", &[], ""),
            Row('C', "ComponentStatus", "componentstatuses", "cs", &[], ""),
            Row('N', "ConfigMap", "configmaps", "cm", &[], ""),
            Row('N', "Endpoints", "endpoints", "ep", &[], ""),
            Row('N', "Event", "events", "ev", &[], ""),
            Row('N', "LimitRange", "limitranges", "limits", &[], ""),
            Row('C', "Namespace", "namespaces", "ns", &[], "finalize status"),
            Row('C', "Node", "nodes", "no", &[], "proxy status"),
            Row('N', "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", &[], "status"),
            Row('C', "PersistentVolume", "persistentvolumes", "pv", &[], "status"),
            Row(
                'N',
                "Pod",
                "pods",
                "po",
                ALL,
                "attach binding ephemeralcontainers eviction exec log portforward proxy resize status",
            ),
            Row('N', "PodTemplate", "podtemplates", "", &[], ""),
            Row('N', "ReplicationController", "replicationcontrollers", "rc", ALL, "scale status"),
            Row('N', "ResourceQuota", "resourcequotas", "quota", &[], "status"),
            Row('N', "Secret", "secrets", "", &[], ""),
            Row('N', "ServiceAccount", "serviceaccounts", "sa", &[], "token"),
            Row('N', "Service", "services", "svc", ALL, "proxy status"),
        ],
    ),
    (
        "apiregistration.k8s.io",
        &["v1"],
        &[Row('C', "APIService", "apiservices", "", EXTENSIONS, "status")],
    ),
    (
        "apps",
        &["v1"],
        &[
            Row('N', "ControllerRevision", "controllerrevisions", "", &[], ""),
            Row('N', "DaemonSet", "daemonsets", "ds", ALL, "status"),
            Row('N', "Deployment", "deployments", "deploy", ALL, "scale status"),
            Row('N', "ReplicaSet", "replicasets", "rs", ALL, "scale status"),
            Row('N', "StatefulSet", "statefulsets", "sts", ALL, "scale status"),
        ],
    ),
    ("events.k8s.io", &["v1"], &[Row('N', "Event", "events", "ev", &[], "")]),
    (
        "authentication.k8s.io",
        &["v1"],
        &[
            Row('C', "SelfSubjectReview", "selfsubjectreviews", "", &[], ""),
            Row('C', "TokenReview", "tokenreviews", "", &[], ""),
        ],
    ),
    (
        "authorization.k8s.io",
        &["v1"],
        &[
            Row('N', "LocalSubjectAccessReview", "localsubjectaccessreviews", "", &[], ""),
            Row('C', "SelfSubjectAccessReview", "selfsubjectaccessreviews", "", &[], ""),
            Row('C', "SelfSubjectRulesReview", "selfsubjectrulesreviews", "", &[], ""),
            Row('C', "SubjectAccessReview", "subjectaccessreviews", "", &[], ""),
        ],
    ),
    (
        "autoscaling",
        &["v2", "v1"],
        &[Row('N', "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", ALL, "status")],
    ),
    (
        "batch",
        &["v1"],
        &[
            Row('N', "CronJob", "cronjobs", "cj", ALL, "status"),
            Row('N', "Job", "jobs", "", ALL, "status"),
        ],
    ),
    (
        "certificates.k8s.io",
        &["v1"],
        &[Row(
            'C',
            "CertificateSigningRequest",
            "certificatesigningrequests",
            "csr",
            &[],
            "approval status",
        )],
    ),
    (
        "networking.k8s.io",
        &["v1"],
        &[
            Row('C', "IngressClass", "ingressclasses", "", &[], ""),
            Row('N', "Ingress", "ingresses", "ing", &[], "status"),
            Row('C', "IPAddress", "ipaddresses", "ip", &[], ""),
            Row('N', "NetworkPolicy", "networkpolicies", "netpol", &[], ""),
            Row('C', "ServiceCIDR", "servicecidrs", "", &[], "status"),
        ],
    ),
    (
        "policy",
        &["v1"],
        &[Row('N', "PodDisruptionBudget", "poddisruptionbudgets", "pdb", &[], "status")],
    ),
    (
        "rbac.authorization.k8s.io",
        &["v1"],
        &[
            Row('C', "ClusterRoleBinding", "clusterrolebindings", "", &[], ""),
            Row('C', "ClusterRole", "clusterroles", "", &[], ""),
            Row('N', "RoleBinding", "rolebindings", "", &[], ""),
            Row('N', "Role", "roles", "", &[], ""),
        ],
    ),
    (
        "storage.k8s.io",
        &["v1"],
        &[
            Row('C', "CSIDriver", "csidrivers", "", &[], ""),
            Row('C', "CSINode", "csinodes", "", &[], ""),
            Row('N', "CSIStorageCapacity", "csistoragecapacities", "", &[], ""),
            Row('C', "StorageClass", "storageclasses", "sc", &[], ""),
            Row('C', "VolumeAttachment", "volumeattachments", "", &[], "status"),
            Row('C', "VolumeAttributesClass", "volumeattributesclasses", "vac", &[], ""),
        ],
    ),
    (
        "admissionregistration.k8s.io",
        &["v1"],
        &[
            Row('C', "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "", EXTENSIONS, ""),
            Row(
                'C',
                "MutatingAdmissionPolicyBinding",
                "mutatingadmissionpolicybindings",
                "",
                EXTENSIONS,
                "",
            ),
            Row(
                'C',
                "MutatingWebhookConfiguration",
                "mutatingwebhookconfigurations",
                "",
                EXTENSIONS,
                "",
            ),
            Row(
                'C',
                "ValidatingAdmissionPolicy",
                "validatingadmissionpolicies",
                "",
                EXTENSIONS,
                "status",
            ),
            Row(
                'C',
                "ValidatingAdmissionPolicyBinding",
                "validatingadmissionpolicybindings",
                "",
                EXTENSIONS,
                "",
            ),
            Row(
                'C',
                "ValidatingWebhookConfiguration",
                "validatingwebhookconfigurations",
                "",
                EXTENSIONS,
                "",
            ),
        ],
    ),
    (
        "apiextensions.k8s.io",
        &["v1"],
        &[Row(
            'C',
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "crd crds",
            EXTENSIONS,
            "status",
        )],
    ),
    ("scheduling.k8s.io", &["v1"], &[Row('C', "PriorityClass", "priorityclasses", "pc", &[], "")]),
    ("coordination.k8s.io", &["v1"], &[Row('N', "Lease", "leases", "", &[], "")]),
    ("node.k8s.io", &["v1"], &[Row('C', "RuntimeClass", "runtimeclasses", "", &[], "")]),
    ("discovery.k8s.io", &["v1"], &[Row('N', "EndpointSlice", "endpointslices", "", &[], "")]),
    (
        "resource.k8s.io",
        &["v1"],
        &[
            Row('C', "DeviceClass", "deviceclasses", "", &[], ""),
            Row('N', "ResourceClaim", "resourceclaims", "", &[], "status"),
            Row('N', "ResourceClaimTemplate", "resourceclaimtemplates", "", &[], ""),
            Row('C', "ResourceSlice", "resourceslices", "", &[], ""),
        ],
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        &["v1"],
        &[
            Row('C', "FlowSchema", "flowschemas", "", &[], "status"),
            Row(
                'C',
                "PriorityLevelConfiguration",
                "prioritylevelconfigurations",
                "",
                &[],
                "status",
            ),
        ],
    ),
];

/// All rows as resources.
pub(super) fn table() -> Vec<Resource> {
    ROWS.iter()
        .flat_map(|(group, versions, rows)| {
            rows.iter().map(move |row| resource(group, versions, row))
        })
        .collect()
}

fn resource(group: &'static str, versions: &'static [&'static str], row: &Row) -> Resource {
    let Row(scope, kind, plural, short_names, categories, subresources) = *row;
    let mut resource = Resource::new(group, versions[0], kind, plural);
    resource.versions = versions.iter().copied().map(Cow::Borrowed).collect();
    resource.namespaced = scope == 'N';
    resource.short_names = words(short_names);
    resource.categories = categories.iter().copied().map(Cow::Borrowed).collect();
    resource.subresources =
        words(subresources).into_iter().map(|name| subresource(name, kind)).collect();
    resource.verbs = verbs(group, kind);
    resource.selectable_fields = words(selectable_fields(group, kind));
    resource.stored = resource.allows("watch");
    if !resource.allows("list") {
        resource.list_kind = Cow::Borrowed("");
    }
    if group == "events.k8s.io" {
        resource.storage_group = Cow::Borrowed("");
        resource.collection = Cow::Borrowed("events");
    }
    resource
}

fn verbs(group: &str, kind: &str) -> &'static [&'static str] {
    match (group, kind) {
        ("authentication.k8s.io" | "authorization.k8s.io", _) | ("", "Binding") => CREATE,
        ("", "ComponentStatus") => READ,
        ("", "Namespace") => NAMESPACE,
        _ => STANDARD_VERBS,
    }
}

/// What upstream's conversion functions for field labels let through.
fn selectable_fields(group: &str, kind: &str) -> &'static str {
    match (group, kind) {
        ("", "Pod") => {
            "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName \
             spec.hostNetwork status.phase status.podIP status.podIPs status.nominatedNodeName"
        }
        ("", "Node") => "spec.unschedulable",
        ("", "Namespace") => "status.phase",
        ("", "ReplicationController") | ("apps", "ReplicaSet") => "status.replicas",
        ("", "Secret") => "type",
        ("", "Service") => "spec.clusterIP spec.type",
        ("", "Event") => {
            "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid \
             involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath \
             reason reportingComponent source type"
        }
        ("events.k8s.io", "Event") => {
            "regarding.kind regarding.namespace regarding.name regarding.uid regarding.apiVersion \
             regarding.resourceVersion regarding.fieldPath reason reportingController type"
        }
        ("batch", "Job" | "CronJob") => "status.successful",
        ("certificates.k8s.io", "CertificateSigningRequest") => "spec.signerName",
        ("resource.k8s.io", "ResourceSlice") => "spec.nodeName spec.driver",
        _ => "",
    }
}

fn subresource(name: Text, parent: &'static str) -> Subresource {
    let own = |kind: Text, verbs| Subresource {
        name: name.clone(),
        group: None,
        version: None,
        kind,
        verbs,
    };
    let foreign = |group, kind, verbs| Subresource {
        name: name.clone(),
        group: Some(Cow::Borrowed(group)),
        version: Some(Cow::Borrowed("v1")),
        kind: Cow::Borrowed(kind),
        verbs,
    };
    match name.as_ref() {
        "attach" => own(Cow::Borrowed("PodAttachOptions"), CONNECT),
        "binding" => own(Cow::Borrowed("Binding"), CREATE),
        "eviction" => foreign("policy", "Eviction", CREATE),
        "exec" => own(Cow::Borrowed("PodExecOptions"), CONNECT),
        "finalize" => own(Cow::Borrowed(parent), UPDATE),
        "log" => own(Cow::Borrowed(parent), GET),
        "portforward" => own(Cow::Borrowed("PodPortForwardOptions"), CONNECT),
        "proxy" => own(Cow::Owned(format!("{parent}ProxyOptions")), PROXY),
        "scale" => foreign("autoscaling", "Scale", VIEW_VERBS),
        "token" => foreign("authentication.k8s.io", "TokenRequest", CREATE),
        _ => own(Cow::Borrowed(parent), VIEW_VERBS),
    }
}

fn words(text: &'static str) -> Vec<Text> {
    text.split_whitespace().map(Cow::Borrowed).collect()
}
