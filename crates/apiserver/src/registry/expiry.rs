//! Events live for an hour after they were last written, as upstream's do; nothing else would
//! ever remove them. Old ones are looked for when Events are written or read, so that an idle
//! server has no task for it.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use store::{Entry, Expect, Page, Range};

use super::call::Target;
use super::{Registry, codec};

/// How long an Event is kept after it was last written.
const EVENT_TTL: SignedDuration = SignedDuration::from_hours(1);
/// How often old Events are looked for at most.
const SWEEP_INTERVAL_SECONDS: i64 = 300;
const COLLECTION: &str = "events";

/// When old Events were last looked for, in seconds since 1970.
#[derive(Default)]
pub struct Swept(AtomicI64);

impl Swept {
    /// Whether it is time again; says so to one caller only.
    fn is_due(&self, now: Timestamp) -> bool {
        let (now, last) = (now.as_second(), self.0.load(Ordering::Relaxed));
        let due = now - last >= SWEEP_INTERVAL_SECONDS;
        due && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Registry {
    /// Deletes the Events whose time is over, if the request is about Events.
    pub(super) async fn sweep_events(&self, target: &Target) {
        if target.resource.collection() != COLLECTION || !self.swept.is_due(self.now()) {
            return;
        }
        let range = Range { collection: COLLECTION, namespace: None };
        let Ok(list) = self.store().list(range, Page::default()) else { return };
        let now = self.now();
        for entry in list.entries.iter().filter(|entry| is_over(entry, now)) {
            // An Event that was written meanwhile stays; a closed store takes no more.
            let _ = self.store().delete(&entry.key, Expect::Revision(entry.revision)).await;
        }
    }
}

/// Whether none of the Event's times is younger than the limit. One without any is kept.
fn is_over(event: &Entry, now: Timestamp) -> bool {
    let times = [
        &["lastTimestamp"][..],
        &["series", "lastObservedTime"],
        &["eventTime"],
        &["metadata", "creationTimestamp"],
    ];
    let read = |path: &&[&str]| match codec::extract(&event.value, path) {
        Some(Value::String(text)) => text.parse::<Timestamp>().ok(),
        _ => None,
    };
    let newest = times.iter().filter_map(read).max();
    newest.is_some_and(|newest| now.duration_since(newest) > EVENT_TTL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn one_caller_in_five_minutes_sweeps() {
        let swept = Swept::default();
        let now: Timestamp = "2026-01-01T02:00:00Z".parse().unwrap();
        let later = now + SignedDuration::from_secs(SWEEP_INTERVAL_SECONDS);
        let asked: Vec<bool> = [now, now, later, later].map(|at| swept.is_due(at)).into();
        assert_eq!(asked, [true, false, true, false]);
    }

    #[test]
    fn the_newest_time_counts() {
        let now: Timestamp = "2026-01-01T02:00:00Z".parse().unwrap();
        for (event, expected) in [
            (json!({"metadata": {"creationTimestamp": "2026-01-01T00:30:00Z"}}), true),
            (json!({"metadata": {"creationTimestamp": "2026-01-01T01:30:00Z"}}), false),
            (
                json!({"metadata": {"creationTimestamp": "2026-01-01T00:30:00Z"}, "lastTimestamp": "2026-01-01T01:10:00Z"}),
                false,
            ),
            (
                json!({"metadata": {"creationTimestamp": "2026-01-01T00:30:00Z"}, "series": {"lastObservedTime": "2026-01-01T00:40:00.000001Z"}}),
                true,
            ),
            (json!({"metadata": {}}), false),
        ] {
            let entry = Entry {
                key: store::Key::new(COLLECTION, "ns", "e"),
                created: 1,
                revision: 1,
                value: event.to_string().into(),
                labels: store::Labels::default(),
            };
            assert_eq!(is_over(&Arc::new(entry), now), expected, "{event}");
        }
    }
}
