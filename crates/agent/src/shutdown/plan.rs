//! In which order pods are ended, and how long each may take: a pure decision.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::qos::is_critical;
use crate::pod::status::terminal;

/// How long a shutdown waits for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Periods {
    /// For all pods together; zero: pods are not ended before the board goes off.
    pub grace: Duration,
    /// The part of it that is kept for critical pods, at the end.
    pub critical: Duration,
}

impl Default for Periods {
    fn default() -> Self {
        Periods { grace: Duration::from_secs(30), critical: Duration::from_secs(10) }
    }
}

impl Periods {
    /// The same shares of at most `whole`.
    pub fn within(self, whole: Duration) -> Self {
        if self.grace <= whole {
            return self;
        }
        let share = self.critical.min(self.grace).as_secs_f64() / self.grace.as_secs_f64();
        Periods { grace: whole, critical: whole.mul_f64(share) }
    }
}

/// Pods that are ended together.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Their uids.
    pub pods: Vec<String>,
    /// How long they may take.
    pub period: Duration,
}

/// The groups, first to last; those without pods are left out.
pub fn groups(pods: &[Pod], periods: Periods) -> Vec<Group> {
    let critical = periods.critical.min(periods.grace);
    let over = |pod: &Pod| terminal(pod.status.as_ref().and_then(|s| s.phase.as_deref()));
    let of = |wanted: bool, period: Duration| Group {
        pods: pods
            .iter()
            .filter(|pod| is_critical(pod) == wanted && !over(pod))
            .filter_map(|pod| pod.metadata.uid.clone())
            .collect(),
        period,
    };
    let groups = [of(false, periods.grace - critical), of(true, critical)];
    groups.into_iter().filter(|group| !group.pods.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, priority: i32, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"uid": uid}, "spec": {"priority": priority, "containers": []},
            "status": {"phase": phase},
        }))
        .expect("a pod")
    }

    #[test]
    fn critical_pods_go_last_and_have_their_own_time() {
        let pods = [
            pod("dns", crate::pod::qos::CRITICAL_PRIORITY, "Running"),
            pod("web", 0, "Running"),
            pod("done", 0, "Succeeded"),
        ];
        let seconds = Duration::from_secs;
        let expected = [
            Group { pods: vec!["web".into()], period: seconds(20) },
            Group { pods: vec!["dns".into()], period: seconds(10) },
        ];
        assert_eq!(groups(&pods, Periods::default()), expected);
        let only = Periods { grace: seconds(5), critical: seconds(10) };
        assert_eq!(groups(&pods[1..2], only)[0].period, seconds(0));
        assert_eq!(groups(&[], Periods::default()), []);
    }

    #[test]
    fn a_shorter_whole_keeps_the_shares() {
        let short = Periods::default().within(Duration::from_secs(12));
        assert_eq!((short.grace.as_secs(), short.critical.as_secs()), (12, 4));
        assert_eq!(Periods::default().within(Duration::from_secs(60)), Periods::default());
    }
}
