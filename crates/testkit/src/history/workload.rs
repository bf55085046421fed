//! Clients that write, read, list and watch, and note what they saw.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caller::{CALL_TIMEOUT, Caller, MEETING_POINTS, Shared, key_at};
use super::follow::follow;
use super::record::{Call, History, Outcome, Revision, Segment};

/// The number of the client that has a last look.
const LAST_CLIENT: usize = usize::MAX;
/// Pause before the first write or the last list is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Clients of a cluster, to be started.
pub struct Workload {
    /// What the clients' choices are made from; the same seed asks for the same calls.
    pub seed: u64,
    /// Servers by name, each with a client that talks to it alone.
    pub servers: Vec<(String, Client)>,
    /// Clients that call at each server.
    pub clients_per_server: usize,
    /// Pause between two calls of a client.
    pub pace: Duration,
}

/// Why a workload could not begin or end.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The namespace was not made.
    #[error("making the namespace {0} of the workload")]
    Namespace(String, #[source] Box<kube::Error>),
    /// A server did not answer at the beginning.
    #[error("{0} did not answer within {1:?} before any fault")]
    NotWell(String, Duration),
    /// The cluster did not answer after it should have healed.
    #[error("{0} did not answer within {1:?} after the faults had ended")]
    NotHealed(String, Duration),
}

/// A workload that runs.
pub struct Run {
    shared: Arc<Shared>,
    servers: Vec<(String, Client)>,
    segments: Arc<Mutex<Vec<Segment>>>,
    seen: Vec<(String, watch::Receiver<Revision>)>,
    calling: CancellationToken,
    callers: TaskTracker,
    watching: CancellationToken,
    watchers: TaskTracker,
}

impl Workload {
    /// Two clients a server, each calling some fifty times a second.
    pub fn new(seed: u64, servers: Vec<(String, Client)>) -> Self {
        Workload { seed, servers, clients_per_server: 2, pace: Duration::from_millis(20) }
    }

    /// Makes a namespace of its own and starts all clients; the cluster must be well.
    pub async fn start(self) -> Result<Run, WorkloadError> {
        let namespace = format!("history-{}-{}", self.seed, base::names::random_suffix(5));
        let shared = Arc::new(Shared::new(namespace.clone()));
        if let Some((_, client)) = self.servers.first() {
            make_namespace(client, &namespace).await?;
        }
        let mut run = Run {
            shared,
            servers: self.servers.clone(),
            segments: Arc::default(),
            seen: Vec::new(),
            calling: CancellationToken::new(),
            callers: TaskTracker::new(),
            watching: CancellationToken::new(),
            watchers: TaskTracker::new(),
        };
        self.spawn_watchers(&mut run);
        // What is written before the first watch began would look like lost.
        for (name, seen) in &mut run.seen {
            if !reaches(seen, 1, CALL_TIMEOUT).await {
                return Err(WorkloadError::NotWell(name.clone(), CALL_TIMEOUT));
            }
        }
        self.spawn_callers(&run);
        Ok(run)
    }

    fn spawn_watchers(&self, run: &mut Run) {
        for (name, client) in &self.servers {
            let (seen, receiver) = watch::channel(0);
            run.seen.push((name.clone(), receiver));
            let api = run.shared.api(client);
            let (segments, stop) = (run.segments.clone(), run.watching.clone());
            run.watchers.spawn(follow(name.clone(), api, segments, seen, stop));
        }
    }

    fn spawn_callers(&self, run: &Run) {
        let mut rng = Rng::with_seed(self.seed);
        for number in 0..self.servers.len() * self.clients_per_server {
            let server = &self.servers[number % self.servers.len()];
            let caller = Caller::new(number, server, &run.shared, rng.fork());
            run.callers.spawn(caller.run(self.pace, run.calling.clone()));
        }
    }
}

