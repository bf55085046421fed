//! The arithmetic of a rollout: surge, unavailability, proportional scaling. All of it
//! upstream's (pkg/controller/deployment/util), so that a rollout takes the same steps.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

/// Annotation with the Deployment's replicas when the ReplicaSet was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with the replicas plus surge at that time.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Wanted replicas of a Deployment.
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Wanted replicas of a ReplicaSet.
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Available replicas of a ReplicaSet as last reported.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// Whether old and new pods may run side by side.
pub fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) != Some("Recreate")
}

/// Pods allowed above and missing below the wanted number. Percentages of surge round up,
/// those of unavailability down; both zero would never end, so one may be missing then.
pub fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let rolling = deployment
        .spec
        .as_ref()
        .and_then(|s| s.strategy.as_ref()?.rolling_update.clone())
        .unwrap_or_default();
    let quarter = || IntOrString::String("25%".into());
    let total = wanted(deployment);
    let surge = scaled(&rolling.max_surge.unwrap_or_else(quarter), total, true);
    let unavailable = scaled(&rolling.max_unavailable.unwrap_or_else(quarter), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// Pods allowed above the wanted number.
pub fn max_surge(deployment: &Deployment) -> i32 {
    fenceposts(deployment).0
}

/// Pods that may be missing, never more than there are.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if wanted(deployment) == 0 { 0 } else { fenceposts(deployment).1.min(wanted(deployment)) }
}

/// An absolute number, or a percentage of `total`.
pub fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()).unwrap_or(0);
            let parts = percent * i64::from(total);
            let whole = if round_up { (parts + 99).div_euclid(100) } else { parts.div_euclid(100) };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// Replicas of the new set in the next step, given the sum over all sets.
pub fn new_set_replicas(deployment: &Deployment, all: i32, new: i32) -> i32 {
    if !is_rolling(deployment) {
        return wanted(deployment);
    }
    let room = wanted(deployment) + max_surge(deployment) - all;
    if room <= 0 { new } else { new + room.min(wanted(deployment) - new) }
}

/// How many replicas of `to_add` (negative: to remove) fall to `set`, after `added`.
pub fn proportion(set: &ReplicaSet, deployment: &Deployment, to_add: i32, added: i32) -> i32 {
    if replicas(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (fraction, allowed) = (fraction(set, deployment), to_add - added);
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

fn fraction(set: &ReplicaSet, deployment: &Deployment) -> i32 {
    if wanted(deployment) == 0 {
        return -replicas(set);
    }
    let target = wanted(deployment) + max_surge(deployment);
    let recorded = set.annotations().get(MAX_REPLICAS).and_then(|n| n.parse().ok());
    let base = recorded
        .filter(|n| *n != 0)
        .or_else(|| deployment.status.as_ref()?.replicas)
        .filter(|n| *n != 0)
        .unwrap_or(1);
    let size = f64::from(replicas(set)) * f64::from(target) / f64::from(base);
    // A replica count fits an i32; `as` saturates.
    size.round() as i32 - replicas(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
        let text = format!(
            r#"{{"spec":{{"replicas":{replicas},"selector":{{}},"template":{{}},"strategy":
            {{"rollingUpdate":{{"maxSurge":{surge},"maxUnavailable":{unavailable}}}}}}}}}"#
        );
        serde_json::from_str(&text).expect("a deployment")
    }

    #[test]
    fn percentages_round_apart() {
        for (replicas, surge, unavailable, expected) in [
            (10, "\"25%\"", "\"25%\"", (3, 2)),
            (1, "\"25%\"", "\"25%\"", (1, 0)),
            (4, "0", "\"10%\"", (0, 1)),
            (3, "2", "1", (2, 1)),
            (0, "\"25%\"", "\"25%\"", (0, 1)),
        ] {
            assert_eq!(fenceposts(&deployment(replicas, surge, unavailable)), expected);
        }
    }

    #[test]
    fn the_new_set_grows_into_the_room_that_is_left() {
        let d = deployment(10, "3", "2");
        assert_eq!(new_set_replicas(&d, 10, 0), 3);
        assert_eq!(new_set_replicas(&d, 13, 3), 3);
        assert_eq!(new_set_replicas(&d, 5, 9), 10);
    }
}
