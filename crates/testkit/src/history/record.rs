//! The record: what was called, when, and what came back.

use std::collections::BTreeMap;
use std::fmt;

/// A resourceVersion.
pub type Revision = u64;
/// The content of an object; no two writes of a history write the same.
pub type Value = u64;
/// Nanoseconds since the recording began, by one monotonic clock for all clients.
pub type Nanos = u64;

/// An object as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    /// Its resourceVersion.
    pub revision: Revision,
    /// Its content.
    pub value: Value,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Make the object.
    Create(Value),
    /// Replace the object where it still has this revision.
    Swap {
        /// The revision.
        expect: Revision,
        /// The new content.
        value: Value,
    },
    /// Delete the object where it still has this revision.
    Delete {
        /// The revision.
        expect: Revision,
    },
    /// Read the object without naming a revision.
    Read,
}

impl Call {
    /// What the call writes.
    pub fn writes(&self) -> Option<Value> {
        match self {
            Call::Create(value) | Call::Swap { value, .. } => Some(*value),
            Call::Delete { .. } | Call::Read => None,
        }
    }
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write is acknowledged, with its revision where the answer names it.
    Done(Option<Revision>),
    /// What was read; none: there is no such object.
    Saw(Option<Stored>),
    /// The object's state did not allow it (it is there, it is gone, it has another revision).
    Refused,
    /// It was turned away before it could have an effect.
    Rejected,
    /// No answer, or one that does not say: it may have happened, or may happen yet.
    Unknown,
}

/// One call of one client on one object.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The client that called.
    pub client: usize,
    /// The object's name.
    pub key: String,
    /// What it asked for.
    pub call: Call,
    /// When it was sent.
    pub began: Nanos,
    /// When the answer was there, or was given up.
    pub ended: Nanos,
    /// The answer.
    pub outcome: Outcome,
}

impl Operation {
    /// Whether it certainly had no effect.
    pub fn had_no_effect(&self) -> bool {
        matches!(self.outcome, Outcome::Refused | Outcome::Rejected | Outcome::Saw(_))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} {}: ", self.client, self.key)?;
        match self.call {
            Call::Create(value) => write!(f, "create {value}")?,
            Call::Swap { expect, value } => write!(f, "swap @{expect} -> {value}")?,
            Call::Delete { expect } => write!(f, "delete @{expect}")?,
            Call::Read => write!(f, "read")?,
        }
        write!(f, " [{}..{} us] ", self.began / 1_000, self.ended / 1_000)?;
        match self.outcome {
            Outcome::Done(Some(revision)) => write!(f, "done @{revision}"),
            Outcome::Done(None) => write!(f, "done"),
            Outcome::Saw(Some(stored)) => write!(f, "saw {} @{}", stored.value, stored.revision),
            Outcome::Saw(None) => write!(f, "saw nothing"),
            Outcome::Refused => write!(f, "refused"),
            Outcome::Rejected => write!(f, "rejected"),
            Outcome::Unknown => write!(f, "unknown"),
        }
    }
}

/// A list of all objects.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The server that answered.
    pub server: String,
    /// When it was sent.
    pub began: Nanos,
    /// The list's revision.
    pub revision: Revision,
    /// Whether no revision was named, so that it must not be stale.
    pub fresh: bool,
    /// The objects by name.
    pub objects: BTreeMap<String, Stored>,
}

/// What an event says has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object was made.
    Added,
    /// It was replaced.
    Modified,
    /// It was deleted; the value is its last.
    Deleted,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision it happened at.
    pub revision: Revision,
    /// What happened.
    pub change: Change,
    /// The object's name.
    pub key: String,
    /// Its content.
    pub value: Value,
}

/// A watch from one revision on, resumed after every interruption, without a list in between.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// The server it was held at.
    pub server: String,
    /// The revision it began after.
    pub after: Revision,
    /// The events as they came.
    pub events: Vec<Event>,
    /// Bookmarks: the revision, and how many events had come before it.
    pub bookmarks: Vec<(Revision, usize)>,
}

impl Segment {
    /// The newest revision that the watch has said to be complete up to.
    pub fn seen(&self) -> Revision {
        let event = self.events.last().map_or(self.after, |event| event.revision);
        self.bookmarks.iter().map(|(revision, _)| *revision).fold(event, Revision::max)
    }
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Calls on single objects.
    pub operations: Vec<Operation>,
    /// Lists. The last ones were taken after all writers had ended.
    pub listings: Vec<Listing>,
    /// Watches.
    pub segments: Vec<Segment>,
    /// What clients saw of an index that may be old, by which they chose their next call.
    pub looks: Vec<Stored>,
    /// Servers whose watch had not caught up when patience ended, with what it had seen.
    pub behind: Vec<(String, Revision)>,
}

impl History {
    /// How many calls came to which end: acknowledged writes, reads, refused, rejected, unknown.
    pub fn summary(&self) -> String {
        let count = |is: fn(&Outcome) -> bool| {
            self.operations.iter().filter(|operation| is(&operation.outcome)).count()
        };
        format!(
            "{} acknowledged writes, {} reads, {} refused, {} rejected, {} unknown, {} lists, \
             {} events in {} watches",
            count(|outcome| matches!(outcome, Outcome::Done(_))),
            count(|outcome| matches!(outcome, Outcome::Saw(_))),
            count(|outcome| matches!(outcome, Outcome::Refused)),
            count(|outcome| matches!(outcome, Outcome::Rejected)),
            count(|outcome| matches!(outcome, Outcome::Unknown)),
            self.listings.len(),
            self.segments.iter().map(|segment| segment.events.len()).sum::<usize>(),
            self.segments.len(),
        )
    }
}
