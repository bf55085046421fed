//! What a write through a view changes: its own part, and nothing else.

use super::{copy_member, drop_member, set_member, set_metadata};
use crate::resource::Resource;
use serde_json::{Value, json};

const SIGNING_REQUESTS: &str = "certificates.k8s.io/certificatesigningrequests";

/// Reduces `new` to what a write through `subresource` may change of `old`.
pub(super) fn narrow(resource: &Resource, subresource: &str, new: &mut Value, old: &Value) {
    match subresource {
        "status" => status(resource, new, old),
        "approval" => approval(new, old),
        "ephemeralcontainers" => ephemeral_containers(new, old),
        "finalize" => finalize(new, old),
        "resize" => resize(new, old),
        // The server builds these from the live object; there is nothing foreign in them.
        "binding" => {}
        _ => {
            if resource.subresource("status").is_some() {
                copy_member(new, old, "status");
            }
            if matches!(resource.collection(), "namespaces" | SIGNING_REQUESTS) {
                copy_member(new, old, "spec");
            }
        }
    }
}

/// `old` with what any writer of a view says of itself in `metadata`.
fn based_on(old: &Value, new: &Value) -> Value {
    let mut object = old.clone();
    for field in ["resourceVersion", "uid", "managedFields", "name", "namespace"] {
        set_metadata(&mut object, field, new["metadata"][field].clone());
    }
    object
}

/// The same with labels, annotations and finalizers, which some views write along.
fn annotated(old: &Value, new: &Value) -> Value {
    let mut object = based_on(old, new);
    for field in ["labels", "annotations", "finalizers"] {
        set_metadata(&mut object, field, new["metadata"][field].clone());
    }
    object
}

/// Kinds of whose metadata a status brings nothing along.
const BARE_STATUS: &[&str] = &[
    "admissionregistration.k8s.io/validatingadmissionpolicies",
    "apiextensions.k8s.io/customresourcedefinitions",
    "apiregistration.k8s.io/apiservices",
    "flowcontrol.apiserver.k8s.io/flowschemas",
    "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
    "resource.k8s.io/resourceclaims",
    "storage.k8s.io/volumeattachments",
];

/// The status, and with most kinds labels, annotations and finalizers: kubelets and node
/// controllers write those along with it.
fn status(resource: &Resource, new: &mut Value, old: &Value) {
    let bare = resource.custom.is_some() || BARE_STATUS.contains(&resource.collection());
    let mut object = if bare { based_on(old, new) } else { annotated(old, new) };
    match new.get("status") {
        Some(status) => set_member(&mut object, "status", status.clone()),
        None => drop_member(&mut object, "status"),
    }
    // A pod's class is settled when it is made; old kubelets leave it out.
    let class = &old["status"]["qosClass"];
    if resource.collection() == "pods"
        && object["status"]["qosClass"].is_null()
        && !class.is_null()
        && let Some(status) = object["status"].as_object_mut()
    {
        status.insert("qosClass".to_owned(), class.clone());
    }
    if resource.collection() == SIGNING_REQUESTS {
        keep_approval(&mut object, old);
    }
    *new = object;
}

/// A signer's write neither approves nor denies: where it tries to, no condition changes.
fn keep_approval(request: &mut Value, old: &Value) {
    let of = |object: &Value| -> Vec<Value> {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let judgement = |c: &Value| matches!(c["type"].as_str(), Some("Approved" | "Denied"));
        conditions.into_iter().filter(judgement).collect()
    };
    let types = |list: &[Value]| list.iter().map(|c| c["type"].clone()).collect::<Vec<_>>();
    let (new, before) = (of(request), of(old));
    if new != before && request["status"].is_object() {
        let mut conditions = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if types(&new) == types(&before) {
            let all = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let judged = |c: &Value| matches!(c["type"].as_str(), Some("Approved" | "Denied"));
            conditions = before;
            conditions.extend(all.into_iter().filter(|c| !judged(c)));
        }
        request["status"]["conditions"] = conditions.into();
    }
}

