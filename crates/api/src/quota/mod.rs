//! What an object uses of a ResourceQuota: which names of `spec.hard` it counts under, how much,
//! and whether the quota's scopes take it in. One place for admission, which charges, and for
//! the recount, which must come to the same sums.

mod pods;

use std::collections::BTreeMap;

use base::Quantity;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::placement::requests::is_extended;
use crate::resource::Resource;
use crate::selector::LabelSelector;
pub(crate) use pods::of_containers;
pub use pods::{container, containers, quantity, total};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Kinds that a quota knows by their bare name, too.
const PLAIN: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What each container must say where a quota counts it.
const TO_BE_SAID: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
/// What a storage class's names in a quota end in.
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
/// What a device class's name in a quota ends in.
const DEVICES_SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";
/// As many devices as one claim can get at most.
const DEVICES_MAX: i64 = 32;

/// Adds amount by amount.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

/// Reads `spec.hard`, `status.used` and the like.
pub fn amounts(map: &Value) -> Amounts {
    let all = map.as_object().into_iter().flatten();
    all.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?))).collect()
}

/// As they are written into an object.
pub fn to_json(amounts: &Amounts) -> Value {
    amounts.iter().map(|(name, amount)| (name.clone(), Value::from(amount.to_string()))).collect()
}

/// `count/deployments.apps`, `count/pods`.
pub fn count_name(resource: &Resource) -> String {
    format!("count/{}", resource.qualified())
}

/// Whether objects of this kind count under a name of a quota.
pub fn counts(resource: &Resource, name: &str) -> bool {
    if name == count_name(resource) {
        return true;
    }
    if !resource.group.is_empty() {
        return asks_for_devices(resource) && name.ends_with(DEVICES_SUFFIX);
    }
    let plural = &*resource.plural;
    if PLAIN.contains(&plural) && name == plural {
        return true;
    }
    match plural {
        "pods" => {
            let own = name.strip_prefix("requests.").or(name.strip_prefix("limits."));
            let own = own.unwrap_or(name);
            matches!(own, "cpu" | "memory" | "ephemeral-storage")
                || own.starts_with("hugepages-")
                || (name.starts_with("requests.") && is_extended(own))
        }
        "services" => matches!(name, "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => name == "requests.storage" || name.contains(CLASS_SUFFIX),
        _ => false,
    }
}

/// What an object uses now.
pub fn usage(resource: &Resource, object: &Value, now: Timestamp) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::from([(count_name(resource), one)]);
    if asks_for_devices(resource) {
        devices(object, &mut used);
    }
    if !resource.group.is_empty() || !PLAIN.contains(&&*resource.plural) {
        return used;
    }
    match &*resource.plural {
        // Whatever a pod asked for is free again when it has ended.
        "pods" if has_ended(object, now) => {}
        "pods" => used.extend(pods::counted(
            &pods::total(object, "requests"),
            &pods::total(object, "limits"),
        )),
        plural => {
            used.insert(plural.to_owned(), one);
        }
    }
    match &*resource.plural {
        "services" => service(object, &mut used),
        "persistentvolumeclaims" => claim(object, &mut used),
        _ => {}
    }
    used
}

/// Whether a pod is done, or should long have been gone.
fn has_ended(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let metadata = &pod["metadata"];
    let deleted = metadata["deletionTimestamp"].as_str().and_then(|text| text.parse().ok());
    let grace = metadata["deletionGracePeriodSeconds"].as_i64();
    match (deleted, grace) {
        (Some(deleted), Some(grace)) => {
            let deleted: Timestamp = deleted;
            now.as_second() > deleted.as_second().saturating_add(grace)
        }
        _ => false,
    }
}

fn service(service: &Value, used: &mut Amounts) {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let numbered = ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) > 0).count();
    let nodeports = match spec["type"].as_str() {
        Some("NodePort") => ports.len(),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => numbered,
        Some("LoadBalancer") => ports.len(),
        _ => 0,
    };
    let balancers = i64::from(spec["type"] == "LoadBalancer");
    let nodeports = i64::try_from(nodeports).unwrap_or(i64::MAX);
    used.insert("services.nodeports".to_owned(), Quantity::from_units(nodeports));
    used.insert("services.loadbalancers".to_owned(), Quantity::from_units(balancers));
}

fn claim(claim: &Value, used: &mut Amounts) {
    let old = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    let class = old.as_str().or(claim["spec"]["storageClassName"].as_str()).unwrap_or_default();
    if !class.is_empty() {
        let name = format!("{class}{CLASS_SUFFIX}persistentvolumeclaims");
        used.insert(name, Quantity::from_units(1));
    }
    let Some(storage) = quantity(&claim["spec"]["resources"]["requests"]["storage"]) else {
        return;
    };
    used.insert("requests.storage".to_owned(), storage);
    if !class.is_empty() {
        used.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), storage);
    }
}

