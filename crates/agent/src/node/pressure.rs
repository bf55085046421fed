//! Pressure outlasts the shortage: as soon as a pod is evicted there is room again, and what its
//! controller makes in its place would come back and be evicted, over and over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::NodeCondition;

/// The conditions of pressure that were last seen.
#[derive(Default)]
pub struct Pressure(Mutex<BTreeMap<String, (Instant, NodeCondition)>>);

impl Pressure {
    /// Keeps conditions of pressure for `period` after they were last true.
    pub fn prolong(&self, conditions: &mut [NodeCondition], now: Instant, period: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for condition in conditions.iter_mut().filter(|c| c.type_.ends_with("Pressure")) {
            if condition.status == "True" {
                seen.insert(condition.type_.clone(), (now, condition.clone()));
            } else if let Some((at, last)) = seen.get(&condition.type_)
                && now.saturating_duration_since(*at) < period
            {
                let heartbeat = condition.last_heartbeat_time.take();
                *condition = NodeCondition { last_heartbeat_time: heartbeat, ..last.clone() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::condition;

    #[test]
    fn pressure_goes_some_time_after_the_shortage() {
        let (pressure, start) = (Pressure::default(), Instant::now());
        let at = |seconds: u64, disk: bool| {
            let reason = if disk { "KubeletHasDiskPressure" } else { "KubeletHasNoDiskPressure" };
            let mut all = [
                condition("DiskPressure", disk, reason, "words"),
                condition("Ready", true, "R", ""),
            ];
            let now = start + Duration::from_secs(seconds);
            pressure.prolong(&mut all, now, Duration::from_secs(300));
            assert_eq!(all[1].status, "True");
            let [disk, _] = all;
            (disk.status, disk.reason.unwrap_or_default())
        };
        let yes = ("True".to_owned(), "KubeletHasDiskPressure".to_owned());
        let no = ("False".to_owned(), "KubeletHasNoDiskPressure".to_owned());
        assert_eq!(at(0, false), no);
        assert_eq!([at(10, true), at(20, false), at(309, false)], [yes.clone(), yes.clone(), yes]);
        assert_eq!(at(310, false), no);
    }
}
