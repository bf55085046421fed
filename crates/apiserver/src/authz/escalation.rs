//! Nobody grants more than they have: checks on writes of roles and bindings.

use api::status::{Status, go_quote};
use serde_json::Value;

use super::Attributes;
use super::rbac::{GROUP, RoleRef, Rule, url_matches};
use crate::admission::Attributes as Write;
use crate::server::Context;
use crate::user::{MASTERS, User};

/// Checks a create or an update of an object. Anything but roles and bindings passes, as do
/// changes that grant nothing new.
pub(crate) async fn check(context: &Context, write: &Write<'_>, new: &Value) -> Result<(), Status> {
    if write.resource.group != GROUP
        || !write.subresource.is_empty()
        || write.user.in_group(MASTERS)
    {
        return Ok(());
    }
    match &*write.resource.plural {
        "roles" | "clusterroles" => check_role(context, write, new).await,
        "rolebindings" | "clusterrolebindings" => check_binding(context, write, new).await,
        _ => Ok(()),
    }
}

async fn check_role(context: &Context, write: &Write<'_>, new: &Value) -> Result<(), Status> {
    let (user, resource) = (write.user, &*write.resource.plural);
    let same = |member: &str| write.old.is_some_and(|old| old[member] == new[member]);
    if same("rules") && same("aggregationRule") {
        return Ok(());
    }
    let mut escalate = Attributes::on(user, "escalate", GROUP, resource);
    escalate.namespace = write.namespace;
    escalate.name = write.name;
    if context.decide(&escalate).await.allowed {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let forbidden = |why: &str| Status::forbidden((GROUP, resource), name, why);
    let held = context.authorizer.rules_for(user, write.namespace);
    missing(user, &held, &rules_of(new)).map_err(|why| forbidden(&why))?;
    if !new["aggregationRule"].is_null() {
        let all = || vec!["*".to_owned()];
        let everything = [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
        ];
        missing(user, &held, &everything).map_err(|_| {
            forbidden("must have cluster-admin privileges to use the aggregationRule")
        })?;
    }
    Ok(())
}

async fn check_binding(context: &Context, write: &Write<'_>, new: &Value) -> Result<(), Status> {
    let (user, resource) = (write.user, &*write.resource.plural);
    let same = |member: &str| write.old.is_some_and(|old| old[member] == new[member]);
    if same("roleRef") && same("subjects") {
        return Ok(());
    }
    let role: RoleRef = serde_json::from_value(new["roleRef"].clone()).unwrap_or_default();
    let roles = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    let mut bind = Attributes::on(user, "bind", GROUP, roles);
    bind.namespace = write.namespace;
    bind.name = &role.name;
    if context.decide(&bind).await.allowed {
        return Ok(());
    }
    let granted = context
        .authorizer
        .role_rules(&role.kind, &role.name, write.namespace)
        .map_err(|_| Status::not_found((GROUP, roles), &role.name))?;
    let held = context.authorizer.rules_for(user, write.namespace);
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    missing(user, &held, &granted).map_err(|why| Status::forbidden((GROUP, resource), name, &why))
}

fn rules_of(role: &Value) -> Vec<Rule> {
    serde_json::from_value(role["rules"].clone()).unwrap_or_default()
}

/// What of `wanted` is not covered by what the user holds, in upstream's words.
fn missing(user: &User, held: &(Vec<Rule>, Vec<String>), wanted: &[Rule]) -> Result<(), String> {
    let (held, unresolved) = held;
    let lacking: Vec<Rule> = wanted
        .iter()
        .flat_map(break_down)
        .filter(|part| !held.iter().any(|own| covers(own, part)))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = compact(lacking).iter().map(describe).collect();
    lines.sort();
    lines.dedup();
    let mut message = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quote(&user.name),
        quoted(&user.groups),
        lines.join("\n")
    );
    if !unresolved.is_empty() {
        message += &format!("; resolution errors: [{}]", unresolved.join(", "));
    }
    Err(message)
}

/// Whether all that `wanted` allows is allowed by `held`.
pub(crate) fn covered(held: &[Rule], wanted: &[Rule]) -> bool {
    wanted.iter().flat_map(break_down).all(|part| held.iter().any(|own| covers(own, &part)))
}

/// A rule as rules of one verb, one group, one resource and at most one name each.
fn break_down(rule: &Rule) -> Vec<Rule> {
    let one = |value: &String| vec![value.clone()];
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let part = Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part);
                    continue;
                }
                parts.extend(
                    rule.resource_names
                        .iter()
                        .map(|name| Rule { resource_names: one(name), ..part.clone() }),
                );
            }
        }
        parts.extend(rule.non_resource_urls.iter().map(|url| Rule {
            verbs: one(verb),
            non_resource_urls: one(url),
            ..Rule::default()
        }));
    }
    parts
}

/// Whether a held rule covers a part made by [`break_down`].
fn covers(own: &Rule, part: &Rule) -> bool {
    let all = |own: &[String], part: &[String]| {
        own.iter().any(|item| item == "*") || part.iter().all(|item| own.contains(item))
    };
    let resources = all(&own.resources, &part.resources)
        || part.resources.iter().all(|resource| {
            own.resources.contains(resource)
                || resource.split_once('/').is_some_and(|(_, sub)| {
                    own.resources.iter().any(|rule| rule.strip_prefix("*/") == Some(sub))
                })
        });
    let names = own.resource_names.is_empty()
        || (!part.resource_names.is_empty()
            && part.resource_names.iter().all(|name| own.resource_names.contains(name)));
    let urls = part
        .non_resource_urls
        .iter()
        .all(|url| own.non_resource_urls.iter().any(|rule| rule == url || url_matches(rule, url)));
    all(&own.verbs, &part.verbs)
        && all(&own.api_groups, &part.api_groups)
        && resources
        && names
        && urls
}

/// Joins the verbs of parts that say the same of the same resource.
fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for part in parts {
        let known = rules.iter_mut().find(|rule| {
            !rule.resources.is_empty()
                && rule.api_groups == part.api_groups
                && rule.resources == part.resources
                && rule.resource_names == part.resource_names
        });
        match known {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => rules.push(part),
        }
    }
    rules
}

fn describe(rule: &Rule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, list)| !list.is_empty())
    .map(|(name, list)| format!("{name}:{}", quoted(list)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}

fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| go_quote(item)).collect();
    format!("[{}]", items.join(" "))
}
