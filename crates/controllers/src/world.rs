//! What the controllers know of the cluster: one shared cache a kind, read without I/O.
//! A plan reads nothing else, so a test can hand it a world made of a few YAML documents.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::ops::Add;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use client::{Informer, Key};
use jiff::{SignedDuration, Timestamp};

use crate::action::Kind;

/// A time by the process's own clock, counted from when observation began. No correction of the
/// board's clock moves it: boards have no battery, and their clocks jump by years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(SignedDuration);

impl Moment {
    /// When observation began: nothing can have been missed for longer.
    pub const ZERO: Moment = Moment(SignedDuration::ZERO);

    /// The time from `earlier` until this moment.
    pub fn since(self, earlier: Moment) -> SignedDuration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<SignedDuration> for Moment {
    type Output = Moment;

    fn add(self, duration: SignedDuration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

/// Read-only caches by kind, and when some things were first observed: times that are in no
/// object, since the clocks of a cluster's boards need not agree.
pub struct World {
    caches: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    notes: Mutex<HashMap<(&'static str, String), Note>>,
    turns: Mutex<HashMap<String, Turn>>,
    began: Began,
}

/// Who had the last turn of a queue, and when.
struct Turn {
    name: String,
    at: Moment,
}

/// Where moments are counted from.
enum Began {
    At(Instant),
    /// In a test it is always the same moment and the same time.
    Fixed(SignedDuration, Timestamp),
}

/// What was noted of a thing, and when.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// When it was seen to change.
    pub at: Moment,
    /// What the board's clock said then.
    pub wall: Timestamp,
    value: Option<Timestamp>,
}

enum Source<K> {
    Live(Informer<K>),
    Fixed(BTreeMap<Key, Arc<K>>),
}

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}

impl World {
    /// An empty world, observed from now on.
    pub fn new() -> Self {
        World {
            caches: HashMap::new(),
            notes: Mutex::default(),
            turns: Mutex::default(),
            began: Began::At(Instant::now()),
        }
    }

    /// An empty world at a moment and a time that stand still.
    pub fn fixed(moment: SignedDuration, now: Timestamp) -> Self {
        World { began: Began::Fixed(moment, now), ..World::new() }
    }

    /// Moves a fixed world to another moment.
    pub fn fix_moment(&mut self, moment: SignedDuration) {
        if let Began::Fixed(fixed, _) = &mut self.began {
            *fixed = moment;
        }
    }

    /// Now, by our own clock.
    pub fn moment(&self) -> Moment {
        match self.began {
            Began::At(began) => {
                Moment(SignedDuration::try_from(began.elapsed()).unwrap_or(SignedDuration::MAX))
            }
            Began::Fixed(moment, _) => Moment(moment),
        }
    }

    fn wall(&self) -> Timestamp {
        match self.began {
            Began::At(_) => Timestamp::now(),
            Began::Fixed(_, now) => now,
        }
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<(&'static str, String), Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `name` has (still) this value. Says whether there was a note before; its
    /// time moves only with the value.
    pub fn note(&self, topic: &'static str, name: &str, value: Option<Timestamp>) -> bool {
        let (at, wall) = (self.moment(), self.wall());
        let mut notes = self.notes();
        let known = notes.get(&(topic, name.to_owned()));
        let changed = known.is_none_or(|note| note.value != value);
        let was_known = known.is_some();
        if changed {
            notes.insert((topic, name.to_owned()), Note { at, wall, value });
        }
        was_known
    }

    /// When `name` was last noted to change.
    pub fn noted(&self, topic: &'static str, name: &str) -> Option<Note> {
        self.notes().get(&(topic, name.to_owned())).copied()
    }

    /// Removes a note.
    pub fn forget(&self, topic: &'static str, name: &str) {
        self.notes().remove(&(topic, name.to_owned()));
    }

    /// Removes the notes on a topic whose names are such.
    pub fn forget_where(&self, topic: &'static str, is_such: impl Fn(&str) -> bool) {
        self.notes().retain(|(of, name), _| *of != topic || !is_such(name));
    }

    /// Takes the turn of a queue whose turns are at least `every` apart, or says when the next is.
    /// Until then it is still that of who took it: what it was taken for may have failed.
    pub fn turn(&self, queue: &str, name: &str, every: SignedDuration) -> Result<(), Moment> {
        let now = self.moment();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.get(queue) {
            Some(last) if last.at + every > now => match last.name == name {
                true => Ok(()),
                false => Err(last.at + every),
            },
            _ => {
                turns.insert(queue.to_owned(), Turn { name: name.to_owned(), at: now });
                Ok(())
            }
        }
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
