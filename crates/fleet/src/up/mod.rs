//! Bringing boards to what `cluster.yaml` says: what is found on them, the difference to what should
//! be as a list of steps that can be printed, and a driver that takes the steps. Each step may be taken
//! again, leaves a whole file or none, and a run that was interrupted is finished by the next.

mod address;
mod binaries;
mod difference;
mod disk;
mod drive;
mod plan;
mod progress;
mod refuse;
mod step;
mod survey;
#[cfg(test)]
mod tests;
mod upgrade;
mod wireless;

pub use binaries::{Binaries, Binary, beside, how_to_get};
pub use drive::{Driver, Outcome, restart, wait_ready};
pub use plan::{BoardPlan, Plan, Secrets, plan};
pub use progress::{Event, Lines, Live, Progress};
pub use step::{Step, TokenKind};
pub use survey::{Asked, Found, ask, survey};
pub use upgrade::{Turn, upgrade_order};
pub use wireless::uplink_passphrase;

/// A Node, as `coracle board nodes` prints it on a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// What its agent says that it is.
    pub version: String,
    /// Whether it takes no more pods.
    pub unschedulable: bool,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Its taints, as kubectl writes them.
    pub taints: Vec<String>,
    /// Labels that `up` has given it.
    pub managed_labels: Vec<String>,
    /// Taints that `up` has given it.
    pub managed_taints: Vec<String>,
}

/// What a Node is told, as `coracle board node NAME` reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NodeChange {
    /// Labels that it should have.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Labels that it should have no longer.
    pub remove_labels: Vec<String>,
    /// Taints that it should have.
    pub taints: Vec<String>,
    /// Taints that it should have no longer.
    pub remove_taints: Vec<String>,
}
