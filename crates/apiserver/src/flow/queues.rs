//! Seats of priority levels, and the fair queues in which requests wait for them.
//!
//! A level always gets its own seats, but for those that it lends; beyond them it borrows what the
//! others can lend and do not use. A request's queue is chosen by shuffle sharding: its flow is
//! dealt a hand of queues, always the same, and takes the shortest of them; so a flow that fills
//! its queues shares all of them with few others. Whose turn it is, is decided by virtual time:
//! a queue's clock moves by the seats that it was given and by how long they were kept, which is
//! guessed first and corrected when they are given back; the slowest clock comes first.
//!
//! One lock guards all levels: what happens under it is short.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a request is taken to last before it is known, as upstream does.
const ESTIMATE: Duration = Duration::from_millis(3);

/// How many requests a level lets in at once, and how the others wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    /// Nobody waits.
    pub exempt: bool,
    /// Seats of its own.
    pub nominal: usize,
    /// How many of them others may use.
    pub lendable: usize,
    /// How many it may use of others.
    pub borrowing: usize,
    /// Queues; without any, who finds no seat is turned away.
    pub queues: usize,
    /// Queues among which a flow chooses.
    pub hand: usize,
    /// Requests that wait in one queue.
    pub queue_length: usize,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The level has no queues.
    NoSeat,
    /// The queue is full.
    QueueFull,
    /// Its turn did not come in time.
    TimeOut,
}

impl Refusal {
    /// Upstream's word for it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Refusal::NoSeat => "concurrency-limit",
            Refusal::QueueFull => "queue-full",
            Refusal::TimeOut => "time-out",
        }
    }
}

/// Level and schema.
type Series = (Arc<str>, Arc<str>);
/// Series of counters that are kept; names of schemas come from users.
const SERIES_MAX: usize = 1024;

#[derive(Default)]
struct State {
    levels: BTreeMap<Arc<str>, Running>,
    dispatched: BTreeMap<Series, u64>,
    rejected: BTreeMap<(Series, &'static str), u64>,
}

#[derive(Default)]
struct Running {
    level: Level,
    used: usize,
    requests: usize,
    queues: Vec<Queue>,
    /// The clock of the queue that was served last.
    clock: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    clock: u64,
}

struct Waiter {
    seats: usize,
    wake: oneshot::Sender<Seat>,
}

/// What the metrics show of a level.
pub(super) struct Shown {
    pub nominal: usize,
    pub used: usize,
    pub requests: usize,
    pub waiting: usize,
}

/// All levels.
#[derive(Default)]
pub(super) struct Seats(Mutex<State>);

/// Seats that a request has; given back when it is dropped.
pub(super) struct Seat {
    /// Where they are given back; nowhere without.
    seats: Option<Arc<Seats>>,
    level: Arc<str>,
    count: usize,
    /// The queue that it waited in, and since when it is worked on.
    turn: Option<(usize, Instant)>,
}

/// What seats that are kept so long move a queue's clock by.
fn work(seats: usize, kept: Duration) -> u64 {
    let micros = u64::try_from(kept.as_micros()).unwrap_or(u64::MAX);
    micros.max(1).saturating_mul(seats.max(1) as u64)
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(seats) = self.seats.take() else { return };
        let mut state = seats.state();
        if let Some(running) = state.levels.get_mut(&self.level) {
            running.used = running.used.saturating_sub(self.count);
            running.requests = running.requests.saturating_sub(1);
            if let Some((queue, since)) = self.turn {
                running.settle(queue, self.count, since.elapsed());
            }
        }
        state.dispatch(&seats);
    }
}

impl Seats {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The levels from now on. One that is gone lasts until nobody is in it.
    pub(super) fn configure(self: &Arc<Self>, levels: &[(String, Level)]) {
        let mut state = self.state();
        state.levels.retain(|name, running| {
            levels.iter().any(|(level, _)| **level == **name) || running.is_busy()
        });
        for (name, level) in levels {
            state.levels.entry(name.as_str().into()).or_default().become_level(level);
        }
        state.dispatch(self);
    }

    /// Takes seats in a level, once it is the flow's turn.
    pub(super) async fn take(
        self: &Arc<Self>,
        level: &str,
        schema: &str,
        flow: u64,
        seats: usize,
        patience: Duration,
    ) -> Result<Seat, Refusal> {
        let series: Series = (level.into(), schema.into());
        let waited = self.enter(&series.0, flow, seats);
        let taken = match waited {
            Ok(Entry::Seated(seat)) => Ok(seat),
            Ok(Entry::Waits(turn)) => match tokio::time::timeout(patience, turn).await {
                Ok(Ok(seat)) => Ok(seat),
                // Whoever is dropped leaves its queue: the other end sees that nobody listens.
                _ => Err(Refusal::TimeOut),
            },
            Err(refusal) => Err(refusal),
        };
        let mut state = self.state();
        match &taken {
            Ok(_) => count(&mut state.dispatched, series),
            Err(refusal) => count(&mut state.rejected, (series, refusal.reason())),
        }
        taken
    }

