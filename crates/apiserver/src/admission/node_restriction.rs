//! NodeRestriction: a node's agent writes its own Node, its own pods' state and its own leases,
//! so that a board that was broken into does not take the others with it.

use std::collections::BTreeSet;

use super::{Attributes, Operation};
use crate::authz::node_name;
use crate::registry::{Outcome, meta};
use crate::user::User;
use api::resource::Resource;
use api::status::Status;
use serde_json::Value;

/// Where agents keep their leases.
const LEASES: &str = "kube-node-lease";
/// Marks a pod that mirrors one which the agent runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels of Kubernetes' own that a node may set on itself (upstream's list), names and prefixes.
/// All others of those domains are for administrators and controllers: fences and roles.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) fn admit(attributes: &Attributes<'_>, object: &mut Value) -> Outcome<()> {
    check(attributes, Some(object))
}

pub(super) fn admit_delete(attributes: &Attributes<'_>) -> Outcome<()> {
    check(attributes, None)
}

/// A node evicts its own pods only.
pub(super) fn admit_eviction(user: &User, resource: &Resource, pod: &Value) -> Outcome<()> {
    match node_name(user) {
        Some(node) if pod["spec"]["nodeName"] != node => {
            let why = format!("node {node} can only evict pods with spec.nodeName set to itself");
            Err(Status::forbidden(resource, meta::name(pod), &why))
        }
        _ => Ok(()),
    }
}

fn check(attributes: &Attributes<'_>, new: Option<&Value>) -> Outcome<()> {
    let Some(node) = node_name(attributes.user) else { return Ok(()) };
    let refused = match attributes.resource.collection() {
        "pods" => pod(node, attributes, new),
        "nodes" => own_node(node, attributes, new),
        "coordination.k8s.io/leases" => lease(node, attributes, new),
        "resource.k8s.io/resourceslices" => slice(node, attributes, new),
        "storage.k8s.io/csinodes" if attributes.name != node => Some(format!(
            "can only access CSINode with the same name as the requesting node {node:?}"
        )),
        _ => None,
    };
    match refused {
        Some(why) => Err(Status::forbidden(attributes.resource, attributes.name, &why)),
        None => Ok(()),
    }
}

fn pod(node: &str, attributes: &Attributes<'_>, new: Option<&Value>) -> Option<String> {
    let bound = |pod: Option<&Value>| pod.is_some_and(|pod| pod["spec"]["nodeName"] == node);
    match attributes.operation {
        Operation::Create => {
            let pod = new?;
            if !pod["metadata"]["annotations"][MIRROR].is_string() {
                return Some(format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                ));
            }
            if !bound(Some(pod)) {
                return Some(format!(
                    "node {node:?} can only create pods with spec.nodeName set to itself"
                ));
            }
            mirror(node, pod)
        }
        Operation::Update if relabelled(attributes.old, new) => {
            Some(format!("node {node:?} cannot update labels through pod status"))
        }
        Operation::Update => (!bound(attributes.old)).then(|| {
            format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            )
        }),
        Operation::Delete => (!bound(attributes.old)).then(|| {
            format!("node {node:?} can only delete pods with spec.nodeName set to itself")
        }),
        Operation::Connect => None,
    }
}

