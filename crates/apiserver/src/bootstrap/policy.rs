//! Upstream's default roles and bindings, read from one compact table.

use serde_json::{Value, json};

use crate::authz::rbac::{GROUP, Rule};

const TABLE: &str = include_str!("policy.txt");
const CONTROLLER_PREFIX: &str = "system:controller:";

/// An RBAC object that every cluster has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Default {
    /// clusterroles, clusterrolebindings, roles or rolebindings.
    pub resource: &'static str,
    /// Empty for cluster scope.
    pub namespace: String,
    pub name: String,
    /// The object as it is created.
    pub object: Value,
}

/// The rules of `system:node`, which the node authorizer goes by.
pub(crate) fn node_rules() -> Vec<Rule> {
    defaults()
        .into_iter()
        .find(|default| default.resource == "clusterroles" && default.name == "system:node")
        .and_then(|default| serde_json::from_value(default.object["rules"].clone()).ok())
        .unwrap_or_default()
}

/// All default roles and bindings.
pub(crate) fn defaults() -> Vec<Default> {
    let mut all: Vec<Default> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(rule) = line.strip_prefix("  ") {
            if let Some(role) = all.last_mut() {
                add_rule(&mut role.object, rule);
            }
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["ClusterRole", name, flags @ ..] => all.push(cluster_role(name, flags)),
            ["Role", namespace, name] => all.push(made("Role", "roles", namespace, name)),
            ["ClusterRoleBinding", name, role, subjects @ ..] => {
                all.push(binding("", name, "ClusterRole", role, subjects));
            }
            ["RoleBinding", namespace, name, role, subjects @ ..] => {
                all.push(binding(namespace, name, "Role", role, subjects));
            }
            _ => {}
        }
    }
    let controllers: Vec<Default> = all
        .iter()
        .filter(|default| default.resource == "clusterroles")
        .filter_map(|default| {
            let account = default.name.strip_prefix(CONTROLLER_PREFIX)?;
            let subject = format!("sa:kube-system/{account}");
            Some(binding("", &default.name, "ClusterRole", &default.name, &[&subject]))
        })
        .collect();
    all.extend(controllers);
    all
}

fn made(kind: &str, resource: &'static str, namespace: &str, name: &str) -> Default {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    if kind.ends_with("Role") {
        object["rules"] = json!([]);
    }
    Default { resource, namespace: namespace.to_owned(), name: name.to_owned(), object }
}

fn cluster_role(name: &str, flags: &[&str]) -> Default {
    let mut role = made("ClusterRole", "clusterroles", "", name);
    for flag in flags {
        let label = |target: &str| format!("rbac.authorization.k8s.io/aggregate-to-{target}");
        match flag.split_once('=') {
            Some(("label", target)) => {
                role.object["metadata"]["labels"][label(target)] = "true".into();
            }
            Some(("from", source)) => {
                role.object["aggregationRule"] =
                    json!({"clusterRoleSelectors": [{"matchLabels": {label(source): "true"}}]});
            }
            _ => {}
        }
    }
    role
}

fn binding(namespace: &str, name: &str, kind: &str, role: &str, subjects: &[&str]) -> Default {
    let mut binding = if namespace.is_empty() {
        made("ClusterRoleBinding", "clusterrolebindings", "", name)
    } else {
        made("RoleBinding", "rolebindings", namespace, name)
    };
    binding.object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    let subjects: Vec<Value> = subjects.iter().filter_map(|text| subject(text)).collect();
    if !subjects.is_empty() {
        binding.object["subjects"] = subjects.into();
    }
    binding
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    Some(match kind {
        "sa" => {
            let (namespace, name) = name.split_once('/')?;
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        "user" => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        _ => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
    })
}

fn add_rule(role: &mut Value, line: &str) {
    let mut rule = serde_json::Map::new();
    let mut set = |field: &str, list: Vec<&str>| {
        rule.insert(field.to_owned(), list.into());
    };
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["EVENTS"] => {
            set("apiGroups", vec!["", "events.k8s.io"]);
            set("resources", vec!["events"]);
            set("verbs", vec!["create", "patch", "update"]);
        }
        [verbs, "url", paths] => {
            set("nonResourceURLs", sorted(paths.split(',')));
            set("verbs", sorted(verb_list(verbs)));
        }
        [verbs, groups, resources, names @ ..] => {
            set("apiGroups", sorted(groups.split(',').map(|g| if g == "core" { "" } else { g })));
            if let [names] = names {
                set("resourceNames", sorted(names.split(',')));
            }
            set("resources", sorted(resources.split(',')));
            set("verbs", sorted(verb_list(verbs)));
        }
        _ => return,
    }
    if let Some(rules) = role["rules"].as_array_mut() {
        rules.push(Value::Object(rule));
    }
}

fn verb_list(verbs: &str) -> impl Iterator<Item = &str> {
    verbs.split(',').flat_map(|verb| match verb {
        "R" => vec!["get", "list", "watch"],
        "W" => vec!["create", "update", "patch", "delete", "deletecollection"],
        "U" => vec!["update", "patch"],
        verb => vec![verb],
    })
}

/// Upstream's rule builder keeps each list as a sorted set.
fn sorted<'a>(list: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    list.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let all = defaults();
        let count = |resource: &str| all.iter().filter(|d| d.resource == resource).count();
        let lines = |start: &str| TABLE.lines().filter(|l| l.starts_with(start)).count();
        assert_eq!(count("clusterroles"), lines("ClusterRole "));
        assert_eq!(count("roles"), lines("Role "));
        assert_eq!(count("rolebindings"), lines("RoleBinding "));
        let rules: usize =
            all.iter().map(|default| default.object["rules"].as_array().map_or(0, Vec::len)).sum();
        assert_eq!(rules, lines("  "));
        for default in &all {
            for rule in default.object["rules"].as_array().into_iter().flatten() {
                assert!(!rule["verbs"].as_array().unwrap().is_empty(), "{} {rule}", default.name);
            }
        }
    }

    #[test]
    fn a_rule_reads_as_upstream_prints_it() {
        let node = node_rules();
        assert_eq!(node[0].verbs, ["create"]);
        assert_eq!(node[0].resources, ["tokenreviews"]);
        let all = defaults();
        let discovery = all.iter().find(|d| d.name == "system:discovery").unwrap();
        assert_eq!(discovery.object["rules"][0]["nonResourceURLs"][0], "/api");
        let role = all.iter().find(|d| d.name == "system:controller:root-ca-cert-publisher");
        assert_eq!(
            role.unwrap().object["rules"][0].to_string(),
            r#"{"apiGroups":[""],"resources":["configmaps"],"verbs":["create","update"]}"#
        );
    }

    #[test]
    fn controllers_are_bound_to_their_accounts() {
        let all = defaults();
        let binding = all
            .iter()
            .find(|d| {
                d.resource == "clusterrolebindings" && d.name == "system:controller:job-controller"
            })
            .unwrap();
        assert_eq!(binding.object["subjects"][0]["name"], "job-controller");
        assert_eq!(binding.object["roleRef"]["kind"], "ClusterRole");
    }
}
