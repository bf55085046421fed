//! What a pod asks for, summed up over its containers as upstream does.

use base::Quantity;
use serde_json::Value;

use super::{Amounts, add};
use crate::placement::requests::is_extended;

/// `requests` or `limits` of a container, or of the pod itself.
fn amounts(holder: &Value, kind: &str) -> Amounts {
    read(&holder["resources"][kind])
}

fn read(list: &Value) -> Amounts {
    let all = list.as_object().into_iter().flatten();
    let parsed = all.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?)));
    parsed.collect()
}

/// An amount as JSON holds it.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn list<'a>(pod: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    pod["spec"][field].as_array().into_iter().flatten()
}

/// Containers that begin with the pod, and those that run before them.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "containers").chain(list(pod, "initContainers"))
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let own = total.entry(name.clone()).or_insert(*amount);
        *own = (*own).max(*amount);
    }
}

/// What a pod's containers need at most at once.
pub fn of_containers(pod: &Value, kind: &str) -> Amounts {
    at_once(pod, |container| amounts(container, kind))
}

/// All containers together with the sidecars, or one init container with the sidecars before it.
fn at_once(pod: &Value, of: impl Fn(&Value) -> Amounts) -> Amounts {
    let mut sum = Amounts::new();
    list(pod, "containers").for_each(|container| add(&mut sum, &of(container)));
    let (mut sidecars, mut first) = (Amounts::new(), Amounts::new());
    for container in list(pod, "initContainers") {
        let own = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut first, &sidecars);
        } else {
            let mut with = own;
            add(&mut with, &sidecars);
            raise(&mut first, &with);
        }
    }
    raise(&mut sum, &first);
    sum
}

/// The most of what the containers wish, and of what the status says that the node has allocated to
/// them and that they have. A wish that can never be met counts for nothing.
fn held(pod: &Value, kind: &str) -> Amounts {
    let status = &pod["status"];
    let statuses = |field: &str| status[field].as_array().into_iter().flatten();
    let told = |container: &Value| {
        let mut all = statuses("containerStatuses").chain(statuses("initContainerStatuses"));
        all.find(|told| told["name"] == container["name"])
    };
    let allocated =
        |container: &Value| match told(container).map(|told| &told["allocatedResources"]) {
            Some(list) if kind == "requests" && list.is_object() => read(list),
            _ => amounts(container, kind),
        };
    let has = |container: &Value| match told(container) {
        Some(told) if told["resources"][kind].is_object() => amounts(told, kind),
        _ => allocated(container),
    };
    let mut most = at_once(pod, has);
    if kind == "requests" {
        raise(&mut most, &at_once(pod, allocated));
    }
    let mut conditions = statuses("conditions");
    let pending = conditions.find(|condition| condition["type"] == "PodResizePending");
    if pending.is_none_or(|pending| pending["reason"] != "Infeasible") {
        raise(&mut most, &of_containers(pod, kind));
    }
    most
}

/// What the pod needs at most at once: what it says for itself counts instead of its containers;
/// the runtime's overhead is added.
pub fn total(pod: &Value, kind: &str) -> Amounts {
    let mut sum = held(pod, kind);
    for (name, amount) in amounts(&pod["spec"], kind) {
        sum.insert(name, amount);
    }
    for (name, amount) in pod["spec"]["overhead"].as_object().into_iter().flatten() {
        let Some(amount) = quantity(amount) else { continue };
        // A limit that nobody has set is none, with overhead as without.
        if kind == "requests" || sum.contains_key(name) {
            *sum.entry(name.clone()).or_default() += amount;
        }
    }
    sum
}

/// The names under which a quota knows what is asked for.
pub fn counted(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut counted = Amounts::from([("pods".to_owned(), Quantity::from_units(1))]);
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if plain || name.starts_with("hugepages-") {
            counted.insert(name.clone(), *amount);
        }
        if plain || name.starts_with("hugepages-") || is_extended(name) {
            counted.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            counted.insert(format!("limits.{name}"), *amount);
        }
    }
    counted
}

/// What one container adds, and its name.
pub fn container(container: &Value) -> (Amounts, Amounts) {
    (amounts(container, "requests"), amounts(container, "limits"))
}

/// The pod's class of service.
pub fn is_best_effort(pod: &Value) -> bool {
    let some = |holder: &Value| {
        ["requests", "limits"].iter().any(|kind| {
            amounts(holder, kind).iter().any(|(name, amount)| {
                matches!(name.as_str(), "cpu" | "memory") && !amount.is_zero()
            })
        })
    };
    !containers(pod).any(some) && !some(&pod["spec"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_are_summed_up() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("10m");
        sidecar["restartPolicy"] = "Always".into();
        let pod = json!({"spec": {"containers": [container("100m"), container("200m")],
            "initContainers": [container("50m"), sidecar, container("400m")],
            "overhead": {"cpu": "5m", "memory": "1Mi"}}});
        let total = total(&pod, "requests");
        assert_eq!(total["cpu"].to_string(), "415m");
        assert_eq!(total["memory"].to_string(), "1Mi");
        assert!(super::total(&pod, "limits").is_empty());
    }

    #[test]
    fn a_resized_pod_counts_for_the_most_of_what_it_wishes_and_has() {
        let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let count = |allocated: &str, has: &str, reason: &str| {
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": cpu("4")}]},
                "status": {"conditions": [{"type": "PodResizePending", "reason": reason}],
                    "containerStatuses": [{"name": "a", "resources": cpu(has),
                        "allocatedResources": {"cpu": allocated}}]}});
            ["requests", "limits"].map(|kind| total(&pod, kind)["cpu"].to_string())
        };
        assert_eq!(count("1", "1", "Deferred"), ["4", "4"]);
        assert_eq!(count("2", "1", "Infeasible"), ["2", "1"]);
        assert_eq!(count("4", "6", "Deferred"), ["6", "6"]);
    }
}
