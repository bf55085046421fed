use std::fmt;

use super::record::{Event, History, Operation, Revision, Stored};
use super::{register, revisions, watches};

/// What no correct cluster could have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A write was acknowledged and no watch has its event.
    LostWrite(String),
    /// Two things happened at one revision.
    SharedRevision(Revision, String, String),
    /// A write that began after another was acknowledged has a revision that is not greater.
    OutOfOrder(String, String),
    /// A write happened although the object's state before it was not what the write demanded.
    WrongPredecessor(Event, Option<Stored>),
    /// An event shows what nobody wrote, or what was refused.
    Phantom(Event),
    /// A watch went back.
    WatchUnordered(String, Revision, Revision),
    /// A watch left out an event that another one has.
    WatchGap(String, Event),
    /// A watch did not come to the end.
    WatchBehind(String, Revision),
    /// A list is not the state at its revision.
    ListMismatch(String, Revision, String),
    /// A list without a revision is older than what was acknowledged before it began.
    StaleList(String, Revision, Revision),
    /// No order of the calls on an object explains what they saw.
    NotLinear(String, Vec<String>),
    /// The search for such an order was given up.
    Undecided(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::LostWrite(write) => write!(f, "acknowledged write lost: {write}"),
            Violation::SharedRevision(revision, one, other) => {
                write!(f, "two things happened at revision {revision}: {one}; {other}")
            }
            Violation::OutOfOrder(first, second) => {
                write!(f, "acknowledged first, but not older: {first}; {second}")
            }
            Violation::WrongPredecessor(event, before) => {
                write!(f, "compare-and-swap went through on the wrong state {before:?}: {event:?}")
            }
            Violation::Phantom(event) => write!(f, "nobody did this: {event:?}"),
            Violation::WatchUnordered(server, before, after) => {
                write!(f, "watch at {server} went from {before} to {after}")
            }
            Violation::WatchGap(server, event) => {
                write!(f, "watch at {server} left out {event:?}")
            }
            Violation::WatchBehind(server, seen) => {
                write!(f, "watch at {server} got no further than {seen}")
            }
            Violation::ListMismatch(server, revision, difference) => {
                write!(f, "list of {server} is not the state at {revision}: {difference}")
            }
            Violation::StaleList(server, revision, floor) => {
                write!(f, "list of {server} is of {revision}, though {floor} was acknowledged")
            }
            Violation::NotLinear(key, calls) => {
                write!(f, "no order explains the calls on {key}:\n  {}", calls.join("\n  "))
            }
            Violation::Undecided(key) => write!(f, "too many orders of the calls on {key}"),
        }
    }
}

/// Everything that is wrong with the history; nothing: a correct cluster could have shown it.
pub fn judge(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    let union = watches::union(history, &mut violations);
    watches::check(history, &union, &mut violations);
    let gaps = watches::Gaps::of(history);
    watches::check_lists(history, &union, &gaps, &mut violations);
    revisions::check(history, &union, &gaps, &mut violations);
    register::check(history, &union, &mut violations);
    violations
}

/// Writes by what they wrote.
pub(super) fn writes(history: &History) -> impl Iterator<Item = &Operation> {
    history.operations.iter().filter(|operation| operation.call.writes().is_some())
}
