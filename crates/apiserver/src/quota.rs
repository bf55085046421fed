//! Keeps the status of ResourceQuotas true: counts anew what a namespace has used when something
//! in it went, or a quota was changed. Upstream's controller watches every kind for it; here it
//! stands beside the store, whose index has the objects already, and follows only collections
//! that a quota counts. A cluster without quotas has one watch for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use serde_json::Value;

use crate::admission::quota::QUOTAS;
use crate::feed::{Change, Feed};
use crate::server::ApiServer;

/// How often everything is counted anew: what ended by time alone woke nobody. Upstream's period.
const RESYNC: Duration = Duration::from_secs(300);
/// Collections whose changes, not only deletions, change what they use.
const CHANGING: [&str; 3] = [QUOTAS, "services", "persistentvolumeclaims"];

type Feeds = BTreeMap<String, Feed>;

/// Recounts until the server stops.
pub(crate) fn start(server: &Arc<ApiServer>) {
    let store = server.context.store.clone();
    let stopping = server.context.stopping.clone();
    let mut feeds = Feeds::from([(QUOTAS.to_owned(), Feed::new(store.clone(), QUOTAS))]);
    // A weak reference: this task must not keep a server alive that nobody else holds.
    let registry = Arc::downgrade(&server.registry);
    tokio::spawn(async move {
        loop {
            let ledger = registry.upgrade().map(|registry| registry.ledger());
            let Some(ledger) = ledger else { return };
            let mut due = Due::default();
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(RESYNC), if feeds.len() > 1 => due.all = true,
                namespaces = ledger.next() => due.namespaces = namespaces,
                more = next(&mut feeds) => match more {
                    Some((collection, change)) => due.note(&collection, change),
                    None => return,
                },
            }
            for (collection, feed) in &mut feeds {
                while let Some(change) = feed.try_next() {
                    due.note(collection, change);
                }
            }
            let Some(registry) = registry.upgrade() else { return };
            if due.all || due.quotas {
                let mut counted = registry.counted_collections();
                counted.insert(QUOTAS.to_owned());
                feeds.retain(|name, _| counted.contains(name));
                for name in counted {
                    let feed = || Feed::new(store.clone(), name.clone());
                    feeds.entry(name.clone()).or_insert_with(feed);
                }
            }
            let namespaces = if due.all { registry.quota_namespaces() } else { due.namespaces };
            for namespace in namespaces {
                registry.recount(&namespace).await;
            }
        }
    });
}

async fn next(feeds: &mut Feeds) -> Option<(String, Change)> {
    let all =
        feeds.iter_mut().map(|(name, feed)| Box::pin(async move { (name, feed.next().await) }));
    let ((name, change), ..) = select_all(all).await;
    Some((name.clone(), change?))
}

/// What is to be counted.
#[derive(Default)]
struct Due {
    namespaces: BTreeSet<String>,
    /// A quota was written: it may count other collections.
    quotas: bool,
    all: bool,
}

impl Due {
    fn note(&mut self, collection: &str, change: Change) {
        self.quotas |= collection == QUOTAS;
        match change {
            // What is there at the beginning was counted, or its quota is new.
            Change::Reset(_) => self.all |= collection == QUOTAS,
            Change::Put(entry) if !CHANGING.contains(&collection) && !has_ended(&entry.value) => {}
            Change::Put(entry) | Change::Gone(entry) => {
                self.namespaces.insert(entry.key.namespace.to_string());
            }
        }
    }
}

/// Whether an object is a pod that uses nothing any more.
fn has_ended(value: &[u8]) -> bool {
    let object: Value = serde_json::from_slice(value).unwrap_or_default();
    matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}
