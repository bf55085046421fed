//! Random operations against a plain model, invariants checked at each step.

use std::collections::BTreeMap;

use store::{
    Entry, EventKind, Expect, Key, ListError, Page, Range, Revision, Store, Watch, WriteError,
};

use crate::support::{Medium, options, stamped, text, value};

const STEPS: usize = 1500;

/// What an object should be: created, revision, text.
type Object = (Revision, Revision, String);
type State = BTreeMap<Key, Object>;

struct Model {
    random: fastrand::Rng,
    state: State,
    /// Every state since the store was opened, by revision: what paged lists must show.
    history: BTreeMap<Revision, State>,
    /// The highest revision ever seen; none may come again.
    highest: Revision,
    watches: Vec<Watched>,
}

/// A watch and the state it has built up from events.
struct Watched {
    watch: Watch,
    collection: &'static str,
    state: State,
    last: Revision,
}

const COLLECTIONS: [&str; 3] = ["pods", "apps/deployments", "leases"];

impl Model {
    fn key(&mut self) -> Key {
        let r = &mut self.random;
        Key::new(
            COLLECTIONS[r.usize(..3)],
            ["", "default", "other"][r.usize(..3)],
            format!("n{}", r.u8(..6)),
        )
    }

    fn expect(&mut self, key: &Key) -> Expect {
        let now = self.state.get(key).map(|o| o.1);
        match self.random.u8(..6) {
            0 => Expect::Absent,
            1 => Expect::Any,
            2 => Expect::Revision(self.highest.saturating_sub(self.random.u64(..20))),
            _ => now.map_or(Expect::Absent, Expect::Revision),
        }
    }

    fn allows(&self, key: &Key, expect: Expect) -> bool {
        match (self.state.get(key), expect) {
            (_, Expect::Any) => true,
            (object, Expect::Absent) => object.is_none(),
            (object, Expect::Revision(r)) => object.is_some_and(|o| o.1 == r),
        }
    }

    async fn put(&mut self, store: &Store) {
        let key = self.key();
        let expect = self.expect(&key);
        let content = format!("v{}", self.random.u32(..));
        match store.put(key.clone(), expect, value(&content)).await {
            Ok(entry) => {
                assert!(self.allows(&key, expect), "{key} {expect:?}");
                let created = self.state.get(&key).map_or(entry.revision, |o| o.0);
                self.advance(entry.revision);
                self.state.insert(key, (created, entry.revision, content));
                self.history.insert(entry.revision, self.state.clone());
            }
            Err(WriteError::Conflict { current }) => {
                assert!(!self.allows(&key, expect), "{key} {expect:?}");
                let known = self.state.get(&key).map(|o| o.1);
                assert_eq!(current.map(|e| e.revision), known);
            }
            Err(other) => panic!("{key}: {other}"),
        }
    }

    async fn delete(&mut self, store: &Store) {
        let key = self.key();
        let expect = self.expect(&key);
        match store.delete(&key, expect).await {
            Ok(entry) => {
                let (created, _, content) = self.state.remove(&key).expect("it was there");
                assert_eq!(entry.created, created);
                assert_eq!(text(&entry.value), stamped(&content, entry.revision));
                self.advance(entry.revision);
                self.history.insert(entry.revision, self.state.clone());
            }
            Err(WriteError::NotFound) => assert!(!self.state.contains_key(&key)),
            Err(WriteError::Conflict { .. }) => {
                assert!(self.state.contains_key(&key) && !self.allows(&key, expect));
            }
            Err(other) => panic!("{key}: {other}"),
        }
    }

    fn advance(&mut self, revision: Revision) {
        assert!(revision > self.highest, "{revision} after {}", self.highest);
        self.highest = revision;
    }

    /// What a range held at a revision.
    fn at(&self, range: Range<'_>, revision: Revision) -> Vec<(Key, Object)> {
        let Some((_, state)) = self.history.range(..=revision).next_back() else {
            return Vec::new();
        };
        let inside = |key: &Key| {
            *key.collection == *range.collection
                && range.namespace.is_none_or(|n| *key.namespace == *n)
        };
        state.iter().filter(|(k, _)| inside(k)).map(|(k, o)| (k.clone(), o.clone())).collect()
    }