    fn enter(
        self: &Arc<Self>,
        level: &Arc<str>,
        flow: u64,
        seats: usize,
    ) -> Result<Entry, Refusal> {
        let mut state = self.state();
        let state = &mut *state;
        let pool = state.pool(level);
        let Some(running) = state.levels.get_mut(level) else { return Err(Refusal::NoSeat) };
        // A request that is larger than its level still gets in, alone.
        let seats = seats.min(running.level.nominal.max(1));
        if running.waiting() == 0 && running.has_room(seats, pool) {
            return Ok(Entry::Seated(running.seat(self, level, seats)));
        }
        if running.queues.is_empty() {
            return Err(Refusal::NoSeat);
        }
        let turn = running.queue(flow, seats)?;
        state.dispatch(self);
        Ok(Entry::Waits(turn))
    }

    /// The levels as they stand.
    pub(super) fn levels(&self) -> Vec<(Arc<str>, Shown)> {
        let state = self.state();
        let shown = state.levels.iter().map(|(name, running)| {
            let (nominal, used) = (running.level.nominal, running.used);
            let (requests, waiting) = (running.requests, running.waiting());
            (Arc::clone(name), Shown { nominal, used, requests, waiting })
        });
        shown.collect()
    }

    /// How many requests were let in and turned away.
    #[allow(clippy::type_complexity)]
    pub(super) fn totals(
        &self,
    ) -> (Vec<(Series, u64)>, Vec<((Arc<str>, Arc<str>, &'static str), u64)>) {
        let state = self.state();
        let dispatched = state.dispatched.iter().map(|(series, count)| (series.clone(), *count));
        let rejected = state.rejected.iter().map(|((series, reason), count)| {
            ((Arc::clone(&series.0), Arc::clone(&series.1), *reason), *count)
        });
        (dispatched.collect(), rejected.collect())
    }
}

enum Entry {
    Seated(Seat),
    Waits(oneshot::Receiver<Seat>),
}

fn count<K: Ord>(counters: &mut BTreeMap<K, u64>, key: K) {
    if let Some(count) = counters.get_mut(&key) {
        *count += 1;
    } else if counters.len() < SERIES_MAX {
        counters.insert(key, 1);
    }
}

impl State {
    /// Seats that the others lend to a level and that nobody has borrowed yet.
    fn pool(&self, level: &str) -> usize {
        let others = self.levels.iter().filter(|(name, _)| ***name != *level);
        let lent: usize = others
            .map(|(_, other)| {
                other.level.lendable.min(other.level.nominal.saturating_sub(other.used))
            })
            .sum();
        let borrowed: usize = self.levels.values().map(Running::borrowed).sum();
        lent.saturating_sub(borrowed)
    }

    /// Gives seats to those who wait, as long as there are any for them.
    fn dispatch(&mut self, seats: &Arc<Seats>) {
        let names: Vec<Arc<str>> = self
            .levels
            .iter()
            .filter(|(_, running)| running.waiting() > 0)
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in names {
            loop {
                let pool = self.pool(&name);
                let Some(running) = self.levels.get_mut(&name) else { break };
                if !running.serve_next(seats, &name, pool) {
                    break;
                }
            }
        }
    }
}

impl Running {
    fn is_busy(&self) -> bool {
        self.used > 0 || self.requests > 0 || self.waiting() > 0
    }

    fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting.len()).sum()
    }

    fn borrowed(&self) -> usize {
        if self.level.exempt { 0 } else { self.used.saturating_sub(self.level.nominal) }
    }

    fn become_level(&mut self, level: &Level) {
        let before = std::mem::take(&mut self.queues);
        self.queues.resize_with(level.queues, Queue::default);
        let places = self.queues.len();
        for (index, queue) in before.into_iter().enumerate() {
            // Without queues those who wait are woken by their sender's end, and turned away.
            if let Some(place) = index.checked_rem(places) {
                self.queues[place].waiting.extend(queue.waiting);
            }
        }
        self.level = level.clone();
    }

    /// Whether a request of so many seats may begin; `pool` is what can be borrowed.
    fn has_room(&self, seats: usize, pool: usize) -> bool {
        if self.level.exempt || self.used + seats <= self.level.nominal {
            return true;
        }
        let over = self.used + seats - self.level.nominal;
        over <= self.level.borrowing && over <= self.borrowed() + pool
    }