fn own_node(node: &str, attributes: &Attributes<'_>, new: Option<&Value>) -> Option<String> {
    if attributes.name != node {
        let name = attributes.name;
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let new = new?;
    // Beyond upstream's rules: whose the pod addresses are is what the other boards route by.
    let blocks = |node: Option<&Value>| {
        let spec = node.map(|node| &node["spec"]);
        ["podCIDR", "podCIDRs"].map(|f| spec.map_or(Value::Null, |spec| spec[f].clone()))
    };
    if attributes.subresource.is_empty() && blocks(attributes.old) != blocks(Some(new)) {
        return Some(format!("node {node:?} is not allowed to modify podCIDRs"));
    }
    let Some(old) = attributes.old else {
        return changed_labels(None, new).map(|labels| {
            format!("node {node:?} is not allowed to set the following labels: {labels}")
        });
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let taints = |node: &Value| list(&node["spec"]["taints"]);
    // A node that could lift its taints could draw any pod to itself.
    if attributes.subresource.is_empty() && taints(old) != taints(new) {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    let owners = |node: &Value| list(&node["metadata"]["ownerReferences"]);
    if owners(old) != owners(new) {
        return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    changed_labels(Some(old), new)
        .map(|labels| format!("is not allowed to modify labels: {labels}"))
}

/// The reserved labels that differ, if any do.
fn changed_labels(old: Option<&Value>, new: &Value) -> Option<String> {
    let labels = |object: Option<&Value>| -> Vec<(String, Value)> {
        let labels = object.and_then(|object| object["metadata"]["labels"].as_object());
        let fenced = labels.into_iter().flatten().filter(|(key, _)| is_reserved(key));
        fenced.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let (before, after) = (labels(old), labels(Some(new)));
    let changed: BTreeSet<&str> = before
        .iter()
        .chain(&after)
        .filter(|label| !(before.contains(label) && after.contains(label)))
        .map(|(key, _)| key.as_str())
        .collect();
    let changed: Vec<&str> = changed.into_iter().collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}

/// Whether a label of a node is for administrators and controllers alone.
fn is_reserved(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let below = |domain: &str, parent: &str| {
        domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let of_kubernetes = below(domain, "kubernetes.io") || below(domain, "k8s.io");
    let own = OWN_LABELS.contains(&label) || OWN_PREFIXES.iter().any(|own| below(domain, own));
    of_kubernetes && !own
}

/// What a pod that a node runs by itself must not refer to, since it would get at it that way.
fn mirror(node: &str, pod: &Value) -> Option<String> {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    if owners.into_iter().flatten().any(|owner| owner["kind"] != "Node" || owner["name"] != node) {
        return Some(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|account| !account.is_empty()) {
        return Some(format!("node {node:?} can not create pods that reference a service account"));
    }
    let what = crate::authz::referred(&pod["spec"])?;
    Some(format!("node {node:?} can not create pods that reference {what}"))
}

fn relabelled(old: Option<&Value>, new: Option<&Value>) -> bool {
    let labels = |object: Option<&Value>| {
        let labels = object.and_then(|object| object["metadata"]["labels"].as_object());
        labels.cloned().unwrap_or_default()
    };
    labels(old) != labels(new)
}

fn slice(node: &str, attributes: &Attributes<'_>, new: Option<&Value>) -> Option<String> {
    let foreign =
        |slice: Option<&Value>| slice.is_some_and(|slice| slice["spec"]["nodeName"] != node);
    (foreign(attributes.old) || foreign(new)).then(|| {
        format!("node {node:?} can only access ResourceSlices with spec.nodeName set to itself")
    })
}

fn lease(node: &str, attributes: &Attributes<'_>, new: Option<&Value>) -> Option<String> {
    if attributes.namespace != LEASES {
        return Some(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    let name = new.map_or(attributes.name, meta::name);
    (name != node).then(|| {
        format!("can only access node lease with the same name as the requesting node {node:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};
    use crate::user::User;
    use serde_json::json;

    fn said(operation: Operation, plural: &str, old: Option<Value>, new: Value) -> String {
        let group = if plural == "leases" { "coordination.k8s.io" } else { "" };
        let shown = old.as_ref().unwrap_or(&new);
        let (cluster, user) = (Few::default(), User::node("a"));
        let mut attributes = attributes(&cluster, (group, "v1", plural), meta::namespace(shown));
        attributes.operation = operation;
        attributes.name = meta::name(shown);
        attributes.user = &user;
        attributes.old = old.as_ref();
        match operation {
            Operation::Delete => admit_delete(&attributes),
            _ => admit(&attributes, &mut new.clone()),
        }
        .map_or_else(|status| status.message, |()| "ok".to_owned())
    }

    #[test]
    fn pods_of_others_are_out_of_reach() {
        let pod = |node: &str| json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeName": node}});
        let mut mirror = pod("a");
        mirror["metadata"]["annotations"][MIRROR] = "x".into();
        let mut greedy = mirror.clone();
        greedy["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
        let mut labelled = pod("a");
        labelled["metadata"]["labels"]["app"] = "x".into();
        for (operation, old, new, expected) in [
            (Operation::Create, None, mirror, "ok"),
            (
                Operation::Create,
                None,
                pod("a"),
                "pods \"p\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, node \"a\" can only create mirror pods",
            ),
            (
                Operation::Create,
                None,
                greedy,
                "pods \"p\" is forbidden: node \"a\" can not create pods that reference secrets",
            ),
            (
                Operation::Update,
                Some(pod("a")),
                labelled,
                "pods \"p\" is forbidden: node \"a\" cannot update labels through pod status",
            ),
            (Operation::Update, Some(pod("a")), pod("a"), "ok"),
            (
                Operation::Update,
                Some(pod("b")),
                pod("a"),
                "pods \"p\" is forbidden: node \"a\" can only update pod status for pods with spec.nodeName set to itself",
            ),
            (Operation::Delete, Some(pod("a")), Value::Null, "ok"),
            (
                Operation::Delete,
                Some(pod("b")),
                Value::Null,
                "pods \"p\" is forbidden: node \"a\" can only delete pods with spec.nodeName set to itself",
            ),
        ] {
            assert_eq!(said(operation, "pods", old, new), expected);
        }
    }

    #[test]
    fn a_node_evicts_its_own_pods_only() {
        let resource = api::resource::find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "a"}});
        let said = |user: &User| admit_eviction(user, resource, &pod).map_err(|e| e.message);
        assert_eq!(said(&User::node("a")), Ok(()));
        assert_eq!(said(&User::admin()), Ok(()));
        assert_eq!(
            said(&User::node("b")),
            Err("pods \"p\" is forbidden: node b can only evict pods with spec.nodeName set to itself".into())
        );
    }

    #[test]
    fn a_node_is_its_own_only() {
        let node = |name: &str, label: &str, taints: Value| json!({"metadata": {"name": name, "labels": {label: "x"}}, "spec": {"taints": taints}});
        let plain = node("a", "disk", json!([]));
        let tainted = node("a", "disk", json!([{"key": "k", "effect": "NoSchedule"}]));
        let fenced = node("a", "node-restriction.kubernetes.io/x", json!([]));
        let master = node("a", "node-role.kubernetes.io/control-plane", json!([]));
        let owned = json!({"metadata": {"name": "a", "labels": {"disk": "x"}, "ownerReferences": [{"name": "b"}]}});
        let other = node("b", "disk", json!([]));
        let update = |old: &Value, new: &Value| {
            said(Operation::Update, "nodes", Some(old.clone()), new.clone())
        };
        assert_eq!(said(Operation::Create, "nodes", None, tainted.clone()), "ok");
        assert_eq!(update(&plain, &plain), "ok");
        for label in ["topology.kubernetes.io/zone", "node.kubernetes.io/x", "kubernetes.io/os"] {
            assert_eq!(said(Operation::Create, "nodes", None, node("a", label, json!([]))), "ok");
        }
        assert_eq!(
            said(Operation::Create, "nodes", None, master),
            "nodes \"a\" is forbidden: node \"a\" is not allowed to set the following labels: node-role.kubernetes.io/control-plane"
        );
        let mut routed = plain.clone();
        routed["spec"]["podCIDR"] = "10.42.9.0/24".into();
        for (operation, old) in
            [(Operation::Create, None), (Operation::Update, Some(plain.clone()))]
        {
            assert_eq!(
                said(operation, "nodes", old, routed.clone()),
                "nodes \"a\" is forbidden: node \"a\" is not allowed to modify podCIDRs"
            );
        }
        assert_eq!(
            update(&plain, &owned),
            "nodes \"a\" is forbidden: node \"a\" is not allowed to modify ownerReferences"
        );
        assert_eq!(
            update(&other, &other),
            "nodes \"b\" is forbidden: node \"a\" is not allowed to modify node \"b\""
        );
        assert_eq!(
            update(&tainted, &plain),
            "nodes \"a\" is forbidden: node \"a\" is not allowed to modify taints"
        );
        assert_eq!(
            update(&plain, &fenced),
            "nodes \"a\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x"
        );
    }

    #[test]
    fn a_lease_is_its_own_only() {
        let lease = |namespace: &str, name: &str| json!({"metadata": {"name": name, "namespace": namespace}});
        assert_eq!(said(Operation::Create, "leases", None, lease(LEASES, "a")), "ok");
        assert!(said(Operation::Create, "leases", None, lease(LEASES, "b")).contains("same name"));
        assert!(
            said(Operation::Create, "leases", None, lease("d", "a")).contains("kube-node-lease")
        );
    }
}
