//! Rules for selectors of labels and of nodes, and what builds on them: affinity, spreading,
//! tolerations.

use super::at::{At, Errors};
use super::{formats, meta};
use serde_json::Value;
use std::collections::BTreeSet;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// A `LabelSelector`.
pub(super) fn label_selector(at: &At<'_>, out: &mut Errors) {
    meta::labels(&at.get("matchLabels"), out);
    for requirement in at.get("matchExpressions").items() {
        set_operator(&requirement, &[], out);
        let key = requirement.get("key");
        meta::label_key(&key, key.text(), out);
        for value in requirement.get("values").items() {
            out.all(&value, formats::label_value(value.text()));
        }
    }
}

/// Whether operator and values fit together; `compare` names operators with one value.
fn set_operator(at: &At<'_>, compare: &[&str], out: &mut Errors) {
    let (operator, values) = (at.get("operator"), at.get("values"));
    match operator.text() {
        "In" | "NotIn" if values.len() == 0 => {
            out.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if values.len() > 0 => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            out.forbidden(&values, why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        text if compare.contains(&text) => {
            if values.len() != 1 {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                out.required(&values, why);
            }
        }
        text => out.invalid_as(&operator, text, "not a valid selector operator"),
    }
}

/// `affinity` of a pod.
pub(super) fn affinity(at: &At<'_>, out: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = at.get("nodeAffinity");
    if let Some(selector) = node.get(REQUIRED).set() {
        node_selector(&selector, out);
    }
    for term in node.get(PREFERRED).items() {
        weight(&term, out);
        node_selector_term(&term.get("preference"), false, out);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let pods = at.get(name);
        for term in pods.get(REQUIRED).items() {
            pod_affinity_term(&term, out);
        }
        for term in pods.get(PREFERRED).items() {
            weight(&term, out);
            pod_affinity_term(&term.get("podAffinityTerm"), out);
        }
    }
}

fn weight(term: &At<'_>, out: &mut Errors) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.number()) {
        out.invalid_as(&weight, weight.number(), "must be in the range 1-100");
    }
}

/// A selector of nodes: terms of which one has to hold.
pub(super) fn node_selector(at: &At<'_>, out: &mut Errors) {
    let terms = at.get("nodeSelectorTerms");
    if terms.len() == 0 {
        out.required(&terms, "must have at least one node selector term");
    }
    terms.items().for_each(|term| node_selector_term(&term, true, out));
}

fn node_selector_term(term: &At<'_>, values: bool, out: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        set_operator(&requirement, &["Gt", "Lt"], out);
        let key = requirement.get("key");
        meta::label_key(&key, key.text(), out);
        for value in requirement.get("values").items().filter(|_| values) {
            out.all(&value, formats::label_value(value.text()));
        }
    }
    for requirement in term.get("matchFields").items() {
        node_field(&requirement, out);
    }
}

fn node_field(at: &At<'_>, out: &mut Errors) {
    let (operator, key, values) = (at.get("operator"), at.get("key"), at.get("values"));
    if !matches!(operator.text(), "In" | "NotIn") {
        out.invalid_as(&operator, operator.text(), "not a valid selector operator");
    } else if values.len() != 1 {
        let why =
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
        out.required(&values, why);
    }
    if key.text() == "metadata.name" {
        values.items().for_each(|value| out.all(&value, formats::dns_subdomain(value.text())));
    } else {
        out.invalid_as(&key, key.text(), "not a valid field selector key");
    }
}

fn pod_affinity_term(term: &At<'_>, out: &mut Errors) {
    label_selector(&term.get("labelSelector"), out);
    label_selector(&term.get("namespaceSelector"), out);
    for name in term.get("namespaces").items() {
        for why in formats::dns_label(name.text()) {
            out.invalid_as(&term.get("namespace"), name.text(), why);
        }
    }
    label_keys(term, out);
    topology_key(&term.get("topologyKey"), out);
}

