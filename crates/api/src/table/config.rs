//! Columns of configuration, namespaces, events and leases.

use super::column::About::{Field, Says};
use super::column::Cell::{Call, Count, Text};
use super::column::{
    AGE, Column, Context, NAME, condition, count, items, named, or, since, text, text_at, wide,
};
use serde_json::{Value, json};

/// Columns by group and kind.
pub(super) const TABLES: &[(&str, &str, &[Column])] = &[
    ("", "Namespace", NAMESPACE),
    ("", "ConfigMap", CONFIG_MAP),
    ("", "Secret", SECRET),
    ("", "ServiceAccount", SERVICE_ACCOUNT),
    ("", "ComponentStatus", COMPONENT_STATUS),
    ("", "Event", EVENT),
    ("events.k8s.io", "Event", EVENT),
    ("coordination.k8s.io", "Lease", LEASE),
    ("node.k8s.io", "RuntimeClass", RUNTIME_CLASS),
];

const EVENT_FIELDS: &str = "api.core.v1.Event";

const NAMESPACE: &[Column] =
    &[NAME, text("Status", Says("The status of the namespace"), Text("status.phase", "")), AGE];

const CONFIG_MAP: &[Column] = &[
    NAME,
    text(
        "Data",
        Field("api.core.v1.ConfigMap", "data"),
        Call(|map, _| json!(count(&map["data"]) + count(&map["binaryData"]))),
    ),
    AGE,
];

const SECRET: &[Column] = &[
    NAME,
    text("Type", Field("api.core.v1.Secret", "type"), Text("type", "")),
    text("Data", Field("api.core.v1.Secret", "data"), Count("data")),
    AGE,
];

const SERVICE_ACCOUNT: &[Column] =
    &[NAME, text("Secrets", Field("api.core.v1.ServiceAccount", "secrets"), Count("secrets")), AGE];

const COMPONENT_STATUS: &[Column] = &[
    NAME,
    text("Status", Says("Status of the component conditions"), Call(component_status)),
    text("Message", Says("Message of the component conditions"), Call(component_message)),
    text("Error", Says("Error of the component conditions"), Call(component_error)),
];

const EVENT: &[Column] = &[
    text("Last Seen", Field(EVENT_FIELDS, "lastTimestamp"), Call(|e, c| json!(last_seen(e, c)))),
    text("Type", Field(EVENT_FIELDS, "type"), Text("type", "")),
    text("Reason", Field(EVENT_FIELDS, "reason"), Text("reason", "")),
    text("Object", Field(EVENT_FIELDS, "involvedObject"), Call(event_object)),
    wide(text(
        "Subobject",
        Field("api.core.v1.ObjectReference", "fieldPath"),
        Text("involvedObject.fieldPath", ""),
    )),
    wide(text("Source", Field(EVENT_FIELDS, "source"), Call(event_source))),
    text(
        "Message",
        Field(EVENT_FIELDS, "message"),
        Call(|event, _| json!(text_at(event, "message").trim())),
    ),
    wide(text(
        "First Seen",
        Field(EVENT_FIELDS, "firstTimestamp"),
        Call(|e, c| json!(first_seen(e, c))),
    )),
    wide(text("Count", Field(EVENT_FIELDS, "count"), Call(event_count))),
    wide(named(text(
        "Name",
        Field("apimachinery.pkg.apis.meta.v1.ObjectMeta", "name"),
        Text("metadata.name", ""),
    ))),
];

const LEASE: &[Column] = &[
    NAME,
    text(
        "Holder",
        Field("api.coordination.v1.LeaseSpec", "holderIdentity"),
        Text("spec.holderIdentity", ""),
    ),
    AGE,
];

const RUNTIME_CLASS: &[Column] = &[
    NAME,
    text("Handler", Field("api.node.v1.RuntimeClass", "handler"), Text("handler", "")),
    AGE,
];

fn component_status(component: &Value, _: &Context) -> Value {
    json!(match condition(&component["conditions"], "Healthy").map(|c| c["status"] == "True") {
        Some(true) => "Healthy",
        Some(false) => "Unhealthy",
        None => "Unknown",
    })
}

fn component_message(component: &Value, _: &Context) -> Value {
    healthy_field(component, "message")
}

fn component_error(component: &Value, _: &Context) -> Value {
    healthy_field(component, "error")
}

fn healthy_field(component: &Value, field: &str) -> Value {
    let healthy = items(&component["conditions"]).iter().find(|c| c["type"] == "Healthy");
    json!(healthy.and_then(|c| c[field].as_str()).unwrap_or_default())
}

fn first_seen(event: &Value, context: &Context) -> String {
    let first = &event["firstTimestamp"];
    since(if first.is_null() { &event["eventTime"] } else { first }, "<unknown>", context)
}

fn last_seen(event: &Value, context: &Context) -> String {
    match (&event["series"], &event["lastTimestamp"]) {
        (Value::Object(series), _) => {
            since(series.get("lastObservedTime").unwrap_or(&Value::Null), "<unknown>", context)
        }
        (_, Value::Null) => first_seen(event, context),
        (_, last) => since(last, "<unknown>", context),
    }
}

fn event_object(event: &Value, _: &Context) -> Value {
    let object = &event["involvedObject"];
    let kind = text_at(object, "kind").to_lowercase();
    json!(match text_at(object, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    })
}

fn event_source(event: &Value, _: &Context) -> Value {
    let component = or(text_at(event, "source.component"), text_at(event, "reportingComponent"));
    json!(match or(text_at(event, "source.host"), text_at(event, "reportingInstance")) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    })
}

fn event_count(event: &Value, _: &Context) -> Value {
    let series = event["series"]["count"].as_i64();
    let count = event["count"].as_i64().filter(|count| *count > 0);
    json!(series.or(count).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use crate::table::tests::cells;

    #[test]
    fn rows() {
        for (group, kind, object, expected) in [
            (
                "",
                "Event",
                r#"{"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " done\n", "count": 2,
                    "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "source": {"component": "kubelet", "host": "n"},
                    "firstTimestamp": "2026-01-01T00:50:00Z", "lastTimestamp": "2026-01-01T00:59:30Z"}"#,
                "30s | Normal | Pulled | pod/p | spec.containers{a} | kubelet, n | done | 10m | #2 | e",
            ),
            (
                "events.k8s.io",
                "Event",
                r#"{"metadata": {"name": "e"}, "involvedObject": {"kind": "Node"}, "reportingComponent": "c", "eventTime": "2026-01-01T00:50:00.000000Z",
                    "series": {"count": 7, "lastObservedTime": "2026-01-01T00:59:00.000000Z"}}"#,
                "60s |  |  | node |  | c |  | 10m | #7 | e",
            ),
            (
                "",
                "Secret",
                r#"{"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "", "b": ""}}"#,
                "s | Opaque | #2 | <unknown>",
            ),
            (
                "",
                "ComponentStatus",
                r#"{"metadata": {"name": "c"}, "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]}"#,
                "c | Healthy | ok | ",
            ),
            (
                "coordination.k8s.io",
                "Lease",
                r#"{"metadata": {"name": "l"}, "spec": {"holderIdentity": "h"}}"#,
                "l | h | <unknown>",
            ),
        ] {
            assert_eq!(cells(group, kind, object), expected);
        }
    }
}
