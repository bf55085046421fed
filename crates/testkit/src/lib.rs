//! For tests only: a cluster in the test's own process, with nodes that only pretend.

mod cluster;
mod node;

pub use cluster::Cluster;
pub use node::FakeNode;
