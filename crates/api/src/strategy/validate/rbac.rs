//! Rules for roles and bindings (k8s.io/kubernetes `pkg/apis/rbac/validation`).

use super::at::{At, Errors};
use super::formats;
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A Role.
pub(super) fn role(object: &At<'_>, out: &mut Errors) {
    object.get("rules").items().for_each(|at| rule(&at, true, out));
}

/// A ClusterRole.
pub(super) fn cluster_role(object: &At<'_>, out: &mut Errors) {
    object.get("rules").items().for_each(|at| rule(&at, false, out));
    for selector in object.get("aggregationRule.clusterRoleSelectors").items() {
        super::selectors::label_selector(&selector, out);
    }
    let aggregation = object.get("aggregationRule");
    if aggregation.is_set() && aggregation.get("clusterRoleSelectors").len() == 0 {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        out.required(&aggregation.get("clusterRoleSelectors"), why);
    }
}

fn rule(at: &At<'_>, namespaced: bool, out: &mut Errors) {
    if at.get("verbs").len() == 0 {
        out.required(&at.get("verbs"), "verbs must contain at least one value");
    }
    let urls = at.get("nonResourceURLs");
    let (groups, resources) = (at.get("apiGroups"), at.get("resources"));
    let names = at.get("resourceNames");
    if urls.len() > 0 {
        if namespaced {
            out.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if groups.len() + resources.len() + names.len() > 0 {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            out.invalid(&urls, why);
        }
        return;
    }
    if groups.len() == 0 {
        out.required(&groups, "resource rules must supply at least one api group");
    }
    if resources.len() == 0 {
        out.required(&resources, "resource rules must supply at least one resource");
    }
}

/// A RoleBinding.
pub(super) fn role_binding(object: &At<'_>, out: &mut Errors) {
    binding(object, &["Role", "ClusterRole"], true, out);
}

/// A ClusterRoleBinding.
pub(super) fn cluster_role_binding(object: &At<'_>, out: &mut Errors) {
    binding(object, &["ClusterRole"], false, out);
}

fn binding(object: &At<'_>, kinds: &[&str], namespaced: bool, out: &mut Errors) {
    let role = object.get("roleRef");
    if role.get("apiGroup").text() != GROUP {
        out.not_supported(&role.get("apiGroup"), &[GROUP]);
    }
    if !kinds.contains(&role.get("kind").text()) {
        out.not_supported(&role.get("kind"), kinds);
    }
    let name = role.get("name");
    if out.needed(&name) {
        out.all(&name, formats::path_segment(name.text()));
    }
    object.get("subjects").items().for_each(|at| subject(&at, namespaced, out));
}

fn subject(at: &At<'_>, namespaced: bool, out: &mut Errors) {
    let (name, group) = (at.get("name"), at.get("apiGroup"));
    out.needed(&name);
    let kind = at.get("kind");
    match kind.text() {
        "ServiceAccount" => {
            if !name.text().is_empty() {
                out.all(&name, formats::dns_subdomain(name.text()));
            }
            if !group.text().is_empty() {
                out.not_supported(&group, &[""]);
            }
            if !namespaced && at.get("namespace").text().is_empty() {
                out.required(&at.get("namespace"), "");
            }
        }
        who @ ("User" | "Group") => {
            if name.text().is_empty() {
                let why = format!("{} name cannot be empty", who.to_lowercase());
                out.invalid_as(&name, "", why);
            }
            if group.text() != GROUP {
                out.not_supported(&group, &[GROUP]);
            }
        }
        _ => out.not_supported(&kind, &["ServiceAccount", "User", "Group"]),
    }
}

/// A changed binding: what it binds stays.
pub(super) fn binding_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let (now, before) = (new.get("roleRef"), old.get("roleRef"));
    let part = |at: &At<'_>, name: &str| at.get(name).value.as_str().map(str::to_owned);
    let same =
        ["apiGroup", "kind", "name"].iter().all(|name| part(&now, name) == part(&before, name));
    if !same {
        let shown: Value = now.value.clone();
        out.invalid_as(&now, shown, "cannot change roleRef");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    #[test]
    fn roles_and_bindings() {
        created(
            "rbac.authorization.k8s.io/roles",
            &[
                ("rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]", ""),
                (
                    "rules: [{}, {verbs: [get], nonResourceURLs: [/x], resources: [pods]}]",
                    r#"rules[0].verbs: Required value: verbs must contain at least one value
                       rules[0].apiGroups: Required value: resource rules must supply at least one api group
                       rules[0].resources: Required value: resource rules must supply at least one resource
                       rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs
                       rules[1].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs"#,
                ),
            ],
        );
        created(
            "rbac.authorization.k8s.io/clusterrolebindings",
            &[
                ("{roleRef: {kind: ClusterRole, name: a}, subjects: [{kind: User, name: u}]}", ""),
                (
                    "{roleRef: {kind: Role}, subjects: [{kind: ServiceAccount, name: s}, {kind: Robot, name: r}, {kind: Group}]}",
                    r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
                       roleRef.name: Required value
                       subjects[0].namespace: Required value
                       subjects[1].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"
                       subjects[2].name: Required value
                       subjects[2].name: Invalid value: "": group name cannot be empty"#,
                ),
            ],
        );
        updated(
            "rbac.authorization.k8s.io/rolebindings",
            &[(
                "roleRef: {kind: Role, name: a}",
                "roleRef: {kind: Role, name: b}",
                r#"roleRef: Invalid value: {"kind":"Role","name":"b","apiGroup":"rbac.authorization.k8s.io"}: cannot change roleRef"#,
            )],
        );
    }
}
