//! How much of the cluster has fallen silent at once. When everything has, the fault is more
//! likely ours than theirs, and nobody is evicted; when most of a small zone has, no further
//! pods are sent to the few boards that are left. The thresholds are upstream's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::is_ready;

/// Labels that name the zone of a node.
const ZONE_LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];
/// A node with this label does not count.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
/// A zone is disrupted when more nodes than these are not ready...
const FEW_NODES: usize = 2;
/// ... and they are at least this share of it, in percent.
const UNHEALTHY_PERCENT: usize = 55;
/// A zone of more nodes than these goes on evicting while it is disrupted.
const LARGE_ZONE_NODES: usize = 50;

/// What evictions a node's trouble may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disruption {
    /// Its pods are evicted.
    Normal,
    /// Most of its zone is in trouble: no further nodes' pods are evicted.
    Partial,
    /// No node of the cluster is well: nobody is evicted, and evictions announced are taken back.
    Full,
}

/// The zone of a node; nodes without labels are in one zone.
fn zone(node: &Node) -> [&str; 2] {
    ZONE_LABELS.map(|label| node.labels().get(label).map(String::as_str).unwrap_or_default())
}

/// How `node` stands among `nodes`; of the node itself its newest state counts.
pub fn disruption<'a>(node: &'a Node, nodes: impl Iterator<Item = &'a Node>) -> Disruption {
    let others = nodes.filter(|other| other.name_any() != node.name_any());
    let counted = others.chain([node]).filter(|node| !node.labels().contains_key(EXCLUDED));
    let mut zones: BTreeMap<[&str; 2], (usize, usize)> = BTreeMap::new();
    for node in counted {
        let (ready, not_ready) = zones.entry(zone(node)).or_default();
        *if is_ready(node) { ready } else { not_ready } += 1;
    }
    if zones.values().all(|(ready, _)| *ready == 0) {
        return Disruption::Full;
    }
    let (ready, not_ready) = zones.get(&zone(node)).copied().unwrap_or_default();
    let all = ready + not_ready;
    let most = not_ready > FEW_NODES && not_ready * 100 >= all * UNHEALTHY_PERCENT;
    match most && ready > 0 && all <= LARGE_ZONE_NODES {
        true => Disruption::Partial,
        false => Disruption::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Nodes as text: `+` ready, `-` not; a zone a word. The last one is judged.
    fn judge(text: &str) -> Disruption {
        let mut nodes: Vec<Node> = Vec::new();
        for (number, zone) in text.split(' ').enumerate() {
            for sign in zone.chars() {
                let status = if sign == '+' { "True" } else { "Unknown" };
                let name = format!("n{}", nodes.len());
                let node = json!({
                    "metadata": {"name": name, "labels": {ZONE_LABELS[1]: number.to_string()}},
                    "status": {"conditions": [{"type": "Ready", "status": status}]},
                });
                nodes.push(serde_json::from_value(node).expect("a node"));
            }
        }
        disruption(nodes.last().expect("nodes"), nodes.iter())
    }

    #[test]
    fn the_share_of_silent_nodes_decides() {
        for (nodes, expected) in [
            ("-", Disruption::Full),
            ("---", Disruption::Full),
            ("-- ---", Disruption::Full),
            ("++-", Disruption::Normal),
            // Two of three are only few.
            ("+--", Disruption::Normal),
            ("++---", Disruption::Partial),
            ("+++---", Disruption::Normal),
            ("+ ---", Disruption::Normal),
            ("+ +---", Disruption::Partial),
        ] {
            assert_eq!(judge(nodes), expected, "{nodes}");
        }
        let large = format!("{}{}", "+".repeat(20), "-".repeat(40));
        assert_eq!(judge(&large), Disruption::Normal);
    }
}
