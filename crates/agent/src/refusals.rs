//! How long the next refusal of a controller's pods is kept back.
//!
//! A controller replaces a failed pod at once, by one that may be refused for the same reason: without
//! a pause both would do nothing else, and each round is written to the servers' disks. So the pod stays
//! pending for a while; who looks sees the event that says why.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

/// The pause before the second refusal is told, doubling from one to the next.
const PAUSE: base::Backoff = base::Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
/// After so long without a refusal the next one is the first.
const FORGET: Duration = Duration::from_secs(600);

/// Refusals by the controller whose pods they were.
#[derive(Default)]
pub struct Refusals(HashMap<String, (u32, Instant)>);

impl Refusals {
    /// Counts one; how long not to tell of it.
    pub fn pause(&mut self, pod: &Pod, now: Instant) -> Duration {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else {
            return Duration::ZERO;
        };
        self.0.retain(|_, (_, until)| *until + FORGET > now);
        let (count, until) = self.0.entry(owner.uid.clone()).or_insert((0, now));
        let pause = PAUSE.delay(*count);
        *count = count.saturating_add(1);
        *until = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_refusal_of_a_controllers_pods_waits_longer() {
        let owned = |owner: &str, controller: bool| -> Pod {
            let reference = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d",
                "uid": owner, "controller": controller});
            serde_json::from_value(json!({"metadata": {"ownerReferences": [reference]}})).unwrap()
        };
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let mut after = |pod: &Pod, seconds| {
            refusals.pause(pod, start + Duration::from_secs(seconds)).as_secs()
        };
        let one = owned("one", true);
        assert_eq!([0, 1, 3].map(|at| after(&one, at)), [0, 1, 2]);
        assert_eq!(after(&owned("other", true), 3), 0);
        assert_eq!([4, 4].map(|at| after(&owned("nobody's", false), at)), [0, 0]);
        // The fourth is told at 9 s at the latest; the next comes long after.
        assert_eq!(after(&one, 5), 4);
        assert_eq!(after(&one, 700), 0);
        let many: Vec<_> = (0..12).map(|at| after(&one, 700 + at * 300)).collect();
        assert_eq!(many[11], 300);
    }
}
