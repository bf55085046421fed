//! What a stack will be, reckoned from its file alone: what would not work is told before anything is
//! bought or plugged in. [`Plan::of`] is a pure function; [`Plan::report`] is what people read, and the
//! plan itself, as JSON, what programs do.

mod boards;
mod money;
mod network;
mod power;
mod quorum;
mod render;
mod report;
mod storage;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::config::Cluster;

pub use boards::BoardPlan;
pub use network::NetworkPlan;
pub use power::{Draw, Fed, PowerPlan, Running};
pub use quorum::Quorum;
pub use render::{Section, Style};
pub use storage::Wear;

/// What a stack will be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The cluster's name.
    pub cluster: String,
    /// How many servers there are and may fail.
    pub quorum: Quorum,
    /// What each board does, and what is left on it for workloads.
    pub boards: Vec<BoardPlan>,
    /// What is written to each board's storage, and how long it lasts.
    pub storage: Vec<Wear>,
    /// Networks and addresses.
    pub network: NetworkPlan,
    /// What is drawn, from what, and what it costs.
    pub power: PowerPlan,
    /// What was found wanting: warnings first, then errors.
    pub findings: Vec<Finding>,
}

/// Something that a person should know before going on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a board, a supply, or the cluster.
    pub about: String,
    /// What is wrong, and why.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It works, and not as well as it could.
    Warning,
    /// It will not work.
    Error,
}

impl Finding {
    fn warning(
        about: impl Into<String>,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (about, reason, advice) = (about.into(), reason.into(), advice.into());
        Finding { level: Level::Warning, about, reason, advice }
    }

    fn error(
        about: impl Into<String>,
        reason: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding { level: Level::Error, ..Finding::warning(about, reason, advice) }
    }
}

impl Plan {
    /// Reckons what a stack will be.
    pub fn of(cluster: &Cluster) -> Plan {
        let mut findings = Vec::new();
        let quorum = Quorum::of(cluster, &mut findings);
        let boards = boards::plan(cluster, &mut findings);
        let storage = storage::plan(cluster, &mut findings);
        let network = NetworkPlan::of(cluster, &mut findings);
        let power = PowerPlan::of(cluster, &mut findings);
        // Each part lists its own in the order of the boards, which stays.
        findings.sort_by_key(|finding| finding.level);
        let cluster = cluster.name.clone();
        Plan { cluster, quorum, boards, storage, network, power, findings }
    }

    /// Whether something will not work.
    pub fn fails(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Error)
    }
}
