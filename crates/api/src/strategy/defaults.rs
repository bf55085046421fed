//! What the server fills in where the writer says nothing. Most defaults are rows of a table:
//! a path (`[]` goes through a list) and the value that a missing last member gets; objects on
//! the way are never made. What depends on other fields follows in code.
//! Source: k8s.io/kubernetes `pkg/apis/*/v1/defaults.go`.

use base64::Engine;
use serde_json::{Map, Value, json};

/// A path and the default in JSON.
type Rows = &'static [(&'static str, &'static str)];

const CONTAINER: Rows = &[
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

const PROBE: Rows = &[
    ("timeoutSeconds", "1"),
    ("periodSeconds", "10"),
    ("successThreshold", "1"),
    ("failureThreshold", "3"),
    ("httpGet.path", r#""/""#),
    ("httpGet.scheme", r#""HTTP""#),
    ("grpc.service", r#""""#),
];

const POD_SPEC: Rows = &[
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
    ("volumes[].ephemeral.volumeClaimTemplate.spec.volumeMode", r#""Filesystem""#),
];

const JOB_SPEC: Rows =
    &[("completionMode", r#""NonIndexed""#), ("suspend", "false"), ("parallelism", "1")];

/// Rows of kinds by their collection.
const KINDS: &[(&str, Rows)] = &[
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
            ("spec.updateStrategy.type", r#""RollingUpdate""#),
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
    ("scheduling.k8s.io/priorityclasses", &[("preemptionPolicy", r#""PreemptLowerPriority""#)]),
    ("apiregistration.k8s.io/apiservices", &[("spec.service.port", "443")]),
    ("flowcontrol.apiserver.k8s.io/flowschemas", &[("spec.matchingPrecedence", "1000")]),
    (
        "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
        &[
            ("spec.exempt.nominalConcurrencyShares", "0"),
            ("spec.exempt.lendablePercent", "0"),
            ("spec.limited.nominalConcurrencyShares", "30"),
            ("spec.limited.lendablePercent", "0"),
            ("spec.limited.limitResponse.queuing.queues", "64"),
            ("spec.limited.limitResponse.queuing.handSize", "8"),
            ("spec.limited.limitResponse.queuing.queueLengthLimit", "50"),
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
const TEMPLATES: &[(&str, &str)] = &[
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

/// Fills in an object of a collection.
pub(super) fn fill(collection: &str, object: &mut Value) {
    if let Some((_, rows)) = KINDS.iter().find(|(name, _)| *name == collection) {
        apply(object, rows);
    }
    match collection {
        "pods" => requests_from_limits(object),
        "services" => service(object),
        "secrets" => string_data(object),
        "apps/deployments" => {
            rolling_update(
                object.pointer_mut("/spec/strategy"),
                json!({"maxUnavailable": "25%", "maxSurge": "25%"}),
            );
        }
        "apps/daemonsets" => {
            rolling_update(
                object.pointer_mut("/spec/updateStrategy"),
                json!({"maxUnavailable": 1, "maxSurge": 0}),
            );
        }
        "apps/statefulsets" => {
            rolling_update(object.pointer_mut("/spec/updateStrategy"), json!({"partition": 0}));
        }
        "batch/jobs" => job(object.get_mut("spec")),
        "batch/cronjobs" => job(object.pointer_mut("/spec/jobTemplate/spec")),
        "replicationcontrollers" => replication_controller(object),
        "networking.k8s.io/networkpolicies" => policy_types(object),
        "rbac.authorization.k8s.io/rolebindings"
        | "rbac.authorization.k8s.io/clusterrolebindings" => {
            subjects(object);
        }
        _ => {}
    }
    if let Some((_, pointer)) = TEMPLATES.iter().find(|(name, _)| *name == collection)
        && let Some(spec) = object.pointer_mut(pointer).filter(|spec| spec.is_object())
    {
        pod_spec(spec);
    }
}

fn apply(object: &mut Value, rows: Rows) {
    for (path, default) in rows {
        set(object, path, default);
    }
}

/// Sets the last member of `path` wherever it is missing. A text that is empty is as good as
/// missing where its default is a text: clients written in Go send what they did not set.
fn set(at: &mut Value, path: &str, default: &str) {
    let Some((step, rest)) = path.split_once('.') else {
        let Some(fields) = at.as_object_mut() else { return };
        let is_text = default.starts_with('"') && default != r#""""#;
        let unset = |value: &Value| value.is_null() || (is_text && value == "");
        if fields.get(path).is_none_or(unset) {
            // The table's texts are JSON; a test reads them all.
            fields.insert(path.to_owned(), serde_json::from_str(default).unwrap_or_default());
        }
        return;
    };
    let (name, is_list) = match step.strip_suffix("[]") {
        Some(name) => (name, true),
        None => (step, false),
    };
    match at.get_mut(name) {
        Some(Value::Array(items)) if is_list => {
            items.iter_mut().for_each(|item| set(item, rest, default));
        }
        Some(below) if !is_list => set(below, rest, default),
        _ => {}
    }
}

fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn pod_spec(spec: &mut Value) {
    apply(spec, POD_SPEC);
    let host_network = spec["hostNetwork"] == true;
    for volume in items(spec, "volumes") {
        if let Some(fields) = volume.as_object_mut().filter(|fields| fields.len() == 1) {
            fields.insert("emptyDir".to_owned(), json!({}));
        }
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec, list) {
            apply(container, CONTAINER);
            pull_policy(container);
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
                    drop_zeros(probe);
                    apply(probe, PROBE);
                }
            }
            for port in items(container, "ports").filter(|_| host_network) {
                let own = port["containerPort"].clone();
                set(port, "hostPort", &own.to_string());
            }
        }
    }
}

/// Zero means "not said" for the numbers of a probe.
fn drop_zeros(probe: &mut Value) {
    if let Some(fields) = probe.as_object_mut() {
        fields.retain(|name, value| *value != json!(0) || name == "terminationGracePeriodSeconds");
    }
}

/// A moving tag is pulled every time.
fn pull_policy(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let moving =
        !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    set(container, "imagePullPolicy", if moving { r#""Always""# } else { r#""IfNotPresent""# });
}

/// A limit without a request is the request too (pods only, not their templates).
fn requests_from_limits(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec") else { return };
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            let Some(limits) = container["resources"]["limits"].as_object().cloned() else {
                continue;
            };
            let Some(resources) = container["resources"].as_object_mut() else { continue };
            let requests = resources.entry("requests").or_insert_with(|| json!({}));
            for (name, limit) in limits {
                set(requests, &name, &limit.to_string());
            }
        }
    }
}

fn rolling_update(strategy: Option<&mut Value>, defaults: Value) {
    let Some(strategy) = strategy.filter(|strategy| strategy["type"] == "RollingUpdate") else {
        return;
    };
    set(strategy, "rollingUpdate", "{}");
    for (name, value) in defaults.as_object().into_iter().flatten() {
        set(&mut strategy["rollingUpdate"], name, &value.to_string());
    }
}

fn service(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    for port in items(spec, "ports") {
        let unset =
            port["targetPort"].is_null() || port["targetPort"] == 0 || port["targetPort"] == "";
        if unset {
            port["targetPort"] = port["port"].clone();
        }
    }
    if spec["sessionAffinity"] == "ClientIP" {
        set(spec, "sessionAffinityConfig", "{}");
        set(spec, "sessionAffinityConfig.clientIP", "{}");
        set(spec, "sessionAffinityConfig.clientIP.timeoutSeconds", "10800");
    }
    if kind != "ExternalName" {
        set(spec, "internalTrafficPolicy", r#""Cluster""#);
    }
    let addresses = spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && addresses) {
        set(spec, "externalTrafficPolicy", r#""Cluster""#);
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", "true");
    }
}

/// `stringData` is for writing only: its texts become `data`.
fn string_data(secret: &mut Value) {
    let Some(fields) = secret.as_object_mut() else { return };
    let Some(Value::Object(texts)) = fields.shift_remove("stringData") else { return };
    let data = fields.entry("data").or_insert_with(|| Value::Object(Map::new()));
    let Some(data) = data.as_object_mut() else { return };
    for (name, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data.insert(name, base64::engine::general_purpose::STANDARD.encode(text).into());
    }
}

fn job(spec: Option<&mut Value>) {
    let Some(spec) = spec.filter(|spec| spec.is_object()) else { return };
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, "completions", "1");
    }
    apply(spec, JOB_SPEC);
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    set(spec, "backoffLimit", if per_index { "2147483647" } else { "6" });
    let failed_only = !spec["podFailurePolicy"].is_null();
    let policy = if failed_only { r#""Failed""# } else { r#""TerminatingOrFailed""# };
    set(spec, "podReplacementPolicy", policy);
}

/// Selector and labels follow the template's labels.
fn replication_controller(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        set(object, "spec.selector", &labels.to_string());
        set(object, "metadata.labels", &labels.to_string());
    }
}

fn policy_types(object: &mut Value) {
    let egress = object["spec"]["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    let types = if egress { r#"["Ingress","Egress"]"# } else { r#"["Ingress"]"# };
    set(object, "spec.policyTypes", types);
}

fn subjects(binding: &mut Value) {
    for subject in items(binding, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set(subject, "apiGroup", r#""rbac.authorization.k8s.io""#);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(collection: &str, mut object: Value) -> Value {
        fill(collection, &mut object);
        let once = object.clone();
        fill(collection, &mut object);
        assert_eq!(object, once, "filling in twice changes nothing");
        object
    }

    #[test]
    fn an_empty_text_is_none() {
        let binding = json!({"roleRef": {"apiGroup": "", "kind": "Role", "name": "a"}});
        let binding = filled("rbac.authorization.k8s.io/rolebindings", binding);
        assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    }

    #[test]
    fn the_table_is_json() {
        let rows = KINDS.iter().flat_map(|(_, rows)| rows.iter());
        for (path, text) in rows.chain(CONTAINER).chain(PROBE).chain(POD_SPEC).chain(JOB_SPEC) {
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{path}");
        }
        for (collection, _) in KINDS.iter() {
            assert!(
                crate::resource::RESOURCES.iter().any(|r| r.collection() == *collection),
                "{collection}"
            );
        }
    }

    #[test]
    fn a_pod_as_upstream_shows_it() {
        let pod = json!({"spec": {"volumes": [{"name": "v"}], "containers": [
            {"name": "c", "image": "nginx", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
             "resources": {"limits": {"cpu": "1"}}},
            {"name": "d", "image": "localhost:5000/x:1"}]}});
        assert_eq!(
            filled("pods", pod)["spec"],
            json!({"enableServiceLinks": true, "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler",
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [
                    {"name": "c", "image": "nginx", "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
                     "terminationMessagePolicy": "File", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                     "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                         "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                     "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}},
                    {"name": "d", "image": "localhost:5000/x:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                     "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}]})
        );
    }

    #[test]
    fn workloads() {
        let template = json!({"spec": {"containers": []}});
        let deployment = filled("apps/deployments", json!({"spec": {"template": template}}));
        assert_eq!(
            deployment["spec"]["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!(
            (&deployment["spec"]["replicas"], &deployment["spec"]["revisionHistoryLimit"]),
            (&json!(1), &json!(10))
        );
        assert_eq!(deployment["spec"]["template"]["spec"]["restartPolicy"], "Always");
        let job = filled("batch/jobs", json!({"spec": {"template": template}}));
        assert_eq!(
            (
                &job["spec"]["completions"],
                &job["spec"]["parallelism"],
                &job["spec"]["backoffLimit"]
            ),
            (&json!(1), &json!(1), &json!(6))
        );
        let parallel = filled("batch/jobs", json!({"spec": {"parallelism": 2}}));
        assert!(parallel["spec"]["completions"].is_null());
        assert_eq!(filled("apps/deployments", json!({})), json!({}));
    }

    #[test]
    fn services_and_secrets() {
        let service = filled(
            "services",
            json!({"spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 1, "targetPort": "web"}]}}),
        );
        assert_eq!(
            service["spec"],
            json!({"type": "NodePort", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}, {"port": 1, "targetPort": "web", "protocol": "TCP"}]})
        );
        let secret = filled("secrets", json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}}));
        assert_eq!(secret, json!({"type": "Opaque", "data": {"c": "ZA==", "a": "Yg=="}}));
    }
}
