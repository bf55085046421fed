//! DefaultTolerationSeconds: pods stay five minutes on a node that is lost.

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};
use serde_json::{Value, json};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

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
    let missing: Vec<Value> = TAINTS
        .iter()
        .filter(|taint| !tolerated(taint))
        .map(|taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}))
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
