//! The one driver of all controllers: changes become keys, keys wait in a queue, a plan is
//! made from the caches, and its actions are carried out.
//!
//! A controller is a row of data: what wakes it, and a pure function from the caches to a
//! list of actions. The driver waits until the caches have seen its own writes before a key
//! is looked at again, which takes the place of upstream's per-controller expectations.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Informer, Informers, Key, Outcome, Queue};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::core::{Selector, SelectorExt};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::action::{Kind, Plan};
use crate::carry_out::{Hands, Written};
use crate::context::{Cx, Failure};
use crate::owner;
use crate::world::World;

/// Keys of one controller handled at the same time.
const WORKERS: usize = 4;

/// How long a key waits for the caches to see its writes. Upstream's expectations expire
/// after five minutes; a watch that lags this far has most likely missed a deletion.
const CATCH_UP_SECONDS: u64 = 5;

/// A controller: a name for its events, what wakes it, and what it does.
pub struct Controller {
    /// Component name in events, upstream's.
    pub name: &'static str,
    /// Declares the kinds it reads and which changes wake which keys.
    pub watches: fn(&mut Watches),
    /// What to do with a key.
    pub reconcile: Reconcile,
}

/// How a key is handled.
#[derive(Clone, Copy)]
pub enum Reconcile {
    /// From the caches alone.
    Plan(fn(&Cx, &Key) -> Plan),
    /// With reads of its own, for what no cache holds.
    Live(fn(Arc<Hub>, Key) -> BoxFuture<'static, kube::Result<Outcome>>),
}

/// What all controllers share.
pub struct Hub {
    /// The way to the API.
    pub client: Client,
    /// The caches.
    pub world: World,
    /// The cluster's settings.
    pub config: Config,
    seen: HashMap<(&'static str, &'static str), Seen>,
}

/// How far the cache of one kind has come.
struct Seen {
    newest: watch::Receiver<u64>,
    find: Find,
}

/// Version and UID of the cached object, and whether it is being deleted.
type Find = Box<dyn Fn(&Key) -> Option<(u64, String, bool)> + Send + Sync>;

type Starter = Box<dyn FnOnce(&Arc<Hub>) + Send>;

/// Collects what the controllers watch, before any of them runs.
pub struct Watches {
    informers: Informers,
    world: World,
    seen: HashMap<(&'static str, &'static str), Seen>,
    kinds: HashSet<TypeId>,
    starters: Vec<Starter>,
    synced: Vec<BoxFuture<'static, bool>>,
    queue: Queue<Key>,
}

impl Watches {
    fn new(informers: Informers) -> Self {
        Watches {
            informers,
            world: World::new(),
            seen: HashMap::new(),
            kinds: HashSet::new(),
            starters: Vec::new(),
            synced: Vec::new(),
            queue: Queue::default(),
        }
    }

    /// Makes `K` readable; its changes wake nobody.
    pub fn read<K: Kind>(&mut self) -> Informer<K> {
        self.select(watcher::Config::default())
    }

    /// Makes the part of `K` readable that a selector chooses. One selector a kind.
    pub fn select<K: Kind>(&mut self, config: watcher::Config) -> Informer<K> {
        let informer = self.informers.select::<K>(config);
        if self.kinds.insert(TypeId::of::<K>()) {
            self.world.insert(informer.clone());
            self.seen.insert((K::API_VERSION, K::KIND), see(&informer));
            let waiting = informer.clone();
            self.synced.push(Box::pin(async move { waiting.synced().await }));
        }
        informer
    }

    /// Changes of `K` wake the object itself.
    pub fn own<K: Kind>(&mut self) {
        self.map::<K>(|_, object| vec![Key::of(object)]);
    }

    /// Changes of `K` wake its managing controller, where that is an `O`.
    pub fn owned<K: Kind, O: Kind>(&mut self) {
        self.map::<K>(|_, object| match owner::controller_of(object) {
            Some(controller) if controller.kind == O::KIND => {
                vec![Key::new(
                    object.meta().namespace.clone().unwrap_or_default(),
                    &controller.name,
                )]
            }
            _ => Vec::new(),
        });
    }

    /// Changes of `K` wake its managing controller, where that is an `O`; one that nobody manages
    /// wakes every `O` whose selector would adopt it.
    pub fn dependents<K: Kind, O: Kind>(&mut self, selector: fn(&O) -> Option<Selector>) {
        self.map::<K>(move |world, object| {
            let namespace = object.meta().namespace.as_deref().unwrap_or_default();
            match owner::controller_of(object) {
                Some(controller) if controller.kind == O::KIND => {
                    vec![Key::new(namespace, &controller.name)]
                }
                Some(_) => Vec::new(),
                None => {
                    let mut owners = world.list::<O>(namespace);
                    owners.retain(|o| selector(o).is_some_and(|s| s.matches(object.labels())));
                    owners.iter().map(|o| Key::of(o.as_ref())).collect()
                }
            }
        });
    }

    /// Changes of `K` wake the keys that `keys` names, for the old and the new state.
    pub fn map<K: Kind>(&mut self, keys: impl Fn(&World, &K) -> Vec<Key> + Send + Sync + 'static) {
        let informer = self.read::<K>();
        self.map_from(informer, keys);
    }

