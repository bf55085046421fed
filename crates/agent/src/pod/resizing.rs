//! What is told of a pod's resize in events: that it began, went wrong, is done, or is not possible. Pure;
//! when, reasons and messages are upstream's. The conditions say how things are, events what happened.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

use super::resize::{DEFERRED, same_pod};
use super::status::Verdict;
use super::view::{init_containers, spec};

/// An event to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    /// `ResizeStarted` and the like.
    pub reason: &'static str,
    /// With the resources in question.
    pub message: String,
}

impl Note {
    /// Whether it wants a person's eye.
    pub fn is_warning(&self) -> bool {
        !matches!(self.reason, STARTED | COMPLETED)
    }
}

const STARTED: &str = "ResizeStarted";
const COMPLETED: &str = "ResizeCompleted";

/// How a pod's resize stands.
pub struct Stand<'a> {
    /// With the resources that the node has allocated.
    pub pod: &'a Arc<Pod>,
    /// The pod as it is wished, and why it cannot be so.
    pub pending: Option<(&'a Pod, &'a Verdict)>,
    /// A container has yet to get its resources.
    pub resizing: bool,
    /// Why the last try went wrong.
    pub failed: Option<&'a str>,
}

/// What has been told already.
#[derive(Default)]
pub struct Resizing {
    allocated: Option<Arc<Pod>>,
    under_way: bool,
    failed: bool,
    /// For this reason the wish of this generation is pending.
    pending: Option<(String, Option<i64>)>,
}

impl Resizing {
    /// What is new.
    pub fn news(&mut self, now: &Stand) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut tell = |reason, what: &str, pod: &Pod, error: Option<&str>| {
            let message = format!("Pod resize {what}: {}", Summary::of(pod, error).json());
            notes.push(Note { reason, message });
        };
        let was = self.allocated.replace(now.pod.clone());
        if was.is_some_and(|was| !Arc::ptr_eq(&was, now.pod) && !same_pod(&was, now.pod)) {
            (self.under_way, self.failed) = (true, false);
            tell(STARTED, "started", now.pod, None);
        }
        self.under_way |= now.resizing;
        let failed = now.failed.filter(|_| now.resizing);
        if let Some(error) = failed.filter(|_| !self.failed) {
            tell("ResizeError", "error", now.pod, Some(error));
        }
        self.failed = failed.is_some();
        if self.under_way && !now.resizing {
            self.under_way = false;
            tell(COMPLETED, "completed", now.pod, None);
        }
        let pending = now
            .pending
            .map(|(wished, verdict)| (verdict.reason.clone(), wished.metadata.generation));
        if let Some((wished, verdict)) = now.pending.filter(|_| pending != self.pending) {
            let deferred = verdict.reason == DEFERRED;
            let reason = if deferred { "ResizeDeferred" } else { "ResizeInfeasible" };
            tell(reason, &verdict.reason, wished, Some(&verdict.message));
        }
        self.pending = pending;
        notes
    }
}

/// The resources of a pod's containers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Share<'a>>,
    containers: Vec<Share<'a>>,
    generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Share<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

impl<'a> Summary<'a> {
    fn of(pod: &'a Pod, error: Option<&'a str>) -> Self {
        let shares = |containers: &'a [Container]| {
            let resources = |c: &Container| c.resources.clone().unwrap_or_default();
            let share = |c: &'a Container| Share { name: &c.name, resources: resources(c) };
            containers.iter().map(share).collect()
        };
        Summary {
            init_containers: shares(init_containers(pod)),
            containers: shares(&spec(pod).containers),
            generation: pod.metadata.generation,
            error,
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(generation: i64, cpu: &str) -> Arc<Pod> {
        let resources = json!({"requests": {"cpu": cpu}});
        let pod = json!({"metadata": {"generation": generation}, "spec": {"containers": [
            {"name": "c", "resources": resources}, {"name": "idle"}]}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn summary(generation: i64, cpu: &str) -> String {
        let containers = r#"{"name":"c","resources":{"requests":{"cpu":"#;
        format!(
            r#"{{"containers":[{containers}"{cpu}"}}}}}},{{"name":"idle","resources":{{}}}}],"generation":{generation}"#
        )
    }

    #[test]
    fn each_step_of_a_resize_is_told_once() {
        let mut told = Resizing::default();
        let mut ask = |pod: &Arc<Pod>, resizing: bool, failed: Option<&str>| {
            let notes = told.news(&Stand { pod, pending: None, resizing, failed });
            notes.iter().map(|note| format!("{} {}", note.reason, note.message)).collect::<Vec<_>>()
        };
        let (small, large) = (pod(1, "1"), pod(2, "2"));
        let none: [String; 0] = [];
        assert_eq!(ask(&small, false, None), none, "what an agent finds did not just happen");
        let text = summary(2, "2");
        assert_eq!(
            ask(&large, true, None),
            [format!("ResizeStarted Pod resize started: {text}}}")]
        );
        assert_eq!(
            ask(&large, true, Some("busy")),
            [format!(r#"ResizeError Pod resize error: {text},"error":"busy"}}"#)]
        );
        assert_eq!(ask(&large, true, Some("still busy")), none);
        assert_eq!(
            ask(&large, false, Some("still busy")),
            [format!("ResizeCompleted Pod resize completed: {text}}}")]
        );
        assert_eq!(ask(&large, false, None), none);
        // Of containers that do not run nothing is left to do.
        let both = ask(&pod(3, "1"), false, None).join("; ");
        assert!(
            both.starts_with("ResizeStarted ") && both.contains("; ResizeCompleted "),
            "{both}"
        );
    }

    #[test]
    fn a_wish_that_waits_is_told_again_for_another_reason_only() {
        let (has, mut told) = (pod(1, "1"), Resizing::default());
        let mut ask = |wish: Option<(i64, &str, &str)>| {
            let wish = wish.map(|(generation, reason, message)| {
                let verdict = Verdict { reason: reason.into(), message: message.into() };
                (pod(generation, "9"), verdict)
            });
            let pending = wish.as_ref().map(|(pod, verdict)| (&**pod, verdict));
            let stand = Stand { pod: &has, pending, resizing: false, failed: None };
            let notes = told.news(&stand).into_iter().map(|note| {
                assert!(note.is_warning());
                format!("{} {}", note.reason, note.message)
            });
            notes.collect::<Vec<_>>().join("; ")
        };
        let text = summary(2, "9");
        assert_eq!(
            ask(Some((2, "Deferred", "full"))),
            format!(r#"ResizeDeferred Pod resize Deferred: {text},"error":"full"}}"#)
        );
        assert_eq!(ask(Some((2, "Deferred", "fuller"))), "");
        assert!(ask(Some((2, "Infeasible", "never"))).starts_with("ResizeInfeasible "));
        assert!(ask(Some((3, "Infeasible", "never"))).starts_with("ResizeInfeasible "));
        assert_eq!(ask(None), "");
    }
}
