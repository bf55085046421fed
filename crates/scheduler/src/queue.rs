//! What waits to be scheduled: ready now, backing off after a failure, or waiting for a
//! change in the cluster that could help. Pure: time comes in as an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use client::Key;
use jiff::{SignedDuration, Timestamp};

/// First and longest pause after failed attempts, upstream's.
const BACKOFF: base::Backoff = base::Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

/// A pod that no change has woken for so long is tried again, in case a wake-up was missed.
const MAX_UNSCHEDULABLE_SECONDS: i64 = 300;

/// A change in the cluster that may make pods schedulable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// A node came, or changed in what it offers.
    Node,
    /// A pod has left its node, or gives back some of what it had.
    PodGone,
    /// A pod was put on a node, or its labels changed: may satisfy affinity.
    PodPlaced,
}

impl Change {
    /// Whether the change may help a pod that `filter` has turned down.
    fn helps(self, filter: &str) -> bool {
        match self {
            Change::Node => true,
            Change::PodGone => matches!(
                filter,
                "NodeResourcesFit" | "NodePorts" | "InterPodAffinity" | "PodTopologySpread"
            ),
            Change::PodPlaced => matches!(filter, "InterPodAffinity" | "PodTopologySpread"),
        }
    }
}

/// The states of a waiting pod.
#[derive(Clone, Debug)]
enum State {
    /// To be tried as soon as its turn comes.
    Active,
    /// Being tried.
    InFlight,
    /// To be tried again from this time on.
    BackingOff(Timestamp),
    /// Waiting for a change that helps one of these filters.
    Unschedulable { filters: Vec<&'static str>, since: Timestamp },
}

#[derive(Debug)]
struct Waiting {
    priority: i32,
    order: u64,
    attempts: u32,
    /// When the last attempt ended.
    tried: Option<Timestamp>,
    state: State,
    /// A helpful change came while the pod was being tried.
    woken: bool,
}

/// The scheduling queue.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Key, Waiting>,
    /// Most important first, then first come first served.
    active: BTreeMap<(i64, u64), Key>,
    next_order: u64,
}

impl Queue {
    /// Adds a pod; one that waits for a change is tried again, since it may have changed.
    pub fn add(&mut self, key: Key, priority: i32) {
        let order = self.next_order;
        let waiting = self.pods.entry(key.clone()).or_insert_with(|| {
            self.next_order += 1;
            Waiting {
                priority,
                order,
                attempts: 0,
                tried: None,
                state: State::Active,
                woken: false,
            }
        });
        match waiting.state {
            State::InFlight => waiting.woken = true,
            State::BackingOff(_) => {}
            State::Active | State::Unschedulable { .. } => {
                waiting.state = State::Active;
                self.active.insert((-i64::from(waiting.priority), waiting.order), key);
            }
        }
    }

    /// Forgets a pod that is gone or has a node.
    pub fn remove(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.remove(key) {
            self.active.remove(&(-i64::from(waiting.priority), waiting.order));
        }
    }

    /// Whether the pod waits here.
    pub fn contains(&self, key: &Key) -> bool {
        self.pods.contains_key(key)
    }

    /// The pod to be tried next.
    pub fn pop(&mut self, now: Timestamp) -> Option<Key> {
        self.release(now);
        let (_, key) = self.active.pop_first()?;
        if let Some(waiting) = self.pods.get_mut(&key) {
            waiting.state = State::InFlight;
            waiting.attempts += 1;
            waiting.woken = false;
        }
        Some(key)
    }

    /// No node could take the pod: it waits for a change that helps one of `filters`.
    pub fn unschedulable(&mut self, key: &Key, filters: Vec<&'static str>, now: Timestamp) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        waiting.tried = Some(now);
        if waiting.woken {
            return self.back_off(key, now);
        }
        waiting.state = State::Unschedulable { filters, since: now };
    }

    /// The attempt failed for another reason: again after a pause.
    pub fn failed(&mut self, key: &Key, now: Timestamp) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.tried = Some(now);
            self.back_off(key, now);
        }
    }

    /// Something changed: pods that it may help go on.
    pub fn wake(&mut self, change: Change, now: Timestamp) {
        let helped: Vec<Key> = self
            .pods
            .iter_mut()
            .filter_map(|(key, waiting)| match &waiting.state {
                // No filters: there was no node at all.
                State::Unschedulable { filters, .. } => (change == Change::Node
                    || filters.iter().any(|filter| change.helps(filter)))
                .then(|| key.clone()),
                State::InFlight => {
                    waiting.woken = true;
                    None
                }
                _ => None,
            })
            .collect();
        helped.iter().for_each(|key| self.back_off(key, now));
    }

    fn back_off(&mut self, key: &Key, now: Timestamp) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        let pause = SignedDuration::try_from(BACKOFF.delay(waiting.attempts)).unwrap_or_default();
        let tried = waiting.tried.unwrap_or(now);
        let until = tried.saturating_add(pause).unwrap_or(now);
        waiting.state = State::BackingOff(until);
        self.release(now);
    }

    /// Makes active what has waited long enough.
    fn release(&mut self, now: Timestamp) {
        for (key, waiting) in &mut self.pods {
            if waiting.state.due().is_some_and(|due| due <= now) {
                waiting.state = State::Active;
                self.active.insert((-i64::from(waiting.priority), waiting.order), key.clone());
            }
        }
    }

    /// When `pop` may next have something, if it has nothing now.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.pods.values().filter_map(|waiting| waiting.state.due()).min()
    }
}

impl State {
    fn due(&self) -> Option<Timestamp> {
        match self {
            State::Active | State::InFlight => None,
            State::BackingOff(until) => Some(*until),
            State::Unschedulable { since, .. } => {
                let wait = SignedDuration::from_secs(MAX_UNSCHEDULABLE_SECONDS);
                Some(since.saturating_add(wait).unwrap_or(*since))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    #[test]
    fn priority_first_then_order() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 0), ("urgent", 5)] {
            queue.add(key(name), priority);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(at(0))).map(|k| k.name).collect();
        assert_eq!(order, ["urgent", "a", "b"]);
    }

    #[test]
    fn only_a_change_that_helps_wakes_and_not_before_the_pause() {
        let mut queue = Queue::default();
        queue.add(key("a"), 0);
        queue.pop(at(0));
        queue.unschedulable(&key("a"), vec!["NodeResourcesFit"], at(0));
        queue.wake(Change::PodPlaced, at(60));
        assert_eq!(queue.pop(at(60)), None);
        queue.wake(Change::PodGone, at(60));
        assert_eq!(queue.pop(at(60)), Some(key("a")));
        queue.unschedulable(&key("a"), vec!["NodeResourcesFit"], at(60));
        queue.wake(Change::Node, at(60));
        assert_eq!(queue.pop(at(60)), None);
        let due = queue.next_due().expect("a deadline");
        assert_eq!(queue.pop(due), Some(key("a")));
    }

    #[test]
    fn a_change_during_the_attempt_is_not_lost() {
        let mut queue = Queue::default();
        queue.add(key("a"), 0);
        queue.pop(at(0));
        queue.wake(Change::Node, at(0));
        queue.unschedulable(&key("a"), vec!["NodeName"], at(0));
        assert_eq!(queue.pop(at(20)), Some(key("a")));
    }

    #[test]
    fn nothing_waits_forever() {
        let mut queue = Queue::default();
        queue.add(key("a"), 0);
        queue.pop(at(0));
        queue.unschedulable(&key("a"), vec!["NodeName"], at(0));
        assert_eq!(queue.pop(at(299)), None);
        assert_eq!(queue.pop(at(300)), Some(key("a")));
    }
}
