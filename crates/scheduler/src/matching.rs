//! Taints, node selectors and pod selectors: does this match that?

use std::collections::BTreeMap;

pub use api::placement::{term_matches, tolerates};
use client::Pod;
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

/// The tolerations of a pod.
pub fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

/// Whether the pod may be put on a node with these taints.
pub fn tolerates_all<'a>(pod: &Pod, taints: impl IntoIterator<Item = &'a Taint>) -> bool {
    api::placement::tolerates_all(tolerations(pod), taints)
}

/// Whether the node is one that the pod's `nodeSelector` and required affinity ask for.
pub fn node_matches(pod: &Pod, node: &Node) -> bool {
    pod.spec.as_ref().is_none_or(|spec| api::placement::node_matches(spec, node))
}

/// Whether a label selector has an expression about this label.
pub fn has_expression(selector: &LabelSelector, key: &str) -> bool {
    selector.match_expressions.iter().flatten().any(|expression| expression.key == key)
}

/// Whether a label selector selects these labels; no selector selects nothing.
pub fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let parsed = selector.and_then(|selector| Selector::try_from(selector.clone()).ok());
    parsed.is_some_and(|selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSelectorTerm;

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
