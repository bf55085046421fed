//! DefaultTolerationSeconds: pods stay for a while, five minutes by default, on a node that is
//! lost.

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};
use serde_json::{Value, json};

pub(super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if !attributes.is(Operation::Create, "pods") && !attributes.is(Operation::Update, "pods") {
        return Ok(());
    }
    let own = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let tolerated = |taint: &str| {
        own.iter().any(|toleration| {
            let key = toleration["key"].as_str().unwrap_or_default();
            let effect = toleration["effect"].as_str().unwrap_or_default();
            (key == taint || key.is_empty()) && matches!(effect, "NoExecute" | "")
        })
    };
    let patience = attributes.cluster.tolerations();
    let taints = [
        ("node.kubernetes.io/not-ready", patience.not_ready_seconds),
        ("node.kubernetes.io/unreachable", patience.unreachable_seconds),
    ];
    let missing = taints.iter().filter(|(taint, _)| !tolerated(taint));
    let missing: Vec<Value> = missing
        .map(|(taint, seconds)| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}))
        .collect();
    if !missing.is_empty() {
        let all: Vec<Value> = own.into_iter().chain(missing).collect();
        meta::member(pod, "spec").insert("tolerations".to_owned(), all.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, create};

    #[test]
    fn adds_what_is_not_tolerated_yet() {
        let tolerations = |own: Value| {
            let mut pod =
                json!({"metadata": {"name": "a", "namespace": "x"}, "spec": {"tolerations": own}});
            create(admit, &Few::default(), ("", "v1", "pods"), &mut pod).unwrap();
            pod["spec"]["tolerations"].as_array().unwrap().len()
        };
        assert_eq!(tolerations(Value::Null), 2);
        assert_eq!(
            tolerations(json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}])),
            2
        );
        assert_eq!(tolerations(json!([{"operator": "Exists"}])), 1);
    }
}
