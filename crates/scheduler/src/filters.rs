//! Which nodes can take the pod: a table of filters, upstream's names, order and messages.

use api::placement::reason;
use api::placement::requests::{Shortage, shortages};

use crate::interpod::InterPod;
use crate::matching;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use crate::spread::Spread;

/// Why a node was turned down.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The filter that did it; tells which changes may help.
    pub filter: &'static str,
    /// Counted over all nodes for the message.
    pub reasons: Vec<String>,
    /// Taking other pods off the node would help.
    pub preemptible: bool,
}

/// What filters work out once for all nodes.
pub struct Prepared {
    spread: Spread,
    inter_pod: InterPod,
}

impl Prepared {
    /// Looks at the whole cluster for one pod.
    pub fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        Prepared { spread: Spread::hard(pod, snapshot), inter_pod: InterPod::new(pod, snapshot) }
    }
}

type Check = fn(&PodInfo, &NodeInfo, &Prepared) -> Result<(), (Vec<String>, bool)>;

/// In this order; the first that says no is the reason given.
const FILTERS: &[(&str, Check)] = &[
    ("NodeUnschedulable", node_unschedulable),
    ("NodeName", node_name),
    ("TaintToleration", taints),
    ("NodeAffinity", node_affinity),
    ("NodePorts", node_ports),
    ("NodeResourcesFit", resources_fit),
    ("PodTopologySpread", |_, node, prepared| prepared.spread.admits(node)),
    ("InterPodAffinity", |_, node, prepared| prepared.inter_pod.admits(node)),
];

/// Whether the node can take the pod.
pub fn check(pod: &PodInfo, node: &NodeInfo, prepared: &Prepared) -> Result<(), Rejection> {
    FILTERS.iter().try_for_each(|(filter, check)| {
        check(pod, node, prepared).map_err(|(reasons, preemptible)| Rejection {
            filter,
            reasons,
            preemptible,
        })
    })
}

fn refuse(reason: &str, preemptible: bool) -> Result<(), (Vec<String>, bool)> {
    Err((vec![reason.to_owned()], preemptible))
}

fn node_unschedulable(
    pod: &PodInfo,
    node: &NodeInfo,
    _: &Prepared,
) -> Result<(), (Vec<String>, bool)> {
    let spec = node.node.as_ref().and_then(|n| n.spec.as_ref());
    let cordon = k8s_openapi::api::core::v1::Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Default::default()
    };
    if spec.and_then(|s| s.unschedulable) != Some(true)
        || matching::tolerates_all(&pod.pod, [&cordon])
    {
        return Ok(());
    }
    refuse("node(s) were unschedulable", false)
}

fn node_name(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Result<(), (Vec<String>, bool)> {
    let wanted = pod.pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    let name = node.node.as_ref().and_then(|n| n.metadata.name.as_deref());
    if wanted.is_none_or(|wanted| wanted.is_empty() || Some(wanted) == name) {
        return Ok(());
    }
    refuse("node(s) didn't match the requested node name", false)
}

fn taints(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Result<(), (Vec<String>, bool)> {
    if matching::tolerates_all(&pod.pod, node.taints()) {
        return Ok(());
    }
    refuse("node(s) had untolerated taint(s)", false)
}

fn node_affinity(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Result<(), (Vec<String>, bool)> {
    if node.node.as_ref().is_some_and(|n| matching::node_matches(&pod.pod, n)) {
        return Ok(());
    }
    refuse(reason::NODE_AFFINITY, false)
}

fn node_ports(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Result<(), (Vec<String>, bool)> {
    let mut used = node.pods.values().flat_map(|other| &other.ports);
    if pod.ports.is_empty() || !used.any(|used| pod.ports.iter().any(|port| port.clashes(used))) {
        return Ok(());
    }
    refuse(reason::NODE_PORTS, true)
}

fn resources_fit(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Result<(), (Vec<String>, bool)> {
    let short = shortages(&pod.requests, &node.requested, node.pods.len(), &node.allocatable);
    if short.is_empty() {
        return Ok(());
    }
    let preemptible =
        short.iter().all(|short| short.name == "pods" || short.requested <= short.capacity);
    let reason = |short: Shortage| match short.name.as_str() {
        "pods" => "Too many pods".to_owned(),
        name => format!("Insufficient {name}"),
    };
    Err((short.into_iter().map(reason).collect(), preemptible))
}
