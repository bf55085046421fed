//! Steps that are off unless somebody asks for them (`--enable-admission-plugins`).

mod event_rate;
mod image_policy;
mod images;
mod namespaces;
mod node_selector;
mod owners;
mod refusals;
mod resources;
mod tolerations;

use serde_json::Value;

use super::{Attributes, Operation};

pub(super) use event_rate::{EventLimits, admit as limit_events};
pub(super) use image_policy::{ImagePolicy, ImagePolicyOptions};
pub(super) use images::{admit as always_pull, check as check_pulled};
pub(super) use namespaces::exists;
pub(super) use node_selector::{admit as select_nodes, check as check_nodes};
pub(super) use owners::check as check_owners;
pub(super) use refusals::{deny, external_addresses, hard_anti_affinity};
pub(super) use resources::admit as tolerate_resources;
pub(super) use tolerations::{
    TolerationRestriction, admit as add_tolerations, check as check_tolerations,
};

/// Whether a pod is made or changed itself.
fn writes_pod(attributes: &Attributes<'_>) -> bool {
    attributes.is(Operation::Create, "pods") || attributes.is(Operation::Update, "pods")
}

/// The containers of a pod, with the list and the place where each stands.
fn containers(pod: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
    lists.flat_map(|list| {
        let all = pod["spec"][list].as_array().into_iter().flatten();
        all.enumerate().map(move |(index, one)| (list, index, one))
    })
}

/// What a namespace says in an annotation.
fn annotation(attributes: &Attributes<'_>, name: &str) -> Option<String> {
    let namespace = attributes.cluster.find("namespaces", "", attributes.namespace)?;
    namespace["metadata"]["annotations"][name].as_str().map(str::to_owned)
}
