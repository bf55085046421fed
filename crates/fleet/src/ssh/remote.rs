use std::path::PathBuf;
use std::time::Duration;

use super::{SshError, Target};

/// How long an ordinary script may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Something to be done on a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// What it is, for messages.
    pub what: String,
    /// A script for the POSIX shell. It goes over standard input and begins only when all of it is
    /// there.
    pub script: String,
    /// A file of this machine that the script reads as its standard input. The script is an argument
    /// then, and must hold nothing secret.
    pub input: Option<PathBuf>,
    /// Whether it runs as root.
    pub root: bool,
    /// How long it may take.
    pub patience: Duration,
}

impl Work {
    /// A script that runs as root.
    pub fn new(what: impl Into<String>, script: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            script: script.into(),
            input: None,
            root: true,
            patience: PATIENCE,
        }
    }

    /// As the account that logs in.
    pub fn as_login(self) -> Self {
        Self { root: false, ..self }
    }

    /// With a file as its standard input.
    pub fn reading(self, file: PathBuf) -> Self {
        Self { input: Some(file), ..self }
    }

    /// With another limit.
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

/// What a board answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// What it printed.
    pub out: String,
}

/// The way to boards; tests have one that records.
pub trait Remote: Sync {
    /// Finds out how root is become on a board, and whether that works.
    fn enter(&self, target: &Target, password: Option<String>) -> Result<(), SshError>;

    /// Does it, and gives what was printed; an error where it failed.
    fn run(&self, target: &Target, work: &Work) -> Result<Answer, SshError>;

    /// Ends what connection there is, so that the next work makes another.
    fn forget(&self, target: &Target);
}
