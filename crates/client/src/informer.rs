use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::core::ApiResource;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch as signal;
use tokio_util::sync::CancellationToken;

use crate::slim::slim;
use crate::unread::Unread;

/// What can be held in a shared cache: any typed kind of `k8s-openapi`.
pub trait Object:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl Key {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object that the API server has given out.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// One change that a cache has seen: what was there before and what is there now.
#[derive(Debug)]
pub struct Change<K> {
    /// Absent where the object is new.
    pub old: Option<Arc<K>>,
    /// Absent where the object is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The newest state there is: the present one, or the last one of a deleted object.
    pub fn latest(&self) -> &Arc<K> {
        match (&self.new, &self.old) {
            (Some(object), _) | (None, Some(object)) => object,
            (None, None) => {
                unreachable!("a change has at least one side: `Cache::set` makes it so")
            }
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// Every object of one kind as last seen, in memory.
pub struct Cache<K> {
    objects: RwLock<HashMap<Key, Arc<K>>>,
    handlers: Mutex<Vec<Handler<K>>>,
}

impl<K: Object> Cache<K> {
    fn new() -> Self {
        Cache { objects: RwLock::new(HashMap::new()), handlers: Mutex::new(Vec::new()) }
    }

    /// The object of this key, where there is one.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The objects that `keep` says yes to, in no order.
    pub fn select(&self, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().filter(|object| keep(object)).cloned().collect()
    }

    /// The objects of one namespace, in no order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.select(|object| object.meta().namespace.as_deref().unwrap_or("") == namespace)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Handler<K>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, key: Key, new: Option<Arc<K>>) {
        let handlers = self.handlers();
        let old = {
            let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
            match &new {
                Some(object) => objects.insert(key, object.clone()),
                None => objects.remove(&key),
            }
        };
        // A re-list gives every object again; what has not changed is no news.
        let same = matches!((&old, &new), (Some(a), Some(b))
            if a.meta().resource_version.is_some()
                && a.meta().resource_version == b.meta().resource_version);
        if same || (old.is_none() && new.is_none()) {
            return;
        }
        let change = Change { old, new };
        handlers.iter().for_each(|handler| handler(&change));
    }

    fn keys(&self) -> HashSet<Key> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

/// A handle on the shared cache of one kind; clones share it.
pub struct Informer<K> {
    cache: Arc<Cache<K>>,
    synced: signal::Receiver<bool>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer { cache: self.cache.clone(), synced: self.synced.clone() }
    }
}

impl<K> std::ops::Deref for Informer<K> {
    type Target = Cache<K>;

    fn deref(&self) -> &Cache<K> {
        &self.cache
    }
}

impl<K: Object> Informer<K> {
    /// Calls `handler` for every object that is there already and for every change from now on,
    /// in order and on the watching task: it must not block (put a key into a `Queue`).
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.cache.handlers();
        for object in self.cache.list() {
            handler(&Change { old: None, new: Some(object) });
        }
        handlers.push(Box::new(handler));
    }

    /// Waits until the first complete list is in the cache. Returns at once after that; false
    /// where the watch has ended before (the process is stopping).
    pub async fn synced(&self) -> bool {
        self.synced.clone().wait_for(|synced| *synced).await.is_ok()
    }

    /// True once the first complete list is in the cache.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }
}

/// The kind and the selector that a watch is for.
type Watched = (TypeId, String);

/// The shared caches of this process: at most one watch for a kind and selector, started when it
/// is first asked for. Clones share them.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    stop: CancellationToken,
    running: Arc<Mutex<HashMap<Watched, Box<dyn Any + Send>>>>,
}

impl Informers {
    /// No watch yet; each starts when it is asked for and ends with the runtime.
    pub fn new(client: Client) -> Self {
        Informers::until(client, CancellationToken::new())
    }

    /// The same for work that may end before the process does: the watches, and with them what
    /// the caches hold and who is told of it, go when `stop` is cancelled.
    pub fn until(client: Client, stop: CancellationToken) -> Self {
        Informers { client, stop, running: Arc::default() }
    }

    /// The same shared caches for a caller that acts as somebody else: its own requests, and
    /// watches that nobody has started yet, go through `client`.
    pub fn acting_as(&self, client: Client) -> Self {
        Informers { client, stop: self.stop.clone(), running: self.running.clone() }
    }

