//! Who owns whom, over all kinds: a pure model fed by watches. Of an object without owners
//! only its UID is kept.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Finalizer of an owner that goes only after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner that leaves its dependents behind.
pub const ORPHAN: &str = "orphan";

/// A UID as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(u128);

impl Uid {
    /// UIDs are UUIDs; another text (only a foreign API makes one) is hashed.
    pub fn of(text: &str) -> Self {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        Uid(u128::from_str_radix(&hex, 16).unwrap_or_else(|_| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish().into()
        }))
    }
}

/// An object that has owners, or waits for its dependents while it is being deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Index of its kind in the collector's table.
    pub kind: u16,
    /// Empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Owners, and whether each may not go before this object does.
    pub owners: Box<[(Uid, bool)]>,
    /// Being deleted.
    pub deleting: bool,
    /// Waits for its dependents to go.
    pub foreground: bool,
    /// Waits for its dependents to be set free.
    pub orphan: bool,
}

/// The model.
#[derive(Debug, Default)]
pub struct Graph {
    /// Every object that exists, by kind.
    present: HashMap<Uid, u16>,
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

/// What should be looked at after a change.
#[derive(Debug, Default, PartialEq)]
pub struct Work {
    /// Now.
    pub now: Vec<Uid>,
    /// Soon: an owner has not been seen, which may only be the order of the watches.
    pub soon: Vec<Uid>,
}

impl Graph {
    /// An object is new or has changed.
    pub fn apply(&mut self, kind: u16, meta: &ObjectMeta) -> Work {
        let mut work = Work::default();
        let Some(uid) = meta.uid.as_deref().map(Uid::of) else { return work };
        self.present.insert(uid, kind);
        let finalizer = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
        let deleting = meta.deletion_timestamp.is_some();
        let owners = meta.owner_references.iter().flatten();
        let node = Node {
            kind,
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            owners: owners
                .map(|owner| (Uid::of(&owner.uid), owner.block_owner_deletion == Some(true)))
                .collect(),
            deleting,
            foreground: deleting && finalizer(FOREGROUND),
            orphan: deleting && finalizer(ORPHAN),
        };
        if self.nodes.get(&uid) == Some(&node) {
            return work;
        }
        if node.foreground || node.orphan {
            work.now.push(uid);
        }
        if !deleting && node.owners.iter().any(|(owner, _)| !self.present.contains_key(owner)) {
            work.soon.push(uid);
        }
        // A dependent that has let go, or is going, may be what its owner waits for.
        let before = self.forget_node(uid);
        let owners = before.iter().chain([&node]).flat_map(|n| n.owners.iter());
        work.now.extend(owners.map(|(owner, _)| *owner).filter(|owner| self.waits(owner)));
        if !node.owners.is_empty() || node.foreground || node.orphan {
            for (owner, _) in &node.owners {
                self.dependents.entry(*owner).or_default().insert(uid);
            }
            self.nodes.insert(uid, node);
        }
        work.now.sort_unstable();
        work.now.dedup();
        work
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: Uid) -> Work {
        self.present.remove(&uid);
        let mut now = Vec::new();
        if let Some(node) = self.forget_node(uid) {
            now.extend(node.owners.iter().map(|(owner, _)| *owner).filter(|o| self.waits(o)));
        }
        now.extend(self.dependents.get(&uid).into_iter().flatten());
        now.sort_unstable();
        Work { now, soon: Vec::new() }
    }

    fn forget_node(&mut self, uid: Uid) -> Option<Node> {
        let node = self.nodes.remove(&uid)?;
        for (owner, _) in &node.owners {
            if let Some(dependents) = self.dependents.get_mut(owner) {
                dependents.remove(&uid);
                if dependents.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        Some(node)
    }

    fn waits(&self, uid: &Uid) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.foreground)
    }

    /// Whether an owner stands in the way of collecting its dependents.
    pub fn is_solid(&self, owner: Uid) -> bool {
        self.present.contains_key(&owner) && !self.waits(&owner)
    }

    /// Whether an owner is being deleted and waits for its dependents.
    pub fn is_waiting(&self, owner: Uid) -> bool {
        self.waits(&owner)
    }

