//! Columns of pods, of what makes pods, and of nodes.

use super::column::About::{Field, Says};
use super::column::Cell::{Call, Number, Since, Text};
use super::column::{
    AGE, Column, Context, NAME, at, condition, flag, items, labels, number, or, selector, text,
    text_at, wide,
};
use super::duration::{between, time};
use super::pod;
use serde_json::{Value, json};

/// Columns by group and kind.
pub(super) const TABLES: &[(&str, &str, &[Column])] = &[
    ("", "Pod", POD),
    ("", "PodTemplate", POD_TEMPLATE),
    ("", "ReplicationController", REPLICATION_CONTROLLER),
    ("", "Node", NODE),
    ("apps", "ReplicaSet", REPLICA_SET),
    ("apps", "Deployment", DEPLOYMENT),
    ("apps", "StatefulSet", STATEFUL_SET),
    ("apps", "DaemonSet", DAEMON_SET),
    ("apps", "ControllerRevision", CONTROLLER_REVISION),
    ("batch", "Job", JOB),
    ("batch", "CronJob", CRON_JOB),
    ("autoscaling", "Scale", SCALE),
    ("autoscaling", "HorizontalPodAutoscaler", AUTOSCALER),
];

const POD_SPEC: &str = "api.core.v1.PodSpec";
const POD_STATUS: &str = "api.core.v1.PodStatus";
const NODE_INFO: &str = "api.core.v1.NodeSystemInfo";
const NODE_STATUS: &str = "api.core.v1.NodeStatus";
const DAEMON_SET_STATUS: &str = "api.apps.v1.DaemonSetStatus";
const AUTOSCALER_SPEC: &str = "api.autoscaling.v2.HorizontalPodAutoscalerSpec";

const CONTAINERS: Column = wide(text(
    "Containers",
    Says("Names of each container in the template."),
    Call(|object, _| json!(joined(object, "name"))),
));
const IMAGES: Column = wide(text(
    "Images",
    Says("Images referenced by each container in the template."),
    Call(|object, _| json!(joined(object, "image"))),
));

