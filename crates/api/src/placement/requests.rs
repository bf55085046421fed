//! How much a pod asks for, what a node gives, and what is too little.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

use base::Quantity;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Node, PodSpec, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Of several amounts that are too small these are told first, in this order.
const TOLD_FIRST: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Amounts as an object has them.
pub type Amounts = BTreeMap<String, Text>;

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

    /// The same as a resource list.
    pub fn listed(&self) -> Amounts {
        let text = |name: &str, amount: i64| match name {
            "cpu" => Quantity::from_millis(amount),
            "memory" | "ephemeral-storage" => Quantity::from_bytes(amount),
            name if name.starts_with("hugepages-") => Quantity::from_bytes(amount),
            _ => Quantity::from_units(amount),
        };
        let text = |name: &String, amount: &i64| Text(text(name, *amount).to_string());
        self.0.iter().map(|(name, amount)| (name.clone(), text(name, amount))).collect()
    }

    /// The amount of one resource.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Whether these are less than `before` in some resource.
    pub fn gives_back(&self, before: &Resources) -> bool {
        before.0.iter().any(|(name, amount)| self.get(name) < *amount)
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

/// What the node gives to pods.
pub fn allocatable(node: &Node) -> Resources {
    let Some(status) = &node.status else { return Resources::default() };
    let allocatable = status.allocatable.as_ref().filter(|amounts| !amounts.is_empty());
    allocatable.or(status.capacity.as_ref()).map(Resources::of).unwrap_or_default()
}

/// Whether a resource is somebody's own: it has a domain that is not Kubernetes'.
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// An amount that a node has not enough of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The resource.
    pub name: String,
    /// What the pod asks for.
    pub requested: i64,
    /// What others have.
    pub used: i64,
    /// What there is.
    pub capacity: i64,
}

/// What a node that gives `allocatable` and has given `used` to `pods` pods lacks for one more.
pub fn shortages(
    requests: &Resources,
    used: &Resources,
    pods: usize,
    allocatable: &Resources,
) -> Vec<Shortage> {
    let pods = i64::try_from(pods).unwrap_or(i64::MAX);
    let shortage = |name: &str, requested, used| {
        let capacity = allocatable.get(name);
        let short = requested > capacity.saturating_sub(used);
        short.then(|| Shortage { name: name.to_owned(), requested, used, capacity })
    };
    let others = requests.0.keys().map(String::as_str).filter(|name| !TOLD_FIRST.contains(name));
    let asked = TOLD_FIRST.into_iter().chain(others);
    let asked = asked.map(|name| (name, requests.get(name), used.get(name)));
    [("pods", 1, pods)]
        .into_iter()
        .chain(asked.filter(|(_, requested, _)| *requested > 0))
        .filter_map(|(name, requested, used)| shortage(name, requested, used))
        .collect()
}

/// What the pod needs: the sum of its containers and sidecars, or more where an init
/// container needs more; plus the overhead. Pod-level requests replace the sum.
pub fn requests(spec: &PodSpec) -> Resources {
    total(spec, |container| requested(container.resources.as_ref()))
}

/// What a pod counts for where others want to have room: the most of what it wishes, what its node has
/// allocated and what its containers have. A wish that can never be met counts for nothing. `of` reads a
/// container's requests.
pub fn counted(
    spec: &PodSpec,
    status: Option<&PodStatus>,
    of: impl Fn(Option<&Amounts>) -> Resources,
) -> Resources {
    let wished = |container: &'_ Container| {
        of(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
    };
    let lists = status.map(|status| [&status.container_statuses, &status.init_container_statuses]);
    let all = || lists.into_iter().flatten().flatten().flatten();
    if !all().any(|told| told.allocated_resources.is_some() || told.resources.is_some()) {
        return total(spec, wished);
    }
    let told = |name: &str| all().find(|told| told.name == name);
    let allocated = |container: &Container| match told(&container.name) {
        Some(ContainerStatus { allocated_resources: Some(requests), .. }) => of(Some(requests)),
        _ => wished(container),
    };
    let has = |container: &Container| {
        let has = told(&container.name).and_then(|told| told.resources.as_ref()?.requests.as_ref());
        has.map_or_else(|| allocated(container), |requests| of(Some(requests)))
    };
    let mut most = total(spec, allocated);
    most.raise(&total(spec, has));
    if !is_infeasible(status) {
        most.raise(&total(spec, wished));
    }
    most
}

