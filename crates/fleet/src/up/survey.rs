use std::thread;
use std::time::SystemTime;

use super::wireless;
use crate::board::{Desired, Joining, desired, hosts, paths};
use crate::config::{Board, Cluster};
use crate::facts::{Facts, Offset, Questions, script};
use crate::ssh::{Refusal, Remote, SshError, Target, Work};

/// What is known of a board.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// The board.
    pub board: &'a Board,
    /// The way to it.
    pub target: Target,
    /// What it is, or why that is not known.
    pub facts: Result<Facts, SshError>,
}

/// What is asked beyond what is known at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// The checksum of the binary, which takes a slow board a second.
    pub sums: bool,
    /// Whether boards find each other by name, which takes seconds where nobody answers.
    pub names: bool,
}

/// Asks boards what they are, all at once.
pub fn survey<'a>(
    remote: &dyn Remote,
    cluster: &'a Cluster,
    boards: &[&'a Board],
    password: &(dyn Fn(&Board) -> Option<String> + Sync),
    asked: Asked,
) -> Vec<Found<'a>> {
    let mut found: Vec<Found> = thread::scope(|scope| {
        let threads: Vec<_> = boards
            .iter()
            .map(|board| {
                scope.spawn(move || {
                    let target = Target::new(board, &cluster.ssh(board));
                    let password = password(board);
                    let facts = remote
                        .enter(&target, password)
                        .and_then(|()| ask(remote, cluster, board, &target, asked));
                    Found { board, target, facts }
                })
            })
            .collect();
        threads.into_iter().map(|one| one.join().expect("a survey does not panic")).collect()
    });
    explain(&mut found);
    found
}

/// Says of a board that does not answer where the others know it, if the file has it elsewhere: it was
/// not forgotten to switch it on.
pub(super) fn explain(found: &mut [Found]) {
    let tables: Vec<String> = found
        .iter()
        .filter_map(|one| Some(one.facts.as_ref().ok()?.get("hosts").to_owned()))
        .collect();
    for Found { board, facts, .. } in found {
        let Err(error) = facts else { continue };
        let known = tables.iter().find_map(|table| hosts::address_of(table, &board.name));
        if let Some(known) = known.filter(|known| *known != board.address)
            && error.refusal == Refusal::Unreachable
        {
            error.refusal = Refusal::Elsewhere;
            error.said =
                format!("nobody is at {}, and the others know it at {known}", board.address);
        }
    }
}

/// Asks one board, which lets us in already.
pub fn ask(
    remote: &dyn Remote,
    cluster: &Cluster,
    board: &Board,
    target: &Target,
    asked: Asked,
) -> Result<Facts, SshError> {
    let work = Work::new("looking at the board", script(&questions(cluster, board, target, asked)));
    let before = SystemTime::now();
    let answer = remote.run(target, &work)?;
    let after = SystemTime::now();
    let mut facts = Facts::parse(&answer.out).ok_or_else(|| {
        SshError::new(&target.name, Refusal::Failed, "what it says of itself was cut short")
    })?;
    facts.clock = Offset::new(facts.get("time"), before, after);
    Ok(facts)
}

fn questions(cluster: &Cluster, board: &Board, target: &Target, asked: Asked) -> Questions {
    let settings = cluster.settings(board);
    let Desired { files, packages, .. } = desired(cluster, board, &settings, &Joining::default());
    let files = files.into_iter().map(|file| file.path);
    let names = cluster.boards.iter().filter(|_| asked.names);
    Questions {
        files: files
            .chain([paths::CONFIG.to_owned()])
            .chain(wireless::files(cluster, board))
            .collect(),
        packages,
        sysctls: Vec::new(),
        names: names.map(|other| other.name.clone()).collect(),
        devices: settings.data.into_iter().map(|disk| disk.device).collect(),
        login: target.user.clone().unwrap_or_default(),
        sums: asked.sums,
    }
}
