//! Which pods make room for one that the node leans on and that would not fit: as few as may be, of
//! the lowest class of service, and those that ask for the least. Pure; the choice is kubelet's.

use std::collections::BTreeMap;

use api::placement::requests::{Shortage, requests};
use k8s_openapi::api::core::v1::Pod;

use super::qos::{Qos, is_critical};
use super::view::spec;

/// Reason of the event and of the end of a pod that makes room.
pub const REASON: &str = "Preempting";
/// What is told of it.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";

/// What is still missing, by resource name.
type Missing = BTreeMap<String, i64>;

/// Those of `others` that have to go for `pod`, if that helps.
pub fn victims<'a>(pod: &Pod, others: &[&'a Pod], short: &[Shortage]) -> Option<Vec<&'a Pod>> {
    let missing = short.iter().map(|s| (s.name.clone(), s.requested + s.used - s.capacity));
    let missing: Missing = missing.collect();
    let of = |class: Qos| -> Vec<&'a Pod> {
        let may_go = |other: &&&Pod| gives_way(other, pod) && Qos::of(other) == class;
        others.iter().filter(may_go).copied().collect()
    };
    let (least, middle, most) = (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    // Of the better classes only what is missing even if all of the lesser ones went.
    let most = nearest(most, without(&missing, [&least[..], &middle].concat()))?;
    let middle = nearest(middle, without(&missing, [&least[..], &most].concat()))?;
    let least = nearest(least, without(&missing, [&middle[..], &most].concat()))?;
    Some([least, middle, most].concat())
}

fn gives_way(other: &Pod, pod: &Pod) -> bool {
    let priority = |pod: &Pod| spec(pod).priority;
    let critical = is_critical(pod) && !is_critical(other);
    critical || priority(pod).zip(priority(other)).is_some_and(|(own, other)| own > other)
}

fn gives(pod: &Pod, name: &str) -> i64 {
    if name == "pods" { 1 } else { requests(spec(pod)).get(name) }
}

/// What is missing after `pods` have gone.
fn without<'a>(missing: &Missing, pods: impl IntoIterator<Item = &'a Pod>) -> Missing {
    let mut left = missing.clone();
    for pod in pods {
        left.iter_mut().for_each(|(name, amount)| *amount -= gives(pod, name));
    }
    left.retain(|_, amount| *amount > 0);
    left
}

/// One after the other those that give most of what is missing, until nothing is.
fn nearest(mut pods: Vec<&Pod>, mut missing: Missing) -> Option<Vec<&Pod>> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let far = |pod: &Pod| -> f64 {
            let part = |(name, amount): (&String, &i64)| {
                let left = (*amount - gives(pod, name)).max(0) as f64;
                (left / *amount as f64).powi(2)
            };
            missing.iter().map(part).sum()
        };
        let size = |pod: &Pod| (gives(pod, "memory"), gives(pod, "cpu"));
        let order = |a: &&Pod, b: &&Pod| far(a).total_cmp(&far(b)).then(size(a).cmp(&size(b)));
        let (at, _) = pods.iter().enumerate().min_by(|(_, a), (_, b)| order(a, b))?;
        let pod = pods.swap_remove(at);
        missing = without(&missing, [pod]);
        chosen.push(pod);
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, priority: i32, resources: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    fn asks(name: &str, cpu: &str) -> Pod {
        pod(name, 0, json!({"requests": {"cpu": cpu}}))
    }

    fn guaranteed(name: &str, cpu: &str) -> Pod {
        let all = json!({"cpu": cpu, "memory": "1Mi"});
        pod(name, 0, json!({"requests": all, "limits": all}))
    }

    /// Who goes where so many thousandths of a core are missing.
    fn gone(others: &[Pod], missing: i64) -> Option<String> {
        let critical = pod("critical", 2_000_000_000, json!({}));
        let short = Shortage { name: "cpu".into(), requested: missing, used: 1000, capacity: 1000 };
        let others: Vec<&Pod> = others.iter().collect();
        let chosen = victims(&critical, &others, &[short])?;
        let names = chosen.iter().filter_map(|pod| pod.metadata.name.clone());
        Some(names.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn as_few_and_as_little_as_may_be() {
        let others = [
            asks("small", "100m"),
            asks("large", "500m"),
            asks("middle", "300m"),
            asks("like", "300m"),
        ];
        for (missing, want) in
            [(50, "small"), (250, "middle"), (400, "large"), (600, "large small")]
        {
            assert_eq!(gone(&others, missing).as_deref(), Some(want), "{missing}");
        }
        assert_eq!(gone(&others, 1300), None, "all together do not help");
    }

    #[test]
    fn the_better_class_stays_if_the_lesser_is_enough() {
        let others = [guaranteed("good", "500m"), asks("fair", "200m"), asks("fine", "200m")];
        assert_eq!(gone(&others, 400).as_deref(), Some("fair fine"));
        assert_eq!(gone(&others, 500).as_deref(), Some("good"));
        assert_eq!(gone(&others, 600).as_deref(), Some("fair good"));
        let critical = [pod("also", 2_000_000_000, json!({"requests": {"cpu": "1"}}))];
        assert_eq!(gone(&critical, 100), None);
    }

    #[test]
    fn places_are_freed_too() {
        let critical = pod("critical", 2_000_001_000, json!({}));
        let (first, second) = (pod("first", 0, json!({})), asks("second", "1"));
        let short = Shortage { name: "pods".into(), requested: 1, used: 2, capacity: 2 };
        let chosen = victims(&critical, &[&second, &first], &[short]).unwrap();
        assert_eq!(chosen[0].metadata.name.as_deref(), Some("first"));
        assert_eq!(chosen.len(), 1);
    }
}