async fn make_namespace(client: &Client, name: &str) -> Result<(), WorkloadError> {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))
        .map_err(|error| failed(name, kube::Error::SerdeError(error)))?;
    let api: Api<Namespace> = Api::all(client.clone());
    api.create(&PostParams::default(), &namespace).await.map(drop).map_err(|e| failed(name, e))
}

fn failed(namespace: &str, error: kube::Error) -> WorkloadError {
    WorkloadError::Namespace(namespace.to_owned(), Box::new(error))
}

impl Run {
    /// How many calls have been made so far.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// How many writes have been acknowledged so far: a scenario that wants to see the cluster
    /// serve waits until this grows.
    pub fn acknowledged(&self) -> usize {
        let operations = self.shared.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.iter().filter(|o| matches!(o.outcome, Outcome::Done(_))).count()
    }

    /// Ends the clients after the faults have ended, reads everything once more at each server,
    /// and waits until every watch has seen the end. The namespace is deleted.
    pub async fn finish(self, patience: Duration) -> Result<History, WorkloadError> {
        let deadline = Instant::now() + patience;
        self.calling.cancel();
        self.callers.close();
        self.callers.wait().await;
        for server in &self.servers {
            self.last_look(server, deadline)
                .await
                .ok_or_else(|| WorkloadError::NotHealed(server.0.clone(), patience))?;
        }
        let end = self
            .mark_end(deadline)
            .await
            .ok_or_else(|| WorkloadError::NotHealed("the cluster".into(), patience))?;
        let mut history = History::default();
        for (name, mut seen) in self.seen.clone() {
            let left = deadline.saturating_duration_since(Instant::now());
            if !reaches(&mut seen, end, left).await {
                history.behind.push((name, *seen.borrow()));
            }
        }
        self.watching.cancel();
        self.watchers.close();
        self.watchers.wait().await;
        self.clean_up().await;
        history.operations = take(&self.shared.operations);
        history.listings = take(&self.shared.listings);
        history.looks = take(&self.shared.looks);
        history.segments = take(&self.segments);
        Ok(history)
    }

    /// Lists everything and reads each object of the last generation once more.
    async fn last_look(&self, server: &(String, Client), deadline: Instant) -> Option<()> {
        let mut caller = Caller::new(LAST_CLIENT, server, &self.shared, Rng::with_seed(0));
        while !caller.list().await {
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let calls = self.calls();
        for point in 0..MEETING_POINTS {
            caller.call(key_at(calls, point), Call::Read).await;
        }
        Some(())
    }

    /// The last write of all; its revision.
    async fn mark_end(&self, deadline: Instant) -> Option<Revision> {
        for attempt in 0.. {
            if Instant::now() >= deadline {
                break;
            }
            let server = &self.servers[attempt % self.servers.len()];
            let mut caller = Caller::new(LAST_CLIENT, server, &self.shared, Rng::with_seed(0));
            let value = self.shared.next_value.fetch_add(1, Ordering::Relaxed);
            let outcome = caller.call(format!("end-{attempt}"), Call::Create(value)).await;
            if let Outcome::Done(Some(revision)) = outcome {
                return Some(revision);
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    }

    async fn clean_up(&self) {
        if let Some((_, client)) = self.servers.first() {
            let api: Api<Namespace> = Api::all(client.clone());
            let deleted = api.delete(&self.shared.namespace, &DeleteParams::default()).await;
            if let Err(error) = deleted {
                tracing::debug!(%error, "the workload's namespace stays");
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.calling.cancel();
        self.watching.cancel();
    }
}

/// Whether the watch sees `revision` within `patience`.
async fn reaches(
    seen: &mut watch::Receiver<Revision>,
    revision: Revision,
    patience: Duration,
) -> bool {
    let waiting = tokio::time::timeout(patience, seen.wait_for(|seen| *seen >= revision));
    matches!(waiting.await, Ok(Ok(_)))
}

fn take<T>(list: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
}
