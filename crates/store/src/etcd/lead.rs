//! Who leads the etcd, as long as a request waits: what was sent to a leader that died is never
//! answered, and etcd itself says so only after nine seconds.

use std::time::Duration;

use etcd_client::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How often a member is asked, however many requests wait for it.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long a request may still be answered after another member took the lead.
const GRACE: Duration = Duration::from_millis(200);

/// What was seen last.
#[derive(Default)]
pub(super) struct Lead(Mutex<Option<Seen>>);

#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    /// Each leader has a term of its own.
    term: u64,
    leads: bool,
}

impl Lead {
    /// Returns some time after the lead went to another member, if it does from now on.
    pub(super) async fn moves(&self, client: &Client) {
        let begun = Instant::now();
        let mut first = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A member that does not answer is found out by who waits for it.
            let Some(seen) = self.look(client).await.filter(|seen| seen.at > begun) else {
                continue;
            };
            if seen.leads && seen.term != *first.get_or_insert(seen.term) {
                return tokio::time::sleep(GRACE).await;
            }
        }
    }

    async fn look(&self, client: &Client) -> Option<Seen> {
        let mut last = self.0.lock().await;
        if last.is_none_or(|seen| seen.at.elapsed() > LOOK_EVERY / 2) {
            let at = Instant::now();
            let status = client.maintenance_client().status().await.ok()?;
            *last = Some(Seen { at, term: status.raft_term(), leads: status.leader() != 0 });
        }
        *last
    }
}
