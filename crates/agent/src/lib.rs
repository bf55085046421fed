//! The kubelet's job: pods on this node.
