//! PodDisruptionBudgets: how many pods may be evicted now. The eviction subresource spends what
//! is written here, and notes the pod, until the pod is seen gone.

use std::collections::BTreeMap;

use client::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::core::SelectorExt;

use crate::action::{Action, Kind, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::world::World;
use crate::{owner, pods};

/// An evicted pod that has not begun to go after so long was not evicted after all.
const DELETION_PATIENCE: SignedDuration = SignedDuration::from_mins(2);
const ALLOWED: &str = "DisruptionAllowed";

/// The status of PodDisruptionBudgets.
pub const DISRUPTION: Controller =
    Controller { name: "controllermanager", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    watches.own::<PodDisruptionBudget>();
    watches.map::<Pod>(|world, pod| {
        let budgets = world.list::<PodDisruptionBudget>(&pod.namespace().unwrap_or_default());
        budgets.iter().filter(|budget| covers(budget, pod)).map(|b| Key::of(b.as_ref())).collect()
    });
    scaled::<Deployment>(watches);
    scaled::<ReplicaSet>(watches);
    scaled::<StatefulSet>(watches);
    scaled::<ReplicationController>(watches);
}

/// Another number of replicas is another number of pods that are expected.
fn scaled<K: Kind>(watches: &mut Watches) {
    watches.map::<K>(|world, object| {
        let budgets = world.list::<PodDisruptionBudget>(&object.namespace().unwrap_or_default());
        budgets.iter().map(|budget| Key::of(budget.as_ref())).collect()
    });
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.and_then(owner::selector).is_some_and(|selector| selector.matches(pod.labels()))
}

/// What a budget comes to.
#[derive(Debug, Default, PartialEq)]
struct Numbers {
    expected: i32,
    desired: i32,
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(budget) = cx.world.get::<PodDisruptionBudget>(&key.namespace, &key.name) else {
        return plan;
    };
    let mut covered = cx.world.list::<Pod>(&key.namespace);
    covered.retain(|pod| covers(&budget, pod));
    let now = cx.now;
    let mut status = PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        ..budget.status.clone().unwrap_or_default()
    };
    let noted = status.disrupted_pods.take().unwrap_or_default();
    let disrupted = still_disrupted(noted, &covered, now);
    if let Some(oldest) = disrupted.values().map(|time| time.0).min() {
        plan.look_again(oldest.saturating_add(DELETION_PATIENCE).unwrap_or(now));
    }
    let healthy = covered.iter().filter(|pod| {
        !pods::is_terminating(pod)
            && pods::is_ready(pod)
            && !disrupted.contains_key(&pod.name_any())
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    status.current_healthy = Some(healthy);
    status.disrupted_pods = (!disrupted.is_empty()).then_some(disrupted);
    let condition = match numbers(cx.world, &budget, &covered) {
        Ok(Numbers { expected, desired }) => {
            status.expected_pods = Some(expected);
            status.desired_healthy = Some(desired);
            let spare = if expected > 0 { healthy - desired } else { 0 };
            status.disruptions_allowed = Some(spare.max(0));
            match spare > 0 {
                true => ("True", "SufficientPods", String::new()),
                false => ("False", "InsufficientPods", String::new()),
            }
        }
        Err(why) => {
            // Nothing is known, so nothing may go.
            status.disruptions_allowed = Some(0);
            ("False", "SyncFailed", why)
        }
    };
    set_condition(&mut status, condition, budget.metadata.generation, now);
    let wanted = PodDisruptionBudget { status: Some(status), ..budget.as_ref().clone() };
    plan.push(Action::change(budget.as_ref(), &wanted, "status"));
    plan
}

/// The pods that were evicted and have not been seen to go yet.
fn still_disrupted(
    noted: BTreeMap<String, Time>,
    covered: &[std::sync::Arc<Pod>],
    now: Timestamp,
) -> BTreeMap<String, Time> {
    let waiting = |name: &String| {
        covered.iter().any(|pod| pod.name_any() == *name && !pods::is_terminating(pod))
    };
    let recent = |time: &Time| now.duration_since(time.0) < DELETION_PATIENCE;
    noted.into_iter().filter(|(name, time)| recent(time) && waiting(name)).collect()
}

fn numbers(
    world: &World,
    budget: &PodDisruptionBudget,
    covered: &[std::sync::Arc<Pod>],
) -> Result<Numbers, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let count = i32::try_from(covered.len()).unwrap_or(i32::MAX);
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = expected(world, covered)?;
            let desired = (expected - of(most, expected)?).max(0);
            Ok(Numbers { expected, desired })
        }
        (None, Some(IntOrString::Int(least))) => Ok(Numbers { expected: count, desired: *least }),
        (None, Some(least)) => {
            let expected = expected(world, covered)?;
            Ok(Numbers { expected, desired: of(least, expected)? })
        }
        (None, None) => Ok(Numbers { expected: count, desired: 0 }),
    }
}

