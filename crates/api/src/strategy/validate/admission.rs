//! Rules for webhook configurations and admission policies. What an expression says is checked
//! where it can be compiled, in the API server.

use std::collections::BTreeSet;

use serde_json::Value;

use super::at::{At, Errors};
use super::{formats, selectors};

const TIMEOUT_SECONDS_MAX: i64 = 30;
const CONDITIONS_MAX: usize = 64;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCHES: [&str; 2] = ["Equivalent", "Exact"];

/// A configuration of webhooks, of either kind.
pub(super) fn configuration(object: &At<'_>, out: &mut Errors) {
    let mut names = BTreeSet::new();
    for hook in object.get("webhooks").items() {
        webhook(&hook, out);
        out.unique(&hook.get("name"), &mut names);
    }
}

fn webhook(hook: &At<'_>, out: &mut Errors) {
    let name = hook.get("name");
    if out.needed(&name) {
        let errors = formats::dns_subdomain(name.text());
        if errors.is_empty() && name.text().split('.').count() < 3 {
            out.invalid(&name, "should be a domain with at least three segments separated by dots");
        }
        out.all(&name, errors);
    }
    hook.get("rules").items().for_each(|one| rule(&one, out));
    out.one_of_if_set(&hook.get("failurePolicy"), &POLICIES);
    out.one_of_if_set(&hook.get("matchPolicy"), &MATCHES);
    let effects = hook.get("sideEffects");
    if effects.text().is_empty() {
        out.required(&effects, "must specify one of None, NoneOnDryRun");
    } else {
        out.one_of_if_set(&effects, &["None", "NoneOnDryRun"]);
    }
    out.one_of_if_set(&hook.get("reinvocationPolicy"), &["IfNeeded", "Never"]);
    let timeout = hook.get("timeoutSeconds");
    if timeout.is_set() && !(1..=TIMEOUT_SECONDS_MAX).contains(&timeout.number()) {
        out.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    selectors_of(hook, out);
    conditions(&hook.get("matchConditions"), out);
    client(&hook.get("clientConfig"), out);
    versions(&hook.get("admissionReviewVersions"), out);
}

fn selectors_of(at: &At<'_>, out: &mut Errors) {
    for field in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = at.get(field).set() {
            selectors::label_selector(&selector, out);
        }
    }
}

fn versions(at: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    at.items().for_each(|one| out.unique(&one, &mut seen));
    if at.len() == 0 {
        out.required(at, "must specify one of v1, v1beta1");
    } else if !at.items().any(|one| matches!(one.text(), "v1" | "v1beta1")) {
        out.invalid(at, "must include at least one of v1, v1beta1");
    }
}

fn client(at: &At<'_>, out: &mut Errors) {
    let (url, service) = (at.get("url"), at.get("service"));
    if url.is_set() == service.is_set() {
        return out.required(at, "exactly one of url or service is required");
    }
    if url.is_set() {
        return check_url(&url, out);
    }
    for (field, why) in
        [("name", "service name is required"), ("namespace", "service namespace is required")]
    {
        if service.get(field).text().is_empty() {
            out.required(&service.get(field), why);
        }
    }
    let port = service.get("port");
    if port.is_set()
        && let Some(why) = formats::port_number(port.number())
    {
        out.invalid(&port, format!("port is not valid: {why}"));
    }
}

fn check_url(at: &At<'_>, out: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = at.text();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        out.invalid_as(at, scheme, why);
    }
    if authority.is_empty() {
        out.invalid_as(at, authority, format!("host must be specified{FORM}"));
    }
    for (found, why) in [
        (authority.contains('@'), "user information is not permitted in the URL"),
        (text.contains('#'), "fragments are not permitted in the URL"),
        (text.contains('?'), "query parameters are not permitted in the URL"),
    ] {
        if found {
            out.invalid(at, why);
        }
    }
}

/// A list that must not be empty, and in which `*` stands alone.
fn wildcards(at: &At<'_>, what: &str, out: &mut Errors) {
    if at.len() == 0 {
        out.required(at, "");
    } else if at.len() > 1 && at.items().any(|one| one.text() == "*") {
        out.invalid(at, format!("if '*' is present, must not specify other {what}"));
    }
}

