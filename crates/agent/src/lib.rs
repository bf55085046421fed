//! The kubelet's job: pods on this node.

pub mod pod;
mod quantity;
