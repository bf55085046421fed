//! What the switch drops, as data: computed from the faults, carried out by `network`.

use std::net::Ipv4Addr;

use crate::fault::Faults;
use crate::plan::{Board, Plan};

/// The machine that the sandbox runs on, where a board could be named.
pub(crate) const MACHINE: &str = "machine";

/// A frame or packet that is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    /// Whatever a port takes in.
    From { port: String },
    /// What passes from port to port within a segment.
    Between { from: String, to: String },
    /// What is routed from segment to segment.
    Routed { from: Ipv4Addr, to: Ipv4Addr },
}

/// The port of a board's cable at the switch.
pub(crate) fn port(board: &str) -> String {
    format!("p-{board}")
}

/// The port that joins the bridge for a board: its cable, or the relay that spoils it.
pub(crate) fn bridge_port(board: &str, faults: &Faults) -> String {
    match (board, faults.wires.contains_key(board)) {
        (MACHINE, _) => MACHINE.to_owned(),
        (_, true) => format!("b-{board}"),
        (_, false) => port(board),
    }
}

/// The relay's end towards the bridge.
pub(crate) fn relay_port(board: &str) -> String {
    format!("r-{board}")
}

/// Everything that the faults say is to be dropped.
pub(crate) fn drops(plan: &Plan, faults: &Faults) -> Vec<Drop> {
    let mute = faults.mute.iter().map(|board| Drop::From { port: bridge_port(board, faults) });
    let cuts = faults.cuts.iter().flat_map(|cut| {
        let between = Drop::Between {
            from: bridge_port(&cut.from, faults),
            to: bridge_port(&cut.to, faults),
        };
        let find = |name: &str| plan.boards.iter().find(|board| board.name == name);
        let routed = find(&cut.from).zip(find(&cut.to)).filter(|(a, b)| apart(a, b));
        let routed = routed.map(|(from, to)| Drop::Routed { from: from.address, to: to.address });
        [Some(between), routed].into_iter().flatten()
    });
    mute.chain(cuts).collect()
}

fn apart(a: &Board, b: &Board) -> bool {
    a.subnet != b.subnet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Options;

    #[test]
    fn a_cut_is_made_where_the_frames_pass() {
        let datastore = "etcd".to_owned();
        let options =
            Options { servers: 2, agents: 1, subnets: 2, vip: false, datastore, disk_mib: None };
        let plan = Plan::new("lab", options, String::new(), &[]).expect("a plan");
        let mut faults = Faults::default();
        faults.cut("server-1:server-2", true);
        faults.cut("agent-1:server-2", true);
        faults.cut("server-2", true);
        faults.cut("server-1:machine", true);
        faults.wire("server-2", |wire| wire.loss = 1);
        let shown: Vec<String> = drops(&plan, &faults)
            .iter()
            .map(|drop| match drop {
                Drop::From { port } => format!("all of {port}"),
                Drop::Between { from, to } => format!("{from} to {to}"),
                Drop::Routed { from, to } => format!("{from} to {to}"),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "all of b-server-2",
                "p-agent-1 to b-server-2",
                "10.87.1.13 to 10.87.0.12",
                "p-server-1 to machine",
                "p-server-1 to b-server-2",
            ]
        );
    }
}
