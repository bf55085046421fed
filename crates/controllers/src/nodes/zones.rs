//! How much of the cluster has fallen silent at once. When everything has, the fault is more
//! likely ours than theirs, and nobody is evicted; when most of a small zone has, no further
//! pods are sent to the few boards that are left. Between the two, nodes lose their pods one after
//! the other: a fault that takes several boards is often over before the last of them has its turn.
//! Thresholds and rates are upstream's.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::is_ready;

/// Labels that name the zone of a node.
const ZONE_LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];
/// A node with this label does not count.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
/// A zone is disrupted when more nodes than these are not ready...
const FEW_NODES: usize = 2;

/// How fast nodes may lose their pods.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvictionRates {
    /// Nodes of a zone a second, as long as most of the zone is well.
    pub normal: f64,
    /// Nodes of a large zone a second, while it is disrupted; in a smaller one none.
    pub secondary: f64,
    /// A zone is disrupted when at least this share of it is not ready.
    pub unhealthy_share: f64,
    /// A zone of more nodes than these is large.
    pub large_zone_nodes: u32,
}

impl Default for EvictionRates {
    fn default() -> Self {
        EvictionRates { normal: 0.1, secondary: 0.01, unhealthy_share: 0.55, large_zone_nodes: 50 }
    }
}

impl EvictionRates {
    /// The time from one node of a zone to its next; none: no further node loses its pods.
    pub fn pace(&self, disruption: Disruption) -> Option<SignedDuration> {
        let rate = match disruption {
            Disruption::Normal => self.normal,
            Disruption::Partial { nodes } if nodes > self.large_zone_nodes as usize => {
                self.secondary
            }
            Disruption::Partial { .. } | Disruption::Full => 0.0,
        };
        (rate > 0.0).then(|| SignedDuration::try_from_secs_f64(rate.recip()).ok()).flatten()
    }
}

/// What evictions a node's trouble may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disruption {
    /// Its pods are evicted when it is its turn.
    Normal,
    /// Most of its zone is in trouble: evictions slow down where it is large, else no further
    /// nodes' pods are evicted.
    Partial {
        /// Nodes of the zone.
        nodes: usize,
    },
    /// No node of the cluster is well: nobody is evicted, and evictions announced are taken back.
    Full,
}

/// The zone of a node; nodes without labels are in one zone.
pub fn zone(node: &Node) -> [&str; 2] {
    ZONE_LABELS.map(|label| node.labels().get(label).map(String::as_str).unwrap_or_default())
}

/// How `node` stands among `nodes`; of the node itself its newest state counts.
pub fn disruption<'a>(
    node: &'a Node,
    nodes: impl Iterator<Item = &'a Node>,
    rates: &EvictionRates,
) -> Disruption {
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
    let most = not_ready > FEW_NODES && not_ready as f64 >= all as f64 * rates.unhealthy_share;
    match most && ready > 0 {
        true => Disruption::Partial { nodes: all },
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
        let rates = EvictionRates::default();
        disruption(nodes.last().expect("nodes"), nodes.iter(), &rates)
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
            ("++---", Disruption::Partial { nodes: 5 }),
            ("+++---", Disruption::Normal),
            ("+ ---", Disruption::Normal),
            ("+ +---", Disruption::Partial { nodes: 4 }),
        ] {
            assert_eq!(judge(nodes), expected, "{nodes}");
        }
    }

    #[test]
    fn one_node_after_the_other_loses_its_pods() {
        let rates = EvictionRates::default();
        let never = EvictionRates { normal: 0.0, ..rates };
        for (rates, disruption, seconds) in [
            (rates, Disruption::Normal, Some(10)),
            (rates, Disruption::Partial { nodes: 50 }, None),
            (rates, Disruption::Partial { nodes: 51 }, Some(100)),
            (rates, Disruption::Full, None),
            (never, Disruption::Normal, None),
        ] {
            let expected = seconds.map(SignedDuration::from_secs);
            assert_eq!(rates.pace(disruption), expected, "{disruption:?}");
        }
    }
}
