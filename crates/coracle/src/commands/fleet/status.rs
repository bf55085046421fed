//! `coracle status`.

use clap::Args;
use fleet::board::Service;
use fleet::up::{Asked, Found, Node};
use serde_json::json;

use super::crew::{Crew, Reach, together};
use crate::cli::Output;
use crate::commands::columns;
use crate::failure::{Failure, Outcome};

/// Options of `coracle status`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
    /// As a table or as JSON
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// What is shown of a board.
#[derive(Default)]
struct Row {
    board: String,
    role: &'static str,
    address: String,
    service: String,
    release: String,
    node: &'static str,
    memory: String,
    free: String,
    heat: String,
}

/// Prints a line a board; fails where one is away or not as it should be.
pub fn run(options: &Options) -> Outcome {
    let crew = Crew::open(&options.reach)?;
    let found = crew.survey(&crew.boards(), Asked::default());
    let nodes = nodes(&found);
    let rows: Vec<Row> = found.iter().map(|one| row(one, &nodes)).collect();
    match options.output {
        Output::Json => println!("{:#}", as_json(&rows)),
        Output::Table => println!("{}", as_table(&rows)),
    }
    let mut failures: Vec<Failure> = found
        .iter()
        .filter_map(|one| one.facts.as_ref().err())
        .cloned()
        .map(Failure::from)
        .collect();
    failures.extend(rows.iter().filter_map(ill));
    together("not all boards are well", failures)
}

/// What is wrong on a board that answers.
fn ill(row: &Row) -> Option<Failure> {
    let Row { board, service, node, .. } = row;
    let (what, hint) = match (service.as_str(), *node) {
        // That it is away is said already.
        ("away", _) => return None,
        ("none", _) => ("has no Coracle yet", "coracle up".to_owned()),
        ("inactive", _) => ("does not run", "coracle up".to_owned()),
        ("failed", _) => ("has failed", format!("coracle logs --board {board}")),
        (_, "NotReady") => ("is not ready", format!("coracle logs --board {board}")),
        _ => return None,
    };
    Some(Failure::new(format!("{board} {what}")).hint(hint))
}

/// The Nodes, as the first server that answers sees them.
fn nodes(found: &[Found]) -> Vec<Node> {
    let lists = found.iter().filter_map(|one| one.facts.as_ref().ok());
    lists
        .filter_map(|facts| serde_json::from_str(facts.get("nodes")).ok())
        .next()
        .unwrap_or_default()
}

fn row(one: &Found, nodes: &[Node]) -> Row {
    let board = one.board;
    let service = Service::of(board);
    let role = match service {
        Some(Service::Server) => "server",
        Some(Service::Agent) => "agent",
        None => "router",
    };
    let node = nodes.iter().find(|node| node.name == board.name);
    let node = match (node, service) {
        (Some(node), _) if node.ready && node.unschedulable => "Ready,SchedulingDisabled",
        (Some(node), _) if node.ready => "Ready",
        (Some(_), _) => "NotReady",
        (None, _) => "-",
    };
    let dash = || "-".to_owned();
    let mut row = Row {
        board: board.name.clone(),
        role,
        address: board.address.to_string(),
        service: "away".into(),
        release: dash(),
        node,
        memory: dash(),
        free: dash(),
        heat: dash(),
    };
    let Ok(facts) = &one.facts else { return row };
    row.service = match service {
        Some(service) => match facts.get(&format!("active.{}", service.unit())) {
            "" => "none".into(),
            state => state.to_owned(),
        },
        None => dash(),
    };
    if facts.has("release") {
        facts.get("release").clone_into(&mut row.release);
    }
    if let (Some(all), Some(free)) = (facts.memory(), facts.memory_available()) {
        row.memory = format!("{}/{} MiB", all.saturating_sub(free) >> 20, all >> 20);
    }
    if let Some(free) = facts.free() {
        row.free = format!("{:.1} GiB", free as f64 / f64::from(1 << 30));
    }
    if let Some(degrees) = facts.temperature() {
        row.heat = format!("{degrees:.0} °C");
    }
    row
}

fn as_table(rows: &[Row]) -> String {
    let head = ["BOARD", "ROLE", "ADDRESS", "SERVICE", "RELEASE", "NODE", "MEMORY", "FREE", "HEAT"];
    let lines = rows.iter().map(|row| {
        let Row { board, address, service, release, memory, free, heat, .. } = row;
        let cells: [&str; 9] =
            [board, row.role, address, service, release, row.node, memory, free, heat];
        cells.map(str::to_owned)
    });
    columns(&head.map(str::to_owned), lines)
}

fn as_json(rows: &[Row]) -> serde_json::Value {
    let one = |row: &Row| {
        json!({
            "board": row.board, "role": row.role, "address": row.address, "service": row.service,
            "release": row.release, "node": row.node, "memory": row.memory, "free": row.free,
            "temperature": row.heat,
        })
    };
    rows.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_that_does_not_run_is_not_well() {
        let said = |service: &str, node: &'static str| {
            let row = Row { board: "pi1".into(), service: service.into(), node, ..Row::default() };
            ill(&row)
                .map(|failure| format!("{failure}: {}", failure.next_step().unwrap_or_default()))
        };
        for (service, node, expected) in [
            ("active", "Ready", None),
            ("-", "-", None),
            ("away", "NotReady", None),
            ("none", "-", Some("pi1 has no Coracle yet: coracle up")),
            ("inactive", "Ready", Some("pi1 does not run: coracle up")),
            ("failed", "Ready", Some("pi1 has failed: coracle logs --board pi1")),
            ("active", "NotReady", Some("pi1 is not ready: coracle logs --board pi1")),
        ] {
            assert_eq!(said(service, node).as_deref(), expected, "{service} {node}");
        }
    }
}
