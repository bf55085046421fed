//! Writes against the events they made: each acknowledged one has its event, each event has its
//! write, on the state that the write demanded, in the order of acknowledgement.

use std::collections::{BTreeMap, HashMap};

use super::record::{Call, Change, Event, History, Operation, Outcome, Revision, Stored};
use super::verdict::{Violation, writes};
use super::watches::{Gaps, Union, apply};

/// Checks all of it.
pub fn check(history: &History, union: &Union, gaps: &Gaps, violations: &mut Vec<Violation>) {
    lost(history, union, gaps, violations);
    unique(history, violations);
    in_order(history, violations);
    explained(history, union, gaps, violations);
}

fn acknowledged(operation: &Operation) -> Option<Revision> {
    match operation.outcome {
        Outcome::Done(revision) => revision,
        _ => None,
    }
}

fn lost(history: &History, union: &Union, gaps: &Gaps, violations: &mut Vec<Violation>) {
    for operation in writes(history) {
        let Some(revision) = acknowledged(operation) else { continue };
        let there = union.get(&revision).is_some_and(|event| {
            event.key == operation.key && Some(event.value) == operation.call.writes()
        });
        // What nobody watched is left to the reads.
        if !there && !gaps.hold(revision) {
            violations.push(Violation::LostWrite(operation.to_string()));
        }
    }
    // The answer to a delete names no revision: there must be an event of the state it named.
    let values = values(history, union);
    let deleted: HashMap<(&str, u64), ()> = union
        .values()
        .filter(|event| event.change == Change::Deleted)
        .map(|event| ((event.key.as_str(), event.value), ()))
        .collect();
    for operation in &history.operations {
        if let (Call::Delete { expect }, Outcome::Done(_)) = (operation.call, operation.outcome) {
            let value = values.get(&expect).copied().unwrap_or_default();
            if !deleted.contains_key(&(operation.key.as_str(), value))
                && !gaps.between(expect, Revision::MAX)
            {
                violations.push(Violation::LostWrite(operation.to_string()));
            }
        }
    }
}

fn unique(history: &History, violations: &mut Vec<Violation>) {
    let mut owners: HashMap<Revision, &Operation> = HashMap::new();
    for operation in writes(history) {
        let Some(revision) = acknowledged(operation) else { continue };
        if let Some(other) = owners.insert(revision, operation) {
            let (one, other) = (other.to_string(), operation.to_string());
            violations.push(Violation::SharedRevision(revision, one, other));
        }
    }
}

fn in_order(history: &History, violations: &mut Vec<Violation>) {
    let with_revision = || writes(history).filter_map(|o| Some((o, acknowledged(o)?)));
    let mut by_beginning: Vec<_> = with_revision().collect();
    by_beginning.sort_by_key(|(operation, _)| operation.began);
    let mut by_end: Vec<_> = with_revision().collect();
    by_end.sort_by_key(|(operation, _)| operation.ended);
    let mut ended = by_end.into_iter().peekable();
    let mut newest: Option<(&Operation, Revision)> = None;
    for (operation, revision) in by_beginning {
        while let Some(next) = ended.next_if(|(before, _)| before.ended < operation.began) {
            newest = newest.filter(|(_, known)| *known > next.1).or(Some(next));
        }
        if let Some((before, known)) = newest
            && known >= revision
        {
            let (first, second) = (before.to_string(), operation.to_string());
            violations.push(Violation::OutOfOrder(first, second));
        }
    }
}

/// What stood at each revision that anybody has seen.
pub fn values(history: &History, union: &Union) -> HashMap<Revision, u64> {
    let written = writes(history).filter_map(|o| Some((acknowledged(o)?, o.call.writes()?)));
    let read = history.operations.iter().filter_map(|operation| match operation.outcome {
        Outcome::Saw(Some(stored)) => Some((stored.revision, stored.value)),
        _ => None,
    });
    let listed = history.listings.iter().flat_map(|listing| listing.objects.values());
    let listed = listed.map(|stored| (stored.revision, stored.value));
    let seen = union.values().filter(|event| event.change != Change::Deleted);
    let looked = history.looks.iter().map(|stored| (stored.revision, stored.value));
    listed
        .chain(looked)
        .chain(written)
        .chain(read)
        .chain(seen.map(|event| (event.revision, event.value)))
        .collect()
}

/// Every event follows from a call that may have happened, on the state that it demanded.
fn explained(history: &History, union: &Union, gaps: &Gaps, violations: &mut Vec<Violation>) {
    let by_value: HashMap<u64, &Operation> =
        writes(history).filter_map(|o| Some((o.call.writes()?, o))).collect();
    let mut deletes: HashMap<(&str, Revision), Vec<&Operation>> = HashMap::new();
    for operation in &history.operations {
        if let Call::Delete { expect } = operation.call {
            deletes.entry((operation.key.as_str(), expect)).or_default().push(operation);
        }
    }
    let mut state: BTreeMap<String, Stored> = BTreeMap::new();
    let mut touched: HashMap<&str, Revision> = HashMap::new();
    for event in union.values() {
        let before = state.get(&event.key).copied();
        apply(&mut state, event);
        let since = touched.insert(&event.key, event.revision).unwrap_or_default();
        // Of an object that may have changed unseen nobody knows what this event was made on.
        if gaps.between(since, event.revision) {
            continue;
        }
        if event.change == Change::Deleted {
            let on = before.map_or(0, |stored| stored.revision);
            let callers = deletes.get(&(event.key.as_str(), on)).into_iter().flatten();
            match before.filter(|stored| stored.value == event.value) {
                None => violations.push(Violation::WrongPredecessor(event.clone(), before)),
                Some(_) if callers.into_iter().all(|o| o.had_no_effect()) => {
                    violations.push(Violation::Phantom(event.clone()));
                }
                Some(_) => {}
            }
            continue;
        }
        let writer = by_value.get(&event.value).filter(|o| o.key == event.key);
        match writer.filter(|o| !o.had_no_effect()) {
            None => violations.push(Violation::Phantom(event.clone())),
            Some(writer) if !fits(writer, event, before) => {
                violations.push(Violation::WrongPredecessor(event.clone(), before));
            }
            Some(_) => {}
        }
    }
}

fn fits(writer: &Operation, event: &Event, before: Option<Stored>) -> bool {
    match writer.call {
        Call::Create(_) => before.is_none() && event.change == Change::Added,
        Call::Swap { expect, .. } => {
            before.is_some_and(|stored| stored.revision == expect)
                && event.change == Change::Modified
        }
        Call::Delete { .. } | Call::Read => false,
    }
}
