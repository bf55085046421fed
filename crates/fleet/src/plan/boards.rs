use serde::Serialize;

use super::Finding;
use crate::config::{Architecture, Board, Cluster, Role};
use crate::hardware::{self, Computer};

/// What each board does, and what is left on it for workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BoardPlan {
    /// Its name.
    pub name: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// Its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its instruction set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// Its cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// What Coracle takes of it.
    pub coracle_mib: u64,
    /// What is left for pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_mib: Option<u64>,
    /// What is left of its processor for pods, in thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_millicores: Option<u32>,
    /// It switches other boards' power.
    pub switches_power: bool,
}

/// What the system takes: kernel, systemd, sshd and the share of the graphics unit of a Raspberry Pi OS
/// Lite. An estimate, on the careful side.
pub(super) const SYSTEM_MIB: u64 = 200;
/// What the node keeps free before it counts as under pressure (`--eviction-hard`).
pub(super) const KEPT_FREE_MIB: u64 = 100;
/// A server with its agent on SQLite, idle, measured (bench/RESULTS.md).
const SERVER_SQLITE_MIB: u64 = 36;
/// A server with its agent and etcd, idle, measured (bench/RESULTS-boards.md).
const SERVER_ETCD_MIB: u64 = 98;
/// An agent with ten pods: the promise, which is not measured yet.
const AGENT_MIB: u64 = 34;
/// What the system takes of a processor at idle. An estimate.
pub(super) const SYSTEM_MILLICORES: u32 = 20;
/// An idle server takes 0.02 s a minute where it is measured (bench/RESULTS.md), a third of a
/// thousandth of a core; a board's core is a tenth as fast.
const SERVER_MILLICORES: u32 = 5;
/// With etcd, which is not measured by itself. An estimate.
const ETCD_MILLICORES: u32 = 30;
/// An agent does less than a server.
const AGENT_MILLICORES: u32 = 5;
/// Below this a board is taken up by itself.
const LITTLE_LEFT_MIB: u64 = 128;

pub(super) fn plan(cluster: &Cluster, findings: &mut Vec<Finding>) -> Vec<BoardPlan> {
    cluster.boards.iter().map(|board| one(cluster, board, findings)).collect()
}

fn one(cluster: &Cluster, board: &Board, findings: &mut Vec<Finding>) -> BoardPlan {
    let found = board.model.as_deref().and_then(|model| hardware::find(cluster, model));
    let computer = found.and_then(|found| found.computer);
    let (coracle_mib, millicores) = takes(cluster, board);
    let memory_mib = computer.map(|computer| computer.memory_mib).filter(|mib| *mib > 0);
    let taken = SYSTEM_MIB + KEPT_FREE_MIB + coracle_mib;
    let left_mib = memory_mib.map(|memory| memory.saturating_sub(taken));
    let plan = BoardPlan {
        name: board.name.clone(),
        roles: if board.roles.is_empty() { vec![Role::Agent] } else { board.roles.clone() },
        model: board.model.clone(),
        architecture: computer.map(|computer| computer.architecture),
        cores: computer.map(|computer| computer.cores).filter(|cores| *cores > 0),
        memory_mib,
        coracle_mib,
        left_mib,
        left_millicores: computer
            .filter(|computer| computer.cores > 0)
            .map(|computer| computer.cores.saturating_mul(1000) - SYSTEM_MILLICORES - millicores),
        switches_power: board.switches_power,
    };
    if let Some(computer) = computer {
        limits(board, &computer, findings);
    } else {
        let reason = "nothing is known of its processor, memory and power";
        let advice = "name its `model`, or describe it under `hardware`";
        findings.push(Finding::warning(&board.name, reason, advice));
    }
    if plan.runs_pods() && left_mib.is_some_and(|left| left < LITTLE_LEFT_MIB) {
        let left = left_mib.unwrap_or(0);
        let reason = format!(
            "{left} MiB are left for pods: of {} MiB the system takes about {SYSTEM_MIB}, Coracle \
             {coracle_mib}, and {KEPT_FREE_MIB} are kept free",
            memory_mib.unwrap_or(0)
        );
        let advice = match board.is_server() && cluster.runs_etcd() {
            true => "let a board with more memory be the server",
            false => "give it one or two small pods, or a taint that keeps others away",
        };
        let finding = if left == 0 { Finding::error } else { Finding::warning };
        findings.push(finding(board.name.clone(), reason, advice.to_owned()));
    }
    if board.switches_power && !board.is_server() && !board.is_router() {
        let reason = "it switches the others' power and is no server: when it is down nobody \
                      turns a server on again";
        let advice = "let the board that switches power be a server, and feed it by itself";
        findings.push(Finding::warning(&board.name, reason, advice));
    }
    plan
}

/// What Coracle takes of a board: MiB, and thousandths of a core.
fn takes(cluster: &Cluster, board: &Board) -> (u64, u32) {
    match (board.is_server(), board.is_agent(), cluster.runs_etcd()) {
        (true, _, true) => (SERVER_ETCD_MIB, ETCD_MILLICORES),
        (true, _, false) => (SERVER_SQLITE_MIB, SERVER_MILLICORES),
        (false, true, _) => (AGENT_MIB, AGENT_MILLICORES),
        (false, false, _) => (0, 0),
    }
}

impl BoardPlan {
    fn runs_pods(&self) -> bool {
        self.coracle_mib > 0
    }
}

/// What the processor allows.
fn limits(board: &Board, computer: &Computer, findings: &mut Vec<Finding>) {
    let name = &board.name;
    match computer.architecture {
        Architecture::Armv6 => {
            let reason = "its processor is an ARMv6, and neither Coracle nor most images are built \
                          for that";
            let advice = "take a Raspberry Pi Zero 2 W, 3, 4 or 5, or let it do something else";
            findings.push(Finding::error(name, reason, advice));
        }
        Architecture::Armv7 => {
            let reason = "its processor is a 32-bit ARMv7: Coracle has no ready-made binary for \
                          it, and many images have none either";
            let advice = "build for armv7-unknown-linux-musleabihf yourself, and look whether your \
                          images come for linux/arm/v7";
            findings.push(Finding::warning(name, reason, advice));
        }
        Architecture::Arm64 | Architecture::Amd64 => {}
    }
}
