//! One client: chooses a call, makes it, notes what came back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::follow::stored;
use super::record::{Call, Listing, Nanos, Operation, Outcome, Revision, Stored, Value};

/// The member of a ConfigMap that carries its content.
pub(super) const VALUE: &str = "value";
/// How long a call may take before its client gives it up.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Objects that clients meet at, at any one time.
pub(super) const MEETING_POINTS: u64 = 4;
/// Calls after which the objects are changed for new ones: the search for an order of the calls
/// on one object grows with their number.
const CALLS_PER_GENERATION: u64 = 600;
/// Most calls that a workload makes.
const MAX_CALLS: u64 = 200_000;

/// What all clients of a workload share.
pub(super) struct Shared {
    pub(super) namespace: String,
    pub(super) began: Instant,
    pub(super) next_value: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) operations: Mutex<Vec<Operation>>,
    pub(super) listings: Mutex<Vec<Listing>>,
    pub(super) looks: Mutex<Vec<Stored>>,
}

impl Shared {
    pub(super) fn new(namespace: String) -> Self {
        Shared {
            namespace,
            began: Instant::now(),
            next_value: AtomicU64::new(1),
            calls: AtomicU64::new(0),
            operations: Mutex::default(),
            listings: Mutex::default(),
            looks: Mutex::default(),
        }
    }

    fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    pub(super) fn api(&self, client: &Client) -> Api<ConfigMap> {
        Api::namespaced(client.clone(), &self.namespace)
    }
}

/// The object at a meeting point after so many calls.
pub(super) fn key_at(calls: u64, point: u64) -> String {
    format!("g{}-{point}", calls / CALLS_PER_GENERATION)
}

/// One client, one call at a time.
pub(super) struct Caller {
    number: usize,
    server: String,
    api: Api<ConfigMap>,
    shared: Arc<Shared>,
    rng: Rng,
    /// What it believes the objects are; often wrong, for others write too.
    known: BTreeMap<String, Option<Stored>>,
}

impl Caller {
    pub(super) fn new(
        number: usize,
        (server, client): &(String, Client),
        shared: &Arc<Shared>,
        rng: Rng,
    ) -> Self {
        Caller {
            number,
            server: server.clone(),
            api: shared.api(client),
            shared: shared.clone(),
            rng,
            known: BTreeMap::new(),
        }
    }

    /// Calls until `stop`.
    pub(super) async fn run(mut self, pace: Duration, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let calls = self.shared.calls.fetch_add(1, Ordering::Relaxed);
            if calls >= MAX_CALLS {
                return;
            }
            let key = key_at(calls, self.rng.u64(..MEETING_POINTS));
            match self.choose(&key) {
                Some(call) => {
                    self.call(key, call).await;
                }
                None => {
                    self.list().await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// The next call; none: a list.
    fn choose(&mut self, key: &str) -> Option<Call> {
        let known = self.known.get(key).copied().flatten().map(|stored| stored.revision);
        match (self.rng.u8(..20), known) {
            (0, _) => None,
            (1..6, _) | (6..8, None) => Some(Call::Read),
            (6..8, Some(expect)) => Some(Call::Delete { expect }),
            (_, known) => {
                let value = self.shared.next_value.fetch_add(1, Ordering::Relaxed);
                Some(match known {
                    Some(expect) => Call::Swap { expect, value },
                    None => Call::Create(value),
                })
            }
        }
    }

    /// Makes one call and notes it.
    pub(super) async fn call(&mut self, key: String, call: Call) -> Outcome {
        let began = self.shared.now();
        let answer = tokio::time::timeout(CALL_TIMEOUT, send(&self.api, &key, call)).await;
        let outcome = match answer {
            Ok(answer) => outcome_of(call, answer),
            Err(_) => Outcome::Unknown,
        };
        let ended = self.shared.now();
        let known = match (call, outcome) {
            (Call::Create(value) | Call::Swap { value, .. }, Outcome::Done(Some(revision))) => {
                Some(Some(Stored { revision, value }))
            }
            (Call::Delete { .. }, Outcome::Done(_)) => Some(None),
            (_, Outcome::Saw(stored)) => Some(stored),
            // Somebody else was here: look before the next write.
            _ => self.look(&key).await,
        };
        if let Some(known) = known {
            self.known.insert(key.clone(), known);
        }
        let client = self.number;
        let operation = Operation { client, key, call, began, ended, outcome };
        self.shared.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
        outcome
    }

    /// Reads from whatever index the server has: good enough to choose the next call by.
    async fn look(&self, key: &str) -> Option<Option<Stored>> {
        let params = kube::api::GetParams::at("0");
        let read = tokio::time::timeout(CALL_TIMEOUT, self.api.get_with(key, &params)).await;
        match read.ok()? {
            Ok(object) => {
                let seen = stored(&object).map(|(_, stored)| stored);
                self.shared.looks.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
                Some(seen)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Some(None),
            Err(_) => None,
        }
    }

    /// Lists everything and notes it; whether there was an answer.
    pub(super) async fn list(&mut self) -> bool {
        let began = self.shared.now();
        let listed =
            tokio::time::timeout(CALL_TIMEOUT, self.api.list(&ListParams::default())).await;
        let Ok(Ok(list)) = listed else { return false };
        let Some(revision) = list.metadata.resource_version.and_then(|r| r.parse().ok()) else {
            return false;
        };
        let objects = list.items.iter().filter_map(stored).collect();
        let server = self.server.clone();
        let listing = Listing { server, began, revision, fresh: true, objects };
        self.shared.listings.lock().unwrap_or_else(PoisonError::into_inner).push(listing);
        true
    }
}

async fn send(api: &Api<ConfigMap>, key: &str, call: Call) -> kube::Result<Option<Stored>> {
    let params = PostParams::default();
    let answer = match call {
        Call::Create(value) => Some(api.create(&params, &object(key, value, None)).await?),
        Call::Swap { expect, value } => {
            Some(api.replace(key, &params, &object(key, value, Some(expect))).await?)
        }
        Call::Delete { expect } => {
            let revision = Some(expect.to_string());
            let preconditions = Some(Preconditions { resource_version: revision, uid: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            api.delete(key, &params).await?;
            None
        }
        Call::Read => Some(api.get(key).await?),
    };
    Ok(answer.as_ref().and_then(stored).map(|(_, stored)| stored))
}

fn object(key: &str, value: Value, revision: Option<Revision>) -> ConfigMap {
    ConfigMap {
        metadata: kube::api::ObjectMeta {
            name: Some(key.to_owned()),
            resource_version: revision.map(|revision| revision.to_string()),
            ..Default::default()
        },
        data: Some(BTreeMap::from([(VALUE.to_owned(), value.to_string())])),
        ..ConfigMap::default()
    }
}

fn outcome_of(call: Call, answer: kube::Result<Option<Stored>>) -> Outcome {
    match answer {
        Ok(stored) if call == Call::Read => Outcome::Saw(stored),
        Ok(stored) => Outcome::Done(stored.map(|stored| stored.revision)),
        Err(kube::Error::Api(status)) => match (status.code, call) {
            (404, Call::Read) => Outcome::Saw(None),
            (404, Call::Swap { .. } | Call::Delete { .. }) => Outcome::Refused,
            (409, _) => Outcome::Refused,
            // A namespace that is not there yet at this server, too many requests, no rights.
            (400..500, _) => Outcome::Rejected,
            _ => Outcome::Unknown,
        },
        Err(_) => Outcome::Unknown,
    }
}
