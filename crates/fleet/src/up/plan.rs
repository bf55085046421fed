use super::difference::{Token, difference, system};
use super::refuse::{refusals, unanswered};
use super::{Binaries, Binary, Found, Node, Step, TokenKind, binaries, wireless};
use crate::Trouble;
use crate::board::{Joining, Service, desired, read_config};
use crate::config::{Board, Cluster, Hidden};
use crate::facts::{Facts, Identity};
use crate::ssh::{Refusal, SshError, Target};

/// The port of the API unless `server.https-listen-port` names another.
const API_PORT: u16 = 6443;
/// Where a server keeps the tokens.
const SERVER_TOKEN: &str = "/var/lib/coracle/server/token";
const AGENT_TOKEN: &str = "/var/lib/coracle/server/agent-token";

/// What `cluster.yaml` names and must not be printed.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The cluster's token.
    pub token: Option<Hidden>,
    /// The URL of a datastore.
    pub endpoint: Option<Hidden>,
    /// The passphrase of the router board's Wi-Fi.
    pub wifi: Option<Hidden>,
}

/// What will be done, board by board: servers first, in the file's order.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The boards.
    pub boards: Vec<BoardPlan>,
    /// Boards that are away: all else goes on without them.
    pub away: Vec<SshError>,
    /// Why nobody can join yet: only what routes is set up.
    pub held: Vec<Trouble>,
    /// The server that tokens come from, and that knows the Nodes: one that is in the cluster, or the
    /// one that makes it.
    pub seed: Target,
}

/// What will be done on one board.
#[derive(Debug, Clone)]
pub struct BoardPlan {
    /// Its name.
    pub name: String,
    /// The way to it.
    pub target: Target,
    /// What it runs.
    pub service: Option<Service>,
    /// The steps.
    pub steps: Vec<Step>,
    /// Its start, to know the next from it.
    pub boot: (String, String),
    /// Whether its service runs already: then it restarts in its turn only.
    pub runs: bool,
}

impl BoardPlan {
    fn new(
        board: &Board,
        target: &Target,
        service: Option<Service>,
        steps: Vec<Step>,
        facts: &Facts,
    ) -> Self {
        let (boot, init) = facts.boot();
        Self {
            name: board.name.clone(),
            target: target.clone(),
            service,
            steps,
            boot: (boot.to_owned(), init.to_owned()),
            runs: service.is_some_and(|service| facts.is_active(service)),
        }
    }
}

impl Plan {
    /// Whether everything is as it should be.
    pub fn is_nothing(&self) -> bool {
        self.boards.iter().all(|board| board.steps.is_empty())
    }

    /// The plan for people.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for board in &self.boards {
            match board.steps.is_empty() {
                true => text.push_str(&format!("{}: no change\n", board.name)),
                false => text.push_str(&format!("{}:\n", board.name)),
            }
            text.extend(board.steps.iter().map(|step| format!("  + {step}\n")));
        }
        text.extend(self.away.iter().map(|error| format!("{error}\n")));
        text
    }
}

/// Decides what has to be done, or says all that stands in the way.
pub fn plan(
    cluster: &Cluster,
    found: &[Found],
    binaries: &Binaries,
    secrets: &Secrets,
    keys: &[String],
) -> Result<Plan, Vec<Trouble>> {
    let trouble = unanswered(found);
    if !trouble.is_empty() {
        return Err(trouble);
    }
    let there: Vec<(&Board, &Target, &Facts)> = found
        .iter()
        .filter_map(|found| Some((found.board, &found.target, found.facts.as_ref().ok()?)))
        .collect();
    let seed = match seed(cluster, &there) {
        Ok(seed) => seed,
        Err(held) => return routers(cluster, found, &there, binaries, secrets, held),
    };
    let identity = seed.facts.identity();
    let pairs: Vec<(&Board, &Facts)> =
        there.iter().map(|(board, _, facts)| (*board, *facts)).collect();
    let mut trouble = refusals(cluster, &pairs, identity.as_ref(), binaries);
    let none = Binary::default();
    let mut boards = Vec::new();
    let mut order = there.clone();
    // The seed first, then the other servers, then the rest; stable, so in the file's order.
    order.sort_by_key(|(board, _, _)| (board.name != seed.board.name, !board.is_server()));
    let nodes: Vec<Node> = serde_json::from_str(seed.facts.get("nodes")).unwrap_or_default();
    for (board, target, facts) in order {
        let joining = joining(cluster, board, facts, &seed, secrets);
        let token = token(board, facts, &joining, &seed, secrets);
        let settings = cluster.settings(board);
        let mut desired = desired(cluster, board, &settings, &joining);
        desired.authorized_keys = keys.to_vec();
        desired.uplink = wireless::uplink(cluster, board, &settings, secrets);
        // Whoever needs one and has none was refused above; a router alone needs none.
        let binary = binaries.of(facts.arch()).unwrap_or(&none);
        let node = nodes.iter().find(|node| node.name == board.name);
        match difference(board, &desired, facts, binary, token.as_ref(), node) {
            Ok(steps) => {
                boards.push(BoardPlan::new(board, target, desired.service, steps, facts));
            }
            Err(disk) => trouble.push(Trouble::new(
                format!("{}: {disk}", board.name),
                "name another device with `data`, or empty it by hand (`wipefs -a`)",
            )),
        }
    }
    match trouble.is_empty() {
        false => Err(trouble),
        true => {
            let away = found.iter().filter_map(|found| found.facts.as_ref().err()).cloned();
            Ok(Plan { boards, away: away.collect(), held: Vec::new(), seed: seed.target.clone() })
        }
    }
}