fn asks_for_devices(resource: &Resource) -> bool {
    resource.group == "resource.k8s.io" && resource.plural == "resourceclaims"
}

/// By device class, the most that a claim may get: of alternatives the largest counts.
fn devices(claim: &Value, used: &mut Amounts) {
    for request in claim["spec"]["devices"]["requests"].as_array().into_iter().flatten() {
        let alternatives = request["firstAvailable"].as_array().filter(|all| !all.is_empty());
        let exactly = std::slice::from_ref(&request["exactly"]);
        let mut most = Amounts::new();
        for one in alternatives.map_or(exactly, Vec::as_slice) {
            let Some(class) = one["deviceClassName"].as_str() else { continue };
            let count = match one["allocationMode"].as_str() {
                None | Some("ExactCount") => one["count"].as_i64().unwrap_or(1),
                Some("All") => DEVICES_MAX,
                Some(_) => 0,
            };
            let known = most.entry(format!("{class}{DEVICES_SUFFIX}")).or_default();
            *known = Quantity::from_units(count).max(*known);
        }
        add(used, &most);
    }
}

/// What a pod fails to say though a quota counts it, in upstream's words.
pub fn unsaid<'a>(pod: &Value, counted: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut missing = Vec::new();
    for name in counted.filter(|name| TO_BE_SAID.contains(name)) {
        let silent = pods::containers(pod).filter(|container| {
            let (requests, limits) = pods::container(container);
            !pods::counted(&requests, &limits).contains_key(name)
        });
        let mut silent: Vec<&str> = silent.filter_map(|one| one["name"].as_str()).collect();
        silent.sort_unstable();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    missing.sort();
    (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
}

/// Whether a quota's scopes take an object in.
pub fn in_scope(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let plain = quota["spec"]["scopes"].as_array().into_iter().flatten();
    let plain = plain.map(|scope| (scope.as_str().unwrap_or_default(), None));
    let selected = quota["spec"]["scopeSelector"]["matchExpressions"].as_array();
    let selected = selected.into_iter().flatten();
    let selected = selected.map(|one| (one["scopeName"].as_str().unwrap_or_default(), Some(one)));
    let kind = (&*resource.group, &*resource.plural);
    plain.chain(selected).all(|(scope, expression)| match kind {
        ("", "pods") => pod_in_scope(scope, expression, object),
        ("", "persistentvolumeclaims") => claim_in_scope(scope, expression, object),
        _ => false,
    })
}

/// Whether a pod's time is limited, which makes it one of another scope.
pub fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|n| n >= 0)
}

fn pod_in_scope(scope: &str, expression: Option<&Value>, pod: &Value) -> bool {
    match scope {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => pods::is_best_effort(pod),
        "NotBestEffort" => !pods::is_best_effort(pod),
        "CrossNamespacePodAffinity" => crosses_namespaces(&pod["spec"]["affinity"]),
        "PriorityClass" => {
            let class = pod["spec"]["priorityClassName"].as_str().filter(|class| !class.is_empty());
            expression.map_or(class.is_some(), |one| class_matches(one, class))
        }
        _ => false,
    }
}