    /// As `map`, for an informer with a selector.
    pub fn map_from<K: Kind>(
        &mut self,
        informer: Informer<K>,
        keys: impl Fn(&World, &K) -> Vec<Key> + Send + Sync + 'static,
    ) {
        let queue = self.queue.clone();
        self.starters.push(Box::new(move |hub| {
            let hub = hub.clone();
            informer.on_change(move |change| {
                for side in [&change.old, &change.new].into_iter().flatten() {
                    keys(&hub.world, side).into_iter().for_each(|key| queue.add(key));
                }
            });
        }));
    }
}

fn see<K: Kind>(informer: &Informer<K>) -> Seen {
    let (sender, newest) = watch::channel(0);
    informer.on_change(move |change| {
        let version = change.new.as_ref().map_or(0, |object| version_of(object.as_ref()));
        sender.send_modify(|newest| *newest = version.max(*newest));
    });
    let informer = informer.clone();
    let find = move |key: &Key| {
        let object = informer.get(key)?;
        let meta = object.meta();
        let uid = meta.uid.clone().unwrap_or_default();
        Some((version_of(object.as_ref()), uid, meta.deletion_timestamp.is_some()))
    };
    Seen { newest, find: Box::new(find) }
}

fn version_of<K: Kind>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl Hub {
    /// Waits until the caches show `written`, or until it is clear that they will not.
    async fn caught_up(&self, written: &[Written]) {
        let all = async {
            for write in written {
                let kind = (write.target.api_version.as_str(), write.target.kind.as_str());
                let Some(seen) = self.seen.iter().find(|(k, _)| **k == kind).map(|(_, seen)| seen)
                else {
                    continue;
                };
                let key = write.key();
                let shows = |newest: &u64| match (seen.find)(&key) {
                    _ if write.revision > 0 && *newest >= write.revision => true,
                    Some((_, uid, leaving)) if !write.deleted_uid.is_empty() => {
                        uid != write.deleted_uid || leaving
                    }
                    Some((version, ..)) => version >= write.revision,
                    None => !write.deleted_uid.is_empty(),
                };
                // The sender lives as long as the informer; without one nothing will come.
                let _ = seen.newest.clone().wait_for(shows).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(CATCH_UP_SECONDS), all).await.is_err() {
            tracing::debug!(?written, "the caches have not seen these writes in time");
        }
    }
}

/// Runs `controllers` until `stop`, each with a queue and workers of its own.
pub async fn run(
    controllers: &'static [Controller],
    client: Client,
    informers: Informers,
    config: Config,
    stop: CancellationToken,
) {
    let mut watches = Watches::new(informers);
    let mut queues = Vec::new();
    for controller in controllers {
        watches.queue = Queue::default();
        (controller.watches)(&mut watches);
        queues.push(watches.queue.clone());
    }
    let Watches { world, seen, starters, synced, .. } = watches;
    let hub = Arc::new(Hub { client, world, config, seen });
    tokio::select! {
        _ = futures::future::join_all(synced) => {}
        () = stop.cancelled() => return,
    }
    starters.into_iter().for_each(|start| start(&hub));
    let running = controllers.iter().zip(queues).map(|(controller, queue)| {
        let worker = Arc::new(Worker {
            hub: hub.clone(),
            hands: Hands::new(hub.client.clone(), controller.name),
            failures: Mutex::default(),
            controller,
        });
        let stop = stop.clone();
        tokio::spawn(async move {
            queue.run(WORKERS, stop, |key| worker.clone().handle(key)).await;
        })
    });
    futures::future::join_all(running.collect::<Vec<_>>()).await;
}

struct Worker {
    hub: Arc<Hub>,
    hands: Hands,
    controller: &'static Controller,
    /// The last failure of each key that fails; gone with the first success.
    failures: Mutex<HashMap<Key, Failure>>,
}

impl Worker {
    async fn handle(self: Arc<Self>, key: Key) -> Outcome {
        match self.controller.reconcile {
            Reconcile::Plan(plan) => self.plan_and_act(plan, &key).await,
            Reconcile::Live(reconcile) => {
                let name = self.controller.name;
                reconcile(self.hub.clone(), key.clone()).await.unwrap_or_else(|error| {
                    tracing::debug!(controller = name, %key, error = %base::chain(&error), "failed");
                    Outcome::Retry
                })
            }
        }
    }

    async fn plan_and_act(&self, plan: fn(&Cx, &Key) -> Plan, key: &Key) -> Outcome {
        let known = self.failures.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let now = Timestamp::now();
        let (world, config) = (&self.hub.world, &self.hub.config);
        let moment = world.moment();
        let cx = Cx { world, now, moment, config, failure: known.as_ref() };
        let Plan { actions, again } = plan(&cx, key);
        let acted = !actions.is_empty();
        for action in &actions {
            tracing::debug!(controller = self.controller.name, %key, %action);
        }
        let results = self.hands.carry_out(actions).await;
        if acted {
            self.hub.caught_up(&results.written).await;
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match results.failure {
            Some(failure) => drop(failures.insert(key.clone(), failure)),
            None if !results.retry => drop(failures.remove(key)),
            None => {}
        }
        let wait = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        match again {
            _ if results.retry => Outcome::Retry,
            // The condition that told of the failure has to go.
            _ if known.is_some() => Outcome::After(Duration::ZERO),
            Some(at) => Outcome::After(wait(at)),
            None => Outcome::Done,
        }
    }
}
