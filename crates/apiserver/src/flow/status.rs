//! The condition `Dangling` of FlowSchemas: whether their level is there.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use store::{Page, Range, Store};

use super::{LEVELS, SCHEMAS, defaults, schema};
use crate::keeper::Keeper;
use crate::objects;
use crate::server::ApiServer;

/// Names of schemas and levels that every cluster has.
const MANDATORY: [&str; 2] = ["catch-all", "exempt"];

/// Keeps the conditions, and what has to be there.
pub(crate) struct Dangling;

impl Keeper for Dangling {
    const COLLECTIONS: &'static [&'static str] = &[SCHEMAS, LEVELS];

    async fn look(&mut self, server: &Arc<ApiServer>) -> Option<Duration> {
        for (path, object) in missing(&server.context.store) {
            if let Err(error) = server.write_own(Method::POST, &path, &object).await {
                tracing::debug!(path, error, "making what every cluster has");
            }
        }
        for (name, patch) in due(&server.context.store) {
            let path = format!("/apis/{}/v1/flowschemas/{name}/status", defaults::GROUP);
            if let Err(error) = server.write_own(Method::PATCH, &path, &patch).await {
                tracing::debug!(flowschema = name, error, "writing a condition");
            }
        }
        None
    }
}

/// The schemas and levels without which nothing can be sorted, where somebody has deleted them:
/// where each is made, and what it is.
fn missing(store: &Store) -> Vec<(String, Value)> {
    let path = |plural: &str| format!("/apis/{}/v1/{plural}", defaults::GROUP);
    let schemas = defaults::schemas().map(|one| (SCHEMAS, path("flowschemas"), one));
    let levels = defaults::levels().map(|one| (LEVELS, path("prioritylevelconfigurations"), one));
    let gone = schemas.chain(levels).filter(|(collection, _, object)| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        MANDATORY.contains(&name) && objects::identity(store, collection, "", name).is_none()
    });
    gone.map(|(_, path, object)| (path, object)).collect()
}

/// The conditions that are not as they should be: the schema's name and a merge patch.
fn due(store: &Store) -> Vec<(String, Value)> {
    let range = Range { collection: SCHEMAS, namespace: None };
    let Ok(list) = store.list(range, Page::default()) else { return Vec::new() };
    let there = |level: &str| objects::identity(store, LEVELS, "", level).is_some();
    let schemas = list.entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok());
    schemas
        .filter_map(|schema: Value| {
            let name = schema["metadata"]["name"].as_str()?.to_owned();
            Some((name, change(&schema, &there)?))
        })
        .collect()
}

fn change(schema: &Value, there: &dyn Fn(&str) -> bool) -> Option<Value> {
    let mut wanted = schema::dangling(schema, there);
    let mut all = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let known = all.iter_mut().find(|one| one["type"] == wanted["type"]);
    let same = |known: &Value| {
        ["status", "reason", "message"].iter().all(|member| known[member] == wanted[member])
    };
    if known.as_deref().is_some_and(same) {
        return None;
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    wanted["lastTransitionTime"] = now.into();
    match known {
        Some(known) => *known = wanted,
        None => all.push(wanted),
    }
    // Whoever writes meanwhile wakes this task again.
    let metadata = &schema["metadata"];
    let (uid, version) = (&metadata["uid"], &metadata["resourceVersion"]);
    let metadata = json!({"uid": uid, "resourceVersion": version});
    Some(json!({"metadata": metadata, "status": {"conditions": all}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_without_its_level_dangles() {
        let mut schema = json!({"metadata": {"name": "s", "uid": "1"},
            "spec": {"priorityLevelConfiguration": {"name": "l"}}});
        let patch = change(&schema, &|_| false).unwrap();
        let condition = &patch["status"]["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("True"), &json!("NotFound"))
        );
        schema["status"] = patch["status"].clone();
        assert_eq!(change(&schema, &|_| false), None);
        let patch = change(&schema, &|level| level == "l").unwrap();
        assert_eq!(
            patch["status"]["conditions"][0]["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" and it exists"
        );
    }
}
