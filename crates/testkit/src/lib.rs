//! For tests only: a cluster in the test's own process, with nodes that only pretend.

mod cluster;
mod config;
mod datastore;
pub mod history;
mod node;
mod servers;

pub use cluster::Cluster;
pub use datastore::{Datastore, Member};
pub use node::FakeNode;
pub use servers::{Server, Servers};
