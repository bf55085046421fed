//! What a failed pod means: a Job's failure policy.

use client::Pod;
use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::ContainerStatus;
use kube::ResourceExt;

/// What follows from a failed pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// It does not.
    Ignore,
    /// It counts, and its index is not tried again.
    FailIndex,
    /// The whole Job fails, for this reason.
    FailJob(String),
}

/// Judges a failed pod by the first rule that matches.
pub fn judge(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref());
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (at, rule) in rules.iter().enumerate() {
        if let Some(what) = matching(rule, pod) {
            let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
            return match rule.action.as_str() {
                "Ignore" => Verdict::Ignore,
                "FailIndex" => Verdict::FailIndex,
                "FailJob" => Verdict::FailJob(match what {
                    What::Exit(container, code) => format!(
                        "Container {container} for pod {name} failed with exit code {code} matching FailJob rule at index {at}"
                    ),
                    What::Condition(type_) => format!(
                        "Pod {name} has condition {type_} matching FailJob rule at index {at}"
                    ),
                }),
                _ => Verdict::Count,
            };
        }
    }
    Verdict::Count
}

enum What {
    Exit(String, i32),
    Condition(String),
}

fn matching(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<What> {
    let status = pod.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let named =
            |c: &&ContainerStatus| codes.container_name.as_ref().is_none_or(|n| *n == c.name);
        return all.filter(named).find_map(|container| {
            let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
            let listed = codes.values.contains(&code);
            let matches = match codes.operator.as_str() {
                "In" => listed,
                _ => code != 0 && !listed,
            };
            matches.then(|| What::Exit(container.name.clone(), code))
        });
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    rule.on_pod_conditions.iter().flatten().find_map(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        conditions
            .iter()
            .any(|c| c.type_ == pattern.type_ && c.status == wanted)
            .then(|| What::Condition(pattern.type_.clone()))
    })
}