    fn list(&mut self, store: &Store) {
        let collection = COLLECTIONS[self.random.usize(..3)];
        let namespace = [None, Some("default"), Some("")][self.random.usize(..3)];
        let range = Range { collection, namespace };
        let back = self.random.bool().then(|| self.random.u64(..100));
        let at = back.map(|back| store.revision().saturating_sub(back));
        let (mut after, mut seen, mut limit) = (None, Vec::new(), self.random.usize(..5));
        loop {
            let list = match store.list(range, Page { limit, after, at }) {
                Ok(list) => list,
                Err(ListError::Expired { asked, oldest }) => {
                    assert!(asked < oldest && oldest <= store.revision());
                    return;
                }
                Err(other) => panic!("{other}"),
            };
            let expected = self.at(range, list.revision);
            seen.extend(list.entries);
            assert_eq!(list.remaining, expected.len() - seen.len());
            assert_eq!(list.next.is_some(), list.remaining > 0);
            let Some(next) = list.next else {
                assert_eq!(seen.len(), expected.len());
                seen.iter().zip(&expected).for_each(|(e, (k, o))| same(e, k, o));
                return;
            };
            (after, limit) = (Some(next), 1 + self.random.usize(..5));
        }
    }

    fn watch(&mut self, store: &Store) {
        let collection = COLLECTIONS[self.random.usize(..3)];
        let range = Range { collection, namespace: None };
        let from = store.revision().saturating_sub(self.random.u64(..30));
        match store.watch(range, from) {
            Ok(watch) => {
                let state = self.at(range, from).into_iter().collect();
                self.watches.push(Watched { watch, collection, state, last: from });
            }
            Err(gone) => assert!(gone.asked < gone.oldest),
        }
        if self.watches.len() > 5 {
            self.watches.swap_remove(0);
        }
    }

    /// Reads some watches to their end: each must have arrived at the model's state.
    fn follow(&mut self, store: &Store) {
        let mut kept = Vec::new();
        for mut watched in std::mem::take(&mut self.watches) {
            if self.random.bool() || watched.follow() {
                kept.push(watched);
            } else {
                continue;
            }
            let watched = kept.last_mut().expect("just pushed");
            if watched.watch.progress() == store.revision() {
                let range = Range { collection: watched.collection, namespace: None };
                let expected: State = self.at(range, store.revision()).into_iter().collect();
                assert_eq!(watched.state, expected);
            }
        }
        self.watches = kept;
    }

    fn check(&mut self, store: &Store) {
        assert!(store.revision() >= self.highest);
        let key = self.key();
        match (store.get(&key), self.state.get(&key)) {
            (Some(entry), Some(object)) => same(&entry, &key, object),
            (None, None) => {}
            (found, expected) => panic!("{key}: {found:?}, expected {expected:?}"),
        }
    }

    /// Everything is there again after closing.
    fn reopened(&mut self, store: &Store) {
        self.watches.clear();
        self.history = BTreeMap::from([(store.revision(), self.state.clone())]);
        for (key, object) in &self.state {
            same(&store.get(key).expect("it was stored"), key, object);
        }
        let stored: usize = store.counts().iter().map(|c| c.objects).sum();
        assert_eq!(stored, self.state.len());
    }
}

impl Watched {
    /// Takes in what has come; `false` when the watch has fallen out of the window.
    fn follow(&mut self) -> bool {
        while let Some(next) = self.watch.try_next() {
            let Ok(event) = next else { return false };
            assert!(event.revision > self.last);
            assert_eq!(event.entry.revision, event.revision);
            self.last = event.revision;
            let key = event.entry.key.clone();
            let before = self.state.remove(&key);
            assert_eq!(event.previous.as_ref().map(|p| p.revision), before.as_ref().map(|b| b.1));
            assert_eq!(event.kind == EventKind::Created, before.is_none());
            if event.kind != EventKind::Deleted {
                let label = event.entry.labels.get("text").expect("a label").to_owned();
                self.state.insert(key, (event.entry.created, event.revision, label));
            }
        }
        true
    }
}

fn same(entry: &Entry, key: &Key, (created, revision, content): &Object) {
    assert_eq!(&entry.key, key);
    assert_eq!((entry.created, entry.revision), (*created, *revision));
    assert_eq!(text(&entry.value), stamped(content, *revision));
    assert_eq!(entry.labels.get("text"), Some(&**content));
}

async fn run(medium: &Medium, seed: u64) {
    let (mut store, _) = medium.open_with(options()).await;
    let mut model = Model {
        random: fastrand::Rng::with_seed(seed),
        state: State::new(),
        history: BTreeMap::from([(store.revision(), State::new())]),
        highest: store.revision(),
        watches: Vec::new(),
    };
    for _ in 0..STEPS {
        match model.random.u8(..100) {
            0..50 => model.put(&store).await,
            50..70 => model.delete(&store).await,
            70..85 => model.list(&store),
            85..90 => model.watch(&store),
            90..98 => model.follow(&store),
            98 => store.flush().await.expect("flush"),
            _ => {
                store.close().await.expect("close");
                store = medium.open().await.0;
                model.reopened(&store);
            }
        }
        model.check(&store);
    }
    store.close().await.expect("close");
}

#[tokio::test]
async fn random_operations_agree_with_a_model() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("to replay: SEED={seed}");
    for medium in Medium::all() {
        run(&medium, seed).await;
    }
}