/// Conditions of a CertificateSigningRequest, written by whoever may approve it.
fn approval(new: &mut Value, old: &Value) {
    let mut object = annotated(old, new);
    let mut status = old.get("status").cloned().unwrap_or_else(|| json!({}));
    copy_member(&mut status, &new["status"], "conditions");
    set_member(&mut object, "status", status);
    *new = object;
}

fn ephemeral_containers(new: &mut Value, old: &Value) {
    let mut object = based_on(old, new);
    copy_member(&mut object["spec"], &new["spec"], "ephemeralContainers");
    *new = object;
}

/// The finalizers of a namespace, its spec's and its metadata's.
fn finalize(new: &mut Value, old: &Value) {
    let mut object = based_on(old, new);
    let finalizers = new["spec"]["finalizers"].clone();
    let spec = if finalizers.is_null() { json!({}) } else { json!({"finalizers": finalizers}) };
    set_member(&mut object, "spec", spec);
    set_metadata(&mut object, "finalizers", new["metadata"]["finalizers"].clone());
    *new = object;
}

/// Resources and resize policies of the containers that are there already. Where containers
/// were added, removed or renamed the new state is left as it is, for validation to refuse.
fn resize(new: &mut Value, old: &Value) {
    let names = |pod: &Value, list: &str| -> Vec<Value> {
        pod["spec"][list].as_array().into_iter().flatten().map(|c| c["name"].clone()).collect()
    };
    let lists = ["containers", "initContainers"];
    if lists.iter().any(|list| names(new, list) != names(old, list)) {
        return;
    }
    let mut object = based_on(old, new);
    for list in lists {
        let wanted = new["spec"][list].as_array().cloned().unwrap_or_default();
        let kept = object["spec"].get_mut(list).and_then(Value::as_array_mut);
        for (container, wanted) in kept.into_iter().flatten().zip(&wanted) {
            copy_member(container, wanted, "resources");
            copy_member(container, wanted, "resizePolicy");
        }
    }
    *new = object;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    #[test]
    fn each_view_writes_its_own_part() {
        let pods = find("", "v1", "pods").unwrap();
        let old = json!({"metadata": {"name": "p", "labels": {"a": "1"}}, "status": {"phase": "Pending"},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "resources": {"cpu": 1}}]}});
        let wanted = json!({"metadata": {"name": "p", "labels": {"a": "2"}}, "status": {"phase": "Running"},
            "spec": {"nodeName": "m", "ephemeralContainers": [{"name": "e"}],
                "containers": [{"name": "c", "image": "j", "resources": {"cpu": 2}}]}});
        let written = |subresource: &str| {
            let mut new = wanted.clone();
            narrow(pods, subresource, &mut new, &old);
            let c = &new["spec"]["containers"][0];
            format!(
                "{} {} {} {} {} {}",
                new["metadata"]["labels"]["a"],
                new["status"]["phase"],
                new["spec"]["nodeName"],
                c["image"],
                c["resources"]["cpu"],
                new["spec"]["ephemeralContainers"].is_array()
            )
        };
        assert_eq!(written("status"), r#""2" "Running" "n" "i" 1 false"#);
        assert_eq!(written("ephemeralcontainers"), r#""1" "Pending" "n" "i" 1 true"#);
        assert_eq!(written("resize"), r#""1" "Pending" "n" "i" 2 false"#);
        assert_eq!(written(""), r#""2" "Pending" "m" "j" 2 true"#);
    }

    #[test]
    fn some_statuses_bring_no_labels() {
        let old = json!({"metadata": {"name": "a"}});
        let wanted = json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "status": {"x": 1}});
        for (group, plural, expected) in [
            ("apps", "deployments", json!({"a": "b"})),
            ("apiextensions.k8s.io", "customresourcedefinitions", Value::Null),
            ("storage.k8s.io", "volumeattachments", Value::Null),
        ] {
            let mut new = wanted.clone();
            narrow(find(group, "v1", plural).unwrap(), "status", &mut new, &old);
            assert_eq!(new["metadata"]["labels"], expected, "{plural}");
            assert_eq!(new["status"], json!({"x": 1}));
        }
    }
}
