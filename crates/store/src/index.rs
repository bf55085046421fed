//! Everything in memory: the newest state of each object and the window of events.
//!
//! One lock for all collections, so that a list and its revision always belong together.
//! It is held for microseconds and never over I/O: the longest holder clones some
//! thousand `Arc`s. A lock per collection was turned down, for then a list could be newer
//! than the revision it names.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use crate::driver::{Change, Ground};
use crate::window::{Window, cost};
use crate::{
    Codec, Compacted, Count, Dump, Entry, Event, EventKind, Key, Labels, List, ListError, Options,
    Page, Range, Revision, Slot,
};

/// The memory of a store.
pub(crate) struct Index {
    state: RwLock<State>,
    codec: Arc<dyn Codec>,
    limits: Options,
    /// Follows the revision, for those who wait for one.
    progress: watch::Sender<Revision>,
}

struct State {
    /// Everything up to here is known.
    revision: Revision,
    /// The revision at which this process began: no window reaches further back.
    start: Revision,
    /// Lists show no revision before this one, however far a window reaches.
    compacted: Revision,
    closed: bool,
    collections: HashMap<Arc<str>, Collection>,
    window_bytes: usize,
}

struct Collection {
    name: Arc<str>,
    entries: BTreeMap<Slot, Arc<Entry>>,
    bytes: usize,
    window: Window,
    changed: watch::Sender<()>,
}

/// A change whose value has been stamped and read, which needs no lock.
struct Prepared {
    change: Change,
    stamped: Option<(bytes::Bytes, Labels)>,
}

/// How far a watcher has read.
pub(crate) enum Fill {
    /// Everything up to this revision is in the buffer, or does not concern the watcher.
    UpTo(Revision),
    /// The window has moved on.
    Compacted(Compacted),
    /// The store is closed and all was read.
    Closed,
}

impl Index {
    pub(crate) fn new(codec: Arc<dyn Codec>, limits: Options) -> Self {
        let state = State {
            revision: 0,
            start: 0,
            compacted: 0,
            closed: false,
            collections: HashMap::new(),
            window_bytes: 0,
        };
        Self { state: RwLock::new(state), codec, limits, progress: watch::Sender::new(0) }
    }

    /// A panic while the lock was held can only come from a codec between two whole
    /// changes, so the state is sound and reading goes on.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an object while loading: no event.
    pub(crate) fn load(&self, change: Change) {
        let Some(value) = &change.value else { return };
        let stamped = self.codec.stamp(value, change.revision);
        let labels = self.codec.labels(value);
        let mut state = self.write();
        state.collection(&change.key.collection).set(change, stamped, labels);
    }

    /// Ends loading: this is where history begins.
    pub(crate) fn begin(&self, revision: Revision) {
        self.write().begin(revision);
        self.progress.send_replace(revision);
    }

    /// Takes in committed changes, in order, and tells the watchers. Gives their events.
    pub(crate) fn apply(&self, changes: Vec<Change>) -> Vec<Arc<Event>> {
        let prepared = self.prepare(changes);
        let mut state = self.write();
        let events = self.take(&mut state, prepared);
        let revision = state.revision;
        drop(state);
        self.progress.send_replace(revision);
        events
    }

    /// Takes in changes of a feed, which may know some of them already, and that there were
    /// no others up to `revision`.
    pub(crate) fn publish(&self, changes: Vec<Change>, revision: Revision) {
        let prepared = self.prepare(changes);
        let mut state = self.write();
        let known = state.revision;
        self.take(&mut state, prepared.into_iter().filter(|p| p.change.revision > known));
        state.revision = state.revision.max(revision);
        let revision = state.revision;
        drop(state);
        self.progress.send_replace(revision);
    }

