//! The nouns of the store: keys, entries, and what a caller may ask of them.

use std::sync::Arc;

use bytes::Bytes;

/// A point in the store's history. One counter serves all collections, starts above zero
/// and never goes back, also not over a crash or a fall-back to an older copy.
pub type Revision = u64;

/// Where an object stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Group and plural ("apps/deployments"); the core group has the plural alone ("pods").
    pub collection: Arc<str>,
    /// Namespace; empty for cluster scope.
    pub namespace: Arc<str>,
    /// Name within collection and namespace.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its three parts; an empty namespace means cluster scope.
    pub fn new(
        collection: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
    ) -> Self {
        Self { collection: collection.into(), namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn slot(&self) -> Slot {
        (self.namespace.clone(), self.name.clone())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { collection, namespace, name } = self;
        match namespace.is_empty() {
            true => write!(f, "{collection}/{name}"),
            false => write!(f, "{collection}/{namespace}/{name}"),
        }
    }
}

/// Namespace and name: the order of lists, and where one page ends and the next begins.
pub type Slot = (Arc<str>, Arc<str>);

/// An object's labels, sorted by name. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Option<Arc<[Label]>>);

/// Name and value.
type Label = (Box<str>, Box<str>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        let pairs = self.0.as_deref()?;
        let at = pairs.binary_search_by(|(k, _)| (**k).cmp(name)).ok()?;
        Some(&pairs[at].1)
    }

    /// All labels in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.as_deref().unwrap_or_default().iter().map(|(k, v)| (&**k, &**v))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    /// Of two values for one name the last wins, as in JSON.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: std::collections::BTreeMap<Box<str>, Box<str>> =
            pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self((!sorted.is_empty()).then(|| sorted.into_iter().collect()))
    }
}

/// One object as it stood at one revision. Never changes; shared by everyone who looks.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it stands.
    pub key: Key,
    /// The revision that created it.
    pub created: Revision,
    /// The revision of this state.
    pub revision: Revision,
    /// The value, stamped with `revision`.
    pub value: Bytes,
    /// Its labels, as the codec read them.
    pub labels: Labels,
}

/// What the store must know of a value, given by the caller: it never reads one itself.
pub trait Codec: Send + Sync + 'static {
    /// The value with the revision written into it. A value that carries an older stamp
    /// comes here too (a deletion, a checkpointed object): that stamp must be replaced.
    /// [`stamp_member`](crate::stamp_member) does both for JSON.
    fn stamp(&self, value: &[u8], revision: Revision) -> Bytes;

    /// The labels of a value.
    fn labels(&self, value: &[u8]) -> Labels;
}

/// What a writer expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No object of that key.
    Absent,
    /// The object at exactly that revision.
    Revision(Revision),
    /// Anything.
    Any,
}

/// What a list or a watch covers.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// The collection.
    pub collection: &'a str,
    /// One namespace only; `None` for all.
    pub namespace: Option<&'a str>,
}

/// Which part of a list, as of when.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Most entries to return; 0 for all.
    pub limit: usize,
    /// Only what comes after this slot: [`List::next`] of the page before.
    pub after: Option<Slot>,
    /// The state at this revision ([`List::revision`] of the first page) instead of the newest.
    pub at: Option<Revision>,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct List {
    /// The revision this list shows; a watch that starts here misses nothing.
    pub revision: Revision,
    /// In order of namespace and name.
    pub entries: Vec<Arc<Entry>>,
    /// How many follow this page.
    pub remaining: usize,
    /// Where the next page begins, if there is one.
    pub next: Option<Slot>,
}
