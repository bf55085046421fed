//! The cluster's etcd, as far as this server has a part in it: the distribution's program,
//! supervised; its members, as servers come and go; its care.
//!
//! What may be done is decided by pure functions (`membership`, `verdict`, `care`) from what was
//! seen; this side looks and acts. An etcd inside our own process was turned down: there is none
//! in Rust, and the one that Kubernetes trusts is the distribution's to update.

mod admin;
mod alone;
mod bolt;
mod care;
mod kin;
mod line;
mod log;
mod membership;
mod place;
mod process;
mod supervisor;
mod torn;
mod trust;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use admin::{Alarm, Member, Status};
pub use kin::{forget, look, remembered};
pub use membership::{Seen, advice, may_leave};
pub use place::{Aside, Place, folder};
pub use trust::{Renewal, not_trusting};

use crate::failure::{Failure, Outcome};
use crate::server::Membership;
use supervisor::Supervisor;

/// How long etcd may take to end in order before it is killed, which harms it as little as a
/// power cut.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Is told what a start waits for.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// For a start that nobody waits for.
pub fn to_nobody() -> Say {
    Arc::new(|_| ())
}

/// A supervised etcd that serves.
pub struct Etcd {
    /// This board's member.
    pub place: Place,
    changed: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<Outcome>,
}

impl Etcd {
    /// Starts this board's member, joining the cluster first where it is none yet, and waits
    /// until a majority answers through it. `endpoints` are members to join by; `say` is told what
    /// is waited for.
    pub async fn start(
        place: Place,
        membership: &Membership,
        endpoints: Vec<String>,
        say: Say,
    ) -> Outcome<Etcd> {
        place.await_ports().await?;
        let stop = CancellationToken::new();
        let changed = Arc::new(Notify::new());
        let supervisor = Supervisor::new(place.clone(), changed.clone(), say, stop.clone());
        let first = supervisor.first(membership, endpoints).await?;
        let serving = supervisor.clone();
        let mut etcd = Etcd { place, changed, stop, task: tokio::spawn(supervisor.run(first)) };
        tokio::select! {
            () = serving.await_service() => Ok(etcd),
            ended = etcd.ended() => Err(ended),
        }
    }

    /// For whoever keeps its certificates in step with the cluster's keys.
    pub fn renewal(&self) -> Renewal {
        Renewal { place: self.place.clone(), changed: self.changed.clone() }
    }

    /// Returns where it cannot go on.
    pub async fn ended(&mut self) -> Failure {
        match (&mut self.task).await {
            Ok(Err(failure)) => failure,
            Ok(Ok(())) => Failure::new("etcd was stopped"),
            Err(error) => Failure::new(format!("the supervision of etcd failed: {error}")),
        }
    }

    /// Hands the lead over and ends it.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // It may have ended by itself, and been asked why.
        if self.task.is_finished() {
            return;
        }
        if tokio::time::timeout(STOP_PATIENCE * 2, &mut self.task).await.is_err() {
            tracing::warn!("etcd did not end in time; it goes with this process");
        }
    }
}

impl Drop for Etcd {
    /// A start that is given up must not leave etcd behind.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
