//! The APIServices of what this server serves itself: of the built-in groups, made once at a
//! start, and of CustomResourceDefinitions, kept in step with them (upstream's autoregister and
//! crdregistration controllers).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::resource::{self, RESOURCES};
use http::Method;
use serde_json::{Value, json};

use super::{PATH, Table};
use crate::definitions::Defined;
use crate::server::ApiServer;

/// Store collection of CustomResourceDefinitions.
pub(super) const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Upstream's mark of APIServices that a server makes by itself.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// The group of APIServices has none itself.
const OWN_GROUP: &str = "apiregistration.k8s.io";
/// Priorities of a CustomResourceDefinition's group and version.
const DEFINED: (i64, i64) = (1000, 100);

/// Priorities of the built-in groups, in which discovery lists them (upstream's
/// pkg/controlplane/apiserver/aggregator.go).
const GROUPS: &[(&str, i64)] = &[
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
];

/// The priority of a group that this server serves itself.
pub(super) fn group_priority(group: &str) -> i64 {
    if group == OWN_GROUP {
        return i64::MAX;
    }
    GROUPS.iter().find(|(name, _)| *name == group).map_or(DEFINED.0, |(_, priority)| *priority)
}

fn version_priority(group: &str, version: &str) -> i64 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", "v1") => 21,
        _ => 15,
    }
}

fn object(group: &str, version: &str, priorities: (i64, i64), managed: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED: managed}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": priorities.0,
                 "versionPriority": priorities.1},
    })
}

/// The APIServices of the built-in groups.
pub(crate) fn builtin() -> Vec<Value> {
    let mut all = Vec::new();
    for group in resource::groups(RESOURCES.iter()) {
        if group.name == OWN_GROUP {
            continue;
        }
        for version in group.versions {
            let priorities = (group_priority(group.name), version_priority(group.name, version));
            all.push(object(group.name, version, priorities, "onstart"));
        }
    }
    all
}

/// Makes and removes the APIServices of CustomResourceDefinitions.
pub(super) async fn reconcile(server: &Arc<ApiServer>) {
    let context = &server.context;
    let table = context.aggregator.table();
    for (method, name, object) in plan(&table, &defined(&context.definitions.get())) {
        let path = if method == Method::POST { PATH.to_owned() } else { format!("{PATH}/{name}") };
        if let Err(error) = server.write_own(method, &path, &object).await {
            // Several servers do the same; the next look shows what is left to do.
            tracing::debug!(apiservice = name, error, "keeping an APIService");
        }
    }
}

/// The served group versions of all CustomResourceDefinitions, by the name of their APIService.
fn defined(defined: &Defined) -> BTreeMap<String, (String, String)> {
    let named =
        defined.served().filter(|(group, version)| !group.is_empty() && !version.is_empty());
    named
        .map(|(group, version)| (format!("{version}.{group}"), (group.clone(), version.clone())))
        .collect()
}

/// What to write so that there is one for each, and none too many.
fn plan(
    table: &Table,
    defined: &BTreeMap<String, (String, String)>,
) -> Vec<(Method, String, Value)> {
    let mut due = Vec::new();
    for (name, (group, version)) in defined {
        // One that a person has made stays what it is.
        if !table.contains_key(name) {
            due.push((Method::POST, name.clone(), object(group, version, DEFINED, "true")));
        }
    }
    for (name, service) in table {
        if service.automanaged.as_deref() == Some("true") && !defined.contains_key(name) {
            due.push((Method::DELETE, name.clone(), json!({})));
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(services: &[(&str, &str, Option<&str>)]) -> Table {
        let read = |(version, group, managed): &(&str, &str, Option<&str>)| {
            let mut object = object(group, version, DEFINED, managed.unwrap_or("no"));
            if managed.is_none() {
                object["metadata"]["labels"] = Value::Null;
            }
            let service = super::super::ApiService::read(object.to_string().as_bytes(), None);
            let service = service.expect("an APIService");
            (service.name.clone(), Arc::new(service))
        };
        services.iter().map(read).collect()
    }

    #[test]
    fn definitions_have_an_apiservice_each_and_people_keep_theirs() {
        let defined: BTreeMap<_, _> = [("v1", "a.org"), ("v2", "a.org"), ("v1", "mine.org")]
            .map(|(v, g)| (format!("{v}.{g}"), (g.to_owned(), v.to_owned())))
            .into();
        let there = table(&[
            ("v1", "a.org", Some("true")),
            ("v1", "mine.org", None),
            ("v1", "gone.org", Some("true")),
            ("v1", "other.org", None),
            ("v1", "apps", Some("onstart")),
        ]);
        let due = plan(&there, &defined);
        let lines: Vec<String> = due.iter().map(|(m, name, _)| format!("{m} {name}")).collect();
        assert_eq!(lines, ["POST v2.a.org", "DELETE v1.gone.org"]);
    }

    #[test]
    fn every_built_in_group_has_upstreams_priorities() {
        let all = builtin();
        let names: Vec<&str> =
            all.iter().map(|one| one["metadata"]["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"v1.") && names.contains(&"v2.autoscaling"), "{names:?}");
        assert!(!names.contains(&"v1.apiregistration.k8s.io"));
        for one in &all {
            assert!(one["spec"]["groupPriorityMinimum"].as_i64() > Some(DEFINED.0), "{one}");
        }
    }
}
