//! What a node's agent may do: the rules of `system:node`, narrowed for secrets, config maps,
//! volumes and tokens to what pods bound to that node refer to.
//!
//! Upstream keeps a graph of these references. Here the pods of the node are looked through
//! when the question comes up, which is when a pod starts: a scan of the memory index.

use serde_json::Value;
use store::{Page, Range, Store};

use super::rbac::Rule;
use super::{Attributes, Decision};
use crate::bootstrap::policy;
use crate::objects;
use crate::user::User;

/// Where agents keep their leases.
const LEASES: &str = "kube-node-lease";

/// The node behind a user, if it is one.
pub(crate) fn node_name(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    (!name.is_empty() && user.in_group("system:nodes")).then_some(name)
}

/// Decides for users that are nodes; has no opinion on others.
pub(crate) struct NodeAuthorizer {
    store: Store,
    rules: Vec<Rule>,
}

impl NodeAuthorizer {
    pub(crate) fn new(store: Store) -> Self {
        NodeAuthorizer { store, rules: policy::node_rules() }
    }

    pub(crate) fn authorize(&self, want: &Attributes) -> Decision {
        let Some(node) = node_name(want.user) else { return Decision::default() };
        if !self.rules.iter().any(|rule| rule.allows(want)) {
            return Decision::default();
        }
        let refers = Reference::of(want);
        let related = match (want.resource, &refers) {
            ("persistentvolumes", _) => self.volume_in_use(node, want.name),
            ("leases", _) => {
                want.namespace == LEASES && (want.verb == "create" || want.name == node)
            }
            ("volumeattachments", _) => self.attached(node, want.name),
            ("pods", _) => self.own_pods(node, want),
            ("csinodes", _) => want.verb == "create" || want.name == node,
            (_, Some(reference)) => {
                !want.name.is_empty() && self.pods_refer(node, want.namespace, reference, want.name)
            }
            _ => true,
        };
        if related {
            return Decision::allow(String::new());
        }
        let reason = format!("no relationship found between node '{node}' and this object");
        Decision::no_opinion(reason)
    }

    /// Whether the claim that a volume is bound to is mounted by a pod of the node.
    fn volume_in_use(&self, node: &str, volume: &str) -> bool {
        let Some(volume) = objects::object(&self.store, "persistentvolumes", "", volume) else {
            return false;
        };
        let claim = &volume["spec"]["claimRef"];
        match (claim["namespace"].as_str(), claim["name"].as_str()) {
            (Some(namespace), Some(name)) => {
                self.pods_refer(node, namespace, &Reference::CLAIM, name)
            }
            _ => false,
        }
    }

    fn attached(&self, node: &str, name: &str) -> bool {
        objects::object(&self.store, "storage.k8s.io/volumeattachments", "", name)
            .is_some_and(|attachment| attachment["spec"]["nodeName"] == node)
    }

    /// Of all pods a node reads its own: one by its name, many by the selector that names the
    /// node. What it writes is admission's business.
    fn own_pods(&self, node: &str, want: &Attributes) -> bool {
        match want.verb {
            "list" | "watch" => want.selectors.pinned("spec.nodeName") == Some(node),
            "get" => objects::object(&self.store, "pods", want.namespace, want.name)
                .is_some_and(|pod| pod["spec"]["nodeName"] == node),
            _ => true,
        }
    }

    fn pods_refer(&self, node: &str, namespace: &str, kind: &Reference, name: &str) -> bool {
        let range = Range { collection: "pods", namespace: Some(namespace) };
        let Ok(pods) = self.store.list(range, Page::default()) else { return false };
        pods.entries.iter().any(|entry| {
            // Most pods do not name the object at all, and need not be parsed to see that.
            contains(&entry.value, name.as_bytes())
                && serde_json::from_slice::<Value>(&entry.value)
                    .is_ok_and(|pod| pod["spec"]["nodeName"] == node && kind.in_pod(&pod, name))
        })
    }
}

/// What of the cluster a pod's spec refers to, in upstream's words; `None` for nothing.
pub(crate) fn referred(spec: &Value) -> Option<&'static str> {
    let of_kind = |reference: &Reference| reference.in_any(spec);
    [
        (Reference::SECRET, "secrets"),
        (Reference::CONFIG_MAP, "configmaps"),
        (Reference::CLAIM, "persistentvolumeclaims"),
    ]
    .iter()
    .find(|(reference, _)| of_kind(reference))
    .map(|(_, what)| *what)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|window| window == needle)
}

/// How a pod's spec refers to an object of some kind.
struct Reference {
    /// Members whose text is the name.
    text: &'static [&'static str],
    /// Members whose value, or each of whose values, has the name as its member `name`.
    named: &'static [&'static str],
}

impl Reference {
    const SECRET: Reference = Reference {
        text: &["secretName"],
        named: &["secret", "secretRef", "secretKeyRef", "nodePublishSecretRef", "imagePullSecrets"],
    };
    const CONFIG_MAP: Reference =
        Reference { text: &[], named: &["configMap", "configMapRef", "configMapKeyRef"] };
    const CLAIM: Reference = Reference { text: &["claimName"], named: &[] };
    const ACCOUNT: Reference = Reference { text: &["serviceAccountName"], named: &[] };

    fn of(want: &Attributes) -> Option<Reference> {
        match (want.group, want.resource) {
            ("", "secrets") => Some(Self::SECRET),
            ("", "configmaps") => Some(Self::CONFIG_MAP),
            ("", "persistentvolumeclaims") => Some(Self::CLAIM),
            ("", "serviceaccounts") => Some(Self::ACCOUNT),
            _ => None,
        }
    }

    fn in_pod(&self, pod: &Value, name: &str) -> bool {
        self.in_value(&pod["spec"], name) || self.generated_claim(pod, name)
    }

    fn in_value(&self, value: &Value, name: &str) -> bool {
        match value {
            Value::Array(items) => items.iter().any(|item| self.in_value(item, name)),
            Value::Object(members) => members.iter().any(|(key, value)| {
                let key = key.as_str();
                (self.text.contains(&key) && value == name)
                    || (self.named.contains(&key)
                        && (value["name"] == name
                            || value.as_array().is_some_and(|items| {
                                items.iter().any(|item| item["name"] == name)
                            })))
                    || self.in_value(value, name)
            }),
            _ => false,
        }
    }

    /// Whether anything is referred to that way.
    fn in_any(&self, value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(|item| self.in_any(item)),
            Value::Object(members) => members.iter().any(|(key, value)| {
                let key = key.as_str();
                self.text.contains(&key) || self.named.contains(&key) || self.in_any(value)
            }),
            _ => false,
        }
    }

    /// The claim of an ephemeral volume is named after pod and volume.
    fn generated_claim(&self, pod: &Value, name: &str) -> bool {
        let own = pod["metadata"]["name"].as_str().unwrap_or_default();
        self.text.contains(&"claimName")
            && pod["spec"]["volumes"].as_array().is_some_and(|volumes| {
                volumes.iter().any(|volume| {
                    volume["ephemeral"].is_object()
                        && volume["name"].as_str().is_some_and(|v| format!("{own}-{v}") == name)
                })
            })
    }
}
