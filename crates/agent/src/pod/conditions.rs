//! The conditions of a pod that are the kubelet's to say; all others are kept.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan;
use super::preemption;
use super::restart::RESTART_ALL;
use super::status::Facts;
use super::view::{Resize, init_containers, is_sidecar, spec};
use crate::evict::NODE_LOW;

/// Why a condition is not true.
struct Lack {
    reason: &'static str,
    message: String,
}

/// The conditions of a pod in upstream's order.
pub fn conditions(
    pod: &Pod,
    old: &PodStatus,
    phase: &str,
    init: &[ContainerStatus],
    plain: &[ContainerStatus],
    facts: &Facts,
) -> Vec<PodCondition> {
    let sandbox = facts.view.ready_sandbox();
    let networked =
        sandbox.is_some_and(|s| !s.ips.is_empty() || spec(pod).host_network == Some(true));
    let nothing = Lack { reason: "", message: String::new() };
    let containers = containers_ready(pod, phase, init, plain);
    let ready = containers_ready(pod, phase, init, plain).or_else(|| gates(pod, old));
    let own = [
        ("PodReadyToStartContainers", (!networked).then_some(nothing)),
        ("Initialized", initialized(pod, phase, init, plain)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", None),
    ];
    let mut out: Vec<PodCondition> = own
        .into_iter()
        .map(|(name, lack)| {
            let completed = name == "Initialized" && phase == "Succeeded";
            condition(pod, old, facts, name, lack, completed)
        })
        .collect();
    out.extend(resizing(pod, old, facts));
    out.extend(restarting(pod, old, phase, facts));
    let foreign = old.conditions.iter().flatten();
    out.extend(foreign.filter(|c| !own_name(&c.type_)).cloned());
    out.extend(disruption(pod, &out, facts));
    out
}

/// How far the resources are that the pod wishes: not allocated, or not given to all containers.
fn resizing(pod: &Pod, old: &PodStatus, facts: &Facts) -> Vec<PodCondition> {
    let told = |name: &str, reason: Option<&str>, message: Option<&str>| PodCondition {
        reason: reason.map(str::to_owned),
        message: message.map(str::to_owned),
        ..condition(pod, old, facts, name, None, false)
    };
    let pending = facts
        .pending
        .map(|verdict| told("PodResizePending", Some(&verdict.reason), Some(&verdict.message)));
    // Of what has failed nothing is left to tell once nobody wishes it any more.
    let in_progress = plan::is_resizing(pod, facts.view).then(|| match &facts.view.resize {
        Resize::Failed { message, .. } => told("PodResizeInProgress", Some("Error"), Some(message)),
        Resize::Idle | Resize::Doing => told("PodResizeInProgress", None, None),
    });
    pending.into_iter().chain(in_progress).collect()
}

/// Whether all containers begin anew, told of pods with a rule that may have them do so.
fn restarting(pod: &Pod, old: &PodStatus, phase: &str, facts: &Facts) -> Option<PodCondition> {
    let all = init_containers(pod).iter().chain(&spec(pod).containers);
    let mut rules = all.flat_map(|container| container.restart_policy_rules.iter().flatten());
    rules.find(|rule| rule.action == RESTART_ALL)?;
    let (now, reason, message) = match phase {
        "Succeeded" => (false, "PodCompleted", ""),
        "Failed" => (false, "PodFailed", ""),
        _ if plan::begins_anew(pod, facts.view) => {
            (true, "RestartAllContainersStarted", "container exited with restart policy rule")
        }
        _ => (false, "", ""),
    };
    let lack = (!now).then(|| Lack { reason: "", message: String::new() });
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(PodCondition {
        reason: text(reason),
        message: text(message),
        ..condition(pod, old, facts, "AllContainersRestarting", lack, false)
    })
}

/// What tells a Job's failure policy that the node, not the pod, is to blame.
fn disruption(pod: &Pod, known: &[PodCondition], facts: &Facts) -> Option<PodCondition> {
    // The pod's own status words this one differently.
    const PREEMPTED: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";
    let verdict = facts
        .verdict
        .filter(|v| matches!(v.reason.as_str(), "Evicted" | "Terminated" | "Preempting"))
        .filter(|v| v.reason != "Evicted" || v.message.starts_with(NODE_LOW))?;
    let told = known.iter().any(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    let preempted = verdict.reason == preemption::REASON;
    (!told).then(|| PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("TerminationByKubelet".to_owned()),
        message: Some(if preempted { PREEMPTED.to_owned() } else { verdict.message.clone() }),
        observed_generation: pod.metadata.generation,
        last_transition_time: Some(Time(facts.now)),
        ..PodCondition::default()
    })
}

/// True for the conditions that are the kubelet's to say.
pub(crate) fn own_name(name: &str) -> bool {
    matches!(
        name,
        "PodReadyToStartContainers"
            | "Initialized"
            | "Ready"
            | "ContainersReady"
            | "PodScheduled"
            | "PodResizePending"
            | "PodResizeInProgress"
            | "AllContainersRestarting"
    )
}

/// A condition with the time of its last transition carried over.
fn condition(
    pod: &Pod,
    old: &PodStatus,
    facts: &Facts,
    name: &str,
    lack: Option<Lack>,
    completed: bool,
) -> PodCondition {
    let status = if lack.is_none() { "True" } else { "False" };
    let before = old.conditions.iter().flatten().find(|c| c.type_ == name);
    let same = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let reason = lack.as_ref().map(|l| l.reason).or(completed.then_some("PodCompleted"));
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: reason.and_then(text),
        message: lack.as_ref().and_then(|l| text(&l.message)),
        last_transition_time: Some(same.unwrap_or(Time(facts.now))),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    }
}

fn initialized(
    pod: &Pod,
    phase: &str,
    init: &[ContainerStatus],
    plain: &[ContainerStatus],
) -> Option<Lack> {
    let begun = plain.iter().any(|status| status.container_id.is_some());
    if phase == "Succeeded" || begun {
        return None;
    }
    let incomplete: Vec<&str> = init_containers(pod)
        .iter()
        .zip(init)
        .filter(|(container, status)| match is_sidecar(container) {
            true => status.started != Some(true),
            false => !status.ready,
        })
        .map(|(container, _)| container.name.as_str())
        .collect();
    (!incomplete.is_empty()).then(|| Lack {
        reason: "ContainersNotInitialized",
        message: format!("containers with incomplete status: [{}]", incomplete.join(" ")),
    })
}

fn containers_ready(
    pod: &Pod,
    phase: &str,
    init: &[ContainerStatus],
    plain: &[ContainerStatus],
) -> Option<Lack> {
    match phase {
        "Succeeded" => return Some(Lack { reason: "PodCompleted", message: String::new() }),
        "Failed" => return Some(Lack { reason: "PodFailed", message: String::new() }),
        _ => {}
    }
    let sidecars = init_containers(pod).iter().zip(init).filter(|(c, _)| is_sidecar(c));
    let all = sidecars.map(|(_, status)| status).chain(plain);
    let unready: Vec<&str> = all.filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    (!unready.is_empty()).then(|| Lack {
        reason: "ContainersNotReady",
        message: format!("containers with unready status: [{}]", unready.join(" ")),
    })
}

/// What a readiness gate lacks.
fn gates(pod: &Pod, old: &PodStatus) -> Option<Lack> {
    let messages: Vec<String> = spec(pod)
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match old.conditions.iter().flatten().find(|c| c.type_ == *name) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{name}\" does not exist."
                )),
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    (!messages.is_empty())
        .then(|| Lack { reason: "ReadinessGatesNotReady", message: messages.join(", ") })
}
