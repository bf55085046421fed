//! Graceful node shutdown: when the board is to go off, its pods are ended first, in order and
//! with the grace they asked for, and the cluster is told.
//!
//! systemd's logind is asked over D-Bus to wait for us; a board without it, or a manager that
//! goes down without asking, is noticed at our own SIGTERM. Without D-Bus all of this is off.

mod logind;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::manager::Manager;
use crate::pod::status::{Verdict, terminal};
pub use logind::going_down;
use logind::{Heard, Logind};
pub use plan::Periods;
use plan::groups;

/// Between two looks at whether the pods of a group have ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time for a last report of the pods' ends before the board may go.
const REPORT: Duration = Duration::from_secs(2);
/// What pods are ended in where only our own SIGTERM tells: whoever sent it waits not much longer.
const AT_SIGTERM: Duration = Duration::from_secs(10);
/// Pause before logind is looked for again after its connection broke.
const RECONNECT: Duration = Duration::from_secs(5);

/// Whether the board is going down, for those who report it or refuse pods.
#[derive(Clone, Debug, Default)]
pub struct Leaving(Arc<watch::Sender<bool>>);

impl Leaving {
    /// Whether it is.
    pub fn is_announced(&self) -> bool {
        *self.0.borrow()
    }

    /// Tells of every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    fn set(&self, leaving: bool) {
        self.0.send_if_modified(|known| std::mem::replace(known, leaving) != leaving);
    }
}

/// Holds logind's lock and ends the pods when the machine is to go off, until `stop`.
pub async fn run(manager: &Manager, stop: CancellationToken) {
    let periods = manager.context().config.shutdown;
    if periods.grace.is_zero() {
        return;
    }
    let following = async {
        // A board that has no D-Bus at the start gets none later.
        let Some(mut logind) = Logind::connect(periods.grace).await else { return };
        loop {
            match logind.next().await {
                Heard::GoingDown => {
                    tracing::info!("the board is to go off: ending its pods");
                    end_pods(manager, periods).await;
                    logind.release();
                }
                Heard::Cancelled => {
                    tracing::info!("the board stays on after all");
                    manager.context().leaving.set(false);
                    logind.hold().await;
                }
                Heard::Broken => {
                    tokio::time::sleep(RECONNECT).await;
                    match Logind::connect(periods.grace).await {
                        Some(again) => logind = again,
                        None => continue,
                    }
                }
            }
        }
    };
    tokio::select! {
        () = following => {}
        () = stop.cancelled() => {}
    }
}

/// At our own stop: ends the pods if the whole machine is going down and nobody has told us.
pub async fn at_stop(manager: &Manager) {
    let periods = manager.context().config.shutdown;
    if periods.grace.is_zero() || manager.context().leaving.is_announced() || !going_down().await {
        return;
    }
    tracing::info!("the machine is stopping: ending its pods");
    end_pods(manager, periods.within(AT_SIGTERM)).await;
}

/// Ends all pods, group after group; each has the time of its group at most.
async fn end_pods(manager: &Manager, periods: Periods) {
    manager.context().leaving.set(true);
    let message = "Pod was terminated in response to imminent node shutdown.";
    let verdict = Verdict { reason: "Terminated".to_owned(), message: message.to_owned() };
    for group in groups(&manager.pods(), periods) {
        let deadline = Instant::now() + group.period + REPORT;
        for uid in &group.pods {
            manager.end(uid, verdict.clone(), group.period);
        }
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let ended = async {
            while manager.pods().iter().any(|pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                let ours = pod.metadata.uid.as_ref().is_some_and(|uid| group.pods.contains(uid));
                ours && !terminal(phase)
            }) {
                looks.tick().await;
            }
        };
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            tracing::warn!(pods = group.pods.len(), "not all pods have ended in their time");
        }
    }
}
