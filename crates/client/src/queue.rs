use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Backoff;
use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::time::{DelayQueue, delay_queue};

/// How handling a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until something changes.
    Done,
    /// Look again after this time, changed or not.
    After(Duration),
    /// It failed, or lost a race: look again after a back-off that grows with each failure.
    Retry,
}

/// A work queue of keys. A key waits in it once however often it is added, is handled by one
/// worker at a time, and is handled again if it was added meanwhile (client-go's workqueue gives
/// the same promises). Its size is bounded by the number of distinct keys. Clones share it.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    work: Notify,
    timers: Notify,
    backoff: Backoff,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Waiting in `ready`, or to be put there when its worker is done.
    dirty: HashSet<T>,
    working: HashSet<T>,
    failures: HashMap<T, u32>,
    later: DelayQueue<T>,
    deadlines: HashMap<T, (delay_queue::Key, tokio::time::Instant)>,
}

/// Upstream's controllers retry from 5 ms to 1000 s; a board that comes back should not wait a
/// quarter of an hour for it, so ours stop at a minute.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(60));

impl<T: Clone + Eq + Hash + Send + Sync + 'static> Default for Queue<T> {
    fn default() -> Self {
        Queue::new(BACKOFF)
    }
}

impl<T: Clone + Eq + Hash + Send + Sync + 'static> Queue<T> {
    /// An empty queue whose failed keys come back after `backoff`.
    pub fn new(backoff: Backoff) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            failures: HashMap::new(),
            later: DelayQueue::new(),
            deadlines: HashMap::new(),
        };
        Queue {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                work: Notify::new(),
                timers: Notify::new(),
                backoff,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a key to be looked at as soon as a worker is free.
    pub fn add(&self, key: T) {
        let mut state = self.state();
        if state.dirty.insert(key.clone()) && !state.working.contains(&key) {
            state.ready.push_back(key);
            self.shared.work.notify_one();
        }
    }

    /// Adds a key after `delay`. Of several delays for one key the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = tokio::time::Instant::now() + delay;
        let mut state = self.state();
        match state.deadlines.get(&key).copied() {
            Some((_, deadline)) if deadline <= at => return,
            Some((timer, _)) => state.later.reset_at(&timer, at),
            None => {
                let timer = state.later.insert_at(key.clone(), at);
                state.deadlines.insert(key.clone(), (timer, at));
            }
        }
        if let Some(entry) = state.deadlines.get_mut(&key) {
            entry.1 = at;
        }
        drop(state);
        self.shared.timers.notify_one();
    }

    /// How many keys wait for a worker now.
    pub fn len(&self) -> usize {
        self.state().ready.len()
    }

    /// True where no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Handles keys with up to `workers` at once until `stop` is cancelled, and lets those under
    /// way finish. Call it once for a queue.
    pub async fn run<F, Fut>(&self, workers: usize, stop: CancellationToken, handle: F)
    where
        F: Fn(T) -> Fut + Send + Sync,
        Fut: Future<Output = Outcome> + Send,
    {
        let handle = &handle;
        let workers = (0..workers.max(1)).map(|_| {
            let stop = stop.clone();
            async move {
                while let Some(key) = self.next(&stop).await {
                    let outcome = handle(key.clone()).await;
                    self.finish(key, outcome);
                }
            }
        });
        tokio::join!(futures::future::join_all(workers), self.run_timers(&stop));
    }

    async fn next(&self, stop: &CancellationToken) -> Option<T> {
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if let Some(key) = self.take() {
                return Some(key);
            }
            tokio::select! {
                () = self.shared.work.notified() => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    fn take(&self) -> Option<T> {
        let mut state = self.state();
        let key = state.ready.pop_front()?;
        state.dirty.remove(&key);
        state.working.insert(key.clone());
        if !state.ready.is_empty() {
            // `notify_one` stores a single permit; pass it on so that no ready key is left lying.
            self.shared.work.notify_one();
        }
        Some(key)
    }

    fn finish(&self, key: T, outcome: Outcome) {
        let delay = {
            let mut state = self.state();
            state.working.remove(&key);
            if state.dirty.contains(&key) {
                state.ready.push_back(key.clone());
                self.shared.work.notify_one();
            }
            match outcome {
                Outcome::Done => {
                    state.failures.remove(&key);
                    return;
                }
                Outcome::After(delay) => {
                    state.failures.remove(&key);
                    delay
                }
                Outcome::Retry => {
                    let failures = state.failures.entry(key.clone()).or_default();
                    *failures += 1;
                    self.shared.backoff.jittered(*failures)
                }
            }
        };
        self.add_after(key, delay);
    }

    async fn run_timers(&self, stop: &CancellationToken) {
        loop {
            let expired = futures::future::poll_fn(|cx| {
                let mut state = self.state();
                match state.later.poll_next_unpin(cx) {
                    // An empty delay queue says "ended"; there may be more later.
                    std::task::Poll::Ready(None) => std::task::Poll::Pending,
                    other => other,
                }
            });
            tokio::select! {
                expired = expired => if let Some(expired) = expired {
                    let key = expired.into_inner();
                    self.state().deadlines.remove(&key);
                    self.add(key);
                },
                () = self.shared.timers.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn an_added_key_is_handled_once_and_again_if_added_meanwhile() {
        let queue: Queue<&str> = Queue::default();
        queue.add("a");
        queue.add("a");
        let (stop, runs) = (CancellationToken::new(), AtomicUsize::new(0));
        queue
            .run(2, stop.clone(), |key| {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                match run {
                    0 => queue.add(key),
                    _ => stop.cancel(),
                }
                async { Outcome::Done }
            })
            .await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failed_key_comes_back_and_of_several_delays_the_earliest_counts() {
        const NEVER: Duration = Duration::from_secs(86_400);
        let queue: Queue<&str> = Queue::new(Backoff::new(Duration::from_millis(1), NEVER));
        queue.add("a");
        let (stop, runs) = (CancellationToken::new(), AtomicUsize::new(0));
        let handled = queue.run(1, stop.clone(), |key| {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            let outcome = match run {
                0 => Outcome::Retry,
                1 => {
                    queue.add_after(key, NEVER);
                    queue.add_after(key, Duration::from_millis(1));
                    Outcome::After(NEVER)
                }
                _ => {
                    stop.cancel();
                    Outcome::Done
                }
            };
            async move { outcome }
        });
        tokio::time::timeout(Duration::from_secs(30), handled).await.expect("all runs in time");
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}
