//! How much a pod is taken to need when nodes are filtered and scored.

use api::placement::requests::counted;
pub use api::placement::requests::{Resources, allocatable};
use client::Pod;

/// What a container that asks for nothing is taken to need when nodes are scored (not when
/// they are filtered), upstream's values: else all such pods would end up on one node.
const DEFAULT_CPU_MILLIS: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// What a pod needs.
pub fn requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    counted(spec, pod.status.as_ref(), |list| list.map(Resources::of).unwrap_or_default())
}

/// As `requests`, for scoring: CPU and memory that nobody asked for are guessed.
pub fn requests_for_scoring(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    counted(spec, pod.status.as_ref(), |list| {
        let mut amounts = list.map(Resources::of).unwrap_or_default();
        amounts.0.entry("cpu".into()).or_insert(DEFAULT_CPU_MILLIS);
        amounts.0.entry("memory".into()).or_insert(DEFAULT_MEMORY_BYTES);
        amounts
    })
}
