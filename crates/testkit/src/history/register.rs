//! Is there an order of the calls on one object, each between its beginning and its end, in which
//! every answer is right? The search is Wing and Gong's with Lowe's memory of states that were
//! tried; every write demands a state, so few orders have to be looked at.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::record::{Call, History, Nanos, Operation, Outcome, Value};
use super::revisions;
use super::verdict::Violation;
use super::watches::Union;

/// Steps of the search for one object before it is given up.
const MAX_STEPS: usize = 2_000_000;
/// Calls that are printed of an object that has no order.
const MAX_PRINTED_CALLS: usize = 12;

/// The object: its content, or none.
type State = Option<Value>;

/// A call as the register sees it.
struct Step<'a> {
    began: Nanos,
    /// When it must have happened; none: perhaps never.
    ended: Option<Nanos>,
    effect: Effect,
    operation: &'a Operation,
}

/// What the state must be, and what it becomes.
enum Effect {
    /// It is this, and becomes that.
    Change(State, State),
    /// It is this.
    Is(State),
    /// It is something else than this.
    IsNot(State),
}

impl Effect {
    fn on(&self, state: State) -> Option<State> {
        match self {
            Effect::Change(from, to) => (state == *from).then_some(*to),
            Effect::Is(expected) => (state == *expected).then_some(state),
            Effect::IsNot(other) => (state != *other).then_some(state),
        }
    }
}

/// Searches an order for each object.
pub fn check(history: &History, union: &Union, violations: &mut Vec<Violation>) {
    let values = revisions::values(history, union);
    let mut by_key: BTreeMap<&str, Vec<Step>> = BTreeMap::new();
    for operation in &history.operations {
        if let Some(step) = step(operation, &values) {
            by_key.entry(&operation.key).or_default().push(step);
        }
    }
    for (key, mut steps) in by_key {
        steps.sort_by_key(|step| step.began);
        match search(&steps) {
            Search::Found => {}
            Search::GivenUp => violations.push(Violation::Undecided(key.to_owned())),
            Search::Stuck(done) => {
                let open = (0..steps.len()).filter(|index| !done.contains(*index));
                let calls = open.take(MAX_PRINTED_CALLS).map(|i| steps[i].operation.to_string());
                violations.push(Violation::NotLinear(key.to_owned(), calls.collect()));
            }
        }
    }
}

fn step<'a>(operation: &'a Operation, values: &HashMap<u64, Value>) -> Option<Step<'a>> {
    // A revision that nobody saw stands for a content that never was.
    let at = |revision: &u64| Some(values.get(revision).copied().unwrap_or(Value::MAX));
    let change = match &operation.call {
        Call::Create(value) => Effect::Change(None, Some(*value)),
        Call::Swap { expect, value } => Effect::Change(at(expect), Some(*value)),
        Call::Delete { expect } => Effect::Change(at(expect), None),
        Call::Read => Effect::Is(None),
    };
    let (effect, ended) = match (operation.outcome, change) {
        (Outcome::Rejected, _) => return None,
        (Outcome::Unknown, _) if operation.call == Call::Read => return None,
        (Outcome::Unknown, change) => (change, None),
        (Outcome::Done(_), change) => (change, Some(operation.ended)),
        (Outcome::Saw(stored), _) => (Effect::Is(stored.map(|s| s.value)), Some(operation.ended)),
        (Outcome::Refused, Effect::Change(from, _)) => (Effect::IsNot(from), Some(operation.ended)),
        (Outcome::Refused, _) => return None,
    };
    Some(Step { began: operation.began, ended, effect, operation })
}

/// A set of steps.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn empty(size: usize) -> Self {
        Set(vec![0; size.div_ceil(64)])
    }

    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn with(&self, index: usize) -> Self {
        let mut with = self.clone();
        with.0[index / 64] |= 1 << (index % 64);
        with
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

enum Search {
    Found,
    GivenUp,
    /// The largest set of steps that had an order.
    Stuck(Set),
}

fn search(steps: &[Step]) -> Search {
    let mut stack: Vec<(Set, State)> = vec![(Set::empty(steps.len()), None)];
    let mut tried: HashSet<(Set, State)> = HashSet::new();
    let mut furthest = Set::empty(steps.len());
    let mut count = 0;
    while let Some((done, state)) = stack.pop() {
        let open: Vec<usize> = (0..steps.len()).filter(|index| !done.contains(*index)).collect();
        // Whoever began after another's end comes after it.
        let Some(horizon) = open.iter().filter_map(|index| steps[*index].ended).min() else {
            return Search::Found;
        };
        if done.len() > furthest.len() {
            furthest = done.clone();
        }
        let depth = stack.len();
        for &index in open.iter().rev().filter(|index| steps[**index].began <= horizon) {
            count += 1;
            if count > MAX_STEPS {
                return Search::GivenUp;
            }
            let Some(next) = steps[index].effect.on(state) else { continue };
            let entry = (done.with(index), next);
            let fresh = tried.insert(entry.clone());
            // What is right here and changes nothing might as well come now: nothing that can
            // be reached by another choice is lost.
            if next == state {
                stack.truncate(depth);
            }
            if fresh {
                stack.push(entry);
            }
            if next == state {
                break;
            }
        }
    }
    Search::Stuck(furthest)
}
