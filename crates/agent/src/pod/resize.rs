//! Other resources for a pod that runs (KEP-1287). The API's pod says what is desired; the pod that the
//! worker is given says what this node has allocated, which the status tells of by conditions where the two
//! differ. Pure; reasons and wording are upstream's.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::placement::requests::{self, Resources};
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::status::Verdict;
use super::view::{Run, View, spec};
use super::{admission, plan, resources};

type ResourceList = BTreeMap<String, Quantity>;

/// What can change while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
/// Reason of a resize that never fits here.
const INFEASIBLE: &str = "Infeasible";
/// Reason of one that has to wait for other pods.
pub const DEFERRED: &str = "Deferred";

/// The amounts of one resource: request and limit.
fn amounts(resources: Option<&ResourceRequirements>, name: &str) -> [Option<i64>; 2] {
    let lists =
        [resources.and_then(|r| r.requests.as_ref()), resources.and_then(|r| r.limits.as_ref())];
    lists.map(|list| {
        list.filter(|list| list.contains_key(name)).map(|list| Resources::of(list).get(name))
    })
}

/// What of a container's resources differs.
fn changed<'a>(
    from: Option<&'a ResourceRequirements>,
    to: Option<&'a ResourceRequirements>,
) -> impl Iterator<Item = &'static str> + use<'a> {
    RESIZABLE.into_iter().filter(move |name| amounts(from, name) != amounts(to, name))
}

/// Whether two containers' resources come to the same.
pub fn same(from: Option<&ResourceRequirements>, to: Option<&ResourceRequirements>) -> bool {
    changed(from, to).next().is_none()
}

/// Whether a container that has these resources must start anew to get its own.
pub fn restarts(container: &Container, from: Option<&ResourceRequirements>) -> bool {
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    changed(from, container.resources.as_ref()).any(|name| {
        policies.iter().any(|policy| {
            policy.resource_name == name && policy.restart_policy == "RestartContainer"
        })
    })
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// Whether the containers of two versions of a pod have the same resources.
pub fn same_pod(a: &Pod, b: &Pod) -> bool {
    let of = |name: &str| containers(spec(b)).find(|c| c.name == name)?.resources.as_ref();
    containers(spec(a)).all(|container| same(container.resources.as_ref(), of(&container.name)))
}

/// The pod with other resources, where `of` knows some of a container's.
pub fn with<'a>(pod: &Pod, of: impl Fn(&str) -> Option<Option<&'a ResourceRequirements>>) -> Pod {
    let mut pod = pod.clone();
    let spec = pod.spec.get_or_insert_default();
    let all = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in all {
        if let Some(resources) = of(&container.name) {
            container.resources = resources.cloned();
        }
    }
    pod
}

/// The pod with the resources that its containers have now, where they run.
pub fn actual(pod: &Pod, view: &View) -> Pod {
    with(pod, |name| {
        let slot = view.slots.get(name)?;
        slot.current.as_ref().filter(|run| Run::alive(run))?;
        Some(slot.resources.as_ref())
    })
}

/// What the node has allocated to the pod as a whole.
pub fn allocated(pod: &Pod) -> Option<ResourceList> {
    Some(requests::requests(spec(pod)).listed()).filter(|list| !list.is_empty())
}

/// What the pod as a whole has: the requests, and the limits of its control group.
pub fn given(pod: &Pod, view: &View) -> Option<ResourceRequirements> {
    let pod = match plan::is_resizing(pod, view) {
        true => Cow::Owned(actual(pod, view)),
        false => Cow::Borrowed(pod),
    };
    let group = resources::pod(&pod);
    let cpu = group.cpu_quota.zip(group.cpu_period).and_then(|(quota, period)| {
        i64::try_from(period).ok().filter(|period| *period > 0).map(|period| quota * 1000 / period)
    });
    let limits = [("cpu", cpu), ("memory", group.memory_limit)];
    let limits = limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?)));
    let limits = Resources(limits.collect()).listed();
    let (requests, limits) = (allocated(&pod), Some(limits).filter(|list| !list.is_empty()));
    let some = requests.is_some() || limits.is_some();
    some.then_some(ResourceRequirements { requests, limits, claims: None })
}

/// The pod with the resources of another version of it.
pub fn as_in(pod: &Pod, other: &Pod) -> Pod {
    with(pod, |name| Some(containers(spec(other)).find(|c| c.name == name)?.resources.as_ref()))
}

