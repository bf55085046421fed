//! What a plan is made from besides the object's key.

use jiff::Timestamp;

use crate::Config;
use crate::world::{Moment, World};

pub use client::Key;

/// What went wrong the last time the plan for this key was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason given with the action, such as `FailedCreate`.
    pub reason: &'static str,
    /// The API server's answer.
    pub message: String,
}

/// Everything that a plan may look at.
pub struct Cx<'a> {
    /// The caches.
    pub world: &'a World,
    /// The time, for what others read.
    pub now: Timestamp,
    /// The time by our own steady clock, for measuring how long something lasts.
    pub moment: Moment,
    /// The cluster's settings.
    pub config: &'a Config,
    /// The last failure for this key, until the same plan succeeds.
    pub failure: Option<&'a Failure>,
}

impl Cx<'_> {
    /// What the clock will say at `moment`, if nobody sets it meanwhile.
    pub fn at(&self, moment: Moment) -> Timestamp {
        self.now.saturating_add(moment.since(self.moment)).unwrap_or(Timestamp::MAX)
    }
}
