//! What a delete comes to: the decision alone, in pure code.

use api::custom::{self, definition};
use api::resource::Resource;
use api::strategy;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::meta::{self, FOREGROUND, ORPHAN};
use super::names;
use super::options::DeleteOptions;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// The object goes now.
    Remove,
    /// The object is written in this state and goes later.
    Mark(Value),
    /// A deletion is under way already and the request adds nothing to it.
    Pending,
}

/// Decides what a delete does to `live` (stored version).
pub fn plan(resource: &Resource, live: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    if resource.collection() == "namespaces" {
        return plan_namespace(live, now);
    }
    let mut object = live.clone();
    let period = match resource.collection() {
        "pods" => match grace(live, options) {
            Some(period) => period,
            None => return Plan::Pending,
        },
        _ => 0,
    };
    let mut finalizers = finalizers(resource, live, options);
    if resource.collection() == definition::COLLECTION && !meta::deleting(live) {
        // What it defines goes first.
        finalizers.push(definition::FINALIZER.to_owned());
        let pending = (
            "Terminating",
            "True",
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        );
        custom::set_condition(&mut object["status"], pending, &names::time(now));
    }
    if finalizers != meta::finalizers(live) {
        meta::set_finalizers(&mut object, finalizers.clone());
    }
    if period == 0 && finalizers.is_empty() {
        return Plan::Remove;
    }
    mark(&mut object, period, now);
    if object == *live { Plan::Pending } else { Plan::Mark(object) }
}

/// The namespace's own end is the namespace controller's work; it takes the finalizer away.
fn plan_namespace(live: &Value, now: Timestamp) -> Plan {
    if !meta::deleting(live) {
        let mut object = live.clone();
        meta::set(&mut object, "deletionTimestamp", names::time(now));
        meta::member(&mut object, "status").insert("phase".to_owned(), json!("Terminating"));
        if is_empty_namespace(live) { Plan::Remove } else { Plan::Mark(object) }
    } else if is_empty_namespace(live) {
        Plan::Remove
    } else {
        Plan::Pending
    }
}

fn is_empty_namespace(namespace: &Value) -> bool {
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    none(&namespace["spec"]["finalizers"]) && none(&namespace["metadata"]["finalizers"])
}

/// Seconds that a pod has to end, `None` where a deletion under way gives it no more than what
/// is asked for: a period only ever gets shorter.
fn grace(pod: &Value, options: &DeleteOptions) -> Option<i64> {
    let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    if meta::deleting(pod) {
        let running = pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        return match asked {
            _ if running == 0 => Some(0),
            Some(asked) if asked < running => Some(asked),
            _ => None,
        };
    }
    let scheduled = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let finished = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    if !scheduled || finished {
        return Some(0);
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(0);
    Some(asked.unwrap_or(if own < 0 { 1 } else { own }))
}

/// Notes the deletion: its time lies where the grace period ends. A shortened period counts
/// from the deletion's beginning.
fn mark(object: &mut Value, period: i64, now: Timestamp) {
    let running = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if meta::deleting(object) {
        if period < running {
            let end = meta::text(object, "deletionTimestamp").parse::<Timestamp>().unwrap_or(now);
            let end =
                end.saturating_add(SignedDuration::from_secs(period - running)).unwrap_or(now);
            meta::set(object, "deletionTimestamp", names::time(end));
            meta::set(object, "deletionGracePeriodSeconds", period);
        }
        return;
    }
    let end = now.saturating_add(SignedDuration::from_secs(period)).unwrap_or(now);
    meta::set(object, "deletionTimestamp", names::time(end));
    meta::set(object, "deletionGracePeriodSeconds", period);
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|n| *n > 0) {
        meta::set(object, "generation", generation + 1);
    }
}

/// The finalizers with the garbage collector's own as the options ask for them.
fn finalizers(resource: &Resource, live: &Value, options: &DeleteOptions) -> Vec<String> {
    let present = meta::finalizers(live);
    if !strategy::has_dependents(resource) {
        return present;
    }
    let has = |name: &str| present.iter().any(|finalizer| finalizer == name);
    let policy = options.propagation_policy.as_deref();
    let orphan = match (options.orphan_dependents, policy) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == "Orphan",
        (None, None) => has(ORPHAN) || (!has(FOREGROUND) && strategy::orphans_by_default(resource)),
    };
    let foreground = match (options.orphan_dependents, policy) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == "Foreground",
        (None, None) => has(FOREGROUND),
    };
    let others = present.iter().filter(|name| !matches!(name.as_str(), ORPHAN | FOREGROUND));
    let mut list: Vec<String> = others.cloned().collect();
    list.extend(orphan.then(|| ORPHAN.to_owned()));
    list.extend(foreground.then(|| FOREGROUND.to_owned()));
    if list.len() == present.len() && list.iter().all(|name| has(name)) { present } else { list }
}