    /// Takes in the changes that follow without a gap; gives the newest revision.
    pub(crate) fn follow(&self, changes: Vec<Change>) -> Revision {
        let prepared = self.prepare(changes);
        let mut state = self.write();
        let mut next = state.revision + 1;
        let follows = |p: &Prepared| {
            let follows = p.change.revision == next;
            next += u64::from(follows);
            follows
        };
        let known = state.revision;
        let new = prepared.into_iter().skip_while(|p| p.change.revision <= known);
        self.take(&mut state, new.take_while(follows));
        let revision = state.revision;
        drop(state);
        self.progress.send_replace(revision);
        revision
    }

    /// Replaces everything; all watches end, since what happened in between is not known.
    pub(crate) fn reset(&self, changes: Vec<Change>, revision: Revision) {
        let prepared = self.prepare(changes);
        let mut state = self.write();
        state.collections.values_mut().for_each(Collection::clear);
        for Prepared { change, stamped } in prepared {
            let Some((value, labels)) = stamped else { continue };
            state.collection(&change.key.collection).set(change, value, labels);
        }
        state.begin(revision);
        state.collections.values().for_each(|c| c.changed.send_replace(()));
        drop(state);
        self.progress.send_replace(revision);
    }

    /// Stamps and reads the values, which needs no lock.
    fn prepare(&self, changes: Vec<Change>) -> Vec<Prepared> {
        let prepare = |change: Change| {
            let stamp =
                |v: &bytes::Bytes| (self.codec.stamp(v, change.revision), self.codec.labels(v));
            Prepared { stamped: change.value.as_ref().map(stamp), change }
        };
        changes.into_iter().map(prepare).collect()
    }

