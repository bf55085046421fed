//! What a drill would do to which board, in which order, or why the cluster could not take it: a
//! pure decision over what was found.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// A board on which a drill's own pods can run while another is out.
const MIN_BOARDS: usize = 2;

/// What is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The agent of a board that is no server: it reaches no server, its pods run on
    Agent,
    /// The API and the datastore of a server; the board's pods run on
    Server,
    /// A whole board: as if its cable had been pulled
    Network,
    /// The board that holds the virtual address: as if its cable had been pulled
    Vip,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Agent => "agent",
            Kind::Server => "server",
            Kind::Network => "network",
            Kind::Vip => "vip",
        })
    }
}

/// A board as it was found.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// The name of its Node.
    pub name: String,
    /// Whether the cluster calls it ready.
    pub ready: bool,
    /// Whether pods may be placed on it.
    pub schedulable: bool,
    /// Whether it is a server.
    pub server: bool,
    /// Whether it takes part in drills.
    pub willing: bool,
    /// Whether it holds the virtual address.
    pub holds_address: bool,
    /// Whether the drill is run from it.
    pub here: bool,
}

/// What is wished.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What to take out.
    pub kinds: Vec<Kind>,
    /// Of which boards; none named: of all.
    pub boards: Vec<String>,
    /// How long each is out.
    pub outage: Duration,
    /// Whether there is a virtual address.
    pub address: bool,
}

/// One board taken out once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What of it.
    pub kind: Kind,
    /// The board; the holder of the virtual address is only known when it is time.
    pub board: String,
    /// For how long.
    pub outage: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (board, seconds) = (&self.board, self.outage.as_secs());
        match self.kind {
            Kind::Agent => write!(f, "{board}: its agent reaches no server for {seconds} s"),
            Kind::Server => write!(f, "{board}: its API and datastore are away for {seconds} s"),
            Kind::Network => write!(f, "{board}: cut off from all others for {seconds} s"),
            Kind::Vip => {
                write!(f, "{board}, which holds the virtual address: cut off for {seconds} s")
            }
        }
    }
}

/// Why there is no drill, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: String,
    /// The next step.
    pub hint: String,
}

fn refuse(reason: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), hint: hint.into() }
}

/// The steps, or all reasons against them.
pub fn plan(boards: &[Board], wish: &Wish) -> Result<Vec<Step>, Vec<Refusal>> {
    let mut refusals = sound(boards, wish);
    let mut steps = Vec::new();
    for kind in &wish.kinds {
        for board in boards.iter().filter(|board| concerns(*kind, board, wish)) {
            refusals.extend(against(*kind, board, boards));
            steps.push(Step { kind: *kind, board: board.name.clone(), outage: wish.outage });
        }
    }
    if steps.is_empty() && refusals.is_empty() {
        let hint = "`kubectl get nodes` lists the boards, --only says what to take out of them";
        refusals.push(refuse("there is nothing of that kind to take out", hint));
    }
    refusals.dedup();
    if refusals.is_empty() { Ok(steps) } else { Err(refusals) }
}

/// Whether a kind of fault means this board.
fn concerns(kind: Kind, board: &Board, wish: &Wish) -> bool {
    let named = wish.boards.is_empty() || wish.boards.contains(&board.name);
    named
        && match kind {
            Kind::Agent => !board.server,
            Kind::Server => board.server,
            Kind::Network => true,
            Kind::Vip => board.holds_address,
        }
}

/// What speaks against any drill at all.
fn sound(boards: &[Board], wish: &Wish) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for board in boards.iter().filter(|board| !board.ready) {
        refusals.push(refuse(
            format!("{} is not ready: a second board out could be one too many", board.name),
            format!("see `kubectl describe node {}`, and come back when it is well", board.name),
        ));
    }
    for name in wish.boards.iter().filter(|name| !boards.iter().any(|b| b.name == **name)) {
        refusals
            .push(refuse(format!("there is no board {name}"), "`kubectl get nodes` lists them"));
    }
    if wish.kinds.contains(&Kind::Vip) && wish.address && !boards.iter().any(|b| b.holds_address) {
        refusals.push(refuse(
            "no board holds the virtual address",
            "see the log of the servers, or leave it out with --only",
        ));
    }
    if boards.iter().filter(|board| board.ready && board.schedulable).count() < MIN_BOARDS {
        refusals.push(refuse(
            "pods can run on one board only: with that one out there is nowhere to go",
            "join a second board, or `kubectl uncordon` one",
        ));
    }
    refusals
}

