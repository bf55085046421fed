use super::{Binaries, Binary, Found, how_to_get};
use crate::Trouble;
use crate::board::Service;
use crate::ssh::Target;

/// One board's turn in an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The board.
    pub target: Target,
    /// What it runs.
    pub service: Service,
    /// The release that it has.
    pub from: String,
    /// What it gets.
    pub binary: Binary,
    /// A server that knows the Nodes: another one, where there is another.
    pub seed: Target,
    /// Whether it is the first.
    pub first: bool,
    /// Whether there are boards that its pods can go to.
    pub has_others: bool,
}

/// Whose turn it is, servers first; refused where a board is away or does not run, since an upgrade
/// is no time to find out why.
pub fn upgrade_order(found: &[Found], binaries: &Binaries) -> Result<Vec<Turn>, Vec<Trouble>> {
    let mut trouble = Vec::new();
    let mut members = Vec::new();
    for one in found {
        let Some(service) = Service::of(one.board) else { continue };
        match &one.facts {
            Err(error) => trouble.push(Trouble::new(error.to_string(), error.hint())),
            Ok(facts) if !facts.is_active(service) => trouble.push(Trouble::new(
                format!("{} does not run on {}", service.unit(), one.board.name),
                "`coracle up` brings it up",
            )),
            Ok(facts) => match binaries.of(facts.arch()) {
                Some(binary) => members.push((one, service, facts, binary)),
                None => trouble.push(Trouble::new(
                    format!(
                        "there is no binary for {}, which is of {}",
                        one.board.name,
                        facts.arch()
                    ),
                    how_to_get(facts.arch()),
                )),
            },
        }
    }
    if !trouble.is_empty() {
        return Err(trouble);
    }
    members.sort_by_key(|(_, service, _, _)| *service != Service::Server);
    let servers: Vec<&Target> = members
        .iter()
        .filter(|(_, service, _, _)| *service == Service::Server)
        .map(|(one, _, _, _)| &one.target)
        .collect();
    let Some(first) = servers.first() else { return Ok(Vec::new()) };
    let stale = members.iter().filter(|(_, _, facts, binary)| facts.get("binary") != binary.sum);
    let turns = stale.enumerate().map(|(position, (one, service, facts, binary))| {
        let other = servers.iter().find(|server| server.name != one.target.name);
        Turn {
            target: one.target.clone(),
            service: *service,
            from: facts.get("release").to_owned(),
            binary: (*binary).clone(),
            seed: (*other.unwrap_or(first)).clone(),
            first: position == 0,
            has_others: members.len() > 1,
        }
    });
    Ok(turns.collect())
}
