//! Leader election over a `Lease`, by client-go's algorithm: whoever writes its name into the
//! Lease leads, renews it, and stops before anybody else could believe it dead.
//!
//! What holds: the leader counts from the *beginning* of its last renewal that succeeded, the
//! others from when they *saw* it, each by a monotonic clock of its own, and the leader's time is
//! the shorter one. Slow answers therefore shorten a leadership and never stretch it, and a wall
//! clock that jumps changes what is printed and whose renewals meet (`base::next_beat`), nothing
//! else. Compare-and-swap on the Lease's resourceVersion makes an acquisition by two impossible, so
//! stale reads are good enough for those who wait.

mod election;
mod fence;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, SystemClock};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{GetParams, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use election::Timing;
use election::{Election, Step};
pub use fence::{Fence, Fenced, FencedService};

/// How often one attempt looks anew because somebody else wrote meanwhile.
const LOOKS_MAX: usize = 2;

/// A candidate for one Lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    election: Election,
    fence: Fence,
    holder: watch::Sender<String>,
    /// Says when others renew too, and nothing else.
    clock: Arc<dyn Clock>,
    /// When the next renewal is due.
    due: Instant,
}

/// What the work of a leader is given.
#[derive(Debug, Clone)]
pub struct Leading {
    /// Cancelled when leadership ends; the work has to return then. What has not returned after
    /// half of the time that remains until somebody else may lead is dropped where it awaits.
    pub stop: CancellationToken,
    /// Says whether leadership is certain at this very moment.
    pub fence: Fence,
}

