//! The newest events of one collection, bounded by count and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Event, Revision};

/// What an event costs beside its value: the event, the entry, keys and labels.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// Events in the order of their revisions. `floor` is the revision from which everything
/// that followed is still here.
#[derive(Debug)]
pub(crate) struct Window {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    floor: Revision,
}

impl Window {
    pub(crate) fn new(floor: Revision) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor }
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += cost(&event);
        self.events.push_back(event);
    }

    /// Forgets the oldest event; gives the bytes that frees.
    pub(crate) fn forget(&mut self) -> usize {
        let Some(event) = self.events.pop_front() else { return 0 };
        let freed = cost(&event);
        self.bytes -= freed;
        self.floor = event.revision;
        freed
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    /// The revision of the oldest event.
    pub(crate) fn oldest(&self) -> Option<Revision> {
        self.events.front().map(|e| e.revision)
    }

    /// Everything after a revision, oldest first.
    pub(crate) fn after(&self, revision: Revision) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let from = self.events.partition_point(|e| e.revision <= revision);
        self.events.range(from..)
    }
}

/// What keeping an event may keep alive: its value, or as much again once it is encoded.
pub(crate) fn cost(event: &Event) -> usize {
    EVENT_OVERHEAD_BYTES + event.entry.value.len()
}