fn rule(rule: &At<'_>, out: &mut Errors) {
    let operations = rule.get("operations");
    wildcards(&operations, "operations", out);
    operations.items().for_each(|one| out.one_of(&one, &OPERATIONS));
    wildcards(&rule.get("apiGroups"), "API groups", out);
    wildcards(&rule.get("apiVersions"), "API versions", out);
    let resources = rule.get("resources");
    if resources.len() == 0 {
        out.required(&resources, "");
    }
    out.one_of_if_set(&rule.get("scope"), &["*", "Cluster", "Namespaced"]);
}

fn constraints(at: &At<'_>, rules_needed: bool, out: &mut Errors) {
    let rules = at.get("resourceRules");
    if rules_needed && rules.len() == 0 {
        out.required(&rules, "");
    }
    rules.items().chain(at.get("excludeResourceRules").items()).for_each(|one| rule(&one, out));
    out.one_of_if_set(&at.get("matchPolicy"), &MATCHES);
    selectors_of(at, out);
}

/// A policy of either kind, but for what it does.
fn policy(spec: &At<'_>, out: &mut Errors) {
    out.one_of_if_set(&spec.get("failurePolicy"), &POLICIES);
    let kind = spec.get("paramKind");
    if kind.is_set() {
        for (field, why) in [("apiVersion", ""), ("kind", "")] {
            if kind.get(field).text().is_empty() {
                out.required(&kind.get(field), why);
            }
        }
    }
    match spec.get("matchConstraints").set() {
        Some(at) => constraints(&at, true, out),
        None => out.required(&spec.get("matchConstraints"), ""),
    }
    let mut names = BTreeSet::new();
    for variable in spec.get("variables").items() {
        named_expression(&variable, &mut names, out);
    }
    conditions(&spec.get("matchConditions"), out);
}

/// What decides whether a webhook or a policy is asked at all.
fn conditions(at: &At<'_>, out: &mut Errors) {
    if at.len() > CONDITIONS_MAX {
        out.too_many(at, CONDITIONS_MAX);
    }
    let mut names = BTreeSet::new();
    for condition in at.items() {
        if condition.get("expression").text().trim().is_empty() {
            out.required(&condition.get("expression"), "");
        }
        let name = condition.get("name");
        if out.needed(&name) {
            out.all(&name, formats::qualified_name(name.text()));
            out.unique(&name, &mut names);
        }
    }
}

fn named_expression<'v>(at: &At<'v>, names: &mut BTreeSet<&'v str>, out: &mut Errors) {
    if out.needed(&at.get("name")) {
        out.unique(&at.get("name"), names);
    }
    expression(&at.get("expression"), out);
}

fn expression(at: &At<'_>, out: &mut Errors) {
    if at.text().trim().is_empty() {
        out.required(at, "expression is not specified");
    }
}

