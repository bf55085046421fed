//! The boards of a `cluster.yaml`, reached.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use clap::Args;
use fleet::config::{Board, Cluster};
use fleet::ssh::{Refusal, System, Target};
use fleet::up::{Asked, Found, survey};

use super::ClusterFile;
use crate::failure::{Failure, Hint, Outcome, While};

/// Which boards, and how they are reached.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub file: ClusterFile,
    /// Only this board; may be given several times
    #[arg(long, short, value_delimiter = ',')]
    pub board: Vec<String>,
    /// Believe host keys that are seen for the first time, without asking
    #[arg(long)]
    pub accept_new_host_keys: bool,
}

/// Which boards, and whether the person is asked before anything is done to them.
#[derive(Debug, Clone, Args)]
pub struct Asks {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

impl Asks {
    /// The boards and the way to them.
    pub fn open(&self) -> Outcome<Crew> {
        Crew::open(&self.reach)
    }

    /// Asks, and goes on only after a yes; `--yes` answers without asking.
    pub fn confirm(&self, question: &str) -> Outcome {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let nobody = Failure::new("nothing was changed: there is nobody to ask");
            return Err(nobody.hint("use --yes"));
        }
        print!("{question} Type yes to go on: ");
        let mut answer = String::new();
        io::stdout()
            .flush()
            .and_then(|()| io::stdin().read_line(&mut answer))
            .doing(|| "asking".into())?;
        match answer.trim() {
            "yes" | "y" => Ok(()),
            _ => Err(Failure::new("nothing was changed").hint("answer yes, or use --yes")),
        }
    }
}

/// The boards and the way to them.
pub struct Crew {
    /// What they should be.
    pub cluster: Cluster,
    /// The way.
    pub system: System,
    only: Vec<String>,
    passwords: BTreeMap<String, String>,
}

impl Crew {
    /// Reads the file, and the passwords that it names.
    pub fn open(reach: &Reach) -> Outcome<Self> {
        let cluster = reach.file.read()?;
        for name in &reach.board {
            if cluster.board(name).is_none() {
                let all: Vec<&str> = cluster.boards.iter().map(|b| b.name.as_str()).collect();
                return Err(Failure::new(format!("no board is called {name}"))
                    .hint(format!("there are {}", all.join(", "))));
            }
        }
        let mut passwords = BTreeMap::new();
        for board in &cluster.boards {
            if let Some(secret) = cluster.ssh(board).sudo_password {
                let read = cluster.secret(&secret);
                let read = read
                    .doing(|| format!("reading the password of sudo on {}", board.name))
                    .hint(|| "`ssh.sudoPassword` in the file says where it stands".into())?;
                passwords.insert(board.name.clone(), read.expose().to_owned());
            }
        }
        let system = System::new(reach.accept_new_host_keys)
            .doing(|| "making a folder for connections".into())?;
        Ok(Self { cluster, system, only: reach.board.clone(), passwords })
    }

    /// Whether the command is about this board.
    pub fn takes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The boards that the command is about.
    pub fn boards(&self) -> Vec<&Board> {
        self.cluster.boards.iter().filter(|board| self.takes(&board.name)).collect()
    }

    /// The way to a board.
    pub fn target(&self, board: &Board) -> Target {
        Target::new(board, &self.cluster.ssh(board))
    }

    /// Asks boards what they are. Hosts that are not known yet are shown to the person, where there is
    /// one.
    pub fn survey<'a>(&'a self, boards: &[&'a Board], asked: Asked) -> Vec<Found<'a>> {
        let password = |board: &Board| self.passwords.get(&board.name).cloned();
        let mut found = survey(&self.system, &self.cluster, boards, &password, asked);
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            for one in &mut found {
                let unknown = matches!(&one.facts, Err(e) if e.refusal == Refusal::UnknownHostKey);
                if unknown && self.system.introduce(&one.target).is_ok() {
                    let again = survey(&self.system, &self.cluster, &[one.board], &password, asked);
                    *one = again.into_iter().next().unwrap_or_else(|| one.clone());
                }
            }
        }
        found
    }
}

/// One failure out of many: all their words, and the first's next step.
pub fn together(what: &str, mut list: Vec<Failure>) -> Outcome {
    match list.len() {
        0 => Ok(()),
        1 => Err(list.remove(0).within(what)),
        _ => {
            let hint = list.iter().find_map(Failure::next_step).unwrap_or_default().to_owned();
            let all: Vec<String> = list.iter().map(|failure| base::chain(failure)).collect();
            Err(Failure::new(format!("{what}:\n  {}", all.join("\n  "))).hint(hint))
        }
    }
}

/// Nothing can be begun, for these reasons.
pub fn refused(list: Vec<fleet::Trouble>) -> Failure {
    let list = list.into_iter().map(Failure::from).collect();
    let refused = together("nothing was changed", list);
    refused.err().unwrap_or_else(|| Failure::new("nothing was changed"))
}