    /// The client of this caller.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The shared cache of all objects of a kind, in all namespaces. For pods there is
    /// [`Pod`](crate::Pod), which keeps what controllers and the scheduler look at.
    pub fn of<K: Object>(&self) -> Informer<K> {
        self.select(watcher::Config::default())
    }

    /// The shared cache of what a selector chooses (`watcher::Config::fields`, `labels`). Two
    /// callers with the same selector share one.
    pub fn select<K: Object>(&self, config: watcher::Config) -> Informer<K> {
        let selector = format!("{:?}/{:?}", config.field_selector, config.label_selector);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let informer = running
            .entry((TypeId::of::<K>(), selector))
            .or_insert_with(|| Box::new(start::<K>(self.client.clone(), config, self.stop.clone())))
            .downcast_ref::<Informer<K>>();
        match informer {
            Some(informer) => informer.clone(),
            None => unreachable!("an entry holds the informer of the type that is its key"),
        }
    }
}

fn start<K: Object>(
    client: Client,
    config: watcher::Config,
    stop: CancellationToken,
) -> Informer<K> {
    let (done, synced) = signal::channel(false);
    let cache = Arc::new(Cache::new());
    let filling = Filling { cache: cache.clone(), stale: HashSet::new() };
    tokio::spawn(async move {
        let mut filling: Box<dyn Fill> = Box::new(filling);
        let resource = ApiResource::erase::<K>(&());
        stop.run_until_cancelled(run(&mut *filling, client, resource, config, done)).await;
        filling.end();
    });
    Informer { cache, synced }
}

/// What a watch does with its events; all that is made for each kind on its own.
trait Fill: Send {
    fn take(&mut self, event: Event<Unread>) -> serde_json::Result<()>;

    fn end(&self);
}

/// A cache that is being filled.
struct Filling<K> {
    cache: Arc<Cache<K>>,
    /// What was there before a list and did not come with it yet.
    stale: HashSet<Key>,
}

impl<K: Object> Filling<K> {
    fn read(object: &Unread) -> serde_json::Result<K> {
        let mut object: K = object.read()?;
        slim(&mut object);
        Ok(object)
    }
}

impl<K: Object> Fill for Filling<K> {
    fn take(&mut self, event: Event<Unread>) -> serde_json::Result<()> {
        match event {
            Event::Init => self.stale = self.cache.keys(),
            Event::InitApply(object) | Event::Apply(object) => {
                let object = Self::read(&object)?;
                let key = Key::of(&object);
                self.stale.remove(&key);
                self.cache.set(key, Some(Arc::new(object)));
            }
            Event::InitDone => self.stale.drain().for_each(|key| self.cache.set(key, None)),
            Event::Delete(object) => self.cache.set(Key::of(&Self::read(&object)?), None),
        }
        Ok(())
    }

    fn end(&self) {
        // What is told of changes may hold the cache in turn.
        self.cache.handlers().clear();
    }
}

/// How long a watch lasts before it is asked for anew: long, since a new one costs a wake-up.
const WATCH_SECONDS: u32 = 290;
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

async fn run(
    cache: &mut dyn Fill,
    client: Client,
    resource: ApiResource,
    config: watcher::Config,
    done: signal::Sender<bool>,
) {
    let kind = resource.kind.clone();
    let api: Api<Unread> = Api::all_with(client, &resource);
    let stream = watch(api, config.timeout(WATCH_SECONDS));
    pin_mut!(stream);
    let mut failures = 0;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                failures += 1;
                let text = base::chain(&error);
                if is_forbidden(&error) {
                    tracing::warn!(kind, error = %text, "not allowed to watch; trying on");
                } else {
                    tracing::debug!(kind, error = %text, "watch broke");
                }
                tokio::time::sleep(RETRY.jittered(failures)).await;
                continue;
            }
        };
        failures = 0;
        let listed = matches!(event, Event::InitDone);
        // One object that does not fit its kind must not keep all others from being seen.
        if let Err(error) = cache.take(event) {
            tracing::warn!(kind, error = %base::chain(&error), "an object cannot be read");
        }
        if listed {
            done.send_replace(true);
        }
    }
}

/// Another try changes nothing until a person does.
fn is_forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return false;
    };
    status.is_forbidden()
}
