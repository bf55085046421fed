//! ConfigMaps and Secrets that pods of this node refer to: one watch for each that is in use,
//! ended when its last user has gone. Watching all of them would keep every Secret of the
//! cluster in the memory of every board.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

/// What can be referred to.
pub trait Referable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Referable for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// How long a first answer may take before the object counts as unknown.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Pause after a broken watch, doubling.
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

type Key = (TypeId, String, String);

/// The watches in use.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    watches: Arc<Mutex<HashMap<Key, Weak<dyn Any + Send + Sync>>>>,
}

/// One watched object; the watch ends when the last handle is dropped.
pub struct Watched<K> {
    value: watch::Receiver<Option<Option<Arc<K>>>>,
    wakers: Arc<Mutex<Vec<Weak<Notify>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl<K> Drop for Watched<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why an object could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not say within {} s whether {namespace}/{name} exists", FIRST_ANSWER.as_secs())]
pub struct Unknown {
    namespace: String,
    name: String,
}

impl Objects {
    /// No watch yet.
    pub fn new(client: Client) -> Self {
        Objects { client, watches: Arc::default() }
    }

    /// Watches one object; `waker` is notified of every change.
    pub fn watch<K: Referable>(
        &self,
        namespace: &str,
        name: &str,
        waker: &Arc<Notify>,
    ) -> Arc<Watched<K>> {
        let key = (TypeId::of::<K>(), namespace.to_owned(), name.to_owned());
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let known = watches.get(&key).and_then(Weak::upgrade);
        let watched = match known.and_then(|any| any.downcast::<Watched<K>>().ok()) {
            Some(watched) => watched,
            None => {
                watches.retain(|_, weak| weak.strong_count() > 0);
                let watched = Arc::new(start::<K>(self.client.clone(), namespace, name));
                let any: Arc<dyn Any + Send + Sync> = watched.clone();
                watches.insert(key, Arc::downgrade(&any));
                watched
            }
        };
        let mut wakers = watched.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.retain(|weak| weak.strong_count() > 0);
        if !wakers.iter().any(|weak| weak.ptr_eq(&Arc::downgrade(waker))) {
            wakers.push(Arc::downgrade(waker));
        }
        drop(wakers);
        watched
    }
}

impl<K> Watched<K> {
    /// The object as last seen, `None` if it does not exist; waits for the first answer.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, Unknown>
    where
        K: Send + Sync,
    {
        let mut value = self.value.clone();
        let known = tokio::time::timeout(FIRST_ANSWER, value.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(seen)) => Ok(seen.clone().flatten()),
            _ => Err(Unknown { namespace: namespace.to_owned(), name: name.to_owned() }),
        }
    }
}

fn start<K: Referable>(client: Client, namespace: &str, name: &str) -> Watched<K> {
    let (sender, value) = watch::channel(None);
    let wakers = Arc::new(Mutex::new(Vec::<Weak<Notify>>::new()));
    let api = Api::<K>::namespaced(client, namespace);
    let (name, told) = (name.to_owned(), wakers.clone());
    let task = tokio::spawn(async move {
        let mut failures = 0;
        loop {
            let mut stream = std::pin::pin!(watch_object(api.clone(), &name));
            while let Some(seen) = stream.next().await {
                match seen {
                    Ok(object) => {
                        failures = 0;
                        sender.send_replace(Some(object.map(Arc::new)));
                        let wakers = told.lock().unwrap_or_else(PoisonError::into_inner);
                        wakers.iter().filter_map(Weak::upgrade).for_each(|w| w.notify_one());
                    }
                    Err(error) => {
                        failures += 1;
                        tracing::debug!(name, error = %base::chain(&error), "watch broke");
                        tokio::time::sleep(RETRY.jittered(failures)).await;
                    }
                }
            }
            failures += 1;
            tokio::time::sleep(RETRY.jittered(failures)).await;
        }
    });
    Watched { value, wakers, task }
}
