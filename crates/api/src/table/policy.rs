//! Columns of access, admission, quota and priority.

use super::column::About::{Field, Says};
use super::column::Cell::{Call, Count, Flag, Number, Text};
use super::column::{
    AGE, Column, Context, NAME, at, condition, flag, items, number, or, text, text_at, wide,
};
use super::duration::human_duration;
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";

/// Columns by group and kind.
pub(super) const TABLES: &[(&str, &str, &[Column])] = &[
    ("", "ResourceQuota", QUOTA),
    ("policy", "PodDisruptionBudget", BUDGET),
    ("scheduling.k8s.io", "PriorityClass", PRIORITY_CLASS),
    (RBAC, "RoleBinding", ROLE_BINDING),
    (RBAC, "ClusterRoleBinding", CLUSTER_ROLE_BINDING),
    ("certificates.k8s.io", "CertificateSigningRequest", SIGNING_REQUEST),
    (ADMISSION, "MutatingWebhookConfiguration", WEBHOOKS),
    (ADMISSION, "ValidatingWebhookConfiguration", WEBHOOKS),
    (ADMISSION, "ValidatingAdmissionPolicy", VALIDATING_POLICY),
    (ADMISSION, "MutatingAdmissionPolicy", MUTATING_POLICY),
    (ADMISSION, "ValidatingAdmissionPolicyBinding", POLICY_BINDING),
    (ADMISSION, "MutatingAdmissionPolicyBinding", POLICY_BINDING),
    (FLOW, "FlowSchema", FLOW_SCHEMA),
    (FLOW, "PriorityLevelConfiguration", PRIORITY_LEVEL),
    ("apiregistration.k8s.io", "APIService", API_SERVICE),
];

const SIGNING_SPEC: &str = "api.certificates.v1.CertificateSigningRequestSpec";
const QUEUING: &str = "api.flowcontrol.v1.QueuingConfiguration";

const QUOTA: &[Column] = &[
    NAME,
    text(
        "Request",
        Says("Request represents a minimum amount of cpu/memory that a container may consume."),
        Call(|quota, _| json!(quota_cells(quota, false))),
    ),
    text(
        "Limit",
        Says(
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        ),
        Call(|quota, _| json!(quota_cells(quota, true))),
    ),
    AGE,
];

const BUDGET: &[Column] = &[
    NAME,
    text(
        "Min Available",
        Says("The minimum number of pods that must be available."),
        Text("spec.minAvailable", "N/A"),
    ),
    text(
        "Max Unavailable",
        Says("The maximum number of pods that may be unavailable."),
        Text("spec.maxUnavailable", "N/A"),
    ),
    number(
        "Allowed Disruptions",
        Says("Calculated number of pods that may be disrupted at this time."),
        Number("status.disruptionsAllowed"),
    ),
    AGE,
];

const PRIORITY_CLASS: &[Column] = &[
    NAME,
    number("Value", Field("api.scheduling.v1.PriorityClass", "value"), Number("value")),
    flag(
        "Global-Default",
        Field("api.scheduling.v1.PriorityClass", "globalDefault"),
        Flag("globalDefault", false),
    ),
    AGE,
    text(
        "PreemptionPolicy",
        Field("api.scheduling.v1.PriorityClass", "preemptionPolicy"),
        Text("preemptionPolicy", ""),
    ),
];

const ROLE_BINDING: &[Column] = &[
    NAME,
    text("Role", Field("api.rbac.v1.RoleBinding", "roleRef"), Call(role)),
    AGE,
    wide(text("Users", Says("Users in the roleBinding"), Call(users))),
    wide(text("Groups", Says("Groups in the roleBinding"), Call(user_groups))),
    wide(text("ServiceAccounts", Says("ServiceAccounts in the roleBinding"), Call(accounts))),
];

const CLUSTER_ROLE_BINDING: &[Column] = &[
    NAME,
    text("Role", Field("api.rbac.v1.ClusterRoleBinding", "roleRef"), Call(role)),
    AGE,
    wide(text("Users", Says("Users in the clusterRoleBinding"), Call(users))),
    wide(text("Groups", Says("Groups in the clusterRoleBinding"), Call(user_groups))),
    wide(text(
        "ServiceAccounts",
        Says("ServiceAccounts in the clusterRoleBinding"),
        Call(accounts),
    )),
];

const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    text("SignerName", Field(SIGNING_SPEC, "signerName"), Text("spec.signerName", "<none>")),
    text("Requestor", Field(SIGNING_SPEC, "request"), Text("spec.username", "")),
    text("RequestedDuration", Field(SIGNING_SPEC, "expirationSeconds"), Call(requested_duration)),
    text(
        "Condition",
        Field("api.certificates.v1.CertificateSigningRequestStatus", "conditions"),
        Call(signing_status),
    ),
];