/// What can be done before a server is there: a router may be what it is reached through.
fn routers(
    cluster: &Cluster,
    found: &[Found],
    there: &[(&Board, &Target, &Facts)],
    binaries: &Binaries,
    secrets: &Secrets,
    held: Trouble,
) -> Result<Plan, Vec<Trouble>> {
    let routers: Vec<_> =
        there.iter().filter(|(board, _, _)| Service::of(board).is_none()).collect();
    let Some((_, seed, _)) = routers.first() else {
        // It may be on, and merely not where the file has it.
        let away = found.iter().filter_map(|found| found.facts.as_ref().err());
        let moved = away.filter(|error| error.refusal == Refusal::Elsewhere);
        let mut moved: Vec<Trouble> =
            moved.map(|error| Trouble::new(error.to_string(), error.hint())).collect();
        moved.push(held);
        return Err(moved);
    };
    let pairs: Vec<(&Board, &Facts)> = routers.iter().map(|(b, _, facts)| (*b, *facts)).collect();
    let mut trouble = refusals(cluster, &pairs, None, binaries);
    let mut boards = Vec::new();
    for (board, target, facts) in &routers {
        let settings = cluster.settings(board);
        let mut desired = desired(cluster, board, &settings, &Joining::default());
        desired.uplink = wireless::uplink(cluster, board, &settings, secrets);
        match system(&desired, facts) {
            Ok(steps) => boards.push(BoardPlan::new(board, target, None, steps, facts)),
            Err(disk) => trouble.push(Trouble::new(format!("{}: {disk}", board.name), "")),
        }
    }
    let away = found.iter().filter_map(|found| found.facts.as_ref().err()).cloned().collect();
    match trouble.is_empty() {
        true => Ok(Plan { boards, away, held: vec![held], seed: (*seed).clone() }),
        false => Err(trouble),
    }
}

/// The server that the others join.
struct Seed<'a> {
    board: &'a Board,
    target: &'a Target,
    facts: &'a Facts,
    identity: Option<Identity>,
}

/// A server that is in the cluster, the first by the file's order; where none is, the first of all,
/// which makes the cluster. Were it away, another must not make a second cluster beside its.
fn seed<'a>(
    cluster: &Cluster,
    there: &[(&'a Board, &'a Target, &'a Facts)],
) -> Result<Seed<'a>, Trouble> {
    let servers = there.iter().filter(|(board, _, _)| board.is_server());
    let mut candidates: Vec<Seed> = servers
        .map(|(board, target, facts)| Seed { board, target, facts, identity: facts.identity() })
        .collect();
    // One that runs knows more than one that is just there.
    candidates
        .sort_by_key(|seed| (seed.identity.is_none(), !seed.facts.is_active(Service::Server)));
    let first = cluster.servers().next().map_or("", |board| board.name.as_str());
    let chosen = candidates.into_iter().next();
    match chosen {
        Some(seed) if seed.identity.is_some() || seed.board.name == first => Ok(seed),
        _ => Err(Trouble::new(
            format!("{first} cannot be reached, and no other server is in the cluster yet"),
            format!("switch {first} on: it makes the cluster that the others join"),
        )),
    }
}

fn url(cluster: &Cluster, address: std::net::IpAddr) -> String {
    let port = cluster.server.get("https-listen-port").and_then(serde_json::Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(API_PORT);
    format!("https://{}", std::net::SocketAddr::new(address, port))
}

fn joining(
    cluster: &Cluster,
    board: &Board,
    facts: &Facts,
    seed: &Seed,
    secrets: &Secrets,
) -> Joining {
    let endpoint = secrets.endpoint.as_ref().filter(|_| board.is_server());
    let endpoint = endpoint.map(|endpoint| endpoint.expose().to_owned());
    let existing = read_config(facts.get("config"));
    let existing = existing.get("server").and_then(|value| value.as_str()).map(str::to_owned);
    let server = if facts.identity().is_some() {
        // What has joined knows all servers by itself; whom it joined need not be known any longer.
        existing
    } else if board.name == seed.board.name || endpoint.is_some() {
        None
    } else {
        let vip = cluster.network.vip.filter(|_| !board.is_server());
        Some(url(cluster, vip.unwrap_or(seed.board.address)))
    };
    let token = server.is_some() || (board.is_server() && secrets.token.is_some());
    Joining { server, token, endpoint }
}

/// The token that a board should have: the named one on a server that makes the cluster, what the seed
/// holds on all others.
fn token(
    board: &Board,
    facts: &Facts,
    joining: &Joining,
    seed: &Seed,
    secrets: &Secrets,
) -> Option<Token> {
    if !joining.token {
        return None;
    }
    if let Some(named) = secrets.token.as_ref().filter(|_| board.is_server()) {
        let sum = Some(binaries::sum(named.expose()));
        return Some(Token { kind: TokenKind::Named, sum });
    }
    let (kind, path) = match board.is_server() {
        true => (TokenKind::Server, SERVER_TOKEN),
        false => (TokenKind::Agent, AGENT_TOKEN),
    };
    let sum = Some(seed.facts.token(path)).filter(|sum| !sum.is_empty()).map(str::to_owned);
    // What has joined by an older token, or by one of a day, is in.
    if facts.identity().is_some() && !facts.token(crate::board::paths::TOKEN).is_empty() {
        return None;
    }
    Some(Token { kind, sum })
}
