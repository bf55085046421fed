//! What the server fills in where the writer says nothing. Most defaults are rows of a table:
//! a path (`[]` goes through a list) and the value that a missing last member gets; objects on
//! the way are never made. What depends on other fields follows in code.
//! Source: k8s.io/kubernetes `pkg/apis/*/v1/defaults.go`.

mod rows;

use base64::Engine;
use serde_json::{Map, Value, json};

use crate::member::member_mut;
use crate::quota::of_containers;
use rows::{
    CONTAINER, EXACT, FLOW_SCHEMA, JOB_SPEC, KINDS, POD_SPEC, PROBE, QUEUING, Rows, TEMPLATES,
};

/// Fills in an object of a collection.
pub(super) fn fill(collection: &str, object: &mut Value) {
    if let Some((_, rows)) = KINDS.iter().find(|(name, _)| *name == collection) {
        apply(object, rows);
    }
    match collection {
        "pods" => {
            requests_from_limits(object);
            pod_level(object);
        }
        "flowcontrol.apiserver.k8s.io/flowschemas" => {
            positive(object.get_mut("spec"), &["matchingPrecedence"], FLOW_SCHEMA);
        }
        "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations" => {
            let queuing = object.pointer_mut("/spec/limited/limitResponse/queuing");
            positive(queuing, &["queues", "handSize", "queueLengthLimit"], QUEUING);
        }
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
        "apps/statefulsets" => stateful_set(object.pointer_mut("/spec/updateStrategy")),
        "autoscaling/horizontalpodautoscalers" => autoscaler(object.get_mut("spec")),
        "batch/jobs" => job(object),
        "limitranges" => limit_range(object),
        "nodes" => allocatable(object.get_mut("status")),
        "persistentvolumeclaims" => data_source(object.get_mut("spec")),
        "resource.k8s.io/resourceclaims" => devices(object.pointer_mut("/spec/devices")),
        "resource.k8s.io/resourceclaimtemplates" => {
            devices(object.pointer_mut("/spec/spec/devices"));
        }
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
        if collection == "pods" {
            host_ports(spec);
            grace(spec);
        }
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
    match member_mut(at, name) {
        Some(Value::Array(items)) if is_list => {
            items.iter_mut().for_each(|item| set(item, rest, default));
        }
        Some(below) if !is_list => set(below, rest, default),
        _ => {}
    }
}

fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    member_mut(object, list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn pod_spec(spec: &mut Value) {
    apply(spec, POD_SPEC);
    account_names(spec);
    for volume in items(spec, "volumes") {
        if let Some(fields) = volume.as_object_mut().filter(|fields| fields.len() == 1) {
            fields.insert("emptyDir".to_owned(), json!({}));
        }
        if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
            pull_policy(image, "reference", "pullPolicy");
        }
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec, list) {
            apply(container, CONTAINER);
            pull_policy(container, "image", "imagePullPolicy");
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
                    drop_zeros(probe);
                    apply(probe, PROBE);
                }
            }
        }
    }
}

/// The account has an old name and a new one; the new one wins, and both are shown.
fn account_names(spec: &mut Value) {
    let named = |field: &str| spec[field].as_str().filter(|name| !name.is_empty());
    if let Some(name) = named("serviceAccountName").or(named("serviceAccount")) {
        let name = json!(name);
        spec["serviceAccountName"] = name.clone();
        spec["serviceAccount"] = name;
    }
}

/// In the board's own network a container's port is the board's port (pods only, not their
/// templates).
fn host_ports(spec: &mut Value) {
    if spec["hostNetwork"] != true {
        return;
    }
    for list in ["containers", "initContainers"] {
        for port in items(spec, list).flat_map(|container| items(container, "ports")) {
            if port["hostPort"].as_i64().unwrap_or(0) == 0 {
                port["hostPort"] = port["containerPort"].clone();
            }
        }
    }
}

/// A pod cannot have less than no time to end; clients are warned of it (pods only, not their templates).
fn grace(spec: &mut Value) {
    let seconds = &mut spec["terminationGracePeriodSeconds"];
    if seconds.as_i64().is_some_and(|seconds| seconds < 0) {
        *seconds = json!(1);
    }
}

