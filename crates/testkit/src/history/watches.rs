//! Watches and lists against the union of all events.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::record::{Change, Event, History, Outcome, Revision, Segment, Stored};
use super::verdict::Violation;

/// Every event that any watch has shown, by revision.
pub type Union = BTreeMap<Revision, Event>;

/// Puts the events of all watches together.
pub fn union(history: &History, violations: &mut Vec<Violation>) -> Union {
    let mut union = Union::new();
    for event in history.segments.iter().flat_map(|segment| &segment.events) {
        match union.entry(event.revision) {
            Entry::Vacant(vacant) => drop(vacant.insert(event.clone())),
            Entry::Occupied(known) if known.get() == event => {}
            Entry::Occupied(known) => violations.push(Violation::SharedRevision(
                event.revision,
                format!("{:?}", known.get()),
                format!("{event:?}"),
            )),
        }
    }
    union
}

/// Revisions that no watch covered: all of them were cut off, and each began anew with a list. What
/// happened there is known from answers alone.
pub struct Gaps(Vec<(Revision, Revision)>);

impl Gaps {
    /// The gaps between the watches, each after its first number up to its second.
    pub fn of(history: &History) -> Gaps {
        let mut covered: Vec<_> =
            history.segments.iter().map(|segment| (segment.after, segment.seen())).collect();
        covered.sort_unstable();
        let mut gaps = Vec::new();
        let mut end = covered.first().map_or(0, |(after, _)| *after);
        for (after, seen) in covered {
            if after > end {
                gaps.push((end, after));
            }
            end = end.max(seen);
        }
        Gaps(gaps)
    }

    /// Whether something unseen may have happened after `after`, up to `until`.
    pub fn between(&self, after: Revision, until: Revision) -> bool {
        self.0.iter().any(|(begin, end)| *begin.max(&after) < *end.min(&until))
    }

    /// Whether `revision` itself is one that no watch covered.
    pub fn hold(&self, revision: Revision) -> bool {
        self.between(revision.saturating_sub(1), revision)
    }
}

/// Every watch goes forward, leaves nothing out, and came to the end.
pub fn check(history: &History, union: &Union, violations: &mut Vec<Violation>) {
    for segment in &history.segments {
        ordered(segment, violations);
        complete(segment, union, violations);
    }
    let behind = history.behind.iter();
    violations.extend(behind.map(|(server, seen)| Violation::WatchBehind(server.clone(), *seen)));
}

fn ordered(segment: &Segment, violations: &mut Vec<Violation>) {
    let mut bookmarks = segment.bookmarks.iter().peekable();
    let mut floor = segment.after;
    for (index, event) in segment.events.iter().enumerate() {
        while let Some((revision, _)) = bookmarks.next_if(|(_, before)| *before <= index) {
            floor = floor.max(*revision);
        }
        if event.revision <= floor {
            let server = segment.server.clone();
            violations.push(Violation::WatchUnordered(server, floor, event.revision));
        }
        floor = floor.max(event.revision);
    }
}

fn complete(segment: &Segment, union: &Union, violations: &mut Vec<Violation>) {
    let seen: std::collections::BTreeSet<Revision> =
        segment.events.iter().map(|event| event.revision).collect();
    if segment.after >= segment.seen() {
        return;
    }
    for (revision, event) in union.range(segment.after + 1..=segment.seen()) {
        if !seen.contains(revision) {
            violations.push(Violation::WatchGap(segment.server.clone(), event.clone()));
        }
    }
}

/// Every list is the state at its revision, and one that names none is not stale.
pub fn check_lists(history: &History, union: &Union, gaps: &Gaps, violations: &mut Vec<Violation>) {
    let newest = history.segments.iter().map(Segment::seen).max().unwrap_or_default();
    let mut listings: Vec<_> = history.listings.iter().collect();
    listings.sort_by_key(|listing| listing.revision);
    let mut events = union.values().peekable();
    let mut state: BTreeMap<String, Stored> = BTreeMap::new();
    // Up to which revision each object's state is known, and that of all of them.
    let mut known: BTreeMap<&str, Revision> = BTreeMap::new();
    let mut all_known = 0;
    for listing in listings {
        while let Some(event) = events.next_if(|event| event.revision <= listing.revision) {
            apply(&mut state, event);
            known.insert(&event.key, event.revision);
        }
        if listing.revision <= newest {
            let unseen = |key: &str, listed: Option<&Stored>| {
                let from = known.get(key).copied().unwrap_or_default().max(all_known);
                gaps.between(from, listing.revision)
                    && listed.is_none_or(|listed| gaps.hold(listed.revision))
            };
            match difference(&state, &listing.objects, unseen) {
                Some(difference) => {
                    let server = listing.server.clone();
                    let mismatch = Violation::ListMismatch(server, listing.revision, difference);
                    violations.push(mismatch);
                }
                None => {
                    state.clone_from(&listing.objects);
                    all_known = listing.revision;
                }
            }
        }
        let floor = acknowledged_before(history, listing.began);
        if listing.fresh && listing.revision < floor {
            let server = listing.server.clone();
            violations.push(Violation::StaleList(server, listing.revision, floor));
        }
    }
}

/// What an event makes of the state.
pub fn apply(state: &mut BTreeMap<String, Stored>, event: &Event) {
    let Event { revision, change, key, value } = event;
    match change {
        Change::Deleted => drop(state.remove(key)),
        Change::Added | Change::Modified => {
            state.insert(key.clone(), Stored { revision: *revision, value: *value });
        }
    }
}

/// The greatest revision that some client had been told of before `time`.
fn acknowledged_before(history: &History, time: u64) -> Revision {
    let told = history.operations.iter().filter(|operation| operation.ended < time);
    told.filter_map(|operation| match operation.outcome {
        Outcome::Done(revision) => revision,
        Outcome::Saw(stored) => stored.map(|stored| stored.revision),
        _ => None,
    })
    .max()
    .unwrap_or_default()
}

/// The first object that is listed otherwise than expected, unless that may be `unseen`.
fn difference(
    expected: &BTreeMap<String, Stored>,
    listed: &BTreeMap<String, Stored>,
    unseen: impl Fn(&str, Option<&Stored>) -> bool,
) -> Option<String> {
    let keys = expected.keys().chain(listed.keys());
    let wrong = keys
        .into_iter()
        .find(|key| expected.get(*key) != listed.get(*key) && !unseen(key, listed.get(*key)))?;
    Some(format!("{wrong} is {:?}, not {:?}", listed.get(wrong), expected.get(wrong)))
}
