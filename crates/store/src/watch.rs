//! Watchers: each reads the shared window at its own pace.
//!
//! A channel for each watcher was turned down: it would copy every event a hundred times
//! into queues that need limits of their own. Here the window is the only queue; a
//! watcher that falls out of it is told so.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::index::{Fill, Index};
use crate::{Compacted, Event, Revision};

/// Most events a watcher takes out of the window at once.
const WATCH_BATCH_MAX_EVENTS: usize = 256;

/// An ordered, gap-free sequence of events.
pub struct Watch {
    index: Arc<Index>,
    collection: Arc<str>,
    namespace: Option<Box<str>>,
    /// Everything up to here is delivered, in the buffer, or of no concern.
    cursor: Revision,
    delivered: Revision,
    buffer: VecDeque<Arc<Event>>,
    changed: watch::Receiver<()>,
    end: End,
}

/// How far a watch has come.
#[derive(Clone, Copy)]
enum End {
    /// Events may follow.
    Open,
    /// It fell out of the window, which the caller has yet to hear.
    Compacted(Compacted),
    /// Nothing follows.
    Ended,
}

impl Watch {
    pub(crate) fn new(
        index: Arc<Index>,
        (collection, changed): (Arc<str>, watch::Receiver<()>),
        namespace: Option<&str>,
        after: Revision,
    ) -> Self {
        Self {
            index,
            collection,
            namespace: namespace.map(Into::into),
            cursor: after,
            delivered: after,
            buffer: VecDeque::new(),
            changed,
            end: End::Open,
        }
    }

    /// The next event. A watcher too slow for the window gets `Err` once, then the watch
    /// ends; it also ends when the store is closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Compacted>> {
        loop {
            self.fill();
            if let Some(event) = self.buffer.pop_front() {
                self.delivered = event.revision;
                return Some(Ok(event));
            }
            match self.end {
                End::Compacted(compacted) => {
                    self.end = End::Ended;
                    return Some(Err(compacted));
                }
                End::Ended => return None,
                End::Open => {}
            }
            if self.changed.changed().await.is_err() {
                self.end = End::Ended;
            }
        }
    }

    /// The next event if it is there already, else `None`.
    pub fn try_next(&mut self) -> Option<Result<Arc<Event>, Compacted>> {
        futures::FutureExt::now_or_never(self.next()).flatten()
    }

    /// Up to where the caller has seen everything that concerns it: what a bookmark says.
    /// Moves on with the store also when nothing in this range changes.
    pub fn progress(&mut self) -> Revision {
        self.fill();
        if self.buffer.is_empty() { self.cursor } else { self.delivered }
    }

    fn fill(&mut self) {
        if !self.buffer.is_empty() || !matches!(self.end, End::Open) {
            return;
        }
        // Marked as seen before reading, so that a change in between wakes again.
        self.changed.borrow_and_update();
        let filled = self.index.fill(
            &self.collection,
            self.namespace.as_deref(),
            self.cursor,
            WATCH_BATCH_MAX_EVENTS,
            &mut self.buffer,
        );
        match filled {
            Fill::UpTo(revision) => self.cursor = revision,
            Fill::Compacted(compacted) => self.end = End::Compacted(compacted),
            Fill::Closed => self.end = End::Ended,
        }
    }
}