    fn take(
        &self,
        state: &mut State,
        prepared: impl IntoIterator<Item = Prepared>,
    ) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        for p in prepared {
            let revision = p.change.revision;
            let key = p.change.key.clone();
            let collection = state.collection(&key.collection);
            if let Some(event) = collection.apply(p, &*self.codec) {
                collection.window.push(event.clone());
                state.window_bytes += cost(&event);
                state.trim(&key.collection, &self.limits);
                events.push(event);
            }
            state.revision = state.revision.max(revision);
        }
        let mut last: Option<&Arc<str>> = None;
        for event in &events {
            let name = &event.entry.key.collection;
            if last != Some(name) {
                state.collection(name).changed.send_replace(());
                last = Some(name);
            }
        }
        events
    }

    /// The entry that a change has made: the index's own where it is still there.
    pub(crate) fn entry_of(&self, change: Change) -> Arc<Entry> {
        let Change { key, created, revision, value } = change;
        if let Some(entry) = self.get(&key).filter(|e| e.revision == revision) {
            return entry;
        }
        let value = value.unwrap_or_default();
        let labels = self.codec.labels(&value);
        let value = self.codec.stamp(&value, revision);
        Arc::new(Entry { key, created, revision, value, labels })
    }

    /// Waits until everything up to a revision is known.
    pub(crate) async fn reached(&self, revision: Revision) {
        // The sender lives as long as the index.
        let _ = self.progress.subscribe().wait_for(|&newest| newest >= revision).await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.read().closed
    }

    /// Everything as of now, in the order of the last changes.
    pub(crate) fn dump(&self) -> Dump {
        let state = self.read();
        let entries = state.collections.values().flat_map(|c| c.entries.values());
        let mut entries: Vec<Arc<Entry>> = entries.cloned().collect();
        let revision = state.revision;
        drop(state);
        entries.sort_by_key(|e| e.revision);
        Dump { revision, entries }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.read().revision
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.read().collections.get(&key.collection)?.entries.get(&key.slot()).cloned()
    }

    pub(crate) fn list(&self, range: Range<'_>, page: Page) -> Result<List, ListError> {
        let state = self.read();
        let revision = page.at.unwrap_or(state.revision);
        if revision > state.revision {
            return Err(ListError::Ahead { asked: revision, newest: state.revision });
        }
        let collection = state.collections.get(range.collection);
        let oldest = collection.map_or(state.start, |c| c.window.floor()).max(state.compacted);
        if page.at.is_some() && revision < oldest {
            return Err(ListError::Expired { asked: revision, oldest });
        }
        let Some(collection) = collection else {
            return Ok(List { revision, entries: Vec::new(), remaining: 0, next: None });
        };
        Ok(collection.list(range.namespace, page, revision))
    }

    /// Lists show nothing before this revision, which has been reached, any more.
    pub(crate) fn compact(&self, before: Revision) {
        let mut state = self.write();
        state.compacted = state.compacted.max(before.min(state.revision));
    }

    pub(crate) fn counts(&self) -> Vec<Count> {
        let state = self.read();
        let count = |c: &Collection| Count {
            collection: c.name.clone(),
            objects: c.entries.len(),
            bytes: c.bytes,
            window_events: c.window.len(),
            window_bytes: c.window.bytes(),
        };
        let mut counts: Vec<Count> = state.collections.values().map(count).collect();
        counts.sort_by(|a, b| a.collection.cmp(&b.collection));
        counts
    }

    /// Where a new watcher of a collection begins, and what wakes it.
    pub(crate) fn subscribe(
        &self,
        collection: &str,
        after: Revision,
    ) -> Result<(Arc<str>, watch::Receiver<()>), Compacted> {
        let name = Arc::from(collection);
        let mut state = self.write();
        let collection = state.collection(&name);
        let oldest = collection.window.floor();
        if after < oldest {
            return Err(Compacted { asked: after, oldest });
        }
        Ok((collection.name.clone(), collection.changed.subscribe()))
    }

    /// Copies what a watcher has not seen yet, at most `limit` events.
    pub(crate) fn fill(
        &self,
        collection: &str,
        namespace: Option<&str>,
        after: Revision,
        limit: usize,
        buffer: &mut VecDeque<Arc<Event>>,
    ) -> Fill {
        let state = self.read();
        let Some(collection) = state.collections.get(collection) else { return Fill::Closed };
        let oldest = collection.window.floor();
        if after < oldest {
            return Fill::Compacted(Compacted { asked: after, oldest });
        }
        for event in collection.window.after(after) {
            if namespace.is_none_or(|n| *event.entry.key.namespace == *n) {
                buffer.push_back(event.clone());
                if buffer.len() >= limit {
                    return Fill::UpTo(event.revision);
                }
            }
        }
        if state.closed && buffer.is_empty() {
            return Fill::Closed;
        }
        // A watcher may start ahead of the store; its place must not move back.
        Fill::UpTo(state.revision.max(after))
    }

    /// Lets the watchers read what is left and end.
    pub(crate) fn close(&self) {
        let mut state = self.write();
        state.closed = true;
        state.collections.values().for_each(|c| c.changed.send_replace(()));
    }
}

impl Ground for Index {
    fn entry(&self, key: &Key) -> Option<Arc<Entry>> {
        self.get(key)
    }
}

impl State {
    /// History begins here.
    fn begin(&mut self, revision: Revision) {
        self.revision = revision;
        self.start = revision;
        self.window_bytes = 0;
        self.collections.values_mut().for_each(|c| c.window = Window::new(revision));
    }

    fn collection(&mut self, name: &Arc<str>) -> &mut Collection {
        let start = self.start;
        self.collections.entry(name.clone()).or_insert_with(|| Collection {
            name: name.clone(),
            entries: BTreeMap::new(),
            bytes: 0,
            window: Window::new(start),
            changed: watch::Sender::new(()),
        })
    }