/// Whether a class of volume attributes that a claim has, is to have or is about to get is meant.
fn claim_in_scope(scope: &str, expression: Option<&Value>, claim: &Value) -> bool {
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let names = [
        &spec["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    let classes = names.into_iter().filter_map(Value::as_str).filter(|class| !class.is_empty());
    let classes: Vec<&str> = classes.collect();
    let meant = match expression {
        None => !classes.is_empty(),
        Some(one) if classes.is_empty() => class_matches(one, None),
        Some(one) => classes.iter().any(|&class| class_matches(one, Some(class))),
    };
    scope == "VolumeAttributesClass" && meant
}

fn class_matches(expression: &Value, class: Option<&str>) -> bool {
    let one = json!({"matchExpressions": [{"key": "PriorityClass",
        "operator": expression["operator"], "values": expression["values"]}]});
    LabelSelector::from_object(&one).is_ok_and(|selector| selector.matches(|_| class))
}

fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|all| !all.is_empty())
            || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|side| {
        let required = affinity[side]["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred =
            affinity[side]["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        required.into_iter().flatten().any(crosses)
            || preferred.into_iter().flatten().any(|one| crosses(&one["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    fn line(group: &str, version: &str, plural: &str, object: Value) -> String {
        let used = usage(find(group, version, plural).unwrap(), &object, Timestamp::UNIX_EPOCH);
        let parts: Vec<String> = used.iter().map(|(n, a)| format!("{n}={a}")).collect();
        parts.join(" ")
    }

    #[test]
    fn objects_count_under_their_names() {
        let pod = |phase: &str| {
            json!({"status": {"phase": phase}, "spec": {"containers": [{"resources": {
                "requests": {"cpu": "1", "example.com/x": "2"}, "limits": {"memory": "1Gi"}}}]}})
        };
        assert_eq!(
            line("", "v1", "pods", pod("Running")),
            "count/pods=1 cpu=1 limits.memory=1Gi pods=1 requests.cpu=1 requests.example.com/x=2"
        );
        assert_eq!(line("", "v1", "pods", pod("Failed")), "count/pods=1");
        assert_eq!(line("", "v1", "secrets", json!({})), "count/secrets=1 secrets=1");
        assert_eq!(line("apps", "v1", "deployments", json!({})), "count/deployments.apps=1");
        let ports = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            line("", "v1", "services", ports),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2"
        );
        let claim = json!({"spec": {"storageClassName": "gold",
            "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            line("", "v1", "persistentvolumeclaims", claim),
            "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             gold.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi"
        );
        let of = |class: &str, mode: &str, count: i64| {
            let mut one = json!({"deviceClassName": class, "allocationMode": mode});
            if mode == "ExactCount" {
                one["count"] = count.into();
            }
            one
        };
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": of("gpu", "ExactCount", 5)},
            {"name": "b", "firstAvailable": [of("gpu", "ExactCount", 2), of("gpu", "ExactCount", 1),
                of("tpu", "All", 0)]}]}}});
        assert_eq!(
            line("resource.k8s.io", "v1", "resourceclaims", claim),
            "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=7 \
             tpu.deviceclass.resource.k8s.io/devices=32"
        );
        let claims = ("resource.k8s.io", "v1", "resourceclaims");
        for (resource, name, expected) in [
            (claims, "gpu.deviceclass.resource.k8s.io/devices", true),
            (claims, "gpu.deviceclass.resource.k8s.io/storage", false),
            (claims, "resourceclaims", false),
            (("", "v1", "pods"), "gpu.deviceclass.resource.k8s.io/devices", false),
            (("", "v1", "pods"), "requests.example.com/x", true),
            (("", "v1", "pods"), "requests.storage", false),
            (("", "v1", "pods"), "secrets", false),
            (("apps", "v1", "deployments"), "count/deployments.apps", true),
            (("apps", "v1", "deployments"), "pods", false),
        ] {
            let resource = find(resource.0, resource.1, resource.2).unwrap();
            assert_eq!(counts(resource, name), expected, "{name}");
        }
    }

    #[test]
    fn scopes_choose_pods() {
        let pods = find("", "v1", "pods").unwrap();
        let plain = json!({"spec": {"containers": [{}], "priorityClassName": "high"}});
        let ending = json!({"spec": {"activeDeadlineSeconds": 5, "containers": [
            {"resources": {"requests": {"cpu": "1"}}}]}});
        let scoped = |scope: &str| json!({"spec": {"scopes": [scope]}});
        for (scope, first, second) in [
            ("Terminating", false, true),
            ("NotTerminating", true, false),
            ("BestEffort", true, false),
            ("NotBestEffort", false, true),
            ("PriorityClass", true, false),
        ] {
            let found =
                (in_scope(&scoped(scope), pods, &plain), in_scope(&scoped(scope), pods, &ending));
            assert_eq!(found, (first, second), "{scope}");
        }
        let selector = json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
        assert!(in_scope(&selector, pods, &plain) && !in_scope(&selector, pods, &ending));
        assert!(!in_scope(&selector, find("", "v1", "services").unwrap(), &plain));
    }

    #[test]
    fn scopes_choose_claims() {
        let claims = find("", "v1", "persistentvolumeclaims").unwrap();
        let none = json!({"spec": {}});
        let gold = json!({"spec": {"volumeAttributesClassName": "gold"}});
        let both = json!({"spec": {"volumeAttributesClassName": "silver"},
            "status": {"currentVolumeAttributesClassName": "gold"}});
        let found = |spec: Value| {
            let quota = json!({"spec": spec});
            [&none, &gold, &both].map(|claim| in_scope(&quota, claims, claim))
        };
        let term = |operator: &str, values: &[&str]| {
            json!({"scopeSelector": {"matchExpressions": [{"scopeName": "VolumeAttributesClass",
                "operator": operator, "values": values}]}})
        };
        assert_eq!(found(json!({"scopes": ["VolumeAttributesClass"]})), [false, true, true]);
        assert_eq!(found(term("In", &["gold"])), [false, true, true]);
        assert_eq!(found(term("In", &["silver"])), [false, false, true]);
        assert_eq!(found(term("NotIn", &["gold"])), [true, false, true]);
        assert_eq!(found(json!({"scopes": ["Terminating"]})), [false; 3]);
    }

    #[test]
    fn containers_must_say_what_is_counted() {
        let pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}, {"name": "c",
            "resources": {"requests": {"cpu": "1"}}}]}});
        assert_eq!(
            unsaid(&pod, ["cpu", "pods"].into_iter()).as_deref(),
            Some("must specify cpu for: a,b")
        );
        assert_eq!(unsaid(&pod, ["pods"].into_iter()), None);
    }
}
