//! The defaults that are constants: what stands where in which kind.

/// A path and the default in JSON.
pub(super) type Rows = &'static [(&'static str, &'static str)];

pub(super) const CONTAINER: Rows = &[
    ("terminationMessagePath", r#""/dev/termination-log""#),
    ("terminationMessagePolicy", r#""File""#),
    ("resources", "{}"),
    ("ports[].protocol", r#""TCP""#),
    ("env[].valueFrom.fieldRef.apiVersion", r#""v1""#),
    ("lifecycle.postStart.httpGet.path", r#""/""#),
    ("lifecycle.postStart.httpGet.scheme", r#""HTTP""#),
    ("lifecycle.preStop.httpGet.path", r#""/""#),
    ("lifecycle.preStop.httpGet.scheme", r#""HTTP""#),
];

pub(super) const PROBE: Rows = &[
    ("timeoutSeconds", "1"),
    ("periodSeconds", "10"),
    ("successThreshold", "1"),
    ("failureThreshold", "3"),
    ("httpGet.path", r#""/""#),
    ("httpGet.scheme", r#""HTTP""#),
    ("grpc.service", r#""""#),
];

pub(super) const POD_SPEC: Rows = &[
    ("restartPolicy", r#""Always""#),
    ("terminationGracePeriodSeconds", "30"),
    ("dnsPolicy", r#""ClusterFirst""#),
    ("securityContext", "{}"),
    ("schedulerName", r#""default-scheduler""#),
    ("volumes[].secret.defaultMode", "420"),
    ("volumes[].configMap.defaultMode", "420"),
    ("volumes[].downwardAPI.defaultMode", "420"),
    ("volumes[].downwardAPI.items[].fieldRef.apiVersion", r#""v1""#),
    ("volumes[].projected.defaultMode", "420"),
    ("volumes[].projected.sources[].serviceAccountToken.expirationSeconds", "3600"),
    ("volumes[].projected.sources[].downwardAPI.items[].fieldRef.apiVersion", r#""v1""#),
    ("volumes[].hostPath.type", r#""""#),
    ("volumes[].iscsi.iscsiInterface", r#""default""#),
    ("volumes[].rbd.pool", r#""rbd""#),
    ("volumes[].rbd.user", r#""admin""#),
    ("volumes[].rbd.keyring", r#""/etc/ceph/keyring""#),
    ("volumes[].scaleIO.storageMode", r#""ThinProvisioned""#),
    ("volumes[].scaleIO.fsType", r#""xfs""#),
    ("volumes[].azureDisk.cachingMode", r#""ReadWrite""#),
    ("volumes[].azureDisk.kind", r#""Shared""#),
    ("volumes[].azureDisk.fsType", r#""ext4""#),
    ("volumes[].azureDisk.readOnly", "false"),
    ("volumes[].ephemeral.volumeClaimTemplate.spec.volumeMode", r#""Filesystem""#),
];

pub(super) const JOB_SPEC: Rows =
    &[("completionMode", r#""NonIndexed""#), ("suspend", "false"), ("parallelism", "1")];

pub(super) const FLOW_SCHEMA: Rows = &[("matchingPrecedence", "1000")];

pub(super) const QUEUING: Rows = &[("queues", "64"), ("handSize", "8"), ("queueLengthLimit", "50")];

/// How many devices a request is for where it does not say.
pub(super) const EXACT: &str = r#""ExactCount""#;

/// Rows of kinds by their collection.
pub(super) const KINDS: &[(&str, Rows)] = &[
    ("pods", &[("spec.enableServiceLinks", "true")]),
    (
        "apps/deployments",
        &[
            ("spec.replicas", "1"),
            ("spec.strategy", "{}"),
            ("spec.strategy.type", r#""RollingUpdate""#),
            ("spec.revisionHistoryLimit", "10"),
            ("spec.progressDeadlineSeconds", "600"),
        ],
    ),
    ("apps/replicasets", &[("spec.replicas", "1")]),
    ("replicationcontrollers", &[("spec.replicas", "1")]),
    (
        "apps/daemonsets",
        &[
            ("spec.updateStrategy", "{}"),
            ("spec.updateStrategy.type", r#""RollingUpdate""#),
            ("spec.revisionHistoryLimit", "10"),
        ],
    ),
    (
        "apps/statefulsets",
        &[
            ("spec.replicas", "1"),
            ("spec.podManagementPolicy", r#""OrderedReady""#),
            ("spec.updateStrategy", "{}"),
            ("spec.revisionHistoryLimit", "10"),
            ("spec.persistentVolumeClaimRetentionPolicy", "{}"),
            ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", r#""Retain""#),
            ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", r#""Retain""#),
            ("spec.volumeClaimTemplates[].spec.volumeMode", r#""Filesystem""#),
        ],
    ),
    (
        "batch/cronjobs",
        &[
            ("spec.concurrencyPolicy", r#""Allow""#),
            ("spec.suspend", "false"),
            ("spec.successfulJobsHistoryLimit", "3"),
            ("spec.failedJobsHistoryLimit", "1"),
        ],
    ),
    (
        "services",
        &[
            ("spec.type", r#""ClusterIP""#),
            ("spec.sessionAffinity", r#""None""#),
            ("spec.ports[].protocol", r#""TCP""#),
        ],
    ),
    ("endpoints", &[("subsets[].ports[].protocol", r#""TCP""#)]),
    (
        "discovery.k8s.io/endpointslices",
        &[("ports[].name", r#""""#), ("ports[].protocol", r#""TCP""#)],
    ),
    ("secrets", &[("type", r#""Opaque""#)]),
    (
        "persistentvolumes",
        &[
            ("spec.persistentVolumeReclaimPolicy", r#""Retain""#),
            ("spec.volumeMode", r#""Filesystem""#),
            ("spec.hostPath.type", r#""""#),
            ("spec.iscsi.iscsiInterface", r#""default""#),
            ("spec.rbd.pool", r#""rbd""#),
            ("spec.rbd.user", r#""admin""#),
            ("spec.rbd.keyring", r#""/etc/ceph/keyring""#),
            ("spec.scaleIO.storageMode", r#""ThinProvisioned""#),
            ("spec.scaleIO.fsType", r#""xfs""#),
            ("spec.azureDisk.cachingMode", r#""ReadWrite""#),
            ("spec.azureDisk.kind", r#""Shared""#),
            ("spec.azureDisk.fsType", r#""ext4""#),
            ("spec.azureDisk.readOnly", "false"),
        ],
    ),
    ("persistentvolumeclaims", &[("spec.volumeMode", r#""Filesystem""#)]),
    (
        "storage.k8s.io/storageclasses",
        &[("reclaimPolicy", r#""Delete""#), ("volumeBindingMode", r#""Immediate""#)],
    ),
    (
        "storage.k8s.io/csidrivers",
        &[
            ("spec.attachRequired", "true"),
            ("spec.podInfoOnMount", "false"),
            ("spec.storageCapacity", "false"),
            ("spec.fsGroupPolicy", r#""ReadWriteOnceWithFSType""#),
            ("spec.volumeLifecycleModes", r#"["Persistent"]"#),
            ("spec.requiresRepublish", "false"),
            ("spec.seLinuxMount", "false"),
        ],
    ),
    ("autoscaling/horizontalpodautoscalers", &[("spec.minReplicas", "1")]),
    (
        "networking.k8s.io/networkpolicies",
        &[
            ("spec.ingress[].ports[].protocol", r#""TCP""#),
            ("spec.egress[].ports[].protocol", r#""TCP""#),
        ],
    ),
    (
        "rbac.authorization.k8s.io/rolebindings",
        &[("roleRef.apiGroup", r#""rbac.authorization.k8s.io""#)],
    ),
    (
        "rbac.authorization.k8s.io/clusterrolebindings",
        &[("roleRef.apiGroup", r#""rbac.authorization.k8s.io""#)],
    ),
    ("networking.k8s.io/ingressclasses", &[("spec.parameters.scope", r#""Cluster""#)]),
    (
        "resource.k8s.io/resourceclaims",
        &[("spec.devices.requests[].exactly.allocationMode", EXACT)],
    ),
    (
        "resource.k8s.io/resourceclaimtemplates",
        &[("spec.spec.devices.requests[].exactly.allocationMode", EXACT)],
    ),
    ("scheduling.k8s.io/priorityclasses", &[("preemptionPolicy", r#""PreemptLowerPriority""#)]),
    ("apiregistration.k8s.io/apiservices", &[("spec.service.port", "443")]),
    (
        "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
        &[
            ("spec.exempt.nominalConcurrencyShares", "0"),
            ("spec.exempt.lendablePercent", "0"),
            ("spec.limited.nominalConcurrencyShares", "30"),
            ("spec.limited.lendablePercent", "0"),
        ],
    ),
    ("admissionregistration.k8s.io/validatingwebhookconfigurations", WEBHOOKS),
    ("admissionregistration.k8s.io/mutatingwebhookconfigurations", MUTATING_WEBHOOKS),
    ("admissionregistration.k8s.io/mutatingadmissionpolicies", ADMISSION_POLICY),
    ("admissionregistration.k8s.io/validatingadmissionpolicies", ADMISSION_POLICY),
    ("admissionregistration.k8s.io/mutatingadmissionpolicybindings", POLICY_BINDING),
    ("admissionregistration.k8s.io/validatingadmissionpolicybindings", POLICY_BINDING),
    (
        "apiextensions.k8s.io/customresourcedefinitions",
        &[("spec.conversion", r#"{"strategy":"None"}"#)],
    ),
];

const ADMISSION_POLICY: Rows = &[
    ("spec.failurePolicy", r#""Fail""#),
    ("spec.matchConstraints.matchPolicy", r#""Equivalent""#),
    ("spec.matchConstraints.namespaceSelector", "{}"),
    ("spec.matchConstraints.objectSelector", "{}"),
    ("spec.matchConstraints.resourceRules[].scope", r#""*""#),
    ("spec.matchConstraints.excludeResourceRules[].scope", r#""*""#),
];

const POLICY_BINDING: Rows = &[
    ("spec.matchResources.matchPolicy", r#""Equivalent""#),
    ("spec.matchResources.namespaceSelector", "{}"),
    ("spec.matchResources.objectSelector", "{}"),
    ("spec.matchResources.resourceRules[].scope", r#""*""#),
];

const WEBHOOKS: Rows = &[
    ("webhooks[].failurePolicy", r#""Fail""#),
    ("webhooks[].matchPolicy", r#""Equivalent""#),
    ("webhooks[].namespaceSelector", "{}"),
    ("webhooks[].objectSelector", "{}"),
    ("webhooks[].timeoutSeconds", "10"),
    ("webhooks[].rules[].scope", r#""*""#),
    ("webhooks[].clientConfig.service.port", "443"),
];

const MUTATING_WEBHOOKS: Rows = &[
    ("webhooks[].failurePolicy", r#""Fail""#),
    ("webhooks[].matchPolicy", r#""Equivalent""#),
    ("webhooks[].namespaceSelector", "{}"),
    ("webhooks[].objectSelector", "{}"),
    ("webhooks[].timeoutSeconds", "10"),
    ("webhooks[].rules[].scope", r#""*""#),
    ("webhooks[].clientConfig.service.port", "443"),
    ("webhooks[].reinvocationPolicy", r#""Never""#),
];

/// Where the pod template of a kind stands.
pub(super) const TEMPLATES: &[(&str, &str)] = &[
    ("apps/daemonsets", "/spec/template/spec"),
    ("apps/deployments", "/spec/template/spec"),
    ("apps/replicasets", "/spec/template/spec"),
    ("apps/statefulsets", "/spec/template/spec"),
    ("batch/cronjobs", "/spec/jobTemplate/spec/template/spec"),
    ("batch/jobs", "/spec/template/spec"),
    ("pods", "/spec"),
    ("podtemplates", "/template/spec"),
    ("replicationcontrollers", "/spec/template/spec"),
];
