//! Rules for amounts of resources: requests, limits, capacities, overhead.

use super::at::{At, Errors};
use super::formats;
use crate::quota::of_containers;
use serde_json::json;

/// Resources a container may ask for that have no domain before their name.
const CONTAINER: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// Other resources without a domain: what quotas count.
const QUOTA: [&str; 16] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// Things of which there are only whole ones.
const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && formats::qualified_name(&format!("requests.{name}")).is_empty()
}

/// `resources` of a container.
pub(super) fn requirements(at: &At<'_>, claims: &dyn Fn(&str) -> bool, out: &mut Errors) {
    named_requirements(at, container_resource, claims, out);
}

/// `resources` of a pod as a whole, into which those of its containers have to fit.
pub(super) fn of_pod(spec: &At<'_>, claims: &dyn Fn(&str) -> bool, out: &mut Errors) {
    let Some(at) = spec.get("resources").set() else { return };
    if spec.get("os.name").text() == "windows" {
        return out.forbidden(&at, "may not be set for a windows pod");
    }
    if at.get("claims").is_set() {
        out.forbidden(&at.get("claims"), "claims may not be set for Resources at pod-level");
    }
    named_requirements(&at, pod_resource, claims, out);
    whole_holds_all(spec, &at, out);
    whole_holds_each(spec, &at, out);
}

/// What a pod asks for is no less than what its containers ask for together; of limits this goes for huge
/// pages only.
fn whole_holds_all(spec: &At<'_>, at: &At<'_>, out: &mut Errors) {
    let pod = json!({"spec": spec.value});
    for kind in ["requests", "limits"] {
        let needed = of_containers(&pod, kind);
        for (name, whole) in
            at.get(kind).entries().filter(|(n, _)| kind == "requests" || is_huge(n))
        {
            let (Some(amount), Some(needed)) = (whole.quantity(), needed.get(name)) else {
                continue;
            };
            if *needed > amount {
                let why = format!(
                    "must be greater than or equal to aggregate container {kind} of {needed}"
                );
                out.invalid_as(&whole, amount.to_string(), why);
            }
        }
    }
}

/// No container may have more than its pod.
fn whole_holds_each(spec: &At<'_>, at: &At<'_>, out: &mut Errors) {
    for (i, container) in spec.get("containers").items().enumerate() {
        for (name, limit) in container.get("resources.limits").entries() {
            let whole = at.get("limits").entries().find(|(other, _)| *other == name);
            let whole = whole.and_then(|(_, whole)| whole.quantity());
            let (Some(amount), Some(whole)) = (limit.quantity(), whole) else { continue };
            if amount > whole {
                // Upstream's path stands below the pod's resources.
                let path = at.path.child("containers").index(i).key(name).child("limits");
                let why = format!("must be less than or equal to pod limits of {whole}");
                out.invalid_as(&At { value: limit.value, path }, amount.to_string(), why);
            }
        }
    }
}

fn named_requirements(
    at: &At<'_>,
    named: fn(&str, &At<'_>, &mut Errors),
    claims: &dyn Fn(&str) -> bool,
    out: &mut Errors,
) {
    let (limits, requests) = (at.get("limits"), at.get("requests"));
    let mut huge = false;
    for (name, amount) in limits.entries() {
        named(name, &amount, out);
        value(name, &amount, out);
        huge |= is_huge(name);
    }
    for (name, amount) in requests.entries() {
        named(name, &amount, out);
        value(name, &amount, out);
        huge |= is_huge(name);
        within_limit(name, &amount, &limits, &requests, out);
    }
    let plain = |list: &At<'_>| list.get("cpu").is_set() || list.get("memory").is_set();
    if huge && !plain(&limits) && !plain(&requests) {
        out.forbidden(at, "HugePages require cpu or memory");
    }
    for claim in at.get("claims").items() {
        let name = claim.get("name");
        if out.needed(&name) && !claims(name.text()) {
            out.not_found(&name, name.text());
        }
    }
}

fn within_limit(name: &str, amount: &At<'_>, limits: &At<'_>, requests: &At<'_>, out: &mut Errors) {
    let limit = limits.entries().find(|(other, _)| *other == name);
    let Some((_, limit)) = limit else {
        if !may_overcommit(name) {
            out.required(limits, "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let (Some(amount), Some(limit)) = (amount.quantity(), limit.quantity()) else { return };
    // Upstream's path names the map, not its key.
    if amount != limit && !may_overcommit(name) {
        let why = format!("must be equal to {name} limit of {limit}");
        out.invalid_as(requests, amount.to_string(), why);
    } else if amount > limit {
        let why = format!("must be less than or equal to {name} limit of {limit}");
        out.invalid_as(requests, amount.to_string(), why);
    }
}

fn container_resource(name: &str, at: &At<'_>, out: &mut Errors) {
    for why in formats::qualified_name(name) {
        out.invalid_as(at, name, why);
    }
    let plain = !name.contains('/');
    let standard = CONTAINER.contains(&name) || is_huge(name);
    if plain && !standard && !QUOTA.contains(&name) {
        out.invalid_as(at, name, "must be a standard resource type or fully qualified");
    }
    if plain && !standard {
        out.invalid_as(at, name, "must be a standard resource for containers");
    } else if !is_native(name) && !is_extended(name) {
        out.invalid_as(at, name, "doesn't follow extended resource name standard");
    }
}

fn pod_resource(name: &str, at: &At<'_>, out: &mut Errors) {
    let known = out.0.len();
    resource(name, at, out);
    if out.0.len() == known && !matches!(name, "cpu" | "memory") && !is_huge(name) {
        let name = json!(name);
        out.not_supported(&at.with(&name), &["cpu", "hugepages-", "memory"]);
    }
}

fn is_standard(name: &str) -> bool {
    CONTAINER.contains(&name) || QUOTA.contains(&name) || is_huge(name) || name == "storage"
}

fn resource(name: &str, at: &At<'_>, out: &mut Errors) {
    for why in formats::qualified_name(name) {
        out.invalid_as(at, name, why);
    }
    if !name.contains('/') && !is_standard(name) {
        out.invalid_as(at, name, "must be a standard resource type or fully qualified");
    }
}

/// The name of a resource that is bounded, of containers or of anything.
pub(super) fn name(name: &str, containers: bool, at: &At<'_>, out: &mut Errors) {
    if containers { container_resource(name, at, out) } else { resource(name, at, out) }
}

/// Whether a quota knows a resource by a name without a domain.
pub(super) fn is_quota(name: &str) -> bool {
    let asked = name.strip_prefix("requests.").unwrap_or(name);
    CONTAINER.contains(&name) || QUOTA.contains(&name) || is_huge(asked)
}

/// The name of a resource in a quota.
pub(super) fn quota_name(name: &str, at: &At<'_>, out: &mut Errors) {
    resource(name, at, out);
    if !name.contains('/') && !is_quota(name) {
        out.invalid_as(at, name, "must be a standard resource for quota");
    }
}

/// One amount of a named resource.
pub(super) fn value(name: &str, at: &At<'_>, out: &mut Errors) {
    let Some(amount) = at.quantity() else { return };
    if amount.is_negative() {
        out.invalid_as(at, amount.to_string(), "must be greater than or equal to 0");
    }
    if (WHOLE.contains(&name) || is_extended(name)) && !amount.is_whole() {
        out.invalid_as(at, amount.to_string(), "must be an integer");
    }
}