/// The pod with the resources that its status says its containers have: what an agent that starts
/// finds allocated.
pub fn as_told(pod: &Pod) -> Pod {
    let status = pod.status.as_ref();
    let lists = status.map(|s| [&s.container_statuses, &s.init_container_statuses]);
    let told: Vec<_> = lists.into_iter().flatten().flatten().flatten().collect();
    with(pod, |name| {
        let found = told.iter().find(|status| status.name == name)?;
        found.container_id.as_ref()?;
        Some(Some(found.resources.as_ref()?))
    })
}

/// Why the pod cannot have the resources that it wishes here, or not now.
pub fn refusal(pod: &Pod, node: &Node, others: &[&PodSpec]) -> Option<Verdict> {
    let allocatable = requests::allocatable(node);
    let wished = requests::requests(spec(pod));
    let no = |reason: &str, message| Some(Verdict { reason: reason.to_owned(), message });
    // Upstream names memory first here.
    for name in ["memory", "cpu"] {
        let (requested, capacity) = (wished.get(name), allocatable.get(name));
        if !allocatable.0.is_empty() && requested > capacity {
            let what = format!("{name}, requested: {requested}, capacity: {capacity}");
            return no(INFEASIBLE, format!("Node didn't have enough capacity: {what}"));
        }
    }
    let (_, message) = admission::room(spec(pod), node, others)?;
    no(DEFERRED, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, resources: Value, policies: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "resources": resources, "resizePolicy": policies},
        ]}}))
        .expect("a pod")
    }

    fn cpu(amount: &str) -> Value {
        json!({"requests": {"cpu": amount}})
    }

    fn first(pod: &Pod) -> &Container {
        &spec(pod).containers[0]
    }

    #[test]
    fn amounts_count_and_not_how_they_are_written() {
        let (a, b) = (pod("p", cpu("1"), json!(null)), pod("p", cpu("1000m"), json!(null)));
        assert!(same_pod(&a, &b));
        assert!(!same_pod(&a, &pod("p", cpu("2"), json!(null))));
        assert!(!same_pod(&a, &pod("p", json!({"limits": {"cpu": "1"}}), json!(null))));
        assert!(same(None, Some(&ResourceRequirements::default())));
    }

    #[test]
    fn a_policy_holds_for_its_resource() {
        let policies = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"},
            {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
        let wished = pod("p", json!({"requests": {"cpu": "2", "memory": "2Gi"}}), policies);
        let had = |value: Value| serde_json::from_value::<ResourceRequirements>(value).ok();
        let less_cpu = had(json!({"requests": {"cpu": "1", "memory": "2Gi"}}));
        assert!(!restarts(first(&wished), less_cpu.as_ref()));
        let less_memory = had(json!({"requests": {"cpu": "2", "memory": "1Gi"}}));
        assert!(restarts(first(&wished), less_memory.as_ref()));
    }

    #[test]
    fn what_never_fits_and_what_has_to_wait() {
        let node: Node = serde_json::from_value(
            json!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "110"}}}),
        )
        .expect("a node");
        let other = pod("other", cpu("1500m"), json!(null));
        let ask = |amount: &str| {
            let wished = pod("p", cpu(amount), json!(null));
            refusal(&wished, &node, &[spec(&other)]).map(|v| (v.reason, v.message))
        };
        let told = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
        assert_eq!(ask("500m"), None);
        let used =
            "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000";
        assert_eq!(ask("600m"), told("Deferred", used));
        let never = "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000";
        assert_eq!(ask("3"), told("Infeasible", never));
    }

    #[test]
    fn an_agent_that_starts_goes_by_the_status() {
        let mut wished = pod("p", cpu("2"), json!(null));
        let status = |id: Value| {
            json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "",
            "ready": true, "restartCount": 0, "containerID": id, "resources": cpu("1")}]})
        };
        wished.status = serde_json::from_value(status(json!("coracle://1"))).ok();
        assert_eq!(amounts(first(&as_told(&wished)).resources.as_ref(), "cpu")[0], Some(1000));
        // Nothing of it runs yet.
        wished.status = serde_json::from_value(status(json!(null))).ok();
        assert_eq!(amounts(first(&as_told(&wished)).resources.as_ref(), "cpu")[0], Some(2000));
    }
}
