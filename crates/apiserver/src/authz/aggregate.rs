//! ClusterRoles made of other ClusterRoles (`aggregationRule`): a small reconciler that
//! wakes up when a ClusterRole changes.

use std::sync::Arc;
use std::time::Duration;

use api::selector::LabelSelector;
use serde_json::{Value, json};
use store::{Page, Range, Store};

use super::rbac::{CLUSTER_ROLES, GROUP};
use crate::keeper::Keeper;
use crate::response;
use crate::server::ApiServer;
use crate::user::User;

/// How often a role is tried again when somebody else writes it at the same moment.
const ATTEMPTS_MAX: usize = 5;

/// Keeps aggregated roles in step.
pub(crate) struct Aggregated;

impl Keeper for Aggregated {
    const COLLECTIONS: &'static [&'static str] = &[CLUSTER_ROLES];

    async fn look(&mut self, server: &Arc<ApiServer>) -> Option<Duration> {
        reconcile(server).await;
        None
    }
}

/// Writes every aggregated role whose rules are not what its selectors gather. One pass
/// settles chains too: what was written is gathered again until nothing changes.
pub(crate) async fn reconcile(server: &Arc<ApiServer>) {
    for _ in 0..ATTEMPTS_MAX {
        let due = plan(&roles(&server.context.store));
        if due.is_empty() {
            return;
        }
        for (name, rules) in due {
            if let Err(error) = write(server, &name, rules).await {
                tracing::warn!(role = name, error, "writing an aggregated ClusterRole");
            }
        }
    }
}

fn roles(store: &Store) -> Vec<Value> {
    let range = Range { collection: CLUSTER_ROLES, namespace: None };
    let Ok(list) = store.list(range, Page::default()) else { return Vec::new() };
    list.entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
}

/// The roles to change, with their new rules.
fn plan(roles: &[Value]) -> Vec<(String, Vec<Value>)> {
    let mut due = Vec::new();
    for role in roles {
        let Some(selectors) = role["aggregationRule"]["clusterRoleSelectors"].as_array() else {
            continue;
        };
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        let mut gathered: Vec<&Value> = Vec::new();
        for selector in selectors {
            let Ok(selector) = LabelSelector::from_object(selector) else { continue };
            // A role never gathers itself; the others come in the order of their names.
            for other in roles
                .iter()
                .filter(|other| other["metadata"]["name"] != name && selector.matches_object(other))
            {
                for rule in other["rules"].as_array().into_iter().flatten() {
                    if !gathered.contains(&rule) {
                        gathered.push(rule);
                    }
                }
            }
        }
        let same = role["rules"].as_array().map_or(gathered.is_empty(), |own| {
            own.len() == gathered.len() && own.iter().zip(&gathered).all(|(a, b)| a == *b)
        });
        if !same {
            due.push((name.to_owned(), gathered.into_iter().cloned().collect()));
        }
    }
    due
}

async fn write(server: &Arc<ApiServer>, name: &str, rules: Vec<Value>) -> Result<(), String> {
    let patch = json!({"rules": rules}).to_string();
    let request = http::Request::patch(format!("/apis/{GROUP}/v1/clusterroles/{name}"))
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(response::full(patch))
        .map_err(|error| error.to_string())?;
    let user = User::service_account("kube-system", "clusterrole-aggregation-controller");
    let answer = Arc::clone(server).answer(request, Some(user)).await;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(answer.status().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, label: Option<&str>, from: Option<&str>, rules: Value) -> Value {
        let mut role = json!({"metadata": {"name": name, "labels": {}}, "rules": rules});
        if let Some(label) = label {
            role["metadata"]["labels"][label] = "true".into();
        }
        if let Some(from) = from {
            role["aggregationRule"] =
                json!({"clusterRoleSelectors": [{"matchLabels": {from: "true"}}]});
        }
        role
    }

    #[test]
    fn gathers_by_label_and_leaves_what_fits() {
        let rule = json!({"verbs": ["get"], "resources": ["pods"], "apiGroups": [""]});
        let part = role("part", Some("to-all"), None, json!([rule, rule]));
        let empty = role("all", Some("to-all"), Some("to-all"), Value::Null);
        let due = plan(&[empty, part.clone()]);
        assert_eq!(due, [("all".to_owned(), vec![rule.clone()])]);
        let settled = role("all", Some("to-all"), Some("to-all"), json!([rule]));
        assert_eq!(plan(&[settled, part]), []);
    }

    #[test]
    fn a_role_without_parts_has_no_rules() {
        let rule = json!({"verbs": ["get"], "resources": ["pods"], "apiGroups": [""]});
        assert_eq!(
            plan(&[role("all", None, Some("x"), json!([rule]))]),
            [("all".to_owned(), vec![])]
        );
        assert_eq!(plan(&[role("all", None, Some("x"), Value::Null)]), []);
    }
}