    fn seat(&mut self, seats: &Arc<Seats>, level: &Arc<str>, count: usize) -> Seat {
        // What nobody has to wait for takes nothing away.
        let count = if self.level.exempt { 0 } else { count };
        self.used += count;
        self.requests += 1;
        let (seats, level) = (Some(Arc::clone(seats)), Arc::clone(level));
        Seat { seats, level, count, turn: None }
    }

    /// Puts a request into the shortest queue of its flow's hand.
    fn queue(&mut self, flow: u64, seats: usize) -> Result<oneshot::Receiver<Seat>, Refusal> {
        for queue in &mut self.queues {
            queue.waiting.retain(|waiter| !waiter.wake.is_closed());
        }
        let hand = deal(flow, self.queues.len(), self.level.hand);
        let shortest = hand.into_iter().min_by_key(|index| self.queues[*index].waiting.len());
        let Some(queue) = shortest.and_then(|index| self.queues.get_mut(index)) else {
            return Err(Refusal::NoSeat);
        };
        if queue.waiting.len() >= self.level.queue_length {
            return Err(Refusal::QueueFull);
        }
        if queue.waiting.is_empty() {
            // Nobody saves up turns while it asks for nothing.
            queue.clock = queue.clock.max(self.clock);
        }
        let (wake, turn) = oneshot::channel();
        queue.waiting.push_back(Waiter { seats, wake });
        Ok(turn)
    }

    /// Corrects a queue's clock, now that it is known how long seats were kept.
    fn settle(&mut self, queue: usize, seats: usize, kept: Duration) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let before = queue.clock.saturating_sub(work(seats, ESTIMATE));
        queue.clock = before.saturating_add(work(seats, kept));
    }

    /// Gives the next in turn its seats; false where nobody waits or there are none.
    fn serve_next(&mut self, seats: &Arc<Seats>, level: &Arc<str>, pool: usize) -> bool {
        let next = (0..self.queues.len())
            .filter(|index| !self.queues[*index].waiting.is_empty())
            .min_by_key(|index| self.queues[*index].clock);
        let Some(index) = next else { return false };
        let count = self.queues[index].waiting.front().map_or(0, |waiter| waiter.seats);
        if !self.has_room(count, pool) {
            return false;
        }
        let Some(waiter) = self.queues[index].waiting.pop_front() else { return false };
        if waiter.wake.is_closed() {
            return true;
        }
        self.clock = self.queues[index].clock;
        let clock = &mut self.queues[index].clock;
        *clock = clock.saturating_add(work(count, ESTIMATE));
        let mut seat = self.seat(seats, level, count);
        seat.turn = Some((index, Instant::now()));
        if let Err(mut seat) = waiter.wake.send(seat) {
            // The lock is held: it is given back here and not by its drop.
            self.used = self.used.saturating_sub(seat.count);
            self.requests = self.requests.saturating_sub(1);
            seat.seats = None;
        }
        true
    }
}