/// What speaks against taking out this of that board.
fn against(kind: Kind, board: &Board, boards: &[Board]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let name = &board.name;
    if !board.willing {
        refusals.push(refuse(
            format!("{name} takes part in no drill"),
            "leave out --disable-drill there, or name the others with --node",
        ));
    }
    let servers = boards.iter().filter(|board| board.server).count();
    let takes_server = board.server && kind != Kind::Agent;
    if takes_server && servers == 1 {
        refusals.push(refuse(
            format!("{name} is the only server: without it nothing answers"),
            "add two servers, or take out agents only with --only agent",
        ));
    } else if takes_server && servers - 1 < servers / 2 + 1 {
        refusals.push(refuse(
            format!(
                "without {name} the {servers} servers have no majority, and nothing is written"
            ),
            "add a server: an odd number of at least three survives the loss of one",
        ));
    }
    if matches!(kind, Kind::Network | Kind::Vip) && board.here {
        refusals.push(refuse(
            format!("the drill is run from {name}, which would cut itself off"),
            "run it from another machine with --kubeconfig, or name other boards with --node",
        ));
    }
    refusals
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boards as text: a name and letters, s(erver), h(olds the address), here (H), not ready (n),
    /// unwilling (u), cordoned (c).
    fn boards(text: &str) -> Vec<Board> {
        text.split(' ')
            .map(|word| {
                let (name, flags) = word.split_once(':').unwrap_or((word, ""));
                let has = |flag| flags.contains(flag);
                Board {
                    name: name.to_owned(),
                    ready: !has('n'),
                    schedulable: !has('c'),
                    server: has('s'),
                    willing: !has('u'),
                    holds_address: has('h'),
                    here: has('H'),
                }
            })
            .collect()
    }

    fn judge(text: &str, kinds: &[Kind], named: &[&str]) -> String {
        let wish = Wish {
            kinds: kinds.to_vec(),
            boards: named.iter().map(|name| (*name).to_owned()).collect(),
            outage: Duration::from_secs(20),
            address: text.contains(":sh"),
        };
        match plan(&boards(text), &wish) {
            Ok(steps) => {
                let step = |step: &Step| format!("{} {}", step.kind, step.board);
                steps.iter().map(step).collect::<Vec<_>>().join(", ")
            }
            Err(refusals) => {
                let reasons: Vec<String> = refusals.into_iter().map(|r| r.reason).collect();
                format!("no: {}", reasons.join("; "))
            }
        }
    }

    const ALL: [Kind; 4] = [Kind::Agent, Kind::Server, Kind::Network, Kind::Vip];

    #[test]
    fn each_board_in_turn_by_kind() {
        assert_eq!(
            judge("a:sh b:s c:s d", &ALL, &[]),
            "agent d, server a, server b, server c, network a, network b, network c, network d, \
             vip a"
        );
        assert_eq!(judge("a:s b:s c:s d", &ALL, &["d"]), "agent d, network d");
        assert_eq!(judge("a:sH b:s c:s", &[Kind::Server], &[]), "server a, server b, server c");
    }

    #[test]
    fn what_the_cluster_could_not_take() {
        for (cluster, kinds, reason) in [
            ("a:s b", &[Kind::Server][..], "a is the only server: without it nothing answers"),
            (
                "a:s b:s",
                &[Kind::Server],
                "without a the 2 servers have no majority, and nothing is written; without b the 2 servers have no majority, and nothing is written",
            ),
            (
                "a:s b:s c:sn",
                &[Kind::Vip],
                "c is not ready: a second board out could be one too many",
            ),
            (
                "a:s b:sc c:sc",
                &[Kind::Server],
                "pods can run on one board only: with that one out there is nowhere to go",
            ),
            (
                "a:sH b:s c:s",
                &[Kind::Network],
                "the drill is run from a, which would cut itself off",
            ),
            ("a:s b:s c:su", &[Kind::Server], "c takes part in no drill"),
            ("a:s b:s c:s", &[Kind::Agent], "there is nothing of that kind to take out"),
        ] {
            assert_eq!(judge(cluster, kinds, &[]), format!("no: {reason}"), "{cluster}");
        }
        assert_eq!(judge("a:s b", &[Kind::Agent], &[]), "agent b");
        assert_eq!(judge("a:s b", &[Kind::Agent], &["x"]), "no: there is no board x");
    }
}
