//! Whether boards are fit: what was found on them against what Coracle and the stack need. Pure; each
//! verdict says why and what to do.

mod board;
mod disk;
mod link;
mod stack;
mod table;

pub use board::check_board;
pub use disk::{Disk, MEASURE, check_disk};
pub use stack::check_stack;
pub use table::{json, table};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, with less than there could be.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        }
    }
}

/// What one look at one thing said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The board.
    pub board: String,
    /// What was looked at, in a word or two.
    pub subject: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, and why it matters.
    pub what: String,
    /// What to do; empty where nothing is.
    pub next: String,
}

/// Verdicts of one board, as they are collected.
struct Verdicts<'a> {
    board: &'a str,
    list: Vec<Verdict>,
}

impl<'a> Verdicts<'a> {
    fn of(board: &'a str) -> Self {
        Self { board, list: Vec::new() }
    }

    fn add(
        &mut self,
        subject: &'static str,
        level: Level,
        what: impl Into<String>,
        next: impl Into<String>,
    ) {
        let (board, what, next) = (self.board.to_owned(), what.into(), next.into());
        self.list.push(Verdict { board, subject, level, what, next });
    }

    fn ok(&mut self, subject: &'static str, what: impl Into<String>) {
        self.add(subject, Level::Ok, what, "");
    }

    fn warn(&mut self, subject: &'static str, what: impl Into<String>, next: impl Into<String>) {
        self.add(subject, Level::Warn, what, next);
    }

    fn fail(&mut self, subject: &'static str, what: impl Into<String>, next: impl Into<String>) {
        self.add(subject, Level::Fail, what, next);
    }
}
