//! How much a pod asks for and a node gives.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

use base::Quantity;
use client::Pod;
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// What a container that asks for nothing is taken to need when nodes are scored (not when
/// they are filtered), upstream's values: else all such pods would end up on one node.
const DEFAULT_CPU_MILLIS: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

type Amounts = BTreeMap<String, Text>;

/// Amounts by resource name: CPU in thousandths of a core, all others in units (bytes).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources(pub BTreeMap<String, i64>);

impl Resources {
    /// Reads a resource list; what is no quantity counts as nothing (validation refuses it).
    pub fn of(amounts: &Amounts) -> Self {
        let amount = |name: &str, text: &Text| {
            let quantity: Quantity = text.0.parse().unwrap_or(Quantity::from_units(0));
            if name == "cpu" { quantity.millis() } else { quantity.units() }
        };
        Resources(amounts.iter().map(|(name, text)| (name.clone(), amount(name, text))).collect())
    }

    /// The amount of one resource.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Raises each amount to that of `other`, where that is larger.
    fn raise(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }

    /// Replaces amounts that `other` names.
    fn replace(&mut self, other: &Resources) {
        self.0.extend(other.0.iter().map(|(name, amount)| (name.clone(), *amount)));
    }
}

impl AddAssign<&Resources> for Resources {
    fn add_assign(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = mine.saturating_add(*amount);
        }
    }
}

impl SubAssign<&Resources> for Resources {
    fn sub_assign(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= amount;
        }
    }
}

/// What the pod needs: the sum of its containers and sidecars, or more where an init
/// container needs more; plus the overhead. Pod-level requests replace the sum.
pub fn requests(pod: &Pod) -> Resources {
    total(pod, |container| requested(container.resources.as_ref()))
}

/// As `requests`, for scoring: CPU and memory that nobody asked for are guessed.
pub fn requests_for_scoring(pod: &Pod) -> Resources {
    total(pod, |container| {
        let mut amounts = requested(container.resources.as_ref());
        amounts.0.entry("cpu".into()).or_insert(DEFAULT_CPU_MILLIS);
        amounts.0.entry("memory".into()).or_insert(DEFAULT_MEMORY_BYTES);
        amounts
    })
}

fn requested(requirements: Option<&ResourceRequirements>) -> Resources {
    let requests = requirements.and_then(|r| r.requests.as_ref());
    requests.map(Resources::of).unwrap_or_default()
}

fn total(pod: &Pod, of: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum += &of(container);
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for init in spec.init_containers.iter().flatten() {
        let mut needed = of(init);
        if init.restart_policy.as_deref() == Some("Always") {
            sum += &needed;
            sidecars += &needed;
            needed = sidecars.clone();
        } else {
            needed += &sidecars;
        }
        peak.raise(&needed);
    }
    sum.raise(&peak);
    sum.replace(&requested(spec.resources.as_ref()));
    if let Some(overhead) = &spec.overhead {
        sum += &Resources::of(overhead);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_containers_and_sidecars_as_upstream() {
        let pod: Pod = serde_saphyr::from_str(
            "
spec:
  overhead: {cpu: 10m}
  containers:
  - {name: a, resources: {requests: {cpu: 100m, memory: 64Mi}}}
  - {name: b, resources: {requests: {cpu: 200m}}}
  initContainers:
  - {name: side, restartPolicy: Always, resources: {requests: {cpu: 50m}}}
  - {name: setup, resources: {requests: {cpu: '1', memory: 32Mi}}}
",
        )
        .expect("a pod");
        let requests = requests(&pod);
        assert_eq!(requests.get("cpu"), 1060);
        assert_eq!(requests.get("memory"), 64 << 20);
    }
}
