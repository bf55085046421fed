//! From one table to another, in an order the kernel accepts inside one transaction: what is
//! pointed at exists before the pointer, and goes after it.

use std::collections::BTreeMap;

use super::{Atom, Chain, Hook, Rule, Ruleset, Set, Value};

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Makes sure that the table exists and is empty.
    ResetTable,
    /// Removes the table and all in it.
    DeleteTable,
    /// Adds a set, without its elements.
    AddSet { name: String, set: Set },
    /// Adds a chain, without its rules.
    AddChain { name: String, hook: Option<Hook> },
    /// Removes all rules of a chain.
    FlushChain { name: String },
    /// Removes elements; the set's shape comes along because encoding needs it.
    DeleteElements { name: String, set: Set, elements: BTreeMap<Vec<Atom>, Value> },
    /// Adds elements.
    AddElements { name: String, set: Set, elements: BTreeMap<Vec<Atom>, Value> },
    /// Appends a rule.
    AddRule { chain: String, rule: Rule },
    /// Removes an empty chain.
    DeleteChain { name: String },
    /// Removes a set.
    DeleteSet { name: String },
}

/// The steps from nothing, whatever the kernel holds, to `new`.
pub(crate) fn replace(new: &Ruleset) -> Vec<Change> {
    let empty = Ruleset { family: new.family, sets: BTreeMap::new(), chains: BTreeMap::new() };
    let mut changes = vec![Change::ResetTable];
    changes.extend(diff(&empty, new));
    changes
}

/// The steps from `old`, which the kernel holds, to `new`; empty when they are alike.
///
/// A chain whose hook changes or a set whose shape changes would have to be removed and added
/// under the same name, which older kernels refuse in one transaction; that never happens here,
/// because names carry the shape. Should it happen, the whole table is replaced.
pub(crate) fn diff(old: &Ruleset, new: &Ruleset) -> Vec<Change> {
    if incompatible(old, new) {
        return replace(new);
    }
    let mut changes = Vec::new();
    for (name, set) in added(&old.sets, &new.sets) {
        let set = Set { elements: BTreeMap::new(), ..set.clone() };
        changes.push(Change::AddSet { name: name.clone(), set });
    }
    for (name, chain) in added(&old.chains, &new.chains) {
        changes.push(Change::AddChain { name: name.clone(), hook: chain.hook });
    }
    changes.extend(flushed_chains(old, new));
    changes.extend(element_changes(old, new));
    for (name, chain) in &new.chains {
        if old.chains.get(name).is_none_or(|before| before.rules != chain.rules) {
            changes.extend(
                chain
                    .rules
                    .iter()
                    .cloned()
                    .map(|rule| Change::AddRule { chain: name.clone(), rule }),
            );
        }
    }
    changes.extend(
        added(&new.chains, &old.chains).map(|(name, _)| Change::DeleteChain { name: name.clone() }),
    );
    changes.extend(
        added(&new.sets, &old.sets).map(|(name, _)| Change::DeleteSet { name: name.clone() }),
    );
    changes
}

fn incompatible(old: &Ruleset, new: &Ruleset) -> bool {
    let sets = new
        .sets
        .iter()
        .any(|(name, set)| old.sets.get(name).is_some_and(|before| !before.same_shape(set)));
    let chains = new
        .chains
        .iter()
        .any(|(name, chain)| old.chains.get(name).is_some_and(|before| before.hook != chain.hook));
    sets || chains
}

/// What is in `new` but not in `old`.
fn added<'a, T>(
    old: &'a BTreeMap<String, T>,
    new: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, &'a T)> {
    new.iter().filter(move |(name, _)| !old.contains_key(*name))
}

/// Chains whose rules change or that go: their rules go first, and with them all they point at.
fn flushed_chains(old: &Ruleset, new: &Ruleset) -> Vec<Change> {
    let changed = |name: &String, chain: &Chain| {
        !chain.rules.is_empty()
            && new.chains.get(name).is_none_or(|after| after.rules != chain.rules)
    };
    old.chains
        .iter()
        .filter(|(name, chain)| changed(name, chain))
        .map(|(name, _)| Change::FlushChain { name: name.clone() })
        .collect()
}

/// Elements go before any is added, because the kernel refuses a key that is there with another
/// value. Sets that packets fill are left alone.
fn element_changes(old: &Ruleset, new: &Ruleset) -> Vec<Change> {
    let none = BTreeMap::new();
    let mut deletes = Vec::new();
    let mut adds = Vec::new();
    for (name, set) in &new.sets {
        let before = old.sets.get(name).map_or(&none, |set| &set.elements);
        let shape = || Set { elements: BTreeMap::new(), ..set.clone() };
        let missing = subtract(before, &set.elements);
        if !missing.is_empty() {
            deletes.push(Change::DeleteElements {
                name: name.clone(),
                set: shape(),
                elements: missing,
            });
        }
        let fresh = subtract(&set.elements, before);
        if !fresh.is_empty() {
            adds.push(Change::AddElements { name: name.clone(), set: shape(), elements: fresh });
        }
    }
    // A set that goes as a whole gives up its elements first: they may point at chains that go.
    for (name, set) in added(&new.sets, &old.sets).filter(|(_, set)| !set.elements.is_empty()) {
        deletes.push(Change::DeleteElements {
            name: name.clone(),
            set: Set { elements: BTreeMap::new(), ..set.clone() },
            elements: set.elements.clone(),
        });
    }
    deletes.append(&mut adds);
    deletes
}

fn subtract(
    from: &BTreeMap<Vec<Atom>, Value>,
    what: &BTreeMap<Vec<Atom>, Value>,
) -> BTreeMap<Vec<Atom>, Value> {
    from.iter()
        .filter(|(key, value)| what.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