    /// Whether one of an object's dependents is itself being deleted and waits for its own.
    pub fn has_waiting_dependent(&self, uid: Uid) -> bool {
        self.dependents.get(&uid).into_iter().flatten().any(|dependent| self.waits(dependent))
    }

    /// Everything known of an object with owners or GC finalizers.
    pub fn node(&self, uid: Uid) -> Option<&Node> {
        self.nodes.get(&uid)
    }

    /// The dependents of an object, and whether each blocks its going.
    pub fn dependents(&self, uid: Uid) -> Vec<(Uid, bool)> {
        let dependents = self.dependents.get(&uid).into_iter().flatten();
        let blocks = |dependent: &Uid| {
            let owners = self.nodes.get(dependent).map(|node| &node.owners);
            owners.is_some_and(|owners| owners.contains(&(uid, true)))
        };
        let mut all: Vec<_> = dependents.map(|dependent| (*dependent, blocks(dependent))).collect();
        all.sort_unstable();
        all
    }

    /// Objects of a kind that a new complete list no longer has.
    pub fn missing(&self, kind: u16, listed: &HashSet<Uid>) -> Vec<Uid> {
        let of_kind = self.present.iter().filter(|(_, k)| **k == kind);
        of_kind.map(|(uid, _)| *uid).filter(|uid| !listed.contains(uid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(yaml: &str) -> ObjectMeta {
        serde_saphyr::from_str(yaml).expect("metadata")
    }

    fn owned(uid: &str, owner: &str, rest: &str) -> ObjectMeta {
        meta(&format!(
            "{{name: x, uid: {uid}, ownerReferences: [{{apiVersion: v1, kind: K, name: o, uid: {owner}, blockOwnerDeletion: true}}]{rest}}}"
        ))
    }

    const A: &str = "00000000-0000-0000-0000-00000000000a";
    const B: &str = "00000000-0000-0000-0000-00000000000b";

    #[test]
    fn a_vanished_owner_wakes_its_dependents() {
        let mut graph = Graph::default();
        graph.apply(0, &meta(&format!("{{name: o, uid: {A}}}")));
        assert_eq!(graph.apply(1, &owned(B, A, "")), Work::default());
        assert!(graph.is_solid(Uid::of(A)));
        assert_eq!(graph.remove(Uid::of(A)).now, [Uid::of(B)]);
        assert!(!graph.is_solid(Uid::of(A)));
    }

    #[test]
    fn an_unknown_owner_is_looked_at_soon() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(1, &owned(B, A, "")).soon, [Uid::of(B)]);
    }

    #[test]
    fn the_last_dependent_wakes_an_owner_in_the_foreground() {
        let mut graph = Graph::default();
        graph.apply(1, &owned(B, A, ""));
        let waiting = format!(
            "{{name: o, uid: {A}, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [{FOREGROUND}]}}"
        );
        assert_eq!(graph.apply(0, &meta(&waiting)).now, [Uid::of(A)]);
        assert_eq!(graph.dependents(Uid::of(A)), [(Uid::of(B), true)]);
        assert_eq!(graph.remove(Uid::of(B)).now, [Uid::of(A)]);
        assert!(graph.dependents(Uid::of(A)).is_empty());
    }

    #[test]
    fn a_dependent_that_waits_may_close_a_circle() {
        let mut graph = Graph::default();
        graph.apply(0, &owned(A, B, ""));
        graph.apply(0, &owned(B, A, ""));
        assert!(!graph.has_waiting_dependent(Uid::of(B)));
        let waiting =
            format!(", deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [{FOREGROUND}]");
        graph.apply(0, &owned(A, B, &waiting));
        assert!(graph.has_waiting_dependent(Uid::of(B)));
    }

    #[test]
    fn a_relist_shows_what_has_gone() {
        let mut graph = Graph::default();
        graph.apply(0, &meta(&format!("{{name: o, uid: {A}}}")));
        graph.apply(1, &owned(B, A, ""));
        assert_eq!(graph.missing(0, &HashSet::new()), [Uid::of(A)]);
    }
}
