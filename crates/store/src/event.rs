//! What a watcher sees.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{Entry, Revision};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was not there before.
    Created,
    /// It was there before.
    Updated,
    /// It is gone; the event's entry is its last state.
    Deleted,
}

/// One change, shared by all watchers.
#[derive(Debug)]
pub struct Event {
    /// The revision of the change; events of one store never share one.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// The new state, or for a deletion the last one stamped with the deletion's revision.
    pub entry: Arc<Entry>,
    /// The state before, which tells whether an object moved in or out of a selector.
    pub previous: Option<Arc<Entry>>,
    /// A cell for an encoding that watchers share, filled at most once.
    pub encoded: OnceLock<Bytes>,
}