/// A number, or a part of `total`, rounded up.
fn of(amount: &IntOrString, total: i32) -> Result<i32, String> {
    match amount {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok());
            let percent = percent.ok_or_else(|| format!("{text:?} is no percentage"))?;
            let part = (i64::from(total) * percent + 99).div_euclid(100);
            Ok(i32::try_from(part).unwrap_or(i32::MAX))
        }
    }
}

/// How many pods the owners of these want, each owner counted once. Pods without an owner are
/// not counted, as upstream does not.
fn expected(world: &World, covered: &[std::sync::Arc<Pod>]) -> Result<i32, String> {
    let mut owners: BTreeMap<String, i32> = BTreeMap::new();
    for pod in covered {
        let Some(controller) = owner::controller_of(pod.as_ref()) else { continue };
        let namespace = pod.namespace().unwrap_or_default();
        let (uid, replicas) = scale(world, &namespace, &controller.kind, &controller.name)
            .filter(|(uid, _)| *uid == controller.uid || controller.kind == "ReplicaSet")
            .ok_or_else(|| {
                format!("{} {} has no scale that is known", controller.kind, controller.name)
            })?;
        owners.insert(uid, replicas);
    }
    Ok(owners.values().fold(0, |sum, replicas| sum.saturating_add(*replicas)))
}