/// Whether a written object was the last thing its own deletion waited for.
pub fn is_complete(resource: &Resource, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let done = meta::deleting(object)
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
    done && (resource.collection() != "namespaces" || is_empty_namespace(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::resource::find;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn pod(extra: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p", "generation": 1},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        for (name, fields) in extra.as_object().unwrap() {
            meta::member(&mut pod, name).extend(fields.as_object().unwrap().clone());
        }
        pod
    }

    fn shown(plan: Plan) -> String {
        match plan {
            Plan::Remove => "remove".to_owned(),
            Plan::Pending => "pending".to_owned(),
            Plan::Mark(object) => {
                let m = &object["metadata"];
                format!(
                    "{} {} {}",
                    m["deletionTimestamp"].as_str().unwrap_or("-"),
                    m["deletionGracePeriodSeconds"],
                    m["finalizers"]
                )
            }
        }
    }

    #[test]
    fn pods_get_the_time_they_ask_for() {
        let pods = find("", "v1", "pods").unwrap();
        let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}});
        for (extra, seconds, expected) in [
            (json!({}), None, "2026-01-01T00:00:30Z 30 null"),
            (json!({}), Some(5), "2026-01-01T00:00:05Z 5 null"),
            (json!({}), Some(0), "remove"),
            (json!({"spec": {"nodeName": ""}}), None, "remove"),
            (json!({"status": {"phase": "Succeeded"}}), Some(9), "remove"),
            (ending.clone(), None, "pending"),
            (ending.clone(), Some(40), "pending"),
            (ending.clone(), Some(10), "2026-01-01T00:00:10Z 10 null"),
            (ending, Some(0), "remove"),
            (
                json!({"metadata": {"finalizers": ["x/y"]}}),
                Some(0),
                "2026-01-01T00:00:00Z 0 [\"x/y\"]",
            ),
        ] {
            let options =
                DeleteOptions { grace_period_seconds: seconds, ..DeleteOptions::default() };
            assert_eq!(
                shown(plan(pods, &pod(extra.clone()), &options, now())),
                expected,
                "{extra} {seconds:?}"
            );
        }
    }

    #[test]
    fn policies_become_finalizers() {
        let configmaps = find("", "v1", "configmaps").unwrap();
        for (present, policy, expected) in [
            (json!([]), None, "remove"),
            (json!([]), Some("Background"), "remove"),
            (json!([]), Some("Orphan"), "2026-01-01T00:00:00Z 0 [\"orphan\"]"),
            (json!([]), Some("Foreground"), "2026-01-01T00:00:00Z 0 [\"foregroundDeletion\"]"),
            (
                json!(["a"]),
                Some("Foreground"),
                "2026-01-01T00:00:00Z 0 [\"a\",\"foregroundDeletion\"]",
            ),
            (json!(["orphan"]), Some("Background"), "remove"),
            (json!(["a"]), None, "2026-01-01T00:00:00Z 0 [\"a\"]"),
        ] {
            let object = json!({"metadata": {"name": "c", "finalizers": present}});
            let options = DeleteOptions {
                propagation_policy: policy.map(str::to_owned),
                ..DeleteOptions::default()
            };
            assert_eq!(
                shown(plan(configmaps, &object, &options, now())),
                expected,
                "{object} {policy:?}"
            );
        }
    }

    /// As upstream's versions do that are older than the garbage collector.
    #[test]
    fn jobs_and_replication_controllers_leave_their_pods() {
        let orphan = "2026-01-01T00:00:00Z 0 [\"orphan\"]";
        let foreground = json!(["foregroundDeletion"]);
        for (group, plural, present, policy, expected) in [
            ("batch", "jobs", json!([]), None, orphan),
            ("", "replicationcontrollers", json!([]), None, orphan),
            ("batch", "jobs", json!([]), Some("Background"), "remove"),
            ("batch", "jobs", foreground, None, "2026-01-01T00:00:00Z 0 [\"foregroundDeletion\"]"),
            ("batch", "cronjobs", json!([]), None, "remove"),
            ("apps", "replicasets", json!([]), None, "remove"),
            ("", "events", json!([]), Some("Foreground"), "remove"),
        ] {
            let resource = find(group, "v1", plural).unwrap();
            let object = json!({"metadata": {"name": "o", "finalizers": present}});
            let options = DeleteOptions {
                propagation_policy: policy.map(str::to_owned),
                ..DeleteOptions::default()
            };
            let plan = plan(resource, &object, &options, now());
            assert_eq!(shown(plan), expected, "{plural} {policy:?}");
        }
    }

    #[test]
    fn namespaces_wait_for_their_finalizers() {
        let namespaces = find("", "v1", "namespaces").unwrap();
        let plan = |object: &Value| plan(namespaces, object, &DeleteOptions::default(), now());
        let full = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}});
        let Plan::Mark(ending) = plan(&full) else { panic!("marked") };
        assert_eq!(ending["status"]["phase"], "Terminating");
        assert_eq!(plan(&ending), Plan::Pending);
        let mut empty = ending;
        empty["spec"]["finalizers"] = json!([]);
        assert_eq!(plan(&empty), Plan::Remove);
        assert!(is_complete(namespaces, &empty));
    }
}
