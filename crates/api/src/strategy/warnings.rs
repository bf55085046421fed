//! What is allowed but does not do what its writer may think: texts for `Warning` headers, in
//! upstream's words (k8s.io/kubernetes `pkg/api/pod/warnings.go` and its kin).

use crate::resource::Resource;
use crate::selector::label_key_errors;
use base::Quantity;
use serde_json::Value;
use std::collections::BTreeSet;

/// Labels of nodes that have other names today.
const NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
];

/// Annotations of pods that nobody reads any more.
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];

/// Sources of volumes that went.
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Where kinds keep the template of their pods, and how upstream's paths begin there.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("apps/daemonsets", "/spec/template", "spec.template."),
    ("apps/deployments", "/spec/template", "spec.template."),
    ("apps/replicasets", "/spec/template", "spec.template."),
    ("apps/statefulsets", "/spec/template", "spec.template."),
    ("batch/cronjobs", "/spec/jobTemplate/spec/template", "spec.jobTemplate.spec.template."),
    ("batch/jobs", "/spec/template", "spec.template."),
    ("podtemplates", "/template", "template."),
    ("replicationcontrollers", "/spec/template", "spec.template."),
];

/// Kinds whose name becomes the host name of their pods.
const HOSTS: [&str; 4] = ["apps/deployments", "apps/replicasets", "pods", "replicationcontrollers"];

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// What the writer of an object is told; `old` is its state before, if there was one.
pub fn warnings(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    if resource.custom.is_some() {
        return finalizers(object, old);
    }
    let collection = resource.collection();
    let mut out = Vec::new();
    if old.is_none() {
        host_name(collection, object, &mut out);
    }
    if collection == "pods" {
        // Of a pod nothing that is looked at here can change.
        if old.is_none() {
            pod("", object, &mut out);
        }
    } else if let Some((_, pointer, prefix)) =
        TEMPLATES.iter().find(|(name, ..)| *name == collection)
        && let Some(template) = object.pointer(pointer)
        && old.and_then(|old| old.pointer(pointer)) != Some(template)
    {
        pod(prefix, template, &mut out);
    }
    match collection {
        "networking.k8s.io/ingresses" if old.is_none() => ingress(object, &mut out),
        "persistentvolumes" => volume(object, &mut out),
        _ => {}
    }
    out
}

