//! How a pod is summed up: ready containers, state in one word, restarts.

use super::column::{Context, at, condition, count, items, or, since, text_at};
use serde_json::{Value, json};

/// Reason on pods of a node that is not heard of.
const NODE_LOST: &str = "NodeLost";

struct Summary<'a> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    /// When a container last ended and was started again.
    restarted: Option<&'a str>,
}

pub(super) fn ready(pod: &Value, _: &Context) -> Value {
    let summary = summarize(pod);
    json!(format!("{}/{}", summary.ready, summary.total))
}

pub(super) fn status(pod: &Value, _: &Context) -> Value {
    json!(summarize(pod).reason)
}

pub(super) fn restarts(pod: &Value, context: &Context) -> Value {
    let summary = summarize(pod);
    match summary.restarted {
        Some(time) if summary.restarts != 0 => {
            let ago = since(&json!(time), "<unknown>", context);
            json!(format!("{} ({ago} ago)", summary.restarts))
        }
        _ => json!(summary.restarts.to_string()),
    }
}

pub(super) fn address(pod: &Value, _: &Context) -> Value {
    json!(or(pod["status"]["podIPs"][0]["ip"].as_str().unwrap_or_default(), "<none>"))
}

pub(super) fn readiness_gates(pod: &Value, _: &Context) -> Value {
    let gates = items(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return json!("<none>");
    }
    let open = gates.iter().filter(|gate| {
        let kind = gate["conditionType"].as_str().unwrap_or_default();
        condition(&pod["status"]["conditions"], kind).is_some_and(|c| c["status"] == "True")
    });
    json!(format!("{}/{}", open.count(), gates.len()))
}

/// The row's conditions: set once a pod is over.
pub(super) fn conditions(pod: &Value) -> Option<Value> {
    let message = match text_at(pod, "status.phase") {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True",
        "reason": pod["status"]["phase"], "message": message}]))
}

