//! `matchLabelKeys` and `mismatchLabelKeys` of a pod's affinity and spreading: a new pod's own values of
//! these labels become part of the selectors beside them, where they stay what they are, whatever
//! becomes of its labels.

use serde_json::{Value, json};

/// The lists of keys of a term, and what a pod's value comes to.
const KEYS: [(&str, &str); 2] = [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")];

/// Completes the selectors of a new pod.
pub fn merge(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = pod.get_mut("spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = format!("/affinity/{kind}");
        let Some(affinity) = spec.pointer_mut(&path) else { continue };
        for (list, inner) in [
            ("preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm"),
            ("requiredDuringSchedulingIgnoredDuringExecution", ""),
        ] {
            let terms = affinity.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            terms
                .filter_map(|term| term.pointer_mut(inner))
                .for_each(|term| complete(term, &labels));
        }
    }
    let spread = spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut);
    spread.into_iter().flatten().for_each(|constraint| complete(constraint, &labels));
}

/// Without a selector no pod is meant, and none with keys either.
fn complete(term: &mut Value, labels: &Value) {
    let mut more = Vec::new();
    for (list, operator) in KEYS {
        for key in term[list].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                more.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let Some(selector) =
        term.get_mut("labelSelector").filter(|s| s.is_object() && !more.is_empty())
    else {
        return;
    };
    match selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
        Some(expressions) => expressions.append(&mut more),
        None => selector["matchExpressions"] = more.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_own_labels_complete_its_selectors() {
        let pod: fn(&str) -> Value = |term| {
            let text = format!(
                "
metadata: {{labels: {{app: a, rev: '7'}}}}
spec:
  affinity:
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution: [{term}]
      preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 1, podAffinityTerm: {term}}}]
  topologySpreadConstraints: [{term}]"
            );
            serde_saphyr::from_str(&text).expect("a pod")
        };
        let merged = |term: &str| {
            let mut pod = pod(term);
            merge(&mut pod);
            let anti = &pod["spec"]["affinity"]["podAntiAffinity"];
            let required = &anti["requiredDuringSchedulingIgnoredDuringExecution"][0];
            let preferred = &anti["preferredDuringSchedulingIgnoredDuringExecution"][0];
            assert_eq!(required, &preferred["podAffinityTerm"]);
            assert_eq!(required, &pod["spec"]["topologySpreadConstraints"][0]);
            required["labelSelector"].to_string()
        };
        assert_eq!(
            merged(
                "{labelSelector: {matchLabels: {x: z}}, matchLabelKeys: [rev, none], mismatchLabelKeys: [app]}"
            ),
            r#"{"matchLabels":{"x":"z"},"matchExpressions":[{"key":"rev","operator":"In","values":["7"]},{"key":"app","operator":"NotIn","values":["a"]}]}"#
        );
        assert_eq!(
            merged(
                "{labelSelector: {matchExpressions: [{key: x, operator: Exists}]}, matchLabelKeys: [rev]}"
            ),
            r#"{"matchExpressions":[{"key":"x","operator":"Exists"},{"key":"rev","operator":"In","values":["7"]}]}"#
        );
        assert_eq!(merged("{matchLabelKeys: [rev]}"), "null", "nothing stays nothing");
        assert_eq!(merged("{labelSelector: {}, matchLabelKeys: [none]}"), "{}");
    }
}
