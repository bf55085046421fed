//! When an ended container runs again: restart policy and back-off.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerRestartRuleOnExitCodes, Pod};

use super::view::{Run, is_sidecar, restart_policy};

/// The first delay of a crash loop; the very first restart is at once.
const FIRST_DELAY_S: u32 = 10;
/// The delay doubles up to this.
const MAX_DELAY_S: u32 = 300;
/// A container that lasted this long has recovered: its delays start again.
const RECOVERED_S: i64 = 600;
/// What a rule has all containers of the pod do.
pub const RESTART_ALL: &str = "RestartAllContainers";

/// Whether `container` of `pod` is to run again after `run` has ended.
pub fn restarts(pod: &Pod, container: &Container, init: bool, run: &Run) -> bool {
    if run.replaced || (init && is_sidecar(container)) {
        return true;
    }
    if matches!(action(container, run), Some("Restart" | RESTART_ALL)) {
        return true;
    }
    match policy(pod, container) {
        "Never" => false,
        "OnFailure" => !run.succeeded(),
        _ => !init || !run.succeeded(),
    }
}

/// What the container's rules say of the end of `run`.
fn action<'a>(container: &'a Container, run: &Run) -> Option<&'a str> {
    let fits = |codes: &ContainerRestartRuleOnExitCodes| {
        let listed = codes.values.iter().flatten().any(|code| *code == run.exit_code);
        listed == (codes.operator == "In")
    };
    let mut rules = container.restart_policy_rules.iter().flatten();
    let rule = rules.find(|rule| rule.exit_codes.as_ref().is_some_and(fits))?;
    Some(rule.action.as_str())
}

/// Whether the end of `run` has all containers of its pod begin anew.
pub fn restarts_all(container: &Container, run: &Run) -> bool {
    !run.alive() && action(container, run) == Some(RESTART_ALL)
}

/// The container's own restart policy, or its pod's.
pub fn policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod))
}

/// Seconds to wait after `run` before the next one.
fn delay(run: &Run) -> u32 {
    let lasted = run.finished.map(|end| end.duration_since(run.created).as_secs());
    if lasted.is_some_and(|s| s > RECOVERED_S) { 0 } else { run.delay_s }
}

/// When the run after `run` may begin; `None`: at once. With the delay in seconds.
pub fn not_before(run: &Run, now: Timestamp) -> Option<(Timestamp, u32)> {
    let delay = delay(run);
    let at = run.finished? + SignedDuration::from_secs(i64::from(delay));
    (at > now).then_some((at, delay))
}

/// The delay that the run after `last` carries, in seconds.
pub fn next_delay(last: Option<&Run>) -> u32 {
    match last.map(delay) {
        None => 0,
        Some(0) => FIRST_DELAY_S,
        Some(delay) => (delay * 2).min(MAX_DELAY_S),
    }
}
