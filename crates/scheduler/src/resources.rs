//! How much a pod is taken to need when nodes are scored.

pub use api::placement::requests::{Resources, allocatable, requests};
use api::placement::requests::{requested, total};
use k8s_openapi::api::core::v1::PodSpec;

/// What a container that asks for nothing is taken to need when nodes are scored (not when
/// they are filtered), upstream's values: else all such pods would end up on one node.
const DEFAULT_CPU_MILLIS: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// As `requests`, for scoring: CPU and memory that nobody asked for are guessed.
pub fn requests_for_scoring(spec: &PodSpec) -> Resources {
    total(spec, |container| {
        let mut amounts = requested(container.resources.as_ref());
        amounts.0.entry("cpu".into()).or_insert(DEFAULT_CPU_MILLIS);
        amounts.0.entry("memory".into()).or_insert(DEFAULT_MEMORY_BYTES);
        amounts
    })
}
