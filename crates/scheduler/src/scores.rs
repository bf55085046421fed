//! Which of the nodes that can take the pod is best: a table of scores with upstream's weights.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::interpod;
use crate::matching;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use crate::spread::Spread;

/// The best a single score can say of a node.
const MAX_SCORE: f64 = 100.0;

/// Image sizes between which a node scores for having the pod's images (per container).
const IMAGE_MIN_BYTES: f64 = 23.0 * 1024.0 * 1024.0;
const IMAGE_MAX_BYTES: f64 = 1000.0 * 1024.0 * 1024.0;

/// What scores work out once for all nodes.
pub struct Prepared {
    spread: Spread,
    preferences: HashMap<(String, String), i64>,
    /// How many nodes have each image.
    image_nodes: HashMap<String, usize>,
    nodes: usize,
}

type Rate = fn(&PodInfo, &NodeInfo, &Prepared) -> Option<f64>;

/// How raw values become scores between 0 and 100.
#[derive(Clone, Copy)]
enum Scale {
    /// They are scores already.
    Absolute,
    /// The highest is best, zero or the lowest worst.
    Relative { from_zero: bool },
    /// The lowest is best; zero is always best.
    Inverse,
}

const SCORES: &[(u32, Scale, Rate)] = &[
    (3, Scale::Inverse, untolerated_preferences),
    (2, Scale::Relative { from_zero: true }, preferred_nodes),
    (1, Scale::Absolute, least_allocated),
    (2, Scale::Inverse, |_, node, prepared| prepared.spread.crowding(node)),
    (2, Scale::Relative { from_zero: false }, preferred_neighbours),
    (1, Scale::Absolute, balanced_allocation),
    (1, Scale::Absolute, image_locality),
];

impl Prepared {
    /// Looks at the whole cluster for one pod; `selector` selects its siblings (pods of the
    /// same service or set).
    pub fn new(pod: &PodInfo, snapshot: &Snapshot, selector: Option<&LabelSelector>) -> Self {
        let mut image_nodes: HashMap<String, usize> = HashMap::new();
        for (_, node) in snapshot.nodes() {
            for (name, _) in images(node) {
                *image_nodes.entry(name.to_owned()).or_default() += 1;
            }
        }
        Prepared {
            spread: Spread::soft(pod, snapshot, selector),
            preferences: interpod::preferences(pod, snapshot),
            image_nodes,
            nodes: snapshot.nodes().count(),
        }
    }
}

/// The weighted sum of all scores, for each node of `candidates`.
pub fn total(pod: &PodInfo, candidates: &[&NodeInfo], prepared: &Prepared) -> Vec<f64> {
    let mut totals = vec![0.0; candidates.len()];
    for (weight, scale, rate) in SCORES {
        let raw: Option<Vec<f64>> = candidates.iter().map(|n| rate(pod, n, prepared)).collect();
        let Some(raw) = raw else { continue };
        for (total, score) in totals.iter_mut().zip(scaled(&raw, *scale)) {
            *total += score * f64::from(*weight);
        }
    }
    totals
}

fn scaled(raw: &[f64], scale: Scale) -> Vec<f64> {
    let most = raw.iter().copied().fold(f64::MIN, f64::max);
    let least = raw.iter().copied().fold(f64::MAX, f64::min);
    let (floor, span) = match scale {
        Scale::Absolute => return raw.to_vec(),
        Scale::Relative { from_zero: true } | Scale::Inverse => (0.0, most),
        Scale::Relative { from_zero: false } => (least, most - least),
    };
    let rate = |value: &f64| match scale {
        Scale::Inverse if most <= 0.0 => MAX_SCORE,
        Scale::Inverse => MAX_SCORE * (most + least.min(most) - value).min(most) / most,
        _ if span <= 0.0 => 0.0,
        _ => MAX_SCORE * (value - floor) / span,
    };
    raw.iter().map(rate).collect()
}