/// The hand of queues that a flow is dealt: different ones, always the same for a flow.
fn deal(flow: u64, queues: usize, hand: usize) -> Vec<usize> {
    let mut rest = flow;
    let mut dealt: Vec<usize> = Vec::with_capacity(hand);
    for taken in 0..hand.min(queues) {
        let left = queues - taken;
        let mut card = (rest % left as u64) as usize;
        rest /= left as u64;
        // The card counts among those that are still there.
        let mut known = dealt.clone();
        known.sort_unstable();
        for earlier in known {
            if earlier <= card {
                card += 1;
            }
        }
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(nominal: usize, queues: usize) -> Level {
        Level {
            nominal,
            queues,
            borrowing: usize::MAX,
            hand: queues.min(2),
            queue_length: 100,
            ..Level::default()
        }
    }

    fn seats(levels: &[(&str, Level)]) -> Arc<Seats> {
        let seats = Arc::new(Seats::default());
        let levels: Vec<_> =
            levels.iter().map(|(name, level)| ((*name).to_owned(), level.clone())).collect();
        seats.configure(&levels);
        seats
    }

    const PATIENCE: Duration = Duration::from_millis(200);

    #[test]
    fn hands_are_of_different_queues() {
        for flow in [0, 1, 77, u64::MAX, 0x1234_5678_9abc_def0] {
            let mut hand = deal(flow, 128, 6);
            assert_eq!(hand, deal(flow, 128, 6));
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 6);
            assert!(hand.iter().all(|index| *index < 128));
        }
        assert_eq!(deal(5, 2, 6).len(), 2);
    }

    #[tokio::test]
    async fn without_queues_the_next_is_turned_away() {
        let seats = seats(&[("l", level(1, 0))]);
        let first = seats.take("l", "s", 1, 1, PATIENCE).await.unwrap();
        assert_eq!(seats.take("l", "s", 1, 1, PATIENCE).await.err(), Some(Refusal::NoSeat));
        drop(first);
        assert!(seats.take("l", "s", 1, 9, PATIENCE).await.is_ok(), "a large one gets in alone");
    }

    #[tokio::test]
    async fn who_waits_too_long_leaves_and_takes_nothing_along() {
        let seats = seats(&[("l", level(1, 4))]);
        let first = seats.take("l", "s", 1, 1, PATIENCE).await.unwrap();
        assert_eq!(seats.take("l", "s", 2, 1, PATIENCE).await.err(), Some(Refusal::TimeOut));
        let mut gone = Box::pin(seats.take("l", "s", 3, 1, PATIENCE));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        drop(first);
        let third = seats.take("l", "s", 4, 1, PATIENCE).await;
        assert!(third.is_ok());
        drop(third);
        assert_eq!(seats.levels()[0].1.used, 0);
    }

    #[tokio::test]
    async fn a_noisy_flow_does_not_starve_a_quiet_one() {
        let seats = seats(&[("l", level(1, 16))]);
        let first = seats.take("l", "s", 0, 1, PATIENCE).await.unwrap();
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let ask = |who: &'static str, flow: u64| {
            let (seats, sender) = (Arc::clone(&seats), sender.clone());
            tokio::spawn(async move {
                let seat = seats.take("l", "s", flow, 1, PATIENCE).await;
                sender.send(who).unwrap();
                drop(seat);
            })
        };
        for _ in 0..80 {
            ask("noisy", 3);
        }
        tokio::task::yield_now().await;
        ask("quiet", 0x55);
        tokio::task::yield_now().await;
        drop(first);
        let mut before = 0;
        while order.recv().await.unwrap() == "noisy" {
            before += 1;
        }
        assert!(before <= 3, "{before} noisy ones came first");
    }

    #[test]
    fn a_flow_of_long_requests_gets_fewer_turns() {
        let seats = seats(&[]);
        let mut running = Running::default();
        running.become_level(&level(1, 16));
        let flows = [(3, Duration::from_millis(100)), (0x55, Duration::from_millis(10))];
        let mut turns = Vec::new();
        for (flow, _) in flows {
            for _ in 0..60 {
                turns.push(running.queue(flow, 1).unwrap());
            }
        }
        let hands = flows.map(|(flow, _)| deal(flow, 16, 2));
        let mut served = [0_u32; 2];
        for _ in 0..55 {
            let before: Vec<usize> = running.queues.iter().map(|q| q.waiting.len()).collect();
            assert!(running.serve_next(&seats, &"l".into(), 0));
            let at = (0..16).find(|at| running.queues[*at].waiting.len() < before[*at]).unwrap();
            let who = usize::from(!hands[0].contains(&at));
            served[who] += 1;
            (running.used, running.requests) = (0, 0);
            running.settle(at, 1, flows[who].1);
        }
        // Both have the seat for the same time.
        assert!((4..=6).contains(&served[0]), "{served:?}");
        drop(turns);
    }

    #[tokio::test]
    async fn seats_are_lent_but_never_those_that_are_kept() {
        let lender = Level { lendable: 3, ..level(4, 4) };
        let seats = seats(&[("a", level(2, 0)), ("b", lender)]);
        let mut held = Vec::new();
        while let Ok(seat) = seats.take("a", "s", 1, 1, PATIENCE).await {
            held.push(seat);
        }
        assert_eq!(held.len(), 5, "two of its own and three that were lent");
        let mut own = Vec::new();
        for _ in 0..4 {
            own.push(seats.take("b", "s", 1, 1, PATIENCE).await.unwrap());
        }
        drop(held.pop());
        assert!(seats.take("a", "s", 1, 1, PATIENCE).await.is_err(), "the lender uses its own");
        let narrow = Level { borrowing: 1, ..level(2, 0) };
        let lender = Level { lendable: 3, ..level(4, 4) };
        let seats = self::seats(&[("a", narrow), ("b", lender)]);
        let mut held = Vec::new();
        while let Ok(seat) = seats.take("a", "s", 1, 1, PATIENCE).await {
            held.push(seat);
        }
        assert_eq!(held.len(), 3);
    }

    #[tokio::test]
    async fn a_level_that_grows_lets_those_in_who_wait() {
        let seats = seats(&[("l", level(1, 4))]);
        let _first = seats.take("l", "s", 1, 1, PATIENCE).await.unwrap();
        let mut second = Box::pin(seats.take("l", "s", 2, 1, PATIENCE));
        assert!(futures::poll!(&mut second).is_pending());
        seats.configure(&[("l".to_owned(), level(2, 4))]);
        assert!(second.await.is_ok());
    }
}