impl Elector {
    /// A candidate called `identity`, which must be its own in the whole cluster and should be a
    /// new one at every start (upstream: host name and a UUID).
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Elector::with(client, namespace, name, identity, Timing::default())
    }

    /// The same with other times.
    pub fn with(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        timing: Timing,
    ) -> Self {
        Elector {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
            election: Election::new(identity.to_owned(), timing),
            fence: Fence::default(),
            holder: watch::Sender::new(String::new()),
            clock: Arc::new(SystemClock),
            due: Instant::now(),
        }
    }

    /// Who leads, by what this candidate saw last; empty where nobody does.
    pub fn holder(&self) -> watch::Receiver<String> {
        self.holder.subscribe()
    }

    /// The fence that `work` gets too, for clients that are built before there is a leader.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Campaigns until `stop`, and runs `work` whenever this candidate leads. The lease is given
    /// up when `work` has ended, so that another takes over within a retry period. Work that
    /// ends by itself gives the lease up too; the candidate then stands again.
    pub async fn run<W, F>(mut self, stop: CancellationToken, mut work: W)
    where
        W: FnMut(Leading) -> F,
        F: Future<Output = ()>,
    {
        while stop.run_until_cancelled(self.acquire()).await.is_some() {
            tracing::info!(lease = self.name, identity = self.identity, "leading");
            let leading = Leading { stop: stop.child_token(), fence: self.fence() };
            let task = work(leading.clone());
            self.lead(task, &leading).await;
            self.fence.set(None);
            if tokio::time::timeout(self.timing.retry, self.release()).await.is_err() {
                tracing::warn!(lease = self.name, "the lease could not be released in time");
            }
            if !stop.is_cancelled() {
                tracing::warn!(lease = self.name, "not leading any more");
                stop.run_until_cancelled(tokio::time::sleep(self.retry())).await;
            }
        }
    }

    /// The retry period with a little added at random, so that candidates do not meet.
    fn retry(&self) -> Duration {
        base::Backoff::new(self.timing.retry, self.timing.retry).jittered(1)
    }

    /// Returns as the leader.
    async fn acquire(&mut self) {
        loop {
            if self.attempt(self.timing.renew_deadline / 2).await {
                return;
            }
            tokio::time::sleep(self.retry()).await;
        }
    }

    /// Runs the work and renews beside it, until the work ends or leadership does.
    async fn lead(&mut self, work: impl Future<Output = ()>, leading: &Leading) {
        let mut work = std::pin::pin!(work);
        let timing = self.timing;
        tokio::select! {
            () = &mut work => return,
            () = leading.stop.cancelled() => {}
            () = self.renew() => {}
        }
        leading.stop.cancel();
        // An orderly stop may take as long as the lease is kept up beside it.
        if self.fence.holds() {
            tokio::select! {
                () = &mut work => return,
                () = self.renew() => {}
            }
        }
        if tokio::time::timeout(timing.grace(), work).await.is_err() {
            tracing::error!(lease = self.name, "the leader's work did not end and was dropped");
        }
    }

    /// Renews again and again; returns when leadership is not certain any more.
    async fn renew(&mut self) {
        loop {
            let Some(until) = self.fence.until() else { return };
            tokio::time::sleep_until(self.due.min(until)).await;
            let started = Instant::now();
            if started >= until {
                return;
            }
            if self.attempt((until - started).min(self.timing.renew_deadline / 2)).await {
                continue;
            }
            if self.is_taken() {
                // Somebody else has it: there is nothing left to wait for.
                self.fence.set(None);
                return;
            }
            self.due = Instant::now() + self.timing.retry;
        }
    }

    fn is_taken(&self) -> bool {
        let holder = self.election.holder();
        !holder.is_empty() && holder != self.identity
    }

    /// Tries once to acquire or renew. Whether it worked; all times count from its beginning.
    async fn attempt(&mut self, within: Duration) -> bool {
        let started = Instant::now();
        let due = started + base::next_beat(self.clock.now(), self.timing.renew);
        let result = tokio::time::timeout(within, self.try_write()).await;
        self.holder.send_if_modified(|holder| {
            let changed = holder != self.election.holder();
            if changed {
                self.election.holder().clone_into(holder);
            }
            changed
        });
        match result {
            Ok(Ok(held)) => {
                if held {
                    self.fence.set(Some(started + self.timing.renew_deadline));
                    self.due = due;
                }
                held
            }
            Ok(Err(error)) => {
                let error = crate::message(&error);
                tracing::debug!(lease = self.name, error, "the lease was not written");
                false
            }
            Err(_) => {
                tracing::debug!(lease = self.name, "no answer to a write of the lease in time");
                false
            }
        }
    }

    async fn try_write(&mut self) -> kube::Result<bool> {
        // Whoever holds the lease knows what it wrote last; it looks only where that fails.
        let mut known = self.election.holder() == self.identity;
        let mut last = None;
        for _ in 0..LOOKS_MAX {
            if !known {
                self.look().await?;
            }
            known = false;
            let step = self.election.step(Instant::now(), jiff::Timestamp::now());
            let Step::Write { spec, over } = step else { return Ok(false) };
            match self.write(*spec, over).await {
                Ok(()) => return Ok(true),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    last = Some(kube::Error::Api(status));
                }
                Err(error) => return Err(error),
            }
        }
        last.map_or(Ok(false), Err)
    }

    async fn look(&mut self) -> kube::Result<()> {
        match self.api.get_with(&self.name, &GetParams::any()).await {
            Ok(lease) => {
                let version = lease.metadata.resource_version.unwrap_or_default();
                let spec = lease.spec.unwrap_or_default();
                self.election.observe(spec, version, Instant::now());
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.election.absent();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, spec: LeaseSpec, over: Option<String>) -> kube::Result<()> {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            resource_version: over.clone(),
            // Nobody asks who set which field, and it is nearly half of what each renewal writes.
            managed_fields: over.is_some().then(|| vec![ManagedFieldsEntry::default()]),
            ..Default::default()
        };
        let lease = Lease { metadata, spec: Some(spec) };
        let params = PostParams::default();
        let written = match over {
            Some(_) => self.api.replace(&self.name, &params, &lease).await?,
            None => self.api.create(&params, &lease).await?,
        };
        let version = written.metadata.resource_version.unwrap_or_default();
        self.election.observe(written.spec.unwrap_or_default(), version, Instant::now());
        Ok(())
    }

    async fn release(&mut self) {
        for _ in 0..LOOKS_MAX {
            let Some((spec, over)) = self.election.release(jiff::Timestamp::now()) else { break };
            match self.write(spec, Some(over)).await {
                Ok(()) => tracing::info!(lease = self.name, "lease released"),
                // A renewal that was cut off may have been written all the same.
                Err(error) => {
                    let error = crate::message(&error);
                    tracing::debug!(lease = self.name, error, "the lease was not released");
                    if self.look().await.is_err() {
                        break;
                    }
                }
            }
        }
        self.holder.send_replace(self.election.holder().to_owned());
    }
}

#[cfg(test)]
mod tests;