    /// Brings the windows back within their limits after a push to `name`.
    fn trim(&mut self, name: &Arc<str>, limits: &Options) {
        let window = &mut self.collection(name).window;
        let mut freed = 0;
        while window.len() > limits.window_max_events || window.bytes() > limits.window_max_bytes {
            freed += window.forget();
        }
        self.window_bytes -= freed;
        while self.window_bytes > limits.windows_max_bytes {
            let windows = self.collections.values_mut().map(|c| &mut c.window);
            let oldest = windows
                .filter_map(|w| w.oldest().map(|r| (r, w)))
                .min_by_key(|(revision, _)| *revision);
            let Some((_, window)) = oldest else { return };
            self.window_bytes -= window.forget();
        }
    }
}

impl Collection {
    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn set(&mut self, change: Change, value: bytes::Bytes, labels: Labels) -> Arc<Entry> {
        let Change { mut key, created, revision, .. } = change;
        key.collection = self.name.clone();
        self.bytes += value.len();
        let entry = Arc::new(Entry { key, created, revision, value, labels });
        self.entries.insert(entry.key.slot(), entry.clone());
        entry
    }

    fn apply(&mut self, prepared: Prepared, codec: &dyn Codec) -> Option<Arc<Event>> {
        let Prepared { change, stamped } = prepared;
        let revision = change.revision;
        let previous = self.entries.remove(&change.key.slot());
        self.bytes -= previous.as_ref().map_or(0, |p| p.value.len());
        let (kind, entry) = match (stamped, &previous) {
            (Some((value, labels)), None) => (EventKind::Created, self.set(change, value, labels)),
            (Some((value, labels)), Some(_)) => {
                (EventKind::Updated, self.set(change, value, labels))
            }
            (None, Some(last)) => {
                let value = codec.stamp(&last.value, revision);
                (EventKind::Deleted, Arc::new(Entry { revision, value, ..(**last).clone() }))
            }
            (None, None) => return None,
        };
        let encoded = OnceLock::new();
        Some(Arc::new(Event { revision, kind, entry, previous, encoded }))
    }

    fn list(&self, namespace: Option<&str>, page: Page, revision: Revision) -> List {
        let from = match (page.after, namespace) {
            (Some(slot), _) => Bound::Excluded(slot),
            (None, Some(namespace)) => Bound::Included((namespace.into(), "".into())),
            (None, None) => Bound::Unbounded,
        };
        let inside = |slot: &Slot| namespace.is_none_or(|n| *slot.0 == *n);
        let past = self.past(revision);
        let bounds = (from, Bound::Unbounded);
        let now = self.entries.range(bounds.clone()).take_while(|(slot, _)| inside(slot));
        let now = now.filter(|(slot, _)| !past.contains_key(*slot));
        let then = past.range(bounds).take_while(|(slot, _)| inside(slot));
        let then = then.filter_map(|(slot, entry)| entry.map(|e| (slot, e)));
        let mut merged = merge(now, then);
        let limit = if page.limit == 0 { usize::MAX } else { page.limit };
        let entries: Vec<Arc<Entry>> = merged.by_ref().take(limit).cloned().collect();
        let remaining = merged.count();
        let next = entries.last().filter(|_| remaining > 0).map(|e| e.key.slot());
        List { revision, entries, remaining, next }
    }

    /// How each object that changed after `revision` stood at it: the events walked back,
    /// so that the oldest one's "before" is what remains.
    fn past(&self, revision: Revision) -> BTreeMap<Slot, Option<&Arc<Entry>>> {
        let back = self.window.after(revision).rev();
        back.map(|event| (event.entry.key.slot(), event.previous.as_ref())).collect()
    }
}

/// Merges two sorted sequences without a common slot.
fn merge<'a>(
    a: impl Iterator<Item = (&'a Slot, &'a Arc<Entry>)>,
    b: impl Iterator<Item = (&'a Slot, &'a Arc<Entry>)>,
) -> impl Iterator<Item = &'a Arc<Entry>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || {
        let left = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.0 < y.0,
            (x, _) => x.is_some(),
        };
        let next = if left { a.next() } else { b.next() };
        next.map(|(_, entry)| entry)
    })
}