/// Whether the node has said that it can never give what is wished.
fn is_infeasible(status: Option<&PodStatus>) -> bool {
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let pending = conditions.iter().find(|condition| condition.type_ == "PodResizePending");
    pending.is_some_and(|pending| pending.reason.as_deref() == Some("Infeasible"))
}

/// The requests of a container or of a pod as a whole.
pub fn requested(requirements: Option<&ResourceRequirements>) -> Resources {
    let requests = requirements.and_then(|r| r.requests.as_ref());
    requests.map(Resources::of).unwrap_or_default()
}

/// As [`requests`], where `of` says what a container needs.
pub fn total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
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
        let spec: PodSpec = serde_saphyr::from_str(
            "
overhead: {cpu: 10m}
containers:
- {name: a, resources: {requests: {cpu: 100m, memory: 64Mi}}}
- {name: b, resources: {requests: {cpu: 200m}}}
initContainers:
- {name: side, restartPolicy: Always, resources: {requests: {cpu: 50m}}}
- {name: setup, resources: {requests: {cpu: '1', memory: 32Mi}}}
",
        )
        .expect("a specification");
        let requests = requests(&spec);
        assert_eq!(requests.get("cpu"), 1060);
        assert_eq!(requests.get("memory"), 64 << 20);
    }

    #[test]
    fn a_pod_counts_for_the_most_of_what_it_wishes_and_has() {
        let spec: PodSpec = serde_saphyr::from_str(
            "containers: [{name: a, resources: {requests: {cpu: '4'}}}, {name: b, resources: {requests: {cpu: 100m}}}]",
        )
        .expect("a specification");
        let count = |status: &str| {
            let status: PodStatus = serde_saphyr::from_str(status).expect("a status");
            counted(&spec, Some(&status), |list| list.map(Resources::of).unwrap_or_default())
                .get("cpu")
        };
        let told = |allocated: &str, has: &str, reason: &str| {
            count(&format!(
                "
containerStatuses:
- {{name: a, image: '', imageID: '', ready: true, restartCount: 0, allocatedResources: {{cpu: '{allocated}'}}, resources: {{requests: {{cpu: '{has}'}}}}}}
conditions: [{{type: PodResizePending, status: 'True', reason: {reason}}}]"
            ))
        };
        assert_eq!(count("{}"), 4100, "nothing is told yet");
        assert_eq!(told("1", "1", "Deferred"), 4100, "it may yet get it");
        assert_eq!(told("1", "1", "Infeasible"), 1100, "it never will");
        assert_eq!(told("2", "1", "Infeasible"), 2100, "it is about to grow");
        assert_eq!(told("4", "6", "Deferred"), 6100, "it has not shrunk yet");
    }

    #[test]
    fn what_is_too_little_in_upstreams_order() {
        let amounts = |text: &str| {
            Resources::of(&serde_saphyr::from_str::<Amounts>(text).expect("a resource list"))
        };
        let given = amounts("{cpu: '1', memory: 1Gi, example.com/a: '1', pods: '2'}");
        let short = |asked: &str, used: &str, pods: usize| {
            let short = shortages(&amounts(asked), &amounts(used), pods, &given);
            short.into_iter().map(|s| (s.name, s.requested, s.used, s.capacity)).collect::<Vec<_>>()
        };
        let one =
            |name: &str, requested, used, capacity| (name.to_owned(), requested, used, capacity);
        assert_eq!(short("{cpu: '1', memory: 1Gi, example.com/a: '1'}", "{}", 1), []);
        // What nobody asks for may be used up.
        assert_eq!(short("{cpu: '0'}", "{cpu: '5'}", 0), []);
        assert_eq!(
            short(
                "{example.com/a: '1', example.com/b: '2', memory: 1, cpu: 600m}",
                "{cpu: 500m, memory: 1Gi, example.com/a: '1'}",
                2
            ),
            [
                one("pods", 1, 2, 2),
                one("cpu", 600, 500, 1000),
                one("memory", 1, 1 << 30, 1 << 30),
                one("example.com/a", 1, 1, 1),
                one("example.com/b", 2, 0, 0),
            ]
        );
    }
}