const POD: &[Column] = &[
    NAME,
    text(
        "Ready",
        Says("The aggregate readiness state of this pod for accepting traffic."),
        Call(pod::ready),
    ),
    text("Status", Says("The aggregate status of the containers in this pod."), Call(pod::status)),
    text(
        "Restarts",
        Says(
            "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        ),
        Call(pod::restarts),
    ),
    AGE,
    wide(text("IP", Field(POD_STATUS, "podIP"), Call(pod::address))),
    wide(text("Node", Field(POD_SPEC, "nodeName"), Text("spec.nodeName", "<none>"))),
    wide(text(
        "Nominated Node",
        Field(POD_STATUS, "nominatedNodeName"),
        Text("status.nominatedNodeName", "<none>"),
    )),
    wide(text("Readiness Gates", Field(POD_SPEC, "readinessGates"), Call(pod::readiness_gates))),
];

const POD_TEMPLATE: &[Column] = &[
    NAME,
    text(
        "Containers",
        Says("Names of each container in the template."),
        Call(|object, _| json!(joined(object, "name"))),
    ),
    text(
        "Images",
        Says("Images referenced by each container in the template."),
        Call(|object, _| json!(joined(object, "image"))),
    ),
    text(
        "Pod Labels",
        Says("The labels for the pod template."),
        Call(|object, _| json!(labels(at(object, "template.metadata.labels")))),
    ),
];

const REPLICATION_CONTROLLER: &[Column] = &[
    NAME,
    number(
        "Desired",
        Field("api.core.v1.ReplicationControllerSpec", "replicas"),
        Number("spec.replicas"),
    ),
    number(
        "Current",
        Field("api.core.v1.ReplicationControllerStatus", "replicas"),
        Number("status.replicas"),
    ),
    number(
        "Ready",
        Field("api.core.v1.ReplicationControllerStatus", "readyReplicas"),
        Number("status.readyReplicas"),
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(text(
        "Selector",
        Field("api.core.v1.ReplicationControllerSpec", "selector"),
        Call(|object, _| json!(labels(at(object, "spec.selector")))),
    )),
];

const REPLICA_SET: &[Column] = &[
    NAME,
    number("Desired", Field("api.apps.v1.ReplicaSetSpec", "replicas"), Number("spec.replicas")),
    number("Current", Field("api.apps.v1.ReplicaSetStatus", "replicas"), Number("status.replicas")),
    number(
        "Ready",
        Field("api.apps.v1.ReplicaSetStatus", "readyReplicas"),
        Number("status.readyReplicas"),
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(text("Selector", Field("api.apps.v1.ReplicaSetSpec", "selector"), Call(spec_selector))),
];

const DEPLOYMENT: &[Column] = &[
    NAME,
    text("Ready", Says("Number of the pod with ready state"), Call(ready_of_wanted)),
    text(
        "Up-to-date",
        Field("api.apps.v1.DeploymentStatus", "updatedReplicas"),
        Number("status.updatedReplicas"),
    ),
    text(
        "Available",
        Field("api.apps.v1.DeploymentStatus", "availableReplicas"),
        Number("status.availableReplicas"),
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(text("Selector", Field("api.apps.v1.DeploymentSpec", "selector"), Call(spec_selector))),
];

const STATEFUL_SET: &[Column] = &[
    NAME,
    text("Ready", Says("Number of the pod with ready state"), Call(ready_of_wanted)),
    AGE,
    CONTAINERS,
    IMAGES,
];

const DAEMON_SET: &[Column] = &[
    NAME,
    number(
        "Desired",
        Field(DAEMON_SET_STATUS, "desiredNumberScheduled"),
        Number("status.desiredNumberScheduled"),
    ),
    number(
        "Current",
        Field(DAEMON_SET_STATUS, "currentNumberScheduled"),
        Number("status.currentNumberScheduled"),
    ),
    number("Ready", Field(DAEMON_SET_STATUS, "numberReady"), Number("status.numberReady")),
    number(
        "Up-to-date",
        Field(DAEMON_SET_STATUS, "updatedNumberScheduled"),
        Number("status.updatedNumberScheduled"),
    ),
    number(
        "Available",
        Field(DAEMON_SET_STATUS, "numberAvailable"),
        Number("status.numberAvailable"),
    ),
    text(
        "Node Selector",
        Field(POD_SPEC, "nodeSelector"),
        Call(|object, _| json!(labels(at(object, "spec.template.spec.nodeSelector")))),
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(text("Selector", Field("api.apps.v1.DaemonSetSpec", "selector"), Call(spec_selector))),
];

const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    text("Controller", Says("Controller of the object"), Call(controller)),
    text("Revision", Field("api.apps.v1.ControllerRevision", "revision"), Number("revision")),
    AGE,
];

const JOB: &[Column] = &[
    NAME,
    text("Status", Says("Status of the job."), Call(job_status)),
    text("Completions", Field("api.batch.v1.JobStatus", "succeeded"), Call(job_completions)),
    text("Duration", Says("Time required to complete the job."), Call(job_duration)),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(text("Selector", Field("api.batch.v1.JobSpec", "selector"), Call(spec_selector))),
];

const CRON_JOB: &[Column] = &[
    NAME,
    text("Schedule", Field("api.batch.v1.CronJobSpec", "schedule"), Text("spec.schedule", "")),
    text(
        "Timezone",
        Field("api.batch.v1.CronJobSpec", "timeZone"),
        Text("spec.timeZone", "<none>"),
    ),
    flag("Suspend", Field("api.batch.v1.CronJobSpec", "suspend"), Call(suspended)),
    number(
        "Active",
        Field("api.batch.v1.CronJobStatus", "active"),
        super::column::Cell::Count("status.active"),
    ),
    text(
        "Last Schedule",
        Field("api.batch.v1.CronJobStatus", "lastScheduleTime"),
        Since("status.lastScheduleTime", "<none>"),
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(text(
        "Selector",
        Field("api.batch.v1.JobSpec", "selector"),
        Call(|object, _| json!(selector(at(object, "spec.jobTemplate.spec.selector")))),
    )),
];

const SCALE: &[Column] = &[
    text(
        "Name",
        Field("apimachinery.pkg.apis.meta.v1.ObjectMeta", "name"),
        Text("metadata.name", ""),
    ),
    number("Desired", Field("api.autoscaling.v1.ScaleSpec", "replicas"), Number("spec.replicas")),
    number(
        "Available",
        Field("api.autoscaling.v1.ScaleStatus", "replicas"),
        Number("status.replicas"),
    ),
    AGE,
];

const AUTOSCALER: &[Column] = &[
    NAME,
    text("Reference", Field(AUTOSCALER_SPEC, "scaleTargetRef"), Call(scale_target)),
    text("Targets", Field(AUTOSCALER_SPEC, "metrics"), Call(metrics)),
    text("MinPods", Field(AUTOSCALER_SPEC, "minReplicas"), Text("spec.minReplicas", "<unset>")),
    text("MaxPods", Field(AUTOSCALER_SPEC, "maxReplicas"), Number("spec.maxReplicas")),
    text(
        "Replicas",
        Field("api.autoscaling.v2.HorizontalPodAutoscalerStatus", "currentReplicas"),
        Number("status.currentReplicas"),
    ),
    AGE,
];

const NODE: &[Column] = &[
    NAME,
    text("Status", Says("The status of the node"), Call(node_status)),
    text("Roles", Says("The roles of the node"), Call(node_roles)),
    AGE,
    text("Version", Field(NODE_INFO, "kubeletVersion"), Text("status.nodeInfo.kubeletVersion", "")),
    wide(text(
        "Internal-IP",
        Field(NODE_STATUS, "addresses"),
        Call(|node, _| json!(node_address(node, "InternalIP"))),
    )),
    wide(text(
        "External-IP",
        Field(NODE_STATUS, "addresses"),
        Call(|node, _| json!(node_address(node, "ExternalIP"))),
    )),
    wide(text(
        "OS-Image",
        Field(NODE_INFO, "osImage"),
        Text("status.nodeInfo.osImage", "<unknown>"),
    )),
    wide(text(
        "Kernel-Version",
        Field(NODE_INFO, "kernelVersion"),
        Text("status.nodeInfo.kernelVersion", "<unknown>"),
    )),
    wide(text(
        "Container-Runtime",
        Field(NODE_INFO, "containerRuntimeVersion"),
        Text("status.nodeInfo.containerRuntimeVersion", "<unknown>"),
    )),
];

/// One field of every container in the pod template, joined.
fn joined(object: &Value, field: &str) -> String {
    let template = match object["kind"].as_str() {
        Some("CronJob") => at(object, "spec.jobTemplate.spec.template"),
        Some("PodTemplate") => &object["template"],
        _ => at(object, "spec.template"),
    };
    let containers = items(&template["spec"]["containers"]).iter();
    containers.map(|c| c[field].as_str().unwrap_or_default()).collect::<Vec<_>>().join(",")
}

fn spec_selector(object: &Value, _: &Context) -> Value {
    json!(selector(at(object, "spec.selector")))
}

fn ready_of_wanted(object: &Value, _: &Context) -> Value {
    let number = |path| at(object, path).as_i64().unwrap_or(0);
    json!(format!("{}/{}", number("status.readyReplicas"), number("spec.replicas")))
}

fn controller(object: &Value, _: &Context) -> Value {
    let owners = items(&object["metadata"]["ownerReferences"]);
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else {
        return json!("<none>");
    };
    let (group, _) = crate::resource::split_api_version(text_at(owner, "apiVersion"));
    let kind = text_at(owner, "kind").to_lowercase();
    let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    json!(format!("{kind}/{}", text_at(owner, "name")))
}

fn job_status(job: &Value, _: &Context) -> Value {
    let holds =
        |kind| condition(at(job, "status.conditions"), kind).is_some_and(|c| c["status"] == "True");
    let deleted = !job["metadata"]["deletionTimestamp"].is_null();
    json!(match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if deleted => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () => "Running",
    })
}

fn job_completions(job: &Value, _: &Context) -> Value {
    let succeeded = at(job, "status.succeeded").as_i64().unwrap_or(0);
    let parallelism = at(job, "spec.parallelism").as_i64().unwrap_or(0);
    json!(match at(job, "spec.completions").as_i64() {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    })
}

fn job_duration(job: &Value, context: &Context) -> Value {
    let start = time(at(job, "status.startTime"));
    let end = time(at(job, "status.completionTime")).unwrap_or(context.now);
    json!(start.map_or_else(String::new, |start| between(start, end)))
}

fn suspended(job: &Value, _: &Context) -> Value {
    json!(match at(job, "spec.suspend").as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    })
}

fn scale_target(autoscaler: &Value, _: &Context) -> Value {
    let target = at(autoscaler, "spec.scaleTargetRef");
    json!(format!("{}/{}", text_at(target, "kind"), text_at(target, "name")))
}

/// Current and wished-for value of the first two metrics.
fn metrics(autoscaler: &Value, _: &Context) -> Value {
    const SHOWN: usize = 2;
    let specs = items(at(autoscaler, "spec.metrics"));
    if specs.is_empty() {
        return json!("<none>");
    }
    let statuses = items(at(autoscaler, "status.currentMetrics"));
    let texts: Vec<String> =
        specs.iter().enumerate().map(|(i, spec)| metric(spec, statuses.get(i))).collect();
    json!(super::column::first(&texts, SHOWN, ", "))
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let (member, resource) = match text_at(spec, "type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[member]["target"], status.map(|s| &s[member]["current"]));
    let value = |of: Option<&Value>, field: &str, missing: &str| match of.map(|v| &v[field]) {
        Some(Value::String(quantity)) => quantity.clone(),
        Some(Value::Number(percent)) => format!("{percent}%"),
        _ => missing.to_owned(),
    };
    let average = !target["averageValue"].is_null() || member == "pods";
    let (field, suffix, missing) = match (average, resource) {
        (true, true) => ("averageValue", "", "<unknown>"),
        (true, false) if member == "pods" => ("averageValue", "", "<unknown>"),
        (true, false) => ("averageValue", " (avg)", "<unknown>"),
        (false, true) => ("averageUtilization", "", "<auto>"),
        (false, false) => ("value", "", "<unknown>"),
    };
    let name =
        if resource { format!("{}: ", text_at(&spec[member], "name")) } else { String::new() };
    let current = value(current, field, "<unknown>");
    format!("{name}{current}/{}{suffix}", value(Some(target), field, missing))
}

fn node_status(node: &Value, _: &Context) -> Value {
    let ready = condition(at(node, "status.conditions"), "Ready");
    let status = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    let cordoned = at(node, "spec.unschedulable") == true;
    json!(format!("{status}{}", if cordoned { ",SchedulingDisabled" } else { "" }))
}

fn node_roles(node: &Value, _: &Context) -> Value {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == "kubernetes.io/role"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    json!(or(&roles.join(","), "<none>"))
}

fn node_address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let addresses = items(at(node, "status.addresses"));
    let found = addresses.iter().find(|address| address["type"] == kind);
    found.and_then(|address| address["address"].as_str()).unwrap_or("<none>")
}

#[cfg(test)]
mod tests {
    use crate::table::tests::cells;

    #[test]
    fn rows() {
        for (group, kind, object, expected) in [
            (
                "apps",
                "Deployment",
                r#"{"metadata": {"name": "d", "creationTimestamp": "2026-01-01T00:00:00Z"},
                    "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}},
                        "template": {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}}},
                    "status": {"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}}"#,
                "d | 2/3 | #1 | #2 | 60m | a,b | i,j | app=x",
            ),
            (
                "apps",
                "ReplicaSet",
                r#"{"metadata": {"name": "r"}, "spec": {"replicas": 1}, "status": {}}"#,
                "r | #1 | #0 | #0 | <unknown> |  |  | <none>",
            ),
            (
                "batch",
                "Job",
                r#"{"metadata": {"name": "j"}, "spec": {"completions": 2}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:58:00Z"}}"#,
                "j | Running | 1/2 | 2m | <unknown> |  |  | <none>",
            ),
            (
                "batch",
                "Job",
                r#"{"metadata": {"name": "j"}, "spec": {"parallelism": 3}, "status": {"conditions": [{"type": "Complete", "status": "True"}],
                    "startTime": "2026-01-01T00:58:00Z", "completionTime": "2026-01-01T00:58:07Z"}}"#,
                "j | Complete | 0/1 of 3 | 7s | <unknown> |  |  | <none>",
            ),
            (
                "batch",
                "CronJob",
                r#"{"kind": "CronJob", "metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "suspend": false, "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "x", "image": "y"}]}}}}}, "status": {}}"#,
                "c | * * * * * | <none> | False | #0 | <none> | <unknown> | x | y | <none>",
            ),
            (
                "",
                "Node",
                r#"{"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/a": "true", "x": "y"}},
                    "spec": {"unschedulable": true},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "nodeInfo": {"kubeletVersion": "v1.36.0"}}}"#,
                "n | Ready,SchedulingDisabled | a,control-plane | <unknown> | v1.36.0 | 10.0.0.1 | <none> | <unknown> | <unknown> | <unknown>",
            ),
            (
                "autoscaling",
                "HorizontalPodAutoscaler",
                r#"{"metadata": {"name": "h"}, "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                    "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                        {"type": "Pods", "pods": {"target": {"averageValue": "10"}}}, {"type": "Object"}]},
                    "status": {"currentReplicas": 2, "currentMetrics": [{"resource": {"current": {"averageUtilization": 7}}}]}}"#,
                "h | Deployment/d | cpu: 7%/80%, <unknown>/10 + 1 more... | <unset> | #5 | #2 | <unknown>",
            ),
        ] {
            assert_eq!(cells(group, kind, object), expected);
        }
    }
}
