//! Rules for FlowSchemas and PriorityLevelConfigurations.

use serde_json::{Value, json};

use super::at::{At, Errors};
use super::formats;

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;

/// A FlowSchema.
pub(super) fn schema(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let name = object.get("metadata.name");
    let precedence = spec.get("matchingPrecedence");
    let number = precedence.number();
    if number <= 0 {
        out.invalid_as(&precedence, number, "must be a positive value");
    }
    if number > PRECEDENCE_MAX {
        out.invalid(&precedence, format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if number == 1 && name.text() != "exempt" {
        out.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.get("distinguisherMethod").set() {
        let kind = method.get("type");
        if !matches!(kind.text(), "ByUser" | "ByNamespace") {
            out.not_supported(&kind, &["ByNamespace", "ByUser"]);
        }
    }
    let level = spec.get("priorityLevelConfiguration.name");
    if level.text().is_empty() {
        out.required(&level, "must reference a priority level");
    } else {
        out.all(&level, formats::dns_subdomain(level.text()));
    }
    spec.get("rules").items().for_each(|rule| check_rule(&rule, out));
    let fixed = match name.text() {
        "exempt" => fixed_schema("exempt", 1, &["system:masters"], None),
        "catch-all" => {
            let groups = ["system:unauthenticated", "system:authenticated"];
            fixed_schema("catch-all", PRECEDENCE_MAX, &groups, Some("ByUser"))
        }
        _ => return,
    };
    if *spec.value != fixed {
        out.invalid(&spec, format!("spec of '{}' must equal the fixed value", name.text()));
    }
}

/// What a schema that every cluster has must be: about everything that these groups ask for.
fn fixed_schema(level: &str, precedence: i64, groups: &[&str], method: Option<&str>) -> Value {
    let group = |name: &&str| json!({"kind": "Group", "group": {"name": name}});
    let subjects: Vec<Value> = groups.iter().map(group).collect();
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": [{"subjects": subjects,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}],
    });
    if let Some(method) = method {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    spec
}

/// Levels that every cluster has are what they are.
fn check_fixed_level(object: &At<'_>, out: &mut Errors) {
    let (spec, name) = (object.get("spec"), object.get("metadata.name"));
    match name.text() {
        "exempt" => {
            let members = spec.value.as_object().into_iter().flatten();
            let free =
                |field: &str| matches!(field, "nominalConcurrencyShares" | "lendablePercent");
            let mut exempt = spec.value["exempt"].as_object().into_iter().flatten();
            let plain = spec.value["type"] == "Exempt" && exempt.all(|(field, _)| free(field));
            if !plain || members.into_iter().any(|(field, _)| field != "type" && field != "exempt")
            {
                let why =
                    "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
                out.invalid(&spec, why);
            }
        }
        "catch-all" => {
            let fixed = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
                "lendablePercent": 0, "limitResponse": {"type": "Reject"}}});
            if *spec.value != fixed {
                out.invalid(&spec, "spec of 'catch-all' must equal the fixed value");
            }
        }
        _ => {}
    }
}

fn check_rule(rule: &At<'_>, out: &mut Errors) {
    let subjects = rule.get("subjects");
    filled(&subjects, "subjects must contain at least one value", out);
    subjects.items().for_each(|subject| check_subject(&subject, out));
    let (resources, paths) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if resources.len() == 0 && paths.len() == 0 {
        out.required(
            rule,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    for resource in resources.items() {
        verbs(&resource, out);
        for (field, why) in [
            ("apiGroups", "resource rules must supply at least one api group"),
            ("resources", "resource rules must supply at least one resource"),
        ] {
            filled(&resource.get(field), why, out);
        }
        let namespaces = resource.get("namespaces");
        if namespaces.len() == 0 && !resource.get("clusterScope").is_true() {
            let why =
                "resource rules that are not cluster scoped must supply at least one namespace";
            out.required(&namespaces, why);
        }
    }
    for path in paths.items() {
        verbs(&path, out);
        filled(
            &path.get("nonResourceURLs"),
            "nonResourceURLs must contain at least one value",
            out,
        );
    }
}

fn verbs(rule: &At<'_>, out: &mut Errors) {
    let verbs = rule.get("verbs");
    filled(&verbs, "verbs must contain at least one value", out);
    if verbs.len() > 1 && verbs.items().any(|verb| verb.text() == "*") {
        out.invalid(&verbs, "if '*' is present, must not specify other verbs");
    }
}

fn filled(list: &At<'_>, why: &str, out: &mut Errors) {
    if list.len() == 0 {
        out.required(list, why);
    }
}

fn check_subject(subject: &At<'_>, out: &mut Errors) {
    let kind = subject.get("kind");
    let (own, needed): (&str, &[&str]) = match kind.text() {
        "User" => ("user", &["name"]),
        "Group" => ("group", &["name"]),
        "ServiceAccount" => ("serviceAccount", &["name", "namespace"]),
        _ => {
            out.not_supported(&kind, &["Group", "ServiceAccount", "User"]);
            return;
        }
    };
    for field in ["user", "group", "serviceAccount"] {
        let at = subject.get(field);
        if field != own && at.is_set() {
            let upper = kind_of(field);
            out.forbidden(&at, format!("{field} is forbidden when subject kind is not '{upper}'"));
        }
    }
    let own_at = subject.get(own);
    if !own_at.is_set() {
        let why = format!("{own} is required when subject kind is '{}'", kind.text());
        out.required(&own_at, &why);
        return;
    }
    for field in needed {
        out.needed(&own_at.get(field));
    }
}

fn kind_of(field: &str) -> &'static str {
    match field {
        "user" => "User",
        "group" => "Group",
        _ => "ServiceAccount",
    }
}

/// A PriorityLevelConfiguration.
pub(super) fn level(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (kind.text() == "Exempt") != (object.get("metadata.name").text() == "exempt") {
        out.invalid(&kind, "type must be 'Exempt' if and only if name is 'exempt'");
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                out.forbidden(&limited, "must be nil if the type is not Limited");
            }
            shares(&exempt, out);
        }
        "Limited" => {
            if exempt.is_set() {
                out.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if limited.is_set() {
                check_limited(&limited, out);
            } else {
                out.required(&limited, "must not be empty when type is Limited");
            }
        }
        _ => out.not_supported(&kind, &["Exempt", "Limited"]),
    }
    check_fixed_level(object, out);
}

