//! The rules whose breaking people meet most: names, what a pod must have, selectors that fit
//! their template, ports. Source: k8s.io/kubernetes `pkg/apis/*/validation`.

use crate::selector::LabelSelector;
use crate::status::{FieldError, Path};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const LABEL_MAX_BYTES: usize = 63;

/// Kinds with a selector over their template, and the template's restart policies.
const WORKLOADS: &[(&str, &str, &[&str])] = &[
    ("apps/daemonsets", "daemonset", &["Always"]),
    ("apps/deployments", "deployment", &["Always"]),
    ("apps/replicasets", "replicaset", &["Always"]),
    ("apps/statefulsets", "statefulset", &["Always"]),
];

type Errors = Vec<FieldError>;

/// What is wrong with an object of a collection.
pub(super) fn check(collection: &str, object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let path = Path::new("spec");
    match collection {
        "pods" => pod_spec(spec, &path, &["Always", "OnFailure", "Never"], errors),
        "services" => service(spec, &path, errors),
        "configmaps" | "secrets" => {
            for field in ["data", "binaryData"] {
                keys(object[field].as_object(), &Path::new(field), errors);
            }
        }
        "batch/jobs" => template(&spec["template"], &path, &["OnFailure", "Never"], errors),
        "batch/cronjobs" => {
            if spec["schedule"].as_str().is_none_or(str::is_empty) {
                errors.push(FieldError::required(path.child("schedule"), ""));
            }
            let path = path.child("jobTemplate").child("spec");
            template(
                &spec["jobTemplate"]["spec"]["template"],
                &path,
                &["OnFailure", "Never"],
                errors,
            );
        }
        _ => {}
    }
    if let Some((_, kind, policies)) = WORKLOADS.iter().find(|(name, ..)| *name == collection) {
        not_negative(spec, &path, "replicas", errors);
        selector(spec, &path, kind, errors);
        template(&spec["template"], &path, policies, errors);
    }
}

/// What may not change while an object of a collection lives.
pub(super) fn check_update(collection: &str, new: &Value, old: &Value, errors: &mut Errors) {
    let fixed: &[&str] = match collection {
        "apps/daemonsets" | "apps/deployments" | "apps/replicasets" | "batch/jobs" => &["selector"],
        "apps/statefulsets" => &["selector", "serviceName", "podManagementPolicy"],
        _ => &[],
    };
    for field in fixed {
        let (now, before) = (&new["spec"][field], &old["spec"][field]);
        if now != before {
            errors.push(FieldError::invalid(
                format!("spec.{field}"),
                now.clone(),
                "field is immutable",
            ));
        }
    }
    if new["roleRef"] != old["roleRef"] {
        errors.push(FieldError::invalid(
            "roleRef",
            new["roleRef"].clone(),
            "cannot change roleRef",
        ));
    }
    let data = matches!(collection, "configmaps" | "secrets");
    if data && old["immutable"] == true {
        for field in ["immutable", "data", "binaryData"].iter().filter(|f| new[**f] != old[**f]) {
            let why = "field is immutable when `immutable` is set";
            errors.push(FieldError::forbidden(*field, why));
        }
    }
    if collection == "secrets" && new["type"] != old["type"] {
        errors.push(FieldError::invalid("type", new["type"].clone(), "field is immutable"));
    }
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn label(text: &str, path: impl std::fmt::Display, errors: &mut Errors) {
    if text.len() > LABEL_MAX_BYTES {
        let why = format!("must be no more than {LABEL_MAX_BYTES} bytes");
        errors.push(FieldError::invalid(&path, text, why));
    }
    if !is_label(text) {
        errors.push(FieldError::invalid(&path, text, LABEL));
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn not_negative(spec: &Value, path: &Path, field: &str, errors: &mut Errors) {
    if let Some(number) = spec[field].as_i64().filter(|number| *number < 0) {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(path.child(field), number, why));
    }
}

fn selector(spec: &Value, path: &Path, kind: &str, errors: &mut Errors) {
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required(path.child("selector"), ""));
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    match LabelSelector::from_object(selector) {
        Err(error) => {
            errors.push(FieldError::invalid(
                path.child("selector"),
                selector.clone(),
                error.to_string(),
            ));
        }
        Ok(parsed) if parsed.is_empty() => {
            let why = format!("empty selector is invalid for {kind}");
            errors.push(FieldError::invalid(path.child("selector"), selector.clone(), why));
        }
        Ok(parsed) => {
            if !parsed.matches_object(&spec["template"]) {
                let path = path.child("template").child("metadata").child("labels");
                let shown =
                    if labels.is_null() { Value::Object(Map::new()) } else { labels.clone() };
                let why = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(path, shown, why));
            }
        }
    }
}

fn template(template: &Value, path: &Path, policies: &[&str], errors: &mut Errors) {
    pod_spec(&template["spec"], &path.child("template").child("spec"), policies, errors);
}

fn pod_spec(spec: &Value, path: &Path, policies: &[&str], errors: &mut Errors) {
    let volumes = volumes(spec, path, errors);
    if list(spec, "containers").is_empty() {
        errors.push(FieldError::required(path.child("containers"), ""));
    }
    let mut names = BTreeSet::new();
    for field in ["containers", "initContainers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            let path = path.child(field).index(index);
            unique_label(container, &path, &mut names, errors);
            self::container(container, &path, &volumes, errors);
        }
    }
    let policy = text(spec, "restartPolicy");
    if !policies.contains(&policy) {
        errors.push(FieldError::not_supported(path.child("restartPolicy"), policy, policies));
    }
}

