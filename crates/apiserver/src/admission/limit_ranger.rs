//! LimitRanger: what a namespace's LimitRanges say that its pods ask for when they do not say it
//! themselves, and the bounds of what they, and claims, may ask for.

use api::quota::{self, Amounts};
use api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};

/// Says on a pod what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const RANGES: &str = "limitranges";

/// The items of all LimitRanges of the namespace, by the name of their range.
fn items(attributes: &Attributes<'_>) -> Vec<Value> {
    let ranges = attributes.cluster.within(RANGES, attributes.namespace);
    let items = ranges.iter().flat_map(|range| range["spec"]["limits"].as_array());
    items.flatten().cloned().collect()
}

/// Fills in requests and limits of a new pod's containers.
pub(super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if !attributes.is(Operation::Create, "pods") {
        return Ok(());
    }
    let mut said = Vec::new();
    for range in attributes.cluster.within(RANGES, attributes.namespace) {
        let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
        let items = range["spec"]["limits"].as_array().into_iter().flatten();
        for item in items.filter(|item| item["type"] == "Container") {
            limits.extend(quota::amounts(&item["default"]));
            requests.extend(quota::amounts(&item["defaultRequest"]));
        }
        if requests.is_empty() && limits.is_empty() {
            continue;
        }
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            // Indexing would leave a null where there is no such list.
            let all = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
            for container in all.into_iter().flatten() {
                complete(container, what, (&requests, &limits), &mut said);
            }
        }
    }
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        let mut notes = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        notes.insert(ANNOTATION.to_owned(), text.into());
        meta::set(pod, "annotations", Value::Object(notes));
    }
    Ok(())
}

fn complete(
    container: &mut Value,
    what: &str,
    (requests, limits): (&Amounts, &Amounts),
    said: &mut Vec<String>,
) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    for (kind, word, defaults) in [("requests", "request", requests), ("limits", "limit", limits)] {
        let resources = meta::member(container, "resources");
        let given = resources.get(kind).and_then(Value::as_object).cloned();
        let mut given = given.unwrap_or_default();
        let missing = defaults.iter().filter(|(name, _)| !given.contains_key(*name));
        let missing: Vec<_> = missing.map(|(name, amount)| (name.clone(), *amount)).collect();
        if missing.is_empty() {
            continue;
        }
        let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
        said.push(format!("{} {word} for {what} {name}", names.join(", ")));
        given.extend(missing.into_iter().map(|(name, amount)| (name, json!(amount.to_string()))));
        resources.insert(kind.to_owned(), Value::Object(given));
    }
}

/// Holds pods and claims against the bounds.
pub(super) fn check(attributes: &Attributes<'_>, object: &Value) -> Outcome<()> {
    let resized = attributes.resource.collection() == "pods"
        && attributes.operation == Operation::Update
        && attributes.subresource == "resize";
    let claim = attributes.is(Operation::Create, "persistentvolumeclaims")
        || attributes.is(Operation::Update, "persistentvolumeclaims");
    if !resized && !claim && !attributes.is(Operation::Create, "pods") {
        return Ok(());
    }
    let mut wrong = Vec::new();
    for item in items(attributes) {
        let kind = item["type"].as_str().unwrap_or_default();
        match (kind, claim) {
            ("PersistentVolumeClaim", true) => {
                let requests = quota::amounts(&object["spec"]["resources"]["requests"]);
                at_least(kind, &item, (&requests, &Amounts::new()), &mut wrong);
                requests_at_most(kind, &item, &requests, &mut wrong);
            }
            ("Container", false) => {
                for container in quota::containers(object) {
                    let (requests, limits) = quota::container(container);
                    bounded(kind, &item, (&requests, &limits), &mut wrong);
                }
            }
            ("Pod", false) => {
                let both = (quota::total(object, "requests"), quota::total(object, "limits"));
                bounded(kind, &item, (&both.0, &both.1), &mut wrong);
            }
            _ => {}
        }
    }
    let why = match wrong.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(Status::forbidden(attributes.resource, meta::name(object), &why))
}

type Both<'a> = (&'a Amounts, &'a Amounts);

fn bounded(kind: &str, item: &Value, both: Both<'_>, wrong: &mut Vec<String>) {
    at_least(kind, item, both, wrong);
    at_most(kind, item, both, wrong);
    in_ratio(kind, item, both, wrong);
}

