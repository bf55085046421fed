//! Keeping a small cache in step with a collection of the store: once in full, then event
//! by event. Nothing polls.

use std::sync::Arc;

use store::{Entry, EventKind, Page, Range, Store};
use tokio_util::sync::CancellationToken;

/// What a cache over a collection is told.
pub(crate) enum Change {
    /// The whole collection; whatever was known before is void.
    Reset(Vec<Arc<Entry>>),
    /// An object as it stands now.
    Put(Arc<Entry>),
    /// An object is gone; its last state.
    Gone(Arc<Entry>),
}

/// Tells `apply` the collection's state before this returns, and every change after that,
/// until the server stops.
pub(crate) fn follow(
    store: &Store,
    stopping: &CancellationToken,
    collection: &'static str,
    mut apply: impl FnMut(Change) + Send + 'static,
) {
    let mut revision = reset(store, collection, &mut apply);
    let store = store.clone();
    let stopping = stopping.clone();
    tokio::spawn(async move {
        loop {
            let range = Range { collection, namespace: None };
            if let Ok(mut watch) = store.watch(range, revision) {
                loop {
                    let next = tokio::select! {
                        () = stopping.cancelled() => return,
                        next = watch.next() => next,
                    };
                    match next {
                        Some(Ok(event)) => apply(match event.kind {
                            EventKind::Deleted => Change::Gone(Arc::clone(&event.entry)),
                            _ => Change::Put(Arc::clone(&event.entry)),
                        }),
                        Some(Err(_)) => break,
                        // The store was closed: there is nothing left to follow.
                        None => return,
                    }
                }
            }
            revision = reset(&store, collection, &mut apply);
        }
    });
}

/// Lists the collection; the revision from which to watch.
fn reset(store: &Store, collection: &str, apply: &mut impl FnMut(Change)) -> store::Revision {
    match store.list(Range { collection, namespace: None }, Page::default()) {
        Ok(list) => {
            apply(Change::Reset(list.entries));
            list.revision
        }
        // A list of the newest state cannot expire; the watch that follows would tell.
        Err(_) => store.revision(),
    }
}
