//! Many watchers of one collection, each on a connection of its own, as many kubelets and
//! controllers would be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::api::Api;

/// A label's value in every object written for watchers: `sent-` and nanoseconds of the epoch.
pub const MARK: &str = "\"sent-";
/// One watcher in this many reads the marks; all reading them would measure this program.
const MARK_READERS_EVERY: usize = 10;

/// Watchers at work.
pub struct Watchers {
    tasks: JoinSet<Outcome<Vec<Duration>>>,
    seen: Arc<AtomicU64>,
}

impl Watchers {
    /// Starts `count` watchers of `path` from a resource version; each ends after `events`.
    pub async fn start(
        api: &Api,
        path: &str,
        from: &str,
        count: usize,
        events: usize,
    ) -> Outcome<Self> {
        let mut tasks = JoinSet::new();
        let seen = Arc::new(AtomicU64::new(0));
        for number in 0..count {
            let mut connection = api.connect().await?;
            let path = format!("{path}?watch=true&resourceVersion={from}");
            let reads_marks = number % MARK_READERS_EVERY == 0;
            let seen = seen.clone();
            let response = connection.send(Method::GET, &path, "").await?;
            tasks.spawn(async move {
                let mut body = response.into_body();
                let (mut left, mut delays) = (events, Vec::new());
                while left > 0 {
                    let frame = body.frame().await.ok_or("the watch ended early")??;
                    let Ok(data) = frame.into_data() else { continue };
                    let lines = data.iter().filter(|&&byte| byte == b'\n').count();
                    left = left.saturating_sub(lines);
                    if reads_marks {
                        read_marks(&data, &mut delays);
                    }
                    seen.fetch_add(lines as u64, Ordering::Relaxed);
                }
                drop(connection);
                Ok(delays)
            });
        }
        Ok(Watchers { tasks, seen })
    }

    /// Waits until all have seen what they wait for; the delays of the marks.
    pub async fn finish(mut self, limit: Duration) -> Outcome<Vec<Duration>> {
        let mut delays = Vec::new();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                delays.extend(ended??);
            }
            Outcome::Ok(())
        };
        let in_time = tokio::time::timeout(limit, all).await;
        let seen = self.seen.load(Ordering::Relaxed);
        in_time.map_err(|_| format!("watchers saw {seen} events only"))??;
        Ok(delays)
    }
}

fn read_marks(data: &Bytes, delays: &mut Vec<Duration>) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for (at, mark) in text.match_indices(MARK) {
        let number = text[at + mark.len()..].split('"').next().and_then(|n| n.parse().ok());
        let Some(sent) = number.map(|n| UNIX_EPOCH + Duration::from_nanos(n)) else { continue };
        delays.extend(SystemTime::now().duration_since(sent));
    }
}

/// The mark of an object sent now.
pub fn mark() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("sent-{}", now.as_nanos())
}