fn unique_label<'a>(
    item: &'a Value,
    path: &Path,
    names: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    let (name, path) = (text(item, "name"), path.child("name"));
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    label(name, &path, errors);
    if !names.insert(name) {
        errors.push(FieldError::duplicate(path, name));
    }
}

fn volumes<'a>(spec: &'a Value, path: &Path, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.child("volumes").index(index);
        unique_label(volume, &path, &mut names, errors);
        if volume.as_object().is_some_and(|volume| volume.len() > 2) {
            let why = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(path, why));
        }
    }
    names
}

fn container(container: &Value, path: &Path, volumes: &BTreeSet<&str>, errors: &mut Errors) {
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(path.child("image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(path.child("image"), image, why));
    }
    let policy = text(container, "imagePullPolicy");
    if !matches!(policy, "Always" | "IfNotPresent" | "Never") {
        let known = ["Always", "IfNotPresent", "Never"];
        errors.push(FieldError::not_supported(path.child("imagePullPolicy"), policy, &known));
    }
    for (index, port) in list(container, "ports").iter().enumerate() {
        let path = path.child("ports").index(index);
        self::port(port, &path, "containerPort", errors);
        protocol(port, &path, errors);
    }
    for (index, variable) in list(container, "env").iter().enumerate() {
        if text(variable, "name").is_empty() {
            errors.push(FieldError::required(path.child("env").index(index).child("name"), ""));
        }
    }
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        let name = text(mount, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(path.child("name"), name));
        }
        if text(mount, "mountPath").is_empty() {
            errors.push(FieldError::required(path.child("mountPath"), ""));
        }
    }
}

fn port(port: &Value, path: &Path, field: &str, errors: &mut Errors) {
    match port[field].as_i64() {
        None | Some(0) => errors.push(FieldError::required(path.child(field), "")),
        Some(1..=65535) => {}
        Some(number) => {
            let why = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(path.child(field), number, why));
        }
    }
}

fn protocol(port: &Value, path: &Path, errors: &mut Errors) {
    let protocol = text(port, "protocol");
    if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        let known = ["SCTP", "TCP", "UDP"];
        errors.push(FieldError::not_supported(path.child("protocol"), protocol, &known));
    }
}

fn service(spec: &Value, path: &Path, errors: &mut Errors) {
    let kind = text(spec, "type");
    let known = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !known.contains(&kind) {
        errors.push(FieldError::not_supported(path.child("type"), kind, &known));
    }
    let ports = list(spec, "ports");
    let headless = text(spec, "clusterIP") == "None";
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(path.child("ports"), ""));
    }
    if kind == "ExternalName" && text(spec, "externalName").is_empty() {
        errors.push(FieldError::required(path.child("externalName"), ""));
    }
    let mut names = BTreeSet::new();
    for (index, item) in ports.iter().enumerate() {
        let path = path.child("ports").index(index);
        if ports.len() > 1 || !text(item, "name").is_empty() {
            unique_label(item, &path, &mut names, errors);
        }
        port(item, &path, "port", errors);
        protocol(item, &path, errors);
    }
}

fn keys(map: Option<&Map<String, Value>>, path: &Path, errors: &mut Errors) {
    let good = |key: &str| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    for key in map.into_iter().flat_map(|map| map.keys()).filter(|key| !good(key)) {
        errors.push(FieldError::invalid(path.key(key), key.as_str(), CONFIG_KEY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(collection: &str, mut object: Value) -> Vec<String> {
        super::super::defaults::fill(collection, &mut object);
        let mut errors = Vec::new();
        check(collection, &object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pods_name_the_field() {
        let pod = |spec: Value| errors("pods", json!({"metadata": {"name": "p"}, "spec": spec}));
        assert_eq!(pod(json!({})), ["spec.containers: Required value"]);
        assert_eq!(pod(json!({"containers": [{"name": "a", "image": "i"}]})), Vec::<String>::new());
        assert_eq!(
            pod(json!({"restartPolicy": "Sometimes", "containers": [
                {"name": "a", "image": "i", "ports": [{"containerPort": 70000}]},
                {"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]})),
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[1].name: Duplicate value: \"a\"",
                "spec.containers[1].image: Required value",
                "spec.containers[1].volumeMounts[0].name: Not found: \"v\"",
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ]
        );
    }

    #[test]
    fn selectors_fit_their_template() {
        let deployment = |selector: Value| {
            errors(
                "apps/deployments",
                json!({"metadata": {"name": "d"}, "spec": {"selector": selector, "replicas": -1,
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
            )
        };
        let negative = "spec.replicas: Invalid value: -1: must be greater than or equal to 0";
        assert_eq!(deployment(json!({"matchLabels": {"a": "b"}})), [negative]);
        assert_eq!(
            deployment(json!({"matchLabels": {"a": "c"}})),
            [
                negative,
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(deployment(Value::Null), [negative, "spec.selector: Required value"]);
    }

    #[test]
    fn services_and_keys() {
        let service =
            |spec: Value| errors("services", json!({"metadata": {"name": "s"}, "spec": spec}));
        assert_eq!(service(json!({})), ["spec.ports: Required value"]);
        assert_eq!(
            service(json!({"ports": [{"port": 80}, {"name": "b", "port": 81}]})),
            ["spec.ports[0].name: Required value"]
        );
        let bad = errors("configmaps", json!({"metadata": {"name": "c"}, "data": {"a b": "x"}}));
        assert!(
            bad[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key"),
            "{bad:?}"
        );
    }
}
