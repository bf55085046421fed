//! Taints, node selectors and pod selectors: does this match that?

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

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

/// The tolerations of a pod.
pub fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

/// Whether the pod may be put on a node with these taints: none with effect NoSchedule or
/// NoExecute is left untolerated.
pub fn tolerates_all<'a>(pod: &Pod, taints: impl IntoIterator<Item = &'a Taint>) -> bool {
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints
        .into_iter()
        .filter(hard)
        .all(|taint| tolerations(pod).iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether the node is one that the pod's `nodeSelector` and required affinity ask for.
pub fn node_matches(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.labels();
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
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
    let name = node.name_any();
    let mut requirements = 0;
    let expressions = term.match_expressions.iter().flatten();
    let labels_match = expressions.inspect(|_| requirements += 1).all(|requirement| {
        requirement_holds(requirement, node.labels().get(&requirement.key).map(String::as_str))
    });
    let fields_match = term.match_fields.iter().flatten().all(|requirement| {
        requirements += 1;
        requirement.key == "metadata.name" && requirement_holds(requirement, Some(&name))
    });
    labels_match && fields_match && requirements > 0
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

/// Whether a label selector selects these labels; no selector selects nothing.
pub fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let parsed = selector.and_then(|selector| Selector::try_from(selector.clone()).ok());
    parsed.is_some_and(|selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_as_upstream() {
        let taint = |text| serde_saphyr::from_str::<Taint>(text).expect("a taint");
        let toleration = |text| serde_saphyr::from_str::<Toleration>(text).expect("a toleration");
        let gpu = taint("{key: gpu, value: big, effect: NoSchedule}");
        for (text, expected) in [
            ("{operator: Exists}", true),
            ("{key: gpu, operator: Exists, effect: NoExecute}", false),
            ("{key: gpu, operator: Equal, value: big}", true),
            ("{key: gpu, value: small}", false),
            ("{value: big}", false),
        ] {
            assert_eq!(tolerates(&toleration(text), &gpu), expected, "{text}");
        }
    }

    #[test]
    fn node_selector_terms() {
        let node: Node =
            serde_saphyr::from_str("metadata: {name: n1, labels: {disk: ssd, size: '5'}}")
                .expect("a node");
        for (text, expected) in [
            ("{}", false),
            ("{matchExpressions: [{key: disk, operator: In, values: [ssd, hdd]}]}", true),
            ("{matchExpressions: [{key: size, operator: Gt, values: ['4']}]}", true),
            ("{matchExpressions: [{key: size, operator: Lt, values: ['4']}]}", false),
            ("{matchExpressions: [{key: gpu, operator: DoesNotExist}]}", true),
            ("{matchFields: [{key: metadata.name, operator: In, values: [n2]}]}", false),
        ] {
            let term: NodeSelectorTerm = serde_saphyr::from_str(text).expect("a term");
            assert_eq!(term_matches(&term, &node), expected, "{text}");
        }
    }
}