/// A ValidatingAdmissionPolicy.
pub(super) fn validating_policy(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    policy(&spec, out);
    let (rules, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if rules.len() == 0 && annotations.len() == 0 {
        out.required(&rules, "validations or auditAnnotations must contain at least one item");
    }
    for rule in rules.items() {
        expression(&rule.get("expression"), out);
        out.one_of_if_set(
            &rule.get("reason"),
            &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"],
        );
    }
    for annotation in annotations.items() {
        out.needed(&annotation.get("key"));
        expression(&annotation.get("valueExpression"), out);
    }
}

/// A MutatingAdmissionPolicy.
pub(super) fn mutating_policy(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    policy(&spec, out);
    out.one_of(&spec.get("reinvocationPolicy"), &["IfNeeded", "Never"]);
    let mutations = spec.get("mutations");
    if mutations.len() == 0 {
        out.required(&mutations, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        let kind = mutation.get("patchType");
        out.one_of(&kind, &["ApplyConfiguration", "JSONPatch"]);
        match kind.text() {
            "ApplyConfiguration" => expression(&mutation.get("applyConfiguration.expression"), out),
            "JSONPatch" => expression(&mutation.get("jsonPatch.expression"), out),
            _ => {}
        }
    }
}

/// A binding of a MutatingAdmissionPolicy.
pub(super) fn mutating_binding(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    out.needed(&spec.get("policyName"));
    if let Some(param) = spec.get("paramRef").set() {
        param_ref(&param, out);
    }
    if let Some(at) = spec.get("matchResources").set() {
        constraints(&at, false, out);
    }
}

/// A binding of a ValidatingAdmissionPolicy.
pub(super) fn validating_binding(object: &At<'_>, out: &mut Errors) {
    mutating_binding(object, out);
    let actions = object.get("spec.validationActions");
    if actions.len() == 0 {
        out.required(&actions, "at least one validation action is required");
    }
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        out.one_of(&action, &["Audit", "Deny", "Warn"]);
        out.unique(&action, &mut seen);
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let shown: Vec<Value> = seen.iter().map(|one| Value::from(*one)).collect();
        out.invalid_as(
            &actions,
            shown,
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        );
    }
}

fn param_ref(at: &At<'_>, out: &mut Errors) {
    let (name, selector) = (at.get("name"), at.get("selector"));
    match (!name.text().is_empty(), selector.is_set()) {
        (true, true) => out.forbidden(&name, "name and selector are mutually exclusive"),
        (false, false) => out.required(at, "one of name or selector must be specified"),
        _ => {}
    }
    let action = at.get("parameterNotFoundAction");
    if action.text().is_empty() {
        out.required(&action, "");
    } else {
        out.one_of_if_set(&action, &["Allow", "Deny"]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    #[test]
    fn webhooks() {
        let hook = "webhooks: [{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: 'https://h/p'}";
        created(
            "admissionregistration.k8s.io/validatingwebhookconfigurations",
            &[
                (&format!("{hook}}}]"), ""),
                (
                    &format!("{hook}, timeoutSeconds: 31, rules: [{{operations: ['*', CREATE], apiGroups: [''], apiVersions: ['*'], resources: [pods]}}]}}]"),
                    "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations
                     webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                ),
                (
                    &format!("{hook}, matchConditions: [{{name: a/b, expression: 'true'}}, {{name: 'a b', expression: ''}}, {{name: a/b, expression: 'true'}}]}}]"),
                    "webhooks[0].matchConditions[1].expression: Required value
                     webhooks[0].matchConditions[1].name: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
                     webhooks[0].matchConditions[2].name: Duplicate value: \"a/b\"",
                ),
                (
                    &format!("{hook}, matchConditions: [{}]}}]", (0..65).map(|n| format!("{{name: n{n}, expression: 'true'}}")).collect::<Vec<_>>().join(", ")),
                    "webhooks[0].matchConditions: Too many: 65: must have at most 64 items",
                ),
                (
                    "webhooks: [{name: a.b, clientConfig: {}}]",
                    "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots
                     webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun
                     webhooks[0].clientConfig: Required value: exactly one of url or service is required
                     webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
                ),
            ],
        );
    }

    #[test]
    fn policies_and_bindings() {
        let about = "matchConstraints: {resourceRules: [{operations: ['*'], apiGroups: [''], apiVersions: ['*'], resources: [pods]}]}";
        created(
            "admissionregistration.k8s.io/validatingadmissionpolicies",
            &[
                (&format!("spec: {{{about}, validations: [{{expression: 'true'}}]}}"), ""),
                (
                    "spec: {validations: [{expression: ''}]}",
                    "spec.matchConstraints: Required value
                     spec.validations[0].expression: Required value: expression is not specified",
                ),
            ],
        );
        created(
            "admissionregistration.k8s.io/validatingadmissionpolicybindings",
            &[
                ("spec: {policyName: p, validationActions: [Deny, Audit]}", ""),
                (
                    "spec: {policyName: p, paramRef: {name: x}}",
                    "spec.paramRef.parameterNotFoundAction: Required value
                     spec.validationActions: Required value: at least one validation action is required",
                ),
            ],
        );
    }
}