const WEBHOOKS: &[Column] = &[
    NAME,
    number(
        "Webhooks",
        Says("Webhooks indicates the number of webhooks registered in this configuration"),
        Count("webhooks"),
    ),
    AGE,
];

const PARAM_KIND: Column = text(
    "ParamKind",
    Says("ParamKind specifies the kind of resources used to parameterize this policy"),
    Call(param_kind),
);

const VALIDATING_POLICY: &[Column] = &[
    NAME,
    number(
        "Validations",
        Says("Validations indicates the number of validation rules defined in this configuration"),
        Count("spec.validations"),
    ),
    PARAM_KIND,
    AGE,
];

const MUTATING_POLICY: &[Column] = &[
    NAME,
    number(
        "Mutations",
        Says("Mutation indicates the number of mutations rules defined in this configuration"),
        Count("spec.mutations"),
    ),
    PARAM_KIND,
    AGE,
];

const POLICY_BINDING: &[Column] = &[
    NAME,
    text(
        "PolicyName",
        Says("PolicyName indicates the policy definition which the policy binding binded to"),
        Text("spec.policyName", ""),
    ),
    text(
        "ParamRef",
        Says("ParamRef indicates the param resource which sets the configration param"),
        Call(param_ref),
    ),
    AGE,
];

const FLOW_SCHEMA: &[Column] = &[
    NAME,
    text(
        "PriorityLevel",
        Field("api.flowcontrol.v1.PriorityLevelConfigurationReference", "name"),
        Text("spec.priorityLevelConfiguration.name", ""),
    ),
    text(
        "MatchingPrecedence",
        Field("api.flowcontrol.v1.FlowSchemaSpec", "matchingPrecedence"),
        Number("spec.matchingPrecedence"),
    ),
    text(
        "DistinguisherMethod",
        Field("api.flowcontrol.v1.FlowSchemaSpec", "distinguisherMethod"),
        Text("spec.distinguisherMethod.type", "<none>"),
    ),
    AGE,
    text(
        "MissingPL",
        Says("references a broken or non-existent PriorityLevelConfiguration"),
        Call(|schema, _| {
            let dangling = condition(at(schema, "status.conditions"), "Dangling");
            json!(dangling.and_then(|c| c["status"].as_str()).unwrap_or("?"))
        }),
    ),
];

const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    text(
        "Type",
        Field("api.flowcontrol.v1.PriorityLevelConfigurationSpec", "type"),
        Text("spec.type", ""),
    ),
    text(
        "NominalConcurrencyShares",
        Field("api.flowcontrol.v1.LimitedPriorityLevelConfiguration", "nominalConcurrencyShares"),
        Call(|level, _| number_or_none(at(level, "spec.limited.nominalConcurrencyShares"))),
    ),
    text(
        "Queues",
        Field(QUEUING, "queues"),
        Call(|level, _| number_or_none(at(level, "spec.limited.limitResponse.queuing.queues"))),
    ),
    text(
        "HandSize",
        Field(QUEUING, "handSize"),
        Call(|level, _| number_or_none(at(level, "spec.limited.limitResponse.queuing.handSize"))),
    ),
    text(
        "QueueLengthLimit",
        Field(QUEUING, "queueLengthLimit"),
        Call(|level, _| {
            number_or_none(at(level, "spec.limited.limitResponse.queuing.queueLengthLimit"))
        }),
    ),
    AGE,
];

const API_SERVICE: &[Column] = &[
    NAME,
    text(
        "Service",
        Says("The reference to the service that hosts this API endpoint."),
        Call(api_service),
    ),
    text("Available", Says("Whether this service is available."), Call(api_available)),
    AGE,
];

/// `resource: used/hard` of the limits or of everything else.
fn quota_cells(quota: &Value, limits: bool) -> String {
    let hard = at(quota, "status.hard").as_object();
    let mut cells: Vec<(&str, String)> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = quota["status"]["used"][name].as_str().unwrap_or("0");
            (name.as_str(), format!("{name}: {used}/{}", hard.as_str().unwrap_or("0")))
        })
        .collect();
    cells.sort();
    cells.into_iter().map(|(_, cell)| cell).collect::<Vec<_>>().join(", ")
}

fn role(binding: &Value, _: &Context) -> Value {
    let role = &binding["roleRef"];
    json!(format!("{}/{}", text_at(role, "kind"), text_at(role, "name")))
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let held = items(&binding["subjects"]).iter().filter(|subject| subject["kind"] == kind);
    let names = held.map(|subject| match text_at(subject, "namespace") {
        namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
            format!("{namespace}/{}", text_at(subject, "name"))
        }
        _ => text_at(subject, "name").to_owned(),
    });
    json!(names.collect::<Vec<_>>().join(", "))
}

