//! What is made of a few small collections (webhook configurations, policies), kept until one of
//! them changes. Like the authorizer's tables it catches up when it is asked: what was written
//! counts from the next request on, and an idle server does nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::Value;
use store::{Page, Range, Store};

use crate::feed::Feed;

/// Something made of collections.
pub(crate) struct Cached<T> {
    store: Store,
    build: Build<T>,
    feeds: Mutex<Vec<Feed>>,
    /// The store's revision that the value has seen everything of.
    seen: AtomicU64,
    value: ArcSwap<T>,
}

/// How the value is made.
enum Build<T> {
    /// Of all that is stored.
    Anew(fn(&Store) -> T),
    /// The same, with what was made before to take from.
    Renewed(fn(&Store, &T) -> T),
}

impl<T: Default> Cached<T> {
    /// Nothing is read before the first `get`.
    pub(crate) fn new(store: Store, collections: &[&'static str], build: fn(&Store) -> T) -> Self {
        Self::with(store, collections, Build::Anew(build))
    }

    /// The same for a value of which most stays when something changes.
    pub(crate) fn renewed(
        store: Store,
        collections: &[&'static str],
        build: fn(&Store, &T) -> T,
    ) -> Self {
        Self::with(store, collections, Build::Renewed(build))
    }

    fn with(store: Store, collections: &[&'static str], build: Build<T>) -> Self {
        let feeds = collections.iter().map(|name| Feed::new(store.clone(), *name)).collect();
        let (seen, value) = (AtomicU64::new(0), ArcSwap::default());
        Cached { store, build, feeds: Mutex::new(feeds), seen, value }
    }

    /// The value as of all that this server knows.
    pub(crate) fn get(&self) -> Arc<T> {
        let revision = self.store.revision();
        if self.seen.load(Ordering::Acquire) < revision {
            let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            let mut changed = false;
            for feed in feeds.iter_mut() {
                while feed.try_next().is_some() {
                    changed = true;
                }
            }
            if changed {
                let value = match self.build {
                    Build::Anew(build) => build(&self.store),
                    Build::Renewed(build) => build(&self.store, &self.value.load()),
                };
                self.value.store(Arc::new(value));
            }
            self.seen.fetch_max(revision, Ordering::Release);
        }
        self.value.load_full()
    }
}

/// All objects of a collection, ordered by namespace and name.
pub(crate) fn objects(store: &Store, collection: &str, namespace: Option<&str>) -> Vec<Value> {
    let list = store.list(Range { collection, namespace }, Page::default());
    let entries = list.map(|list| list.entries).unwrap_or_default();
    entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
}
