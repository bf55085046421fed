//! Rules for what bounds the use of resources in a namespace: LimitRange and ResourceQuota
//! (k8s.io/kubernetes `pkg/apis/core/validation`).

use super::at::{At, Errors};
use super::{amounts, formats};
use std::collections::BTreeSet;

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes of which only one can hold.
const OPPOSITES: [[&str; 2]; 2] =
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
/// What pods take: the resources that scopes of pods are about.
const OF_PODS: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

/// A LimitRange.
pub(super) fn limit_range(object: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in object.get("spec.limits").items() {
        let kind = item.get("type");
        out.all(&kind, formats::qualified_name(kind.text()));
        if !kind.text().contains('/') && !TYPES.contains(&kind.text()) {
            let why = "must be a standard limit type or fully qualified";
            out.invalid_as(&kind, kind.text(), why);
        }
        out.unique(&kind, &mut seen);
        limit(&item, kind.text(), out);
    }
}

fn limit(item: &At<'_>, kind: &str, out: &mut Errors) {
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut names = BTreeSet::new();
    for list in lists.map(|list| item.get(list)) {
        let for_containers = list.path.to_string().contains(".default");
        if kind == "Pod" && for_containers {
            if list.len() > 0 {
                out.forbidden(&list, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, amount) in list.entries() {
            amounts::name(name, matches!(kind, "Pod" | "Container"), &amount, out);
            names.insert(name);
        }
    }
    let storage = |list: &str| item.get(list).value.get("storage").is_some();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        out.required(&item.get("limits"), why);
    }
    names.into_iter().for_each(|name| bounds(item, name, out));
}

/// The amounts of one resource beside each other.
fn bounds(item: &At<'_>, name: &str, out: &mut Errors) {
    let at = |list: &str| {
        let entry = item.get(list).entries().find(|(key, _)| *key == name)?.1;
        Some((entry.quantity()?, entry))
    };
    let (least, most) = (at("min"), at("max"));
    let (default, request) = (at("default"), at("defaultRequest"));
    const IS_GREATER: &str = "is greater than";
    // What is to be lower, what is to be higher, and which of them is to blame and is shown.
    for (low, high, (blame_low, show_low), (low_is, high_is)) in [
        (&least, &most, (true, true), ("min", "max")),
        (&least, &request, (false, false), ("min", "default request")),
        (&request, &most, (true, true), ("default request", "max")),
        (&request, &default, (true, true), ("default request", "default limit")),
        (&least, &default, (false, true), ("min", "default")),
        (&default, &most, (true, false), ("default", "max")),
    ] {
        if let (Some((low, low_at)), Some((high, high_at))) = (low, high)
            && low > high
        {
            let why = format!("{low_is} value {low} {IS_GREATER} {high_is} value {high}");
            let shown = if show_low { low } else { high };
            out.invalid_as(if blame_low { low_at } else { high_at }, shown.to_string(), why);
        }
    }
    let Some((ratio, ratio_at)) = at("maxLimitRequestRatio") else { return };
    if ratio.as_f64() < 1.0 {
        out.invalid_as(&ratio_at, ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
    if let (Some((least, _)), Some((most, _))) = (least, most) {
        let span = most.as_f64() / least.as_f64();
        if ratio.as_f64() > span {
            let why = format!("ratio {ratio} is greater than max/min = {span:.6}");
            out.invalid_as(&ratio_at, ratio.to_string(), why);
        }
    }
}

/// A ResourceQuota.
pub(super) fn quota(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    amounts_of(&spec.get("hard"), out);
    scopes(&spec, out);
    scope_selector(&spec, out);
}

fn amounts_of(list: &At<'_>, out: &mut Errors) {
    for (name, amount) in list.entries() {
        amounts::quota_name(name, &amount, out);
        amounts::value(name, &amount, out);
    }
}

/// Whether a scope says anything about a resource without a domain.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        _ if !amounts::is_quota(resource) => true,
        "BestEffort" => resource == "pods",
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => OF_PODS.contains(&resource),
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

fn conflicting(seen: &BTreeSet<&str>) -> bool {
    OPPOSITES.iter().any(|pair| pair.iter().all(|scope| seen.contains(scope)))
}

fn scopes(spec: &At<'_>, out: &mut Errors) {
    let (hard, list) = (spec.get("hard"), spec.get("scopes"));
    let mut seen = BTreeSet::new();
    for scope in list.items() {
        if !SCOPES.contains(&scope.text()) {
            out.invalid(&list, "unsupported scope");
        }
        for _ in hard.entries().filter(|(name, _)| !fits(scope.text(), name)) {
            out.invalid(&list, "unsupported scope applied to resource");
        }
        seen.insert(scope.text());
    }
    if conflicting(&seen) {
        out.invalid(&list, "conflicting scopes");
    }
}

fn scope_selector(spec: &At<'_>, out: &mut Errors) {
    let hard = spec.get("hard");
    let list = spec.get("scopeSelector.matchExpressions");
    let mut seen = BTreeSet::new();
    for term in list.items() {
        let field = |name: &str| term.get(name).named(&list, name);
        let (scope, operator, values) = (field("scopeName"), field("operator"), field("values"));
        if !SCOPES.contains(&scope.text()) {
            out.invalid(&scope, "unsupported scope");
        }
        for _ in hard.entries().filter(|(name, _)| !fits(scope.text(), name)) {
            let selector = spec.get("scopeSelector").at(&list);
            out.invalid(&selector, "unsupported scope applied to resource");
        }
        let valued = matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass");
        if !valued && SCOPES.contains(&scope.text()) && operator.text() != "Exists" {
            let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            out.invalid(&operator, why);
        }
        match (operator.text(), values.len()) {
            ("In" | "NotIn", 0) => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                out.required(&values, why);
            }
            ("Exists" | "DoesNotExist", 1..) => {
                let why = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                out.invalid(&values, why);
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => out.invalid_as(&operator, operator.text(), "not a valid selector operator"),
        }
        seen.insert(scope.text());
    }
    if conflicting(&seen) {
        out.invalid(&list, "conflicting scopes");
    }
}

/// A changed ResourceQuota.
pub(super) fn quota_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let set = |quota: &At<'_>| -> BTreeSet<String> {
        quota.get("spec.scopes").items().map(|scope| scope.text().to_owned()).collect()
    };
    if set(new) != set(old) {
        out.invalid(&new.get("spec.scopes"), "field is immutable");
    }
}

/// The status of a ResourceQuota.
pub(super) fn quota_status(new: &At<'_>, _: &At<'_>, out: &mut Errors) {
    for list in ["status.hard", "status.used"] {
        amounts_of(&new.get(list), out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    #[test]
    fn limit_ranges() {
        created(
            "limitranges",
            &[
                ("spec: {limits: [{type: Container, max: {cpu: 2}, min: {cpu: 1}}]}", ""),
                (
                    "spec: {limits: [{type: Pod, default: {cpu: 1}, max: {pods: 1}}, {type: Pod}, {type: Box}, {type: PersistentVolumeClaim, max: {cpu: 1}}]}",
                    r#"spec.limits[0].max[pods]: Invalid value: "pods": must be a standard resource for containers
                       spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'
                       spec.limits[1].type: Duplicate value: "Pod"
                       spec.limits[2].type: Invalid value: "Box": must be a standard limit type or fully qualified
                       spec.limits[3].limits: Required value: either minimum or maximum storage value is required, but neither was provided"#,
                ),
                (
                    "spec: {limits: [{type: Container, min: {cpu: 3}, max: {cpu: 2}, default: {cpu: 4}, defaultRequest: {cpu: 5}, maxLimitRequestRatio: {cpu: 500m}}]}",
                    r#"spec.limits[0].min[cpu]: Invalid value: "3": min value 3 is greater than max value 2
                       spec.limits[0].defaultRequest[cpu]: Invalid value: "5": default request value 5 is greater than max value 2
                       spec.limits[0].defaultRequest[cpu]: Invalid value: "5": default request value 5 is greater than default limit value 4
                       spec.limits[0].default[cpu]: Invalid value: "2": default value 4 is greater than max value 2
                       spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1"#,
                ),
                (
                    "spec: {limits: [{type: Container, min: {cpu: 1}, max: {cpu: 2}, maxLimitRequestRatio: {cpu: 3}}]}",
                    r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000"#,
                ),
            ],
        );
    }

    #[test]
    fn quotas() {
        created(
            "resourcequotas",
            &[
                (
                    "spec: {hard: {pods: 1, count/deployments.apps: 2, requests.nvidia.com/gpu: 1}}",
                    "",
                ),
                (
                    "spec: {hard: {x: 1, pods: 1.5, secrets: -1}, scopes: [BestEffort, NotBestEffort, Odd]}",
                    r#"spec.hard[x]: Invalid value: "x": must be a standard resource type or fully qualified
                       spec.hard[x]: Invalid value: "x": must be a standard resource for quota
                       spec.hard[pods]: Invalid value: "1500m": must be an integer
                       spec.hard[secrets]: Invalid value: "-1": must be greater than or equal to 0
                       spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]: unsupported scope applied to resource
                       spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]: unsupported scope applied to resource
                       spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]: unsupported scope
                       spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]: conflicting scopes"#,
                ),
                (
                    "spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In}, {scopeName: Terminating, operator: DoesNotExist}, {scopeName: X, operator: Odd}]}}",
                    r#"spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector
                       spec.scopeSelector.matchExpressions.operator: Invalid value: "DoesNotExist": must be 'Exist' when scope is any of…
                       spec.scopeSelector.matchExpressions.scopeName: Invalid value: "X": unsupported scope
                       spec.scopeSelector.matchExpressions.operator: Invalid value: "Odd": not a valid selector operator"#,
                ),
            ],
        );
        updated(
            "resourcequotas",
            &[(
                "spec: {hard: {pods: 1}}",
                "spec: {hard: {pods: 1}, scopes: [BestEffort]}",
                r#"spec.scopes: Invalid value: ["BestEffort"]: field is immutable"#,
            )],
        );
    }
}