fn users(binding: &Value, _: &Context) -> Value {
    subjects(binding, "User")
}

fn user_groups(binding: &Value, _: &Context) -> Value {
    subjects(binding, "Group")
}

fn accounts(binding: &Value, _: &Context) -> Value {
    subjects(binding, "ServiceAccount")
}

fn requested_duration(request: &Value, _: &Context) -> Value {
    let seconds = at(request, "spec.expirationSeconds").as_i64();
    json!(seconds.map_or_else(|| "<none>".to_owned(), human_duration))
}

fn signing_status(request: &Value, _: &Context) -> Value {
    let holds = |kind| condition(at(request, "status.conditions"), kind).is_some();
    let mut status = match () {
        () if holds("Denied") => "Denied",
        () if holds("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if holds("Failed") {
        status.push_str(",Failed");
    }
    if !text_at(request, "status.certificate").is_empty() {
        status.push_str(",Issued");
    }
    json!(status)
}

fn param_kind(policy: &Value, _: &Context) -> Value {
    let kind = at(policy, "spec.paramKind");
    if kind.is_null() {
        return json!("<unset>");
    }
    json!(format!("{}/{}", text_at(kind, "apiVersion"), text_at(kind, "kind")))
}

fn param_ref(binding: &Value, _: &Context) -> Value {
    let target = at(binding, "spec.paramRef");
    let name = text_at(target, "name");
    json!(match (name, &target["selector"]) {
        ("", Value::Null) => "<unset>".to_owned(),
        ("", selector) => super::column::selector(selector),
        (name, _) => format!("{}/{name}", or(text_at(target, "namespace"), "*")),
    })
}

fn number_or_none(value: &Value) -> Value {
    if value.is_null() { json!("<none>") } else { value.clone() }
}

fn api_service(service: &Value, _: &Context) -> Value {
    let target = at(service, "spec.service");
    if target.is_null() {
        return json!("Local");
    }
    json!(format!("{}/{}", text_at(target, "namespace"), text_at(target, "name")))
}

fn api_available(service: &Value, _: &Context) -> Value {
    json!(match condition(at(service, "status.conditions"), "Available") {
        None => "Unknown".to_owned(),
        Some(condition) if condition["status"] == "True" => "True".to_owned(),
        Some(condition) => {
            format!("{} ({})", text_at(condition, "status"), text_at(condition, "reason"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{ADMISSION, RBAC};
    use crate::table::tests::cells;

    #[test]
    fn rows() {
        for (group, kind, object, expected) in [
            (
                "",
                "ResourceQuota",
                r#"{"metadata": {"name": "q"}, "status": {"hard": {"pods": "4", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "1"}}}"#,
                "q | cpu: 0/1, pods: 1/4 | limits.cpu: 0/2 | <unknown>",
            ),
            (
                "policy",
                "PodDisruptionBudget",
                r#"{"metadata": {"name": "b"}, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}}"#,
                "b | 50% | N/A | #1 | <unknown>",
            ),
            (
                RBAC,
                "ClusterRoleBinding",
                r#"{"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}, {"kind": "User", "name": "v"}]}"#,
                "b | ClusterRole/admin | <unknown> | u, v |  | n/s",
            ),
            (
                "certificates.k8s.io",
                "CertificateSigningRequest",
                r#"{"metadata": {"name": "c"}, "spec": {"signerName": "s", "username": "u", "expirationSeconds": 3600}, "status": {"conditions": [{"type": "Approved"}], "certificate": "x"}}"#,
                "c | <unknown> | s | u | 60m | Approved,Issued",
            ),
            (
                ADMISSION,
                "ValidatingAdmissionPolicyBinding",
                r#"{"metadata": {"name": "b"}, "spec": {"policyName": "p", "paramRef": {"name": "x"}}}"#,
                "b | p | */x | <unknown>",
            ),
            (
                "apiregistration.k8s.io",
                "APIService",
                r#"{"metadata": {"name": "v1."}, "spec": {}, "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local"}]}}"#,
                "v1. | Local | True | <unknown>",
            ),
            (
                "scheduling.k8s.io",
                "PriorityClass",
                r#"{"metadata": {"name": "p"}, "value": 10, "preemptionPolicy": "Never"}"#,
                "p | #10 | #false | <unknown> | Never",
            ),
        ] {
            assert_eq!(cells(group, kind, object), expected);
        }
    }
}