/// The uid and the replicas of whatever decides how many pods there are.
fn scale(world: &World, namespace: &str, kind: &str, name: &str) -> Option<(String, i32)> {
    let found = |uid: Option<String>, replicas: Option<i32>| {
        Some((uid.unwrap_or_default(), replicas.unwrap_or(1)))
    };
    match kind {
        "Deployment" => {
            let object = world.get::<Deployment>(namespace, name)?;
            found(object.uid(), object.spec.as_ref()?.replicas)
        }
        "StatefulSet" => {
            let object = world.get::<StatefulSet>(namespace, name)?;
            found(object.uid(), object.spec.as_ref()?.replicas)
        }
        "ReplicationController" => {
            let object = world.get::<ReplicationController>(namespace, name)?;
            found(object.uid(), object.spec.as_ref()?.replicas)
        }
        "ReplicaSet" => {
            let object = world.get::<ReplicaSet>(namespace, name)?;
            match owner::controller_of(object.as_ref()) {
                Some(above) if above.kind == "Deployment" => {
                    scale(world, namespace, &above.kind, &above.name)
                }
                _ => found(object.uid(), object.spec.as_ref()?.replicas),
            }
        }
        _ => None,
    }
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    (value, reason, message): (&str, &str, String),
    generation: Option<i64>,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|c| c.type_ == ALLOWED && c.status == value);
    let since = known.map_or(Time(now), |known| known.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != ALLOWED);
    conditions.push(Condition {
        type_: ALLOWED.into(),
        status: value.into(),
        reason: reason.into(),
        message,
        observed_generation: generation,
        last_transition_time: since,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// A budget, a Deployment of three, and its pods (name, whether ready).
    fn world(spec: &str, status: &str, ready: &[(&str, bool)]) -> String {
        let mut yaml = format!(
            "kind: PodDisruptionBudget\nmetadata: {{name: b, generation: 2}}\nspec: {{selector: {{matchLabels: {{a: b}}}}, {spec}}}\nstatus: {status}\n---\nkind: Deployment\nmetadata: {{name: d}}\nspec: {{replicas: 4, selector: {{}}, template: {{}}}}\n---\nkind: ReplicaSet\nmetadata: {{name: r, owner: Deployment/d}}\nspec: {{replicas: 3, selector: {{}}}}"
        );
        for (name, ready) in ready {
            let ready = if *ready { "True" } else { "False" };
            yaml += &format!(
                "\n---\nkind: Pod\nmetadata: {{name: {name}, labels: {{a: b}}, owner: ReplicaSet/r}}\nspec: {{containers: []}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}'}}]}}"
            );
        }
        yaml
    }

    /// expected, desired, healthy, allowed, and the condition's reason.
    fn numbers(yaml: &str) -> String {
        let plan = fixture::plan(&DISRUPTION, "default/b", yaml, None);
        let Some(Action::Patch { patch, subresource: "status", .. }) = plan.actions.first() else {
            return "unchanged".to_owned();
        };
        let status = &patch["status"];
        let number = |field: &str| status[field].as_i64().unwrap_or(-1);
        format!(
            "{} {} {} {} {} {}",
            number("expectedPods"),
            number("desiredHealthy"),
            number("currentHealthy"),
            number("disruptionsAllowed"),
            status["conditions"][0]["reason"].as_str().unwrap_or_default(),
            status["disruptedPods"],
        )
    }

    #[test]
    fn budgets_count_what_their_owners_want() {
        let three = [("p", true), ("q", true), ("r", true)];
        let two = [("p", true), ("q", true), ("r", false)];
        for (spec, pods, expected) in [
            ("minAvailable: 2", &three[..], "3 2 3 1 SufficientPods null"),
            ("minAvailable: 2", &two, "3 2 2 -1 InsufficientPods null"),
            ("minAvailable: 50%", &three, "4 2 3 1 SufficientPods null"),
            ("maxUnavailable: 1", &three, "4 3 3 -1 InsufficientPods null"),
            ("maxUnavailable: 30%", &three, "4 2 3 1 SufficientPods null"),
            ("minAvailable: 1", &[], "-1 1 -1 -1 InsufficientPods null"),
        ] {
            // A number that does not change is not in the patch: zero was there before.
            let status =
                "{currentHealthy: 0, desiredHealthy: 0, disruptionsAllowed: 0, expectedPods: 0}";
            assert_eq!(numbers(&world(spec, status, pods)), expected, "{spec} {pods:?}");
        }
    }

    #[test]
    fn an_evicted_pod_counts_as_gone_until_it_is_known_better() {
        let three = [("p", true), ("q", true), ("r", true)];
        let status = |time: &str| {
            format!(
                "{{currentHealthy: 0, desiredHealthy: 0, disruptionsAllowed: 0, expectedPods: 0, disruptedPods: {{p: '{time}', gone: '{time}'}}}}"
            )
        };
        let recent = numbers(&world("minAvailable: 1", &status("2026-01-01T11:59:00Z"), &three));
        assert_eq!(recent, r#"3 1 2 1 SufficientPods {"gone":null}"#);
        let old = numbers(&world("minAvailable: 1", &status("2026-01-01T11:57:00Z"), &three));
        assert_eq!(old, "3 1 3 2 SufficientPods null");
    }

    #[test]
    fn a_settled_budget_is_not_written_again() {
        let yaml = world(
            "minAvailable: 1",
            "{observedGeneration: 2, currentHealthy: 1, desiredHealthy: 1, disruptionsAllowed: 0, expectedPods: 1, conditions: [{type: DisruptionAllowed, status: 'False', reason: InsufficientPods, message: '', observedGeneration: 2, lastTransitionTime: '2026-01-01T11:00:00Z'}]}",
            &[("p", true)],
        );
        assert_eq!(numbers(&yaml), "unchanged");
    }
}
