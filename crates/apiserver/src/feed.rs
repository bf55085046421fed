//! Following a collection of the store: once in full, then change by change. Nothing polls.

use std::borrow::Cow;
use std::sync::Arc;

use futures::FutureExt;
use store::{Entry, EventKind, Page, Range, Store, Watch};

/// What somebody who follows a collection is told.
pub(crate) enum Change {
    /// The whole collection; whatever was known before is void.
    Reset(Vec<Arc<Entry>>),
    /// An object as it stands now.
    Put(Arc<Entry>),
    /// An object is gone; its last state.
    Gone(Arc<Entry>),
}

/// A collection's changes in their order, its whole state first.
pub(crate) struct Feed {
    store: Store,
    collection: Cow<'static, str>,
    /// None before the first list, and after the watch fell behind the store's window.
    watch: Option<Watch>,
}

impl Feed {
    /// A feed that begins with the collection's present state.
    pub(crate) fn new(store: Store, collection: impl Into<Cow<'static, str>>) -> Self {
        Feed { store, collection: collection.into(), watch: None }
    }

    /// The next change; `None` when the store is closed. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Change> {
        loop {
            let Some(watch) = &mut self.watch else {
                let range = Range { collection: &self.collection, namespace: None };
                // A list of the newest state does not expire.
                let list = self.store.list(range, Page::default()).ok()?;
                self.watch = self.store.watch(range, list.revision).ok();
                return Some(Change::Reset(list.entries));
            };
            match watch.next().await {
                Some(Ok(event)) => {
                    let entry = Arc::clone(&event.entry);
                    return Some(match event.kind {
                        EventKind::Deleted => Change::Gone(entry),
                        _ => Change::Put(entry),
                    });
                }
                Some(Err(_)) => self.watch = None,
                None => return None,
            }
        }
    }

    /// The next change if it has happened already.
    pub(crate) fn try_next(&mut self) -> Option<Change> {
        self.next().now_or_never().flatten()
    }
}