fn shares(at: &At<'_>, out: &mut Errors) {
    let shares = at.get("nominalConcurrencyShares");
    if shares.number() < 0 {
        out.invalid(&shares, "must be a non-negative integer");
    }
    let lendable = at.get("lendablePercent");
    if !(0..=100).contains(&lendable.number()) {
        out.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
}

fn check_limited(limited: &At<'_>, out: &mut Errors) {
    shares(limited, out);
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.number() < 0 {
        out.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
    let response = limited.get("limitResponse");
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.text() {
        "Reject" if queuing.is_set() => {
            out.forbidden(&queuing, "must be nil if limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if queuing.is_set() => check_queuing(&queuing, out),
        "Queue" => out.required(&queuing, "must not be empty if limitResponse.type is Limited"),
        _ => out.not_supported(&kind, &["Queue", "Reject"]),
    }
}

fn check_queuing(queuing: &At<'_>, out: &mut Errors) {
    let [length, queues, hand] =
        ["queueLengthLimit", "queues", "handSize"].map(|field| queuing.get(field));
    if length.number() <= 0 {
        out.invalid_as(&length, length.number(), "must be positive");
    }
    if queues.number() <= 0 {
        out.invalid_as(&queues, queues.number(), "must be positive");
    } else if queues.number() > QUEUES_MAX {
        out.invalid(&queues, format!("must not be greater than {QUEUES_MAX}"));
    }
    if hand.number() <= 0 {
        out.invalid_as(&hand, hand.number(), "must be positive");
    } else if hand.number() > queues.number() {
        let why = format!("should not be greater than queues ({})", queues.number());
        out.invalid(&hand, why);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    #[test]
    fn schemas() {
        created(
            "flowcontrol.apiserver.k8s.io/flowschemas",
            &[
                (
                    "{spec: {priorityLevelConfiguration: {name: l}, rules: [{subjects: [{kind: User, user: {name: '*'}}], nonResourceRules: [{verbs: ['*'], nonResourceURLs: ['*']}]}]}}",
                    "",
                ),
                (
                    "{spec: {matchingPrecedence: 1, distinguisherMethod: {type: X}, rules: [{subjects: [{kind: ServiceAccount}]}]}}",
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1
                    spec.distinguisherMethod.type: Unsupported value: \"X\": supported values: \"ByNamespace\", \"ByUser\"
                    spec.priorityLevelConfiguration.name: Required value: must reference a priority level
                    spec.rules[0].subjects[0].serviceAccount: Required value: serviceAccount is required when subject kind is 'ServiceAccount'
                    spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                ),
            ],
        );
    }

    #[test]
    fn what_every_cluster_has_stays() {
        created(
            "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
            &[
                (
                    "{metadata: {name: exempt}, spec: {type: Exempt, exempt: {nominalConcurrencyShares: 9}}}",
                    "",
                ),
                (
                    "{metadata: {name: catch-all}, spec: {type: Limited, limited: {nominalConcurrencyShares: 6, lendablePercent: 0, limitResponse: {type: Reject}}}}",
                    "spec: Invalid value: {\"type\":\"Limited\",\"limited\":{\"nominalConcurrencyShares\":6,\"lendablePercent\":0,\"limitResponse\":{\"type\":\"Reject\"}}}: spec of 'catch-all' must equal the fixed value",
                ),
            ],
        );
    }

    #[test]
    fn levels() {
        created(
            "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
            &[
                ("{spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}}", ""),
                (
                    "{spec: {type: Exempt, limited: {}}}",
                    "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'
                    spec.limited: Forbidden: must be nil if the type is not Limited",
                ),
                (
                    "{spec: {type: Limited, limited: {lendablePercent: 101, limitResponse: {type: Queue, queuing: {queues: 2, handSize: 3}}}}}",
                    "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive
                    spec.limited.limitResponse.queuing.handSize: Invalid value: 3: should not be greater than queues (2)",
                ),
            ],
        );
    }
}
