//! For tests only: a cluster in the test's own process, with nodes that only pretend.

mod cluster;
pub mod history;
mod node;

pub use cluster::Cluster;
pub use node::FakeNode;
