//! PodNodeSelector: pods of a namespace run on the nodes that the namespace's annotation names.

use std::collections::BTreeMap;

use api::status::Status;
use serde_json::Value;

use super::super::{Attributes, Operation};
use super::annotation;
use crate::registry::{Outcome, meta};

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// Of namespaces that name none.
const DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// Labels written as `a=b,c=d`.
fn labels(text: &str) -> Labels {
    let terms = text.split(',').filter_map(|term| term.split_once('='));
    terms.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

fn own(pod: &Value) -> Labels {
    let selector = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    selector.map(|(key, value)| (key.clone(), text(value))).collect()
}

fn refused(attributes: &Attributes<'_>, pod: &Value, why: &str) -> Status {
    Status::forbidden(attributes.resource, meta::name(pod), why)
}

/// Adds what the namespace asks for.
pub(in super::super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if !attributes.is(Operation::Create, "pods") {
        return Ok(());
    }
    let selectors = &attributes.cluster.plugins().node_selectors;
    let wanted = annotation(attributes, ANNOTATION).or_else(|| selectors.get(DEFAULT).cloned());
    let wanted = labels(&wanted.unwrap_or_default());
    let mut all = own(pod);
    if wanted.iter().any(|(key, value)| all.get(key).is_some_and(|given| given != value)) {
        let why = "pod node label selector conflicts with its namespace node label selector";
        return Err(refused(attributes, pod, why));
    }
    all.extend(wanted);
    if !all.is_empty() {
        let all = all.into_iter().map(|(key, value)| (key, value.into()));
        meta::member(pod, "spec").insert("nodeSelector".to_owned(), Value::Object(all.collect()));
    }
    check(attributes, pod)
}

/// Holds a pod against the nodes that its namespace may use.
pub(in super::super) fn check(attributes: &Attributes<'_>, pod: &Value) -> Outcome<()> {
    if !attributes.is(Operation::Create, "pods") {
        return Ok(());
    }
    let allowed = attributes.cluster.plugins().node_selectors.get(attributes.namespace);
    let allowed = labels(allowed.map_or("", String::as_str));
    let within = own(pod).iter().all(|(key, value)| allowed.get(key) == Some(value));
    if allowed.is_empty() || within {
        return Ok(());
    }
    let why = "pod node label selector labels conflict with its namespace whitelist";
    Err(refused(attributes, pod, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, create};
    use serde_json::json;

    #[test]
    fn the_namespace_says_where_its_pods_run() {
        let mut cluster = Few::default().with(
            "namespaces",
            json!({"metadata": {"name": "x", "annotations": {ANNOTATION: "disk=ssd"}}}),
        );
        cluster.1.node_selectors = [("x".to_owned(), "disk=ssd,zone=a".to_owned())].into();
        let say = |selector: Value| {
            let mut pod = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {"nodeSelector": selector}});
            match create(admit, &cluster, ("", "v1", "pods"), &mut pod) {
                Ok(()) => pod["spec"]["nodeSelector"].to_string(),
                Err(status) => status.message,
            }
        };
        assert_eq!(say(json!({"zone": "a"})), r#"{"disk":"ssd","zone":"a"}"#);
        assert!(
            say(json!({"disk": "sd"}))
                .ends_with("conflicts with its namespace node label selector")
        );
        assert!(say(json!({"other": "x"})).ends_with("conflict with its namespace whitelist"));
    }
}
