//! Where a pod may be: taints and tolerations, node selectors and node affinity, amounts and ports.
//! The scheduler, every controller that cares about nodes and the node's own agent decide by these, so
//! that they agree.

pub mod ports;
pub mod requests;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// Why a node is none for a pod, where both the scheduler and the agent may say so.
pub mod reason {
    /// Neither selector nor affinity want it.
    pub const NODE_AFFINITY: &str = "node(s) didn't match Pod's node affinity/selector";
    /// Somebody has a port of it.
    pub const NODE_PORTS: &str = "node(s) didn't have free ports for the requested pod ports";
}

/// Whether `toleration` tolerates `taint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let value = (toleration.value.as_deref().unwrap_or(""), taint.value.as_deref().unwrap_or(""));
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && value.0 == value.1,
        operator @ ("Lt" | "Gt") => match (value.0.parse::<i64>(), value.1.parse::<i64>()) {
            (Ok(tolerated), Ok(present)) if operator == "Lt" => present < tolerated,
            (Ok(tolerated), Ok(present)) => present > tolerated,
            _ => false,
        },
        _ => false,
    }
}

/// Whether a pod with these tolerations may be put on a node with these taints: none with
/// effect NoSchedule or NoExecute is left untolerated.
pub fn tolerates_all<'a>(
    tolerations: &[Toleration],
    taints: impl IntoIterator<Item = &'a Taint>,
) -> bool {
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints
        .into_iter()
        .filter(hard)
        .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether the node is one that a pod's `nodeSelector` and required affinity ask for.
pub fn node_matches(spec: &PodSpec, node: &Node) -> bool {
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| label(node, key) == Some(value.as_str()));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| term_matches(term, node))
        })
}

/// Whether all requirements of a term hold; an empty term holds nowhere.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let name = node.metadata.name.as_deref();
    let mut requirements = 0;
    let expressions = term.match_expressions.iter().flatten();
    let labels_match = expressions
        .inspect(|_| requirements += 1)
        .all(|requirement| requirement_holds(requirement, label(node, &requirement.key)));
    let fields_match = term.match_fields.iter().flatten().all(|requirement| {
        requirements += 1;
        requirement.key == "metadata.name" && requirement_holds(requirement, name)
    });
    labels_match && fields_match && requirements > 0
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_in = || value.is_some_and(|value| values.iter().any(|v| v == value));
    let number = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => is_in(),
        "NotIn" => !is_in(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(value, bound)| value > bound),
        "Lt" => number().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}
