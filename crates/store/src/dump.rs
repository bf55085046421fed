//! A whole store in a form that no engine owns: what snapshots and moves are made of.

use std::sync::Arc;

use crate::store::Waker;
use crate::{Driver, DriverError, Entry, OpenError, Options, Revision};

/// All objects as of one revision. Shares the values with the store it was taken from.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// The revision it shows.
    pub revision: Revision,
    /// In the order of their last change.
    pub entries: Vec<Arc<Entry>>,
}

/// Writes a dump into an empty datastore: the objects in the order of their last change, and
/// every revision the datastore will hand out is above the dump's. All or nothing; what an
/// interrupted fill has left is replaced by the next one. Refuses a datastore that holds
/// something, naming it.
pub async fn fill(mut driver: impl Driver, options: Options, dump: Dump) -> Result<(), OpenError> {
    let (done, filled) = tokio::sync::oneshot::channel();
    let fill = move || {
        // A caller who has gone away needs no answer.
        let _ = done.send(driver.fill(&options, &dump));
    };
    std::thread::Builder::new().name("store-fill".into()).spawn(fill).map_err(OpenError::Thread)?;
    Ok(filled.await.map_err(|_| OpenError::Gone)??)
}

/// Counts what a datastore holds, to say it in words.
#[derive(Default)]
pub(crate) struct Holdings(std::collections::BTreeMap<Arc<str>, usize>);

/// Collections that a refusal names; of the others it gives the number.
const NAMED_MAX_COLLECTIONS: usize = 3;

impl Holdings {
    pub(crate) fn add(&mut self, collection: &Arc<str>) {
        self.add_many(collection, 1);
    }

    pub(crate) fn add_many(&mut self, collection: &Arc<str>, count: usize) {
        *self.0.entry(collection.clone()).or_default() += count;
    }

    /// Refuses unless nothing was counted.
    pub(crate) fn must_be_empty(self, datastore: String) -> Result<(), DriverError> {
        let total: usize = self.0.values().sum();
        if total == 0 {
            return Ok(());
        }
        let mut most: Vec<_> = self.0.into_iter().collect();
        most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let more = if most.len() > NAMED_MAX_COLLECTIONS { ", ..." } else { "" };
        let named = most.iter().take(NAMED_MAX_COLLECTIONS);
        let named: Vec<String> = named.map(|(name, count)| format!("{count} {name}")).collect();
        let objects = if total == 1 { "object" } else { "objects" };
        let holds = format!("{total} {objects} ({}{more})", named.join(", "));
        Err(DriverError::NotEmpty { datastore, holds })
    }
}

/// A waker for a driver that is only filled.
pub(crate) fn nobody() -> Waker {
    Waker::new(std::sync::mpsc::channel().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_held() {
        let mut holdings = Holdings::default();
        for name in ["pods", "a", "pods", "b", "c", "b", "pods"] {
            holdings.add(&name.into());
        }
        let refused = holdings.must_be_empty("etcd".into()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "etcd is not empty: it holds 7 objects (3 pods, 2 b, 1 a, ...)"
        );
        assert!(Holdings::default().must_be_empty("etcd".into()).is_ok());
    }
}
