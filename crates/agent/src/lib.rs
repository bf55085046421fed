//! The kubelet's job: pods on this node.
//!
//! [`run`] registers the node, starts a worker per pod, serves the kubelet's API and keeps
//! services and DNS of the node in step with the cluster. Decisions are pure functions in
//! [`pod`]; workers carry them out through `runtime` and `net`.

mod agent;
mod config;
mod context;
mod evict;
mod gc;
mod lifecycle;
mod logs;
mod manager;
mod network;
mod node;
mod objects;
mod overuse;
pub mod pod;
mod probe;
mod quantity;
mod refusals;
mod server;
mod shutdown;
mod volumes;
mod worker;

pub use agent::{AgentError, NodeNetwork, pod_cidrs, register, run};
pub use config::{Config, Eviction, ImageGc};
pub use context::Attach;
pub use network::NetworkParts;
pub use shutdown::Periods as ShutdownPeriods;
