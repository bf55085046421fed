//! What the controllers know of the cluster: one shared cache a kind, read without I/O.
//! A plan reads nothing else, so a test can hand it a world made of a few YAML documents.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{Informer, Key};
use jiff::Timestamp;

use crate::action::Kind;

/// Read-only caches by kind, and when some things were first observed: times that are in no
/// object, since the clocks of a cluster's boards need not agree.
pub struct World {
    caches: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    notes: Mutex<HashMap<(&'static str, String), Note>>,
    started: Timestamp,
}

/// When something was seen to change, and what it changed to.
struct Note {
    at: Timestamp,
    value: Option<Timestamp>,
}

enum Source<K> {
    Live(Informer<K>),
    Fixed(BTreeMap<Key, Arc<K>>),
}

impl World {
    /// An empty world, observed from `started` on.
    pub fn new(started: Timestamp) -> Self {
        World { caches: HashMap::new(), notes: Mutex::default(), started }
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<(&'static str, String), Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When observation began: nothing can have been missed for longer.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Notes that `name` has (still) this value. Says whether there was a note before; its
    /// time moves only with the value.
    pub fn note(
        &self,
        topic: &'static str,
        name: &str,
        value: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let mut notes = self.notes();
        let known = notes.get(&(topic, name.to_owned()));
        let changed = known.is_none_or(|note| note.value != value);
        let was_known = known.is_some();
        if changed {
            notes.insert((topic, name.to_owned()), Note { at: now, value });
        }
        was_known
    }

    /// When `name` was last noted to change.
    pub fn noted(&self, topic: &'static str, name: &str) -> Option<Timestamp> {
        self.notes().get(&(topic, name.to_owned())).map(|note| note.at)
    }

    /// Removes a note.
    pub fn forget(&self, topic: &'static str, name: &str) {
        self.notes().remove(&(topic, name.to_owned()));
    }

    /// Makes kind `K` readable from its shared cache.
    pub fn insert<K: Kind>(&mut self, informer: Informer<K>) {
        self.caches.insert(TypeId::of::<K>(), Box::new(Source::Live(informer)));
    }

    /// Makes kind `K` readable as exactly these objects.
    pub fn fix<K: Kind>(&mut self, objects: impl IntoIterator<Item = K>) {
        let objects = objects.into_iter().map(|object| (Key::of(&object), Arc::new(object)));
        let source = Source::Fixed(objects.collect());
        self.caches.insert(TypeId::of::<K>(), Box::new(source));
    }

    fn source<K: Kind>(&self) -> Option<&Source<K>> {
        self.caches.get(&TypeId::of::<K>())?.downcast_ref()
    }

    /// One object; the namespace is empty for cluster-scoped kinds.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = Key::new(namespace, name);
        match self.source::<K>()? {
            Source::Live(informer) => informer.get(&key),
            Source::Fixed(objects) => objects.get(&key).cloned(),
        }
    }

    /// All objects of the kind in `namespace` (empty: in all), ordered by namespace and name.
    pub fn list<K: Kind>(&self, namespace: &str) -> Vec<Arc<K>> {
        let keep = |object: &K| {
            namespace.is_empty() || object.meta().namespace.as_deref() == Some(namespace)
        };
        match self.source::<K>() {
            None => Vec::new(),
            Some(Source::Fixed(objects)) => {
                objects.values().filter(|object| keep(object)).cloned().collect()
            }
            Some(Source::Live(informer)) => {
                let mut all = informer.select(keep);
                all.sort_by(|a, b| {
                    let (a, b) = (a.meta(), b.meta());
                    (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name))
                });
                all
            }
        }
    }
}