/// Zero means "not said" for the numbers of a probe.
fn drop_zeros(probe: &mut Value) {
    if let Some(fields) = probe.as_object_mut() {
        fields.retain(|name, value| *value != json!(0) || name == "terminationGracePeriodSeconds");
    }
}

/// A moving tag is pulled every time.
fn pull_policy(of: &mut Value, image: &str, policy: &str) {
    let image = of[image].as_str().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let moving =
        !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    set(of, policy, if moving { r#""Always""# } else { r#""IfNotPresent""# });
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
            let requests = resources.entry("requests").or_insert(Value::Null);
            if requests.is_null() {
                *requests = json!({});
            }
            let Some(requests) = requests.as_object_mut() else { continue };
            // By name and not by path: the names of others' resources have dots.
            for (name, limit) in limits {
                requests.entry(name).or_insert(limit);
            }
        }
    }
}

/// What a pod says for itself as a whole is completed from its containers: limits of huge pages,
/// then requests, which fall back to its own limits.
fn pod_level(pod: &mut Value) {
    let names = |pod: &Value, kind: &str| -> Vec<String> {
        let all = pod["spec"]["resources"][kind].as_object().into_iter().flat_map(Map::keys);
        all.cloned().collect()
    };
    let (requests, mut limits) = (names(pod, "requests"), names(pod, "limits"));
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    for (name, amount) in of_containers(pod, "limits") {
        if is_huge(&name) && !requests.contains(&name) && !limits.contains(&name) {
            set_amount(pod, "limits", &name, amount.to_string().into());
            limits.push(name);
        }
    }
    if limits.is_empty() {
        return;
    }
    for (name, amount) in of_containers(pod, "requests") {
        if matches!(name.as_str(), "cpu" | "memory") {
            set_amount(pod, "requests", &name, amount.to_string().into());
        }
    }
    for name in &limits {
        if is_huge(name) || matches!(name.as_str(), "cpu" | "memory") {
            let limit = pod["spec"]["resources"]["limits"][name].clone();
            set_amount(pod, "requests", name, limit);
        }
    }
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Adds to what a pod says for itself where it says nothing.
fn set_amount(pod: &mut Value, kind: &str, name: &str, amount: Value) {
    let resources = &mut pod["spec"]["resources"];
    set(resources, kind, "{}");
    if let Some(amounts) = resources[kind].as_object_mut() {
        amounts.entry(name).or_insert(amount);
    }
}

/// Numbers of which zero is as good as none.
fn positive(of: Option<&mut Value>, names: &[&str], rows: Rows) {
    let Some(of) = of.filter(|of| of.is_object()) else { return };
    for name in names {
        if of[*name] == 0 {
            of[*name] = Value::Null;
        }
    }
    apply(of, rows);
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

/// Where no kind of update is named it rolls, with all that this has; where one is named what
/// is missing stays missing, but for what a roll-out that is there lacks.
fn stateful_set(strategy: Option<&mut Value>) {
    let Some(strategy) = strategy else { return };
    if strategy["type"].as_str().is_none_or(str::is_empty) {
        set(strategy, "type", r#""RollingUpdate""#);
        set(strategy, "rollingUpdate", "{}");
    }
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate.partition", "0");
        set(strategy, "rollingUpdate.maxUnavailable", "1");
    }
}

/// Four fifths of the processor time asked for is what an autoscaler aims at if it is not told.
/// A behaviour that is begun is completed.
fn autoscaler(spec: Option<&mut Value>) {
    let Some(spec) = spec.filter(|spec| spec.is_object()) else { return };
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let cpu = json!({"name": "cpu", "target": target});
        spec["metrics"] = json!([{"type": "Resource", "resource": cpu}]);
    }
    if !spec["behavior"].is_object() {
        return;
    }
    let policy =
        |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    let up = json!([policy("Pods", 4), policy("Percent", 100)]);
    let down = json!([policy("Percent", 100)]);
    for (direction, policies) in [("scaleUp", up), ("scaleDown", down)] {
        set(&mut spec["behavior"], direction, "{}");
        let rules = &mut spec["behavior"][direction];
        set(rules, "selectPolicy", r#""Max""#);
        set(rules, "policies", &policies.to_string());
    }
    set(spec, "behavior.scaleUp.stabilizationWindowSeconds", "0");
}

/// What a container gets unless it says otherwise follows from what is allowed.
fn limit_range(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    for item in items(spec, "limits").filter(|item| item["type"] == "Container") {
        for (to, from) in
            [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")]
        {
            for (name, amount) in item[from].as_object().cloned().into_iter().flatten() {
                set(item, to, "{}");
                if let Some(amounts) = item[to].as_object_mut() {
                    amounts.entry(name).or_insert(amount);
                }
            }
        }
    }
}

/// A node that names no part for pods gives them all of it.
fn allocatable(status: Option<&mut Value>) {
    let Some(status) = status.filter(|status| status.is_object()) else { return };
    if status["allocatable"].is_null() && status["capacity"].is_object() {
        status["allocatable"] = status["capacity"].clone();
    }
}

/// The old and the new way to say what a claim is filled with say the same.
fn data_source(spec: Option<&mut Value>) {
    let Some(spec) = spec.filter(|spec| spec.is_object()) else { return };
    if spec["dataSource"].is_object() && spec["dataSourceRef"].is_null() {
        spec["dataSourceRef"] = spec["dataSource"].clone();
    } else if spec["dataSourceRef"].is_object()
        && spec["dataSource"].is_null()
        && spec["dataSourceRef"]["namespace"].as_str().is_none_or(str::is_empty)
    {
        spec["dataSource"] = spec["dataSourceRef"].clone();
    }
}

/// A request for a number of devices is for one.
fn devices(claim: Option<&mut Value>) {
    let Some(claim) = claim else { return };
    let count = |request: &mut Value| {
        if request["allocationMode"] == "ExactCount" && request["count"].as_i64().unwrap_or(0) == 0
        {
            request["count"] = json!(1);
        }
    };
    for request in items(claim, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            count(exactly);
        }
        for choice in items(request, "firstAvailable") {
            set(choice, "allocationMode", EXACT);
            count(choice);
        }
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
    match spec.as_object_mut() {
        Some(fields) if fields.get("sessionAffinity").is_some_and(|kind| kind == "None") => {
            fields.shift_remove("sessionAffinityConfig");
        }
        _ => {}
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
    if kind != "LoadBalancer" {
        return;
    }
    set(spec, "allocateLoadBalancerNodePorts", "true");
    let points = object.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
    for point in points.into_iter().flatten() {
        if point["ip"].as_str().is_some_and(|ip| !ip.is_empty()) {
            set(point, "ipMode", r#""VIP""#);
        }
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

fn job(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if labels.is_object() && is_empty(&object["metadata"]["labels"]) {
        set(object, "metadata", "{}");
        object["metadata"]["labels"] = labels;
    }
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, "completions", "1");
    }
    apply(spec, JOB_SPEC);
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    set(spec, "backoffLimit", if per_index { "2147483647" } else { "6" });
    let failed_only = !spec["podFailurePolicy"].is_null();
    let policy = if failed_only { r#""Failed""# } else { r#""TerminatingOrFailed""# };
    set(spec, "podReplacementPolicy", policy);
    set(spec, "podFailurePolicy.rules[].onPodConditions[].status", r#""True""#);
}

/// Whether there is nothing in a map, or no map.
fn is_empty(map: &Value) -> bool {
    map.as_object().is_none_or(Map::is_empty)
}

/// Selector and labels follow the template's labels.
fn replication_controller(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        for pointer in ["/spec/selector", "/metadata/labels"] {
            let (parent, field) = pointer.rsplit_once('/').unwrap_or_default();
            if let Some(parent) = object.pointer_mut(parent)
                && is_empty(&parent[field])
            {
                parent[field] = labels.clone();
            }
        }
    }
}

fn policy_types(object: &mut Value) {
    let egress = object["spec"]["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    let types = if egress { r#"["Ingress","Egress"]"# } else { r#"["Ingress"]"# };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let empty = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
        if spec.get("policyTypes").is_some_and(empty) {
            spec.shift_remove("policyTypes");
        }
    }
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
mod tests;
