//! Keeping up: the watch that feeds the index, in etcd's order and without gaps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{WatchOptions, WatchResponse, WatchStream};

use super::Core;
use super::layout::Mark;
use super::members::{Member, REQUEST_PATIENCE, RETRY_PAUSE};
use crate::{Change, DriverError};

/// Silence after which the datastore is asked whether it is still there. Where somebody is
/// leader there is no such silence.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long reading everything anew may take.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// Why a watch ended.
enum Ended {
    /// The connection, or the member; another may go on.
    Broken(DriverError),
    /// What follows the last revision was compacted away.
    Compacted,
}

impl Core {
    /// Feeds what comes after `from`, for ever.
    pub(super) async fn follow(self: Arc<Self>, mut from: i64) {
        loop {
            match self.watch_from(&mut from).await {
                Ended::Broken(error) => {
                    tracing::debug!(error = base::chain(&error), "watch of etcd ended");
                    self.feed().failing(&error);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Ended::Compacted => from = self.reload(from).await,
            }
        }
    }

    async fn watch_from(&self, from: &mut i64) -> Ended {
        let member = match self.members.current().await {
            Ok(member) => member,
            Err(error) => return Ended::Broken(error),
        };
        let generation = member.generation;
        let mut stream = match self.start(member, *from + 1).await {
            Ok(stream) => stream,
            Err(error) => {
                self.members.failed(generation);
                return Ended::Broken(error);
            }
        };
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                () = self.members.moved_on(generation) => {
                    return Ended::Broken(self.lost("the member in use has failed"));
                }
            };
            let error = match message {
                Ok(Some(response)) if response.compact_revision() > 0 => return Ended::Compacted,
                Ok(Some(response)) if response.canceled() => self.lost(response.cancel_reason()),
                Ok(Some(response)) => {
                    self.take(&response, from);
                    continue;
                }
                Ok(None) => self.lost("it has closed the watch"),
                Err(error) => self.members.error("watch", &error),
            };
            self.members.failed(generation);
            return Ended::Broken(error);
        }
    }

    async fn start(&self, member: Member, from: i64) -> Result<WatchStream, DriverError> {
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let mut client = member.watch();
        let started = client.watch(&*self.layout.root, Some(options));
        match tokio::time::timeout(REQUEST_PATIENCE, started).await {
            Ok(started) => started.map_err(|e| self.members.error("watch", &e)),
            Err(_) => Err(self.lost("no answer in time")),
        }
    }

    /// Takes in what a message tells.
    fn take(&self, response: &WatchResponse, from: &mut i64) {
        self.feed().alive();
        let mut changes = Vec::with_capacity(response.events().len());
        for kv in response.events().iter().filter_map(|event| event.kv()) {
            *from = (*from).max(kv.mod_revision());
            // Of what was deleted there is nothing but the key.
            let deleted = kv.version() == 0;
            if kv.key() == self.layout.fence.as_bytes() && !deleted {
                self.set_fence(kv.mod_revision());
            } else if kv.key() == self.layout.deleted.as_bytes() {
                self.note(Mark::read(kv.value()), kv.mod_revision());
            } else if deleted && let Some(key) = self.layout.key(kv.key()) {
                let revision = self.to_revision(kv.mod_revision());
                changes.push(Change { key, created: revision, revision, value: None });
            } else if let Some((change, mark)) = self.layout.change(kv.clone(), self.base()) {
                self.note(mark, kv.mod_revision());
                changes.push(change);
            }
        }
        self.feed().publish(changes, self.to_revision(*from));
        self.set_watched(*from);
    }

    fn note(&self, mark: Option<Mark>, revision: i64) {
        if let Some(mark) = mark {
            self.ledger.note(mark, revision);
        }
    }

    /// Reads everything anew after a gap in the history, and gives where to go on.
    async fn reload(&self, from: i64) -> i64 {
        let mut state = Vec::new();
        let until = Instant::now() + RELOAD_PATIENCE;
        match self.read_all(until, &mut |change| state.push(change)).await {
            Ok(at) => {
                tracing::warn!(
                    "etcd has compacted what followed revision {from} while it was out of reach; \
                     everything was read anew and all watches begin again"
                );
                self.next_epoch();
                self.feed().reset(state, self.to_revision(at));
                self.set_watched(at);
                at
            }
            Err(error) => {
                self.feed().failing(&error);
                tracing::warn!(error = base::chain(&error), "read etcd anew");
                tokio::time::sleep(RETRY_PAUSE).await;
                from
            }
        }
    }

    /// Asks after each silence whether the datastore is there, so that a dead one is noticed
    /// and a healthy one is known to be.
    pub(super) async fn probe(self: Arc<Self>) {
        loop {
            let silent = self.feed().heard().map_or(SILENCE_MAX, |at| at.elapsed());
            if silent < SILENCE_MAX {
                tokio::time::sleep(SILENCE_MAX - silent).await;
                continue;
            }
            // A failure is noted by whoever asks, and moves everybody on to the next member.
            if self.ask(Instant::now()).await.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
