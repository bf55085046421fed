//! What `kubectl describe node` tells of a node's life. Pure.
//!
//! A kubelet tells all of it again at each start; here only what has changed is told, since each
//! event is a write to somebody's card.

use client::EventKind;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus, ObjectReference};

/// An event about a node.
#[derive(Debug, PartialEq)]
pub struct News {
    /// How it is meant.
    pub kind: EventKind,
    /// Upstream's reason.
    pub reason: &'static str,
    /// Upstream's words.
    pub note: String,
}

/// Reasons by condition: where it holds and where it does not.
const CONDITIONS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ("Ready", "NodeReady", "NodeNotReady"),
];

/// A node as events refer to it: kubelets use the name also where others use the UID, and readers
/// ask for both.
pub fn reference(node: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    }
}

/// What is new in `status` since `old`; without one, the node is new.
pub fn of_status(node: &str, old: Option<&NodeStatus>, status: &NodeStatus) -> Vec<News> {
    let find = |status: &NodeStatus, kind: &str| -> Option<NodeCondition> {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|condition| condition.type_ == kind).cloned()
    };
    let mut news = Vec::new();
    let boot = |status: &NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.clone());
    if let (Some(before), Some(now)) = (old.and_then(boot), boot(status))
        && before != now
        && !before.is_empty()
    {
        let note = format!("Node {node} has been rebooted, boot id: {now}");
        news.push(News { kind: EventKind::Warning, reason: "Rebooted", note });
    }
    for (kind, holds, fails) in CONDITIONS {
        let Some(now) = find(status, kind) else { continue };
        let before = old.and_then(|old| find(old, kind));
        if before.is_none_or(|before| before.status != now.status) {
            news.push(now_is(node, if now.status == "True" { holds } else { fails }));
        }
    }
    news
}

/// Whether pods may be sent here has changed.
pub fn of_cordon(node: &str, cordoned: bool) -> News {
    now_is(node, if cordoned { "NodeNotSchedulable" } else { "NodeSchedulable" })
}

fn now_is(node: &str, reason: &'static str) -> News {
    let note = format!("Node {node} status is now: {reason}");
    News { kind: EventKind::Normal, reason, note }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(boot: &str, conditions: &[(&str, &str)]) -> NodeStatus {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status)| json!({"type": kind, "status": status}))
            .collect();
        serde_json::from_value(json!({"conditions": conditions, "nodeInfo": {
            "architecture": "", "bootID": boot, "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "",
            "osImage": "", "systemUUID": ""}}))
        .unwrap()
    }

    fn told(old: Option<&NodeStatus>, new: &NodeStatus) -> Vec<String> {
        of_status("n", old, new).into_iter().map(|n| format!("{:?} {}", n.kind, n.note)).collect()
    }

    #[test]
    fn only_changes_are_told() {
        let well = status(
            "one",
            &[("MemoryPressure", "False"), ("DiskPressure", "False"), ("Ready", "True")],
        );
        assert_eq!(
            told(None, &well),
            [
                "Normal Node n status is now: NodeHasSufficientMemory",
                "Normal Node n status is now: NodeHasNoDiskPressure",
                "Normal Node n status is now: NodeReady",
            ]
        );
        assert!(told(Some(&well), &well).is_empty());
        let ill = status(
            "two",
            &[("MemoryPressure", "True"), ("DiskPressure", "False"), ("Ready", "False")],
        );
        assert_eq!(
            told(Some(&well), &ill),
            [
                "Warning Node n has been rebooted, boot id: two",
                "Normal Node n status is now: NodeHasInsufficientMemory",
                "Normal Node n status is now: NodeNotReady",
            ]
        );
        // A node that was silent has conditions that nobody could vouch for.
        let silent = status("two", &[("MemoryPressure", "Unknown"), ("Ready", "Unknown")]);
        let back = status("two", &[("MemoryPressure", "False"), ("Ready", "True")]);
        assert_eq!(
            told(Some(&silent), &back),
            [
                "Normal Node n status is now: NodeHasSufficientMemory",
                "Normal Node n status is now: NodeReady",
            ]
        );
        assert_eq!(of_cordon("n", true).note, "Node n status is now: NodeNotSchedulable");
    }
}
