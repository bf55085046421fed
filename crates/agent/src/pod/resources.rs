//! Requests and limits as cgroup settings, and what the kernel kills first.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use runtime::Resources;

use super::qos::{Qos, is_critical};
use super::view::{init_containers, is_sidecar, spec};
use crate::quantity;

/// The period in which a CPU quota is counted.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel refuses a smaller quota.
const MIN_QUOTA_US: i64 = 1000;
/// The least weight the kernel knows.
const MIN_SHARES: i64 = 2;
/// The greatest weight the kernel knows.
const MAX_SHARES: i64 = 262_144;

fn amount(resources: Option<&ResourceRequirements>, limit: bool, name: &str) -> Option<i64> {
    let list = resources.and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
    let value = list?.get(name)?;
    Some(if name == "cpu" { quantity::millis(value) } else { quantity::units(value) })
}

fn shares(milli_cpu: i64) -> u64 {
    u64::try_from((milli_cpu * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)).unwrap_or(2)
}

fn quota(milli_cpu: i64) -> Option<i64> {
    (milli_cpu > 0).then(|| (milli_cpu * CPU_PERIOD_US as i64 / 1000).max(MIN_QUOTA_US))
}

/// Settings of one container on a machine with `memory_bytes` of memory.
pub fn container(pod: &Pod, container: &Container, memory_bytes: u64) -> Resources {
    let resources = container.resources.as_ref();
    // Who has no limit is held to its pod's.
    let limit = |name| {
        let own = amount(resources, true, name).filter(|amount| *amount > 0);
        own.or_else(|| amount(spec(pod).resources.as_ref(), true, name))
    };
    let cpu_limit = limit("cpu");
    let cpu = amount(resources, false, "cpu").or(cpu_limit).unwrap_or(0);
    let quota = cpu_limit.and_then(quota);
    Resources {
        cpu_shares: Some(shares(cpu)),
        cpu_quota: quota,
        cpu_period: quota.map(|_| CPU_PERIOD_US),
        memory_limit: limit("memory").filter(|m| *m > 0),
        oom_score_adj: Some(oom_score_adj(pod, container, memory_bytes)),
        ..Resources::default()
    }
}

/// Settings of a pod as a whole: a limit holds only if every container has one.
pub fn pod(pod: &Pod) -> Resources {
    let total = |name: &str, limit: bool| -> Option<i64> {
        if let Some(own) = amount(spec(pod).resources.as_ref(), limit, name) {
            return Some(own);
        }
        let of = |c: &Container| {
            let resources = c.resources.as_ref();
            let request = || amount(resources, true, name).filter(|_| !limit);
            amount(resources, limit, name).or_else(request)
        };
        let sidecars = || init_containers(pod).iter().filter(|c| is_sidecar(c));
        let mut all = spec(pod).containers.iter().chain(sidecars()).map(of);
        let plain = match limit {
            true => all.try_fold(0i64, |sum, value| Some(sum.saturating_add(value?)))?,
            false => all.map(|value| value.unwrap_or(0)).fold(0, i64::saturating_add),
        };
        let mut init = init_containers(pod).iter().filter(|c| !is_sidecar(c)).map(of);
        let largest = match limit {
            true => init.try_fold(0i64, |max, value| Some(max.max(value?)))?,
            false => init.map(|value| value.unwrap_or(0)).max().unwrap_or(0),
        };
        Some(plain.max(largest))
    };
    let quota = total("cpu", true).and_then(quota);
    Resources {
        cpu_shares: Some(match Qos::of(pod) {
            Qos::BestEffort => MIN_SHARES as u64,
            _ => shares(total("cpu", false).unwrap_or(0)),
        }),
        cpu_quota: quota,
        cpu_period: quota.map(|_| CPU_PERIOD_US),
        memory_limit: total("memory", true).filter(|m| *m > 0),
        ..Resources::default()
    }
}

/// The cgroup of a pod below the node's, by class as upstream's cgroupfs driver names it.
pub fn cgroup(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    match Qos::of(pod) {
        Qos::Guaranteed => format!("pod{uid}"),
        Qos::Burstable => format!("burstable/pod{uid}"),
        Qos::BestEffort => format!("besteffort/pod{uid}"),
    }
}

/// Whom the kernel kills first when memory runs out: who asked for least.
fn oom_score_adj(pod: &Pod, container: &Container, memory_bytes: u64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    if is_critical(pod) {
        return GUARANTEED;
    }
    match Qos::of(pod) {
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => BEST_EFFORT,
        Qos::Burstable => {
            let resources = container.resources.as_ref();
            let request = amount(resources, false, "memory")
                .or_else(|| amount(resources, true, "memory"))
                .unwrap_or(0);
            let capacity = i64::try_from(memory_bytes.max(1)).unwrap_or(i64::MAX);
            let score = 1000
                - i64::try_from(1000 * i128::from(request) / i128::from(capacity)).unwrap_or(1000);
            score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(containers: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}}),
        )
        .unwrap()
    }

    #[test]
    fn limits_become_cgroup_settings() {
        let resources = json!({"requests": {"cpu": "250m", "memory": "64Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi"}});
        let p = parse(json!([{"name": "a", "resources": resources}]));
        let r = container(&p, &p.spec.as_ref().unwrap().containers[0], 1 << 30);
        assert_eq!(
            (r.cpu_shares, r.cpu_quota, r.cpu_period),
            (Some(256), Some(50_000), Some(100_000))
        );
        assert_eq!(r.memory_limit, Some(128 << 20));
        assert_eq!(r.oom_score_adj, Some(1000 - 62));
        assert_eq!(cgroup(&p), "burstable/podu");
        assert_eq!(pod(&p).memory_limit, Some(128 << 20));
    }

    #[test]
    fn a_container_without_limits_is_held_to_its_pods() {
        let mut p = parse(
            json!([{"name": "a"}, {"name": "b", "resources": {"limits": {"memory": "1Mi"}}}]),
        );
        let whole = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
        p.spec.as_mut().unwrap().resources = serde_json::from_value(whole).unwrap();
        let of = |index: usize| {
            let r = container(&p, &p.spec.as_ref().unwrap().containers[index], 1 << 30);
            (r.cpu_shares, r.cpu_quota, r.memory_limit)
        };
        assert_eq!(of(0), (Some(512), Some(50_000), Some(64 << 20)));
        assert_eq!(of(1), (Some(512), Some(50_000), Some(1 << 20)));
    }

    #[test]
    fn a_pod_is_limited_only_if_all_its_containers_are() {
        let p = parse(
            json!([{"name": "a", "resources": {"limits": {"memory": "1Mi"}}}, {"name": "b"}]),
        );
        assert_eq!(pod(&p).memory_limit, None);
        let p = parse(json!([{"name": "a"}]));
        let r = container(&p, &p.spec.as_ref().unwrap().containers[0], 1 << 30);
        assert_eq!((r.cpu_shares, r.memory_limit, r.oom_score_adj), (Some(2), None, Some(1000)));
        assert_eq!(cgroup(&p), "besteffort/podu");
    }
}