/// Taints that would rather not have the pod.
fn untolerated_preferences(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Option<f64> {
    let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let tolerations = matching::tolerations(&pod.pod);
    let untolerated =
        soft.filter(|taint| !tolerations.iter().any(|t| matching::tolerates(t, taint)));
    Some(untolerated.count() as f64)
}

fn preferred_nodes(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Option<f64> {
    let affinity = pod.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
    let node = node.node.as_ref()?;
    let fulfilled = terms.iter().filter(|term| matching::term_matches(&term.preference, node));
    Some(fulfilled.map(|term| f64::from(term.weight)).sum())
}

/// The share of CPU and memory that would be used with the pod there.
fn shares(pod: &PodInfo, node: &NodeInfo) -> Vec<f64> {
    let share = |name: &str| {
        let allocatable = node.allocatable.get(name);
        let used = node.scored.get(name) + pod.scored.get(name);
        (allocatable > 0).then(|| (used as f64 / allocatable as f64).min(1.0))
    };
    ["cpu", "memory"].into_iter().filter_map(share).collect()
}

fn least_allocated(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Option<f64> {
    let shares = shares(pod, node);
    if shares.is_empty() {
        return Some(0.0);
    }
    let free: f64 = shares.iter().map(|share| (1.0 - share) * MAX_SCORE).sum();
    Some((free / shares.len() as f64).floor())
}

/// CPU and memory used to about the same share, so that neither runs out long before the other.
fn balanced_allocation(pod: &PodInfo, node: &NodeInfo, _: &Prepared) -> Option<f64> {
    let deviation = match shares(pod, node).as_slice() {
        [cpu, memory] => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    };
    Some(((1.0 - deviation) * MAX_SCORE).floor())
}

fn preferred_neighbours(_: &PodInfo, node: &NodeInfo, prepared: &Prepared) -> Option<f64> {
    if prepared.preferences.is_empty() {
        return None;
    }
    let here = prepared
        .preferences
        .iter()
        .filter(|((key, value), _)| node.label(key) == Some(value.as_str()));
    Some(here.map(|(_, weight)| *weight as f64).sum())
}

fn images(node: &NodeInfo) -> impl Iterator<Item = (&str, i64)> {
    let status = node.node.as_ref().and_then(|n| n.status.as_ref());
    let images = status.into_iter().flat_map(|s| s.images.iter().flatten());
    images.flat_map(|image| {
        let size = image.size_bytes.unwrap_or(0);
        image.names.iter().flatten().map(move |name| (name.as_str(), size))
    })
}

/// Large images that the node has already; the fewer nodes have them, the less they count,
/// so that not all pods gather where the image once was.
fn image_locality(pod: &PodInfo, node: &NodeInfo, prepared: &Prepared) -> Option<f64> {
    let spec = pod.pod.spec.as_ref()?;
    let wanted: Vec<String> = spec
        .containers
        .iter()
        .filter_map(|container| container.image.as_deref().map(normalized))
        .collect();
    let nodes = prepared.nodes.max(1) as f64;
    let there: f64 = images(node)
        .filter(|(name, _)| wanted.iter().any(|image| image == name))
        .map(|(name, size)| {
            let spread = prepared.image_nodes.get(name).copied().unwrap_or(0) as f64;
            size as f64 * spread / nodes
        })
        .sum();
    let most = IMAGE_MAX_BYTES * spec.containers.len().max(1) as f64;
    let share = (there.clamp(IMAGE_MIN_BYTES, most) - IMAGE_MIN_BYTES) / (most - IMAGE_MIN_BYTES);
    Some((share * MAX_SCORE).floor())
}

/// An image without a tag is `:latest`.
fn normalized(image: &str) -> String {
    match image.rsplit('/').next() {
        Some(last) if !last.contains([':', '@']) => format!("{image}:latest"),
        _ => image.to_owned(),
    }
}