fn at_least(kind: &str, item: &Value, (requests, limits): Both<'_>, wrong: &mut Vec<String>) {
    for (name, bound) in quota::amounts(&item["min"]) {
        let rule = format!("minimum {name} usage per {kind} is {bound}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => wrong.push(format!("{rule}.  No request is specified")),
            (Some(given), _) if *given < bound => {
                wrong.push(format!("{rule}, but request is {given}"));
            }
            (_, Some(given)) if *given < bound => {
                wrong.push(format!("{rule}, but limit is {given}"));
            }
            _ => {}
        }
    }
}

fn at_most(kind: &str, item: &Value, (requests, limits): Both<'_>, wrong: &mut Vec<String>) {
    for (name, bound) in quota::amounts(&item["max"]) {
        let rule = format!("maximum {name} usage per {kind} is {bound}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => wrong.push(format!("{rule}.  No limit is specified")),
            (_, Some(given)) if *given > bound => {
                wrong.push(format!("{rule}, but limit is {given}"));
            }
            (Some(given), _) if *given > bound => {
                wrong.push(format!("{rule}, but request is {given}"));
            }
            _ => {}
        }
    }
}

fn requests_at_most(kind: &str, item: &Value, requests: &Amounts, wrong: &mut Vec<String>) {
    for (name, bound) in quota::amounts(&item["max"]) {
        let rule = format!("maximum {name} usage per {kind} is {bound}");
        match requests.get(&name) {
            None => wrong.push(format!("{rule}.  No request is specified")),
            Some(given) if *given > bound => wrong.push(format!("{rule}, but request is {given}")),
            Some(_) => {}
        }
    }
}

fn in_ratio(kind: &str, item: &Value, (requests, limits): Both<'_>, wrong: &mut Vec<String>) {
    for (name, bound) in quota::amounts(&item["maxLimitRequestRatio"]) {
        let rule = format!("{name} max limit to request ratio per {kind} is {bound}, but");
        let some = |amounts: &Amounts| amounts.get(&name).copied().filter(|one| !one.is_zero());
        match (some(requests), some(limits)) {
            (None, _) => wrong.push(format!("{rule} no request is specified or request is 0")),
            (_, None) => wrong.push(format!("{rule} no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio > bound.as_f64() {
                    wrong.push(format!("{rule} provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes, create};

    fn ranges(item: Value) -> Few {
        let range =
            json!({"metadata": {"name": "r", "namespace": "ns"}, "spec": {"limits": [item]}});
        Few::default().with(RANGES, range)
    }

    #[test]
    fn what_is_not_said_is_filled_in() {
        let cluster =
            ranges(json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m"}}));
        let mut pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [
            {"name": "a", "resources": {"limits": {"memory": "2Gi"}}}]}});
        create(admit, &cluster, ("", "v1", "pods"), &mut pod).unwrap();
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"memory": "2Gi", "cpu": "500m"}, "requests": {"cpu": "100m"}})
        );
        // Nothing is left where there was nothing: a null would be a change of the pod ever after.
        assert_eq!(pod["spec"].as_object().unwrap().len(), 1, "{pod}");
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu limit for container a"
        );
    }

    #[test]
    fn bounds_are_held_in_upstreams_words() {
        let pod = |cpu: &str| {
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "resources":
                {"requests": {"cpu": cpu}, "limits": {"cpu": "1"}}}]}})
        };
        let said = |item: Value, pod: Value| {
            let cluster = ranges(item);
            let write = attributes(&cluster, ("", "v1", "pods"), "ns");
            check(&write, &pod).map_or_else(|status| status.message, |()| "ok".to_owned())
        };
        for (item, cpu, expected) in [
            (
                json!({"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "2"}}),
                "100m",
                "ok",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "200m"}}),
                "100m",
                "pods \"p\" is forbidden: minimum cpu usage per Container is 200m, but request is 100m",
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "500m", "memory": "1Gi"}}),
                "100m",
                "pods \"p\" is forbidden: [maximum cpu usage per Pod is 500m, but limit is 1, maximum memory usage per Pod is 1Gi.  No limit is specified]",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                "250m",
                "pods \"p\" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            ),
        ] {
            assert_eq!(said(item, pod(cpu)), expected);
        }
    }
}