fn summarize(pod: &Value) -> Summary<'_> {
    let status = &pod["status"];
    let phase = text_at(status, "phase");
    let scheduled = condition(&status["conditions"], "PodScheduled");
    let gated = scheduled.is_some_and(|c| c["reason"] == "SchedulingGated");
    let reason = if gated { "SchedulingGated" } else { or(text_at(status, "reason"), phase) };
    let mut summary = Summary {
        ready: 0,
        total: count(&pod["spec"]["containers"])
            + items(&pod["spec"]["initContainers"]).iter().filter(|c| is_sidecar(c)).count(),
        reason: reason.to_owned(),
        restarts: 0,
        restarted: None,
    };
    let initialized =
        condition(&status["conditions"], "Initialized").is_some_and(|c| c["status"] == "True");
    let (initializing, sidecars) = summary.add_init_containers(pod);
    if !initializing || initialized {
        // What remains counted of the init containers when the pod runs are the sidecars.
        (summary.restarts, summary.restarted) = sidecars;
        summary.add_containers(pod);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if status["reason"] == NODE_LOST {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

impl<'a> Summary<'a> {
    /// Goes through the init containers up to the first that is not done. Says whether there is
    /// one, and the restarts of sidecars alone with the time of the last.
    fn add_init_containers(&mut self, pod: &'a Value) -> (bool, (i64, Option<&'a str>)) {
        let specs = items(&pod["spec"]["initContainers"]);
        let mut sidecars = (0, None);
        for (i, status) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
            let sidecar = specs.iter().any(|s| s["name"] == status["name"] && is_sidecar(s));
            self.add_restarts(status);
            if sidecar {
                sidecars.0 += status["restartCount"].as_i64().unwrap_or(0);
                sidecars.1 = sidecars.1.max(last_end(status));
            }
            let (ended, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
            if ended["exitCode"] == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waits_for = text_at(waiting, "reason");
            self.reason = if !ended.is_null() {
                format!("Init:{}", how_it_ended(ended))
            } else if !waits_for.is_empty() && waits_for != "PodInitializing" {
                format!("Init:{waits_for}")
            } else {
                format!("Init:{i}/{}", specs.len())
            };
            return (true, sidecars);
        }
        (false, sidecars)
    }

    fn add_containers(&mut self, pod: &'a Value) {
        let mut running = false;
        for status in items(&pod["status"]["containerStatuses"]).iter().rev() {
            self.add_restarts(status);
            let state = &status["state"];
            let waits_for = text_at(state, "waiting.reason");
            if !waits_for.is_empty() {
                self.reason = waits_for.to_owned();
            } else if !state["terminated"].is_null() {
                self.reason = how_it_ended(&state["terminated"]);
            } else if status["ready"] == true && !state["running"].is_null() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(at(pod, "status.conditions"), "Ready");
            let ready = ready.is_some_and(|c| c["status"] == "True");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn add_restarts(&mut self, status: &'a Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or(0);
        // Times are all in UTC and of one form: they compare as texts.
        self.restarted = self.restarted.max(last_end(status));
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn last_end(status: &Value) -> Option<&str> {
    status["lastState"]["terminated"]["finishedAt"].as_str()
}

fn how_it_ended(ended: &Value) -> String {
    match (text_at(ended, "reason"), ended["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::table::tests::cells;

    /// A pod with this spec, status and further metadata; its Ready, Status and Restarts.
    fn pod(spec: &str, status: &str, metadata: &str) -> String {
        let object = format!(
            r#"{{"metadata": {{"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z" {metadata}}}, "spec": {{{spec}}}, "status": {{{status}}}}}"#
        );
        cells("", "Pod", &object).split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" | ")
    }

    const ONE: &str = r#""containers": [{"name": "a"}]"#;
    const INIT: &str = r#""containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]"#;

    #[test]
    fn states() {
        for (spec, status, metadata, expected) in [
            (ONE, r#""phase": "Pending""#, "", "0/1 | Pending | 0"),
            (
                ONE,
                r#""phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]"#,
                "",
                "0/1 | SchedulingGated | 0",
            ),
            (
                ONE,
                r#""phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]"#,
                "",
                "1/1 | Running | 0",
            ),
            (
                ONE,
                r#""phase": "Running", "containerStatuses": [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}}]"#,
                "",
                "0/1 | CrashLoopBackOff | 3 (5m ago)",
            ),
            (
                ONE,
                r#""phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]"#,
                "",
                "0/1 | Completed | 0",
            ),
            (
                ONE,
                r#""phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]"#,
                "",
                "0/1 | ExitCode:3 | 0",
            ),
            (
                ONE,
                r#""phase": "Failed", "containerStatuses": [{"state": {"terminated": {"signal": 9}}}]"#,
                "",
                "0/1 | Signal:9 | 0",
            ),
            (
                ONE,
                r#""phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]"#,
                r#", "deletionTimestamp": "2026-01-01T00:59:00Z""#,
                "1/1 | Terminating | 0",
            ),
            (
                ONE,
                r#""phase": "Running", "reason": "NodeLost""#,
                r#", "deletionTimestamp": "2026-01-01T00:59:00Z""#,
                "0/1 | Unknown | 0",
            ),
            (
                r#""containers": [{"name": "a"}, {"name": "b"}]"#,
                r#""phase": "Running", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}, {"ready": true, "state": {"running": {}}}]"#,
                "",
                "1/2 | NotReady | 0",
            ),
        ] {
            assert_eq!(pod(spec, status, metadata), expected);
        }
    }

    #[test]
    fn init_containers() {
        for (status, expected) in [
            (r#"{"name": "i", "state": {"running": {}}}"#, "0/2 | Init:0/2 | 0"),
            (
                r#"{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}"#,
                "0/2 | Init:CrashLoopBackOff | 2",
            ),
            (
                r#"{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}"#,
                "0/2 | Init:Error | 0",
            ),
            (
                r#"{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "state": {"waiting": {"reason": "PodInitializing"}}}"#,
                "0/2 | Init:1/2 | 0",
            ),
            (
                r#"{"name": "i", "restartCount": 5, "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "restartCount": 1, "started": true, "ready": true, "state": {"running": {}}}"#,
                "1/2 | PodInitializing | 1",
            ),
        ] {
            let status = format!(
                r#""phase": "Pending", "initContainerStatuses": [{status}], "containerStatuses": [{{"state": {{"waiting": {{"reason": "PodInitializing"}}}}}}]"#
            );
            assert_eq!(pod(INIT, &status, ""), expected);
        }
    }

    #[test]
    fn wide_cells() {
        let object = r#"{"metadata": {"name": "p"}, "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "x"}]}, "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "x", "status": "True"}]}}"#;
        assert_eq!(
            cells("", "Pod", object),
            "p | 0/0 |  | 0 | <unknown> | 10.0.0.1 | n | <none> | 1/1"
        );
    }
}