fn host_name(collection: &str, object: &Value, out: &mut Vec<String>) {
    if !HOSTS.contains(&collection) {
        return;
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let wrong = super::validate::host_name_errors(name);
    if !wrong.is_empty() {
        let wrong = wrong.join(" ");
        out.push(format!("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{wrong}]"));
    }
}

fn items<'v>(value: &'v Value, list: &str) -> impl Iterator<Item = (usize, &'v Value)> + use<'v> {
    value[list].as_array().into_iter().flatten().enumerate()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// A pod or a template; `prefix` begins all paths.
fn pod(prefix: &str, pod: &Value, out: &mut Vec<String>) {
    let spec = &pod["spec"];
    let old_label =
        |key: &str| NODE_LABELS.iter().find(|(name, _)| *name == key).map(|(_, why)| why);
    for key in spec["nodeSelector"].as_object().into_iter().flat_map(|map| map.keys()) {
        if let Some(why) = old_label(key) {
            out.push(format!("{prefix}spec.nodeSelector[{key}]: {why}"));
        }
    }
    for (i, spread) in items(spec, "topologySpreadConstraints") {
        let path = format!("{prefix}spec.topologySpreadConstraints[{i}]");
        let key = text(spread, "topologyKey");
        if let Some(why) = old_label(key) {
            out.push(format!("{path}.topologyKey: {key} is {why}"));
        }
        if spread["labelSelector"].is_null() {
            out.push(format!(
                "{path}.labelSelector: a null labelSelector results in matching no pod"
            ));
        }
    }
    for (name, why) in ANNOTATIONS {
        if !pod["metadata"]["annotations"][name].is_null() {
            out.push(format!("{prefix}metadata.annotations[{name}]: {why}"));
        }
    }
    for (i, volume) in items(spec, "volumes") {
        let gone = VOLUMES.iter().filter(|(source, _)| !volume[*source].is_null());
        out.extend(gone.map(|(source, why)| format!("{prefix}spec.volumes[{i}].{source}: {why}")));
    }
    let mut seen = BTreeSet::new();
    for (i, secret) in items(spec, "imagePullSecrets") {
        let (path, name) = (format!("{prefix}spec.imagePullSecrets[{i}]"), text(secret, "name"));
        if name.is_empty() {
            out.push(format!("{path}: invalid empty name \"\""));
        } else if !seen.insert(name) {
            out.push(format!("{path}: duplicate name {name:?}"));
        }
    }
    fractions(&spec["overhead"], &format!("{prefix}spec.overhead"), out);
    for list in CONTAINERS {
        for (i, one) in items(spec, list) {
            container(&format!("{prefix}spec.{list}[{i}]"), one, out);
        }
    }
    ports(prefix, spec, out);
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        out.push(format!("{prefix}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
}

/// Bytes come whole only.
fn fractions(amounts: &Value, path: &str, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let Some(amount) = amounts[name].as_str() else { continue };
        if amount.parse::<Quantity>().is_ok_and(|amount| !amount.is_whole()) {
            out.push(format!(
                "{path}[{name}]: fractional byte value {amount:?} is invalid, must be an integer"
            ));
        }
    }
}

fn container(path: &str, container: &Value, out: &mut Vec<String>) {
    for side in ["limits", "requests"] {
        fractions(&container["resources"][side], &format!("{path}.resources.{side}"), out);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, variable) in items(container, "env") {
        let name = text(variable, "name");
        let builds_on = text(variable, "value").contains(&format!("$({name})"));
        if seen.contains(&name) && !builds_on {
            out.push(format!("{path}.env[{i}]: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
        seen.push(name);
    }
}

/// Ports that hide each other.
fn ports(prefix: &str, spec: &Value, out: &mut Vec<String>) {
    let mut seen: Vec<(String, &Value)> = Vec::new();
    for list in ["containers", "initContainers"] {
        for (i, container) in items(spec, list) {
            // Init containers that end give their ports back.
            if list == "initContainers" && container["restartPolicy"] != "Always" {
                continue;
            }
            for (j, port) in items(container, "ports") {
                let path = format!("{prefix}spec.{list}[{i}].ports[{j}]");
                out.extend(seen.iter().find_map(|(other, first)| hides(&path, port, other, first)));
                seen.push((path, port));
            }
        }
    }
}

fn hides(path: &str, port: &Value, other: &str, first: &Value) -> Option<String> {
    let same = |field: &str| port[field] == first[field];
    let name = text(port, "name");
    if !name.is_empty() && same("name") {
        return Some(format!(
            "{path}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}"
        ));
    }
    if !same("containerPort") || !same("protocol") {
        return None;
    }
    let exact = same("hostPort") && same("hostIP");
    let one_is_inner = port["hostPort"].is_null() || first["hostPort"].is_null();
    match exact {
        true => Some(format!("{path}: duplicate port definition with {other}")),
        false if one_is_inner => Some(format!("{path}: overlapping port definition with {other}")),
        false => None,
    }
}

fn ingress(object: &Value, out: &mut Vec<String>) {
    const CLASS: &str = "kubernetes.io/ingress.class";
    if !object["metadata"]["annotations"][CLASS].is_null() {
        out.push(format!(
            "annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"
        ));
    }
}

fn volume(object: &Value, out: &mut Vec<String>) {
    let spec = &object["spec"];
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    if !object["metadata"]["annotations"][CLASS].is_null() {
        out.push(format!(
            "metadata.annotations[{CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    let gone = VOLUMES.iter().filter(|(source, _)| !spec[*source].is_null());
    out.extend(gone.map(|(source, why)| format!("spec.{source}: {why}")));
}

/// Finalizers that others may use as well.
fn finalizers(object: &Value, old: Option<&Value>) -> Vec<String> {
    let names = |object: &Value| -> Vec<String> {
        let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
        list.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let before = old.map(names).unwrap_or_default();
    let plain = |name: &String| {
        !name.contains('/')
            && !matches!(name.as_str(), "orphan" | "foregroundDeletion" | "kubernetes")
            && label_key_errors(name).is_empty()
            && !before.contains(name)
    };
    let list = names(object).into_iter().filter(plain);
    list.map(|name| format!("metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::RESOURCES;
    use serde_json::json;

    fn told(collection: &str, yaml: &str) -> Vec<String> {
        let resource = RESOURCES.iter().find(|r| r.collection() == collection).unwrap();
        let object: Value = serde_saphyr::from_str(yaml).unwrap();
        assert_eq!(
            warnings(resource, &object, Some(&object)).len(),
            usize::from(collection == "persistentvolumes")
        );
        warnings(resource, &object, None)
    }

    #[test]
    fn pods() {
        let found = told(
            "pods",
            "{metadata: {name: a.b, annotations: {security.alpha.kubernetes.io/sysctls: x}}, spec: {nodeSelector: {beta.kubernetes.io/os: linux}, terminationGracePeriodSeconds: -1, topologySpreadConstraints: [{topologyKey: failure-domain.beta.kubernetes.io/zone}], volumes: [{name: v, gitRepo: {}}], imagePullSecrets: [{name: s}, {name: s}], containers: [{name: c, resources: {limits: {memory: 100m}}, env: [{name: A, value: b}, {name: A, value: $(A)c}, {name: A, value: d}], ports: [{containerPort: 80, protocol: TCP, name: web}, {containerPort: 80, protocol: TCP}, {containerPort: 81, name: web}]}]}}",
        );
        let expected = [
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
            r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
            r#"spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            r#"metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+; use the "sysctls" field instead"#,
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            r#"spec.imagePullSecrets[1]: duplicate name "s""#,
            r#"spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer"#,
            r#"spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply"#,
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            r#"spec.containers[0].ports[2]: duplicate port name "web" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]"#,
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn other_kinds() {
        assert_eq!(
            told(
                "apps/deployments",
                "{metadata: {name: a}, spec: {template: {spec: {volumes: [{rbd: {}}]}}}}"
            ),
            ["spec.template.spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+"]
        );
        assert_eq!(
            told(
                "networking.k8s.io/ingresses",
                "metadata: {annotations: {kubernetes.io/ingress.class: a}}"
            ),
            [
                r#"annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead"#
            ]
        );
        assert_eq!(
            told("persistentvolumes", "spec: {persistentVolumeReclaimPolicy: Recycle}").len(),
            1
        );
        assert_eq!(told("configmaps", "metadata: {name: a.b}"), Vec::<String>::new());
        let object = json!({"metadata": {"finalizers": ["mine", "a.b/c", "orphan"]}});
        assert_eq!(finalizers(&object, None).len(), 1);
        assert!(finalizers(&object, Some(&object)).is_empty());
    }
}