/// `matchLabelKeys` and `mismatchLabelKeys` of a term or a constraint. A pod's own values are in its
/// selector already: a key that was there before is there twice.
fn label_keys(term: &At<'_>, out: &mut Errors) {
    let selector = term.get("labelSelector");
    let lists = ["matchLabelKeys", "mismatchLabelKeys"].map(|name| term.get(name));
    for keys in lists.iter().filter(|keys| keys.len() > 0) {
        if !selector.is_set() {
            out.forbidden(keys, "must not be specified when labelSelector is not set");
            continue;
        }
        keys.items().for_each(|key| meta::label_key(&key, key.text(), out));
    }
    let [matching, mismatching] = lists;
    let index = |name: &str| matching.items().position(|key| key.text() == name);
    let mut seen: BTreeSet<&str> = selector.get("matchLabels").entries().map(|(k, _)| k).collect();
    for requirement in selector.get("matchExpressions").value.as_array().into_iter().flatten() {
        let key = requirement["key"].as_str().unwrap_or_default();
        if let Some(index) = index(key).filter(|_| !seen.insert(key)) {
            // Upstream leaves the list's name out here.
            let place = At { value: requirement, path: term.path.index(index) };
            out.invalid_as(&place, key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.insert(key);
    }
    for key in matching.items() {
        if mismatching.items().any(|other| other.text() == key.text()) {
            out.invalid(&key, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
}

fn topology_key(key: &At<'_>, out: &mut Errors) {
    if key.text().is_empty() {
        out.required(key, "can not be empty");
    }
    meta::label_key(key, key.text(), out);
}

/// `topologySpreadConstraints` of a pod.
pub(super) fn spread(at: &At<'_>, out: &mut Errors) {
    const POLICIES: [&str; 2] = ["Honor", "Ignore"];
    let mut seen = BTreeSet::new();
    for item in at.items() {
        let (skew, key) = (item.get("maxSkew"), item.get("topologyKey"));
        let unsatisfiable = item.get("whenUnsatisfiable");
        if skew.number() <= 0 {
            out.invalid_as(&skew, skew.number(), "must be greater than zero");
        }
        topology_key(&key, out);
        if !matches!(unsatisfiable.text(), "DoNotSchedule" | "ScheduleAnyway") {
            out.not_supported(&unsatisfiable, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let pair = format!("{{{}, {}}}", key.text(), unsatisfiable.text());
        if !seen.insert(pair.clone()) {
            // Upstream shows the pair at a path that joins both names.
            let name = item.get("{topologyKey, whenUnsatisfiable}");
            out.duplicate(&name, pair);
        }
        if let Some(least) = item.get("minDomains").set() {
            if least.number() <= 0 {
                out.invalid(&least, "must be greater than zero");
            }
            if unsatisfiable.text() != "DoNotSchedule" {
                let found = unsatisfiable.text();
                let why = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {found}"
                );
                out.invalid(&least, why);
            }
        }
        out.one_of_if_set(&item.get("nodeAffinityPolicy"), &POLICIES);
        out.one_of_if_set(&item.get("nodeTaintsPolicy"), &POLICIES);
        label_keys(&item, out);
        label_selector(&item.get("labelSelector"), out);
    }
}

/// `tolerations` of a pod.
pub(super) fn tolerations(at: &At<'_>, out: &mut Errors) {
    for item in at.items() {
        let (key, operator) = (item.get("key"), item.get("operator"));
        let (value, effect) = (item.get("value"), item.get("effect"));
        if !key.text().is_empty() {
            meta::label_key(&key, key.text(), out);
        } else if operator.text() != "Exists" {
            let why = r#"operator must be Exists when `key` is empty, which means "match all values and all keys""#;
            out.invalid_as(&operator, operator.text(), why);
        }
        if item.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            out.invalid_as(&effect, effect.text(), why);
        }
        match operator.text() {
            "Equal" | "" => {
                let wrong = formats::label_value(value.text());
                if !wrong.is_empty() {
                    out.invalid_as(&operator, value.text(), wrong.join(";"));
                }
            }
            "Exists" if !value.text().is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                out.invalid_as(&operator, value.text(), why);
            }
            "Exists" => {}
            _ => out.not_supported(&operator, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() && !EFFECTS.contains(&effect.text()) {
            out.not_supported(&effect, &EFFECTS);
        }
    }
}

/// A pod may tolerate more once it is made, and for another time, but nothing less.
pub(super) fn only_added_tolerations(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let without = |value: &Value| {
        let mut value = value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.shift_remove("tolerationSeconds");
        }
        value
    };
    let kept = |old: &At<'_>| new.items().any(|new| without(new.value) == without(old.value));
    if !old.items().all(|old| kept(&old)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        return out.forbidden(new, why);
    }
    tolerations(new, out);
}

/// Taints of a node.
pub(super) fn taints(at: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for taint in at.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        meta::label_key(&key, key.text(), out);
        let wrong = formats::label_value(value.text());
        if !wrong.is_empty() {
            out.invalid_as(&value, value.text(), wrong.join(";"));
        }
        out.one_of(&effect, &EFFECTS);
        if !seen.insert((effect.text(), key.text())) {
            out.push(crate::status::FieldError::new(
                crate::status::FieldErrorKind::Duplicate,
                &taint.path,
                Some(taint.value.clone()),
                "taints must be unique by key and effect pair",
            ));
        }
    }
}
