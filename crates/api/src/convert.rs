//! Kinds that are stored once and served in several groups or versions.
//!
//! Most versions of a kind have one schema and differ in `apiVersion` alone. The two with more
//! to them are here: Events (core `v1` is stored, `events.k8s.io/v1` is served too) and
//! HorizontalPodAutoscalers (`autoscaling/v2` is stored, `v1` is served too).

use crate::resource::Resource;
use serde_json::{Map, Value, json};

/// Where upstream keeps what autoscaling/v1 has no field for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Members of an Event: name in the core group, name in `events.k8s.io`.
const EVENT_MEMBERS: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Changes `object` of `resource` from one `apiVersion` to another.
pub fn convert(resource: &Resource, from: &str, to: &str, object: &mut Value) {
    if from == to {
        return;
    }
    match (resource.kind.as_ref(), from, to) {
        ("Event", "v1", _) => rename(object, |(core, new)| (core, new)),
        ("Event", _, "v1") => rename(object, |(core, new)| (new, core)),
        ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1") => autoscaler_to_v1(object),
        ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2") => autoscaler_to_v2(object),
        _ => {}
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), to.into());
    }
}

fn rename(
    event: &mut Value,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(fields) = event.as_object_mut() else { return };
    for (from, to) in EVENT_MEMBERS.map(direction) {
        if let Some(value) = fields.shift_remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
    // The core group calls the reporter a component, the newer one a controller.
    for (from, to) in [("reportingComponent", "reportingController")].map(direction) {
        if let Some(value) = fields.shift_remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| json!({}));
    metadata.as_object_mut()?.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
}

fn cpu_target(metric: &Value) -> Option<&Value> {
    let resource = &metric["resource"];
    let cpu = metric["type"] == "Resource" && resource["name"] == "cpu";
    (cpu && resource["target"]["type"] == "Utilization")
        .then(|| &resource["target"]["averageUtilization"])
}

fn autoscaler_to_v1(object: &mut Value) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics =
            spec.shift_remove("metrics").and_then(|m| m.as_array().cloned()).unwrap_or_default();
        let (cpu, other): (Vec<Value>, Vec<Value>) =
            metrics.into_iter().partition(|m| cpu_target(m).is_some());
        if let Some(target) = cpu.first().and_then(cpu_target) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target.clone());
        }
        let other: Vec<Value> = other.into_iter().chain(cpu.into_iter().skip(1)).collect();
        if !other.is_empty() {
            notes.push((METRICS, other.into()));
        }
        notes.extend(spec.shift_remove("behavior").map(|behavior| (BEHAVIOR, behavior)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let current = status.shift_remove("currentMetrics");
        let cpu =
            current.as_ref().and_then(Value::as_array).into_iter().flatten().find_map(|metric| {
                let cpu = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
                cpu.then(|| metric["resource"]["current"]["averageUtilization"].clone())
                    .filter(|v| !v.is_null())
            });
        status.extend(cpu.map(|value| ("currentCPUUtilizationPercentage".to_owned(), value)));
        notes.extend(
            current
                .filter(|list| list.as_array().is_some_and(|l| !l.is_empty()))
                .map(|list| (CURRENT_METRICS, list)),
        );
        notes.extend(status.shift_remove("conditions").map(|list| (CONDITIONS, list)));
    }
    if notes.is_empty() {
        return;
    }
    if let Some(annotations) = annotations(object) {
        annotations.extend(
            notes.into_iter().map(|(name, value)| (name.to_owned(), value.to_string().into())),
        );
    }
}

fn autoscaler_to_v2(object: &mut Value) {
    let has_notes = object["metadata"]["annotations"].is_object();
    let mut take = |name: &str| -> Option<Value> {
        let text = if has_notes { annotations(object)?.shift_remove(name)? } else { return None };
        serde_json::from_str(text.as_str()?).ok()
    };
    let (metrics, behavior) = (take(METRICS), take(BEHAVIOR));
    let (current, conditions) = (take(CURRENT_METRICS), take(CONDITIONS));
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut list = metrics.and_then(|m| m.as_array().cloned()).unwrap_or_default();
        if let Some(target) = spec.shift_remove("targetCPUUtilizationPercentage") {
            list.insert(
                0,
                json!({"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}),
            );
        }
        if !list.is_empty() {
            spec.insert("metrics".to_owned(), list.into());
        }
        spec.extend(behavior.map(|behavior| ("behavior".to_owned(), behavior)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.shift_remove("currentCPUUtilizationPercentage");
        status.extend(current.map(|list| ("currentMetrics".to_owned(), list)));
        status.extend(conditions.map(|list| ("conditions".to_owned(), list)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    #[test]
    fn events_have_two_vocabularies() {
        let events = find("events.k8s.io", "v1", "events").unwrap();
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m", "count": 2,
            "involvedObject": {"kind": "Pod"}, "reportingComponent": "kubelet"});
        let mut object = core.clone();
        convert(events, "v1", "events.k8s.io/v1", &mut object);
        assert_eq!(
            object,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "m",
            "deprecatedCount": 2, "regarding": {"kind": "Pod"}, "reportingController": "kubelet"})
        );
        convert(events, "events.k8s.io/v1", "v1", &mut object);
        assert_eq!(object, core);
    }

    #[test]
    fn autoscalers_keep_everything_over_a_round_trip() {
        let scalers = find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 5}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let v2 = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h", "annotations": {}},
            "spec": {"maxReplicas": 3, "metrics": [cpu, memory], "behavior": {"scaleUp": {}}}});
        let mut object = v2.clone();
        convert(scalers, "autoscaling/v2", "autoscaling/v1", &mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        convert(scalers, "autoscaling/v1", "autoscaling/v2", &mut object);
        assert_eq!(object, v2);
    }
}
