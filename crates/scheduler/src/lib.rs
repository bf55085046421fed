//! The scheduler: pods that have no node get the best of those that can take them.
//!
//! `decide` is pure: a pod and a snapshot in, a node or the reasons out; `filters` and
//! `scores` are its two tables. `queue` orders what waits, `driver` keeps the snapshot, binds,
//! and wakes what a change may have made schedulable.

mod decide;
mod driver;
mod filters;
mod interpod;
mod matching;
mod preempt;
mod queue;
mod resources;
mod scores;
mod snapshot;
mod spread;

pub use decide::{Unschedulable, decide};
pub use driver::run;
pub use snapshot::{NodeInfo, PodInfo, Snapshot};

/// Settings of the scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { scheduler_name: "default-scheduler".into() }
    }
}
