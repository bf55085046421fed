//! Rules for changes of pods: nearly nothing of a pod may change once it is made.

use super::at::{At, Errors};
use super::{container, formats, pod, selectors};
use crate::status::{FieldError, go_quote};
use crate::strategy::qos_class;
use serde_json::Value;

const FREE_FIELDS: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// Most lines of a difference that are shown.
const DIFFERENCE_MAX_LINES: usize = 40;

/// A pod's `spec` beside its old state.
pub(super) fn check(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    for list in ["containers", "initContainers"] {
        let (now, before) = (new.get(list), old.get(list));
        if now.len() != before.len() {
            return out.forbidden(&now, "pod updates may not add or remove containers");
        }
        for item in now.items() {
            out.needed(&item.get("image"));
            container::padded_image(&item, out);
        }
    }
    if !deadline(&new, &old, out) {
        return;
    }
    let tolerations = new.get("tolerations");
    selectors::only_added_tolerations(&tolerations, &old.get("tolerations"), out);
    gates(&new, &old, out);
    rest(&new, &old, out);
}

/// A pod whose ephemeral containers were changed: there may be more of them, nothing else.
pub(super) fn ephemeral_containers(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    pod::whole(new, out);
    let now = new.get("spec.ephemeralContainers");
    if !old.get("metadata.annotations").value[pod::MIRROR].is_null() {
        let why = "static pods do not support ephemeral containers";
        return out.push(FieldError::forbidden("", why));
    }
    for before in old.get("spec.ephemeralContainers").items() {
        let name = before.get("name").text();
        let shown = go_quote(name);
        match now.items().find(|now| now.get("name").text() == name) {
            None => {
                let why = format!("existing ephemeral containers {shown} may not be removed\n");
                out.forbidden(&now, why);
            }
            Some(found) if found.value != before.value => {
                let mut lines = Vec::new();
                differences(name, found.value, before.value, &mut lines);
                let lines = lines.join("\n");
                let why =
                    format!("existing ephemeral containers {shown} may not be changed\n{lines}");
                out.forbidden(&now, why);
            }
            Some(_) => {}
        }
    }
}

/// A pod that was resized: its containers are the same, with other resources.
pub(super) fn resize(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    pod::whole(new, out);
    let spec = new.get("spec");
    let class = old.get("status.qosClass");
    let before = match class.text() {
        "" => qos_class(old.value),
        class => class,
    };
    if before != qos_class(new.value) {
        let why = "Pod QOS Class may not change as a result of resizing";
        out.invalid_as(&spec, before, why);
    }
    let known = out.0.len();
    for list in ["containers", "initContainers"] {
        same_order(&spec.get(list), &old.get("spec").get(list), list, out);
    }
    if out.0.len() > known {
        return;
    }
    for list in ["containers", "initContainers"] {
        for (now, before) in spec.get(list).items().zip(old.get("spec").get(list).items()) {
            let plain = |container: &At<'_>| {
                let mut resources = container.get("resources").value.clone();
                for side in ["requests", "limits"] {
                    let Some(side) = resources.get_mut(side).and_then(Value::as_object_mut) else {
                        continue;
                    };
                    side.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
                }
                if let Some(resources) = resources.as_object_mut() {
                    resources
                        .retain(|_, side| side.as_object().is_none_or(|side| !side.is_empty()));
                }
                resources
            };
            let once = list == "initContainers" && now.get("restartPolicy").text() != "Always";
            let resources = |container: &At<'_>| container.get("resources").value.clone();
            if once {
                if resources(&now) != resources(&before) {
                    out.forbidden(&spec, "resources for non-sidecar init containers are immutable");
                }
                continue;
            }
            if plain(&now) != plain(&before) {
                return out.forbidden(&spec, "only cpu and memory resources are mutable");
            }
            for side in ["requests", "limits"] {
                let (kept, held) = (now.get("resources").get(side), before.get("resources"));
                if held.get(side).entries().any(|(name, _)| kept.value.get(name).is_none()) {
                    let why = format!("resource {side} cannot be removed");
                    out.forbidden(&now.get("resources").get(side), why);
                }
            }
        }
    }
}

/// The containers of a list are the same in number and order.
fn same_order(now: &At<'_>, before: &At<'_>, list: &str, out: &mut Errors) {
    if now.len() != before.len() {
        return out.forbidden(now, format!("{list} may not be added or removed on resize"));
    }
    for (now, before) in now.items().zip(before.items()) {
        let name = now.get("name");
        if name.text() != before.get("name").text() {
            out.forbidden(&name, format!("{list} may not be renamed or reordered on resize"));
        }
    }
}

/// The deadline may be set and come closer; says whether to go on.
fn deadline(new: &At<'_>, old: &At<'_>, out: &mut Errors) -> bool {
    const NAME: &str = "activeDeadlineSeconds";
    let (now, before) = (new.get(NAME), old.get(NAME));
    let most = i64::from(i32::MAX);
    if now.is_set() && !(0..=most).contains(&now.number()) {
        out.invalid(&now, formats::between(0, most));
        return false;
    }
    if now.is_set() && before.is_set() && before.number() < now.number() {
        out.invalid(&now, "must be less than or equal to previous value");
        return false;
    }
    if !now.is_set() && before.is_set() {
        out.invalid(&now, "must not update from a positive integer to nil value");
    }
    true
}

fn gates(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    for gate in new.get("schedulingGates").items() {
        let name = gate.get("name");
        let known = |old: At<'_>| old.get("name").text() == name.text();
        if !old.get("schedulingGates").items().any(known) {
            let why = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.text()
            );
            out.forbidden(&name, why);
        }
    }
}

/// Everything but what the rules above look at has to be as it was.
fn rest(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let mut spec = new.value.clone();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put(&mut spec, field, &old.value[field]);
    }
    for list in ["containers", "initContainers"] {
        let items = spec.get_mut(list).and_then(Value::as_array_mut);
        for (item, old) in items.into_iter().flatten().zip(old.get(list).items()) {
            put(item, "image", &old.value["image"]);
        }
    }
    let grace = "terminationGracePeriodSeconds";
    if old.get(grace).number() < 0 && new.get(grace).number() == 1 {
        put(&mut spec, grace, &old.value[grace]);
    }
    if old.get("schedulingGates").len() > 0 {
        gated(new, old, &mut spec, out);
    }
    let mut lines = Vec::new();
    differences("spec", &spec, old.value, &mut lines);
    // What has no line differs in nulls alone, which say nothing.
    if !lines.is_empty() {
        let why = format!(
            "pod updates may not change fields other than {FREE_FIELDS}\n{}",
            lines.join("\n")
        );
        out.forbidden(new, why);
    }
}

/// A pod that waits at gates may still be steered to fewer nodes.
fn gated(new: &At<'_>, old: &At<'_>, spec: &mut Value, out: &mut Errors) {
    let (now, before) = (new.get("nodeSelector"), old.get("nodeSelector"));
    let kept = before.entries().all(|(key, value)| now.value.get(key) == Some(value.value));
    if !kept {
        let why = "only additions are allowed (no mutations or deletions)";
        out.invalid(&now, why);
    }
    put(spec, "nodeSelector", before.value);
}

fn put(object: &mut Value, field: &str, value: &Value) {
    let Some(object) = object.as_object_mut() else { return };
    match value {
        Value::Null => drop(object.shift_remove(field)),
        value => drop(object.insert(field.to_owned(), value.clone())),
    }
}

/// A line for each field that is gone and each that is new.
fn differences(path: &str, new: &Value, old: &Value, lines: &mut Vec<String>) {
    if new == old || lines.len() >= DIFFERENCE_MAX_LINES {
        return;
    }
    match (new, old) {
        (Value::Object(now), Value::Object(before)) => {
            let added = now.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(added) {
                let path = format!("{path}.{key}");
                differences(&path, &new[key], &old[key], lines);
            }
        }
        (Value::Array(now), Value::Array(before)) if now.len() == before.len() => {
            for (i, (now, before)) in now.iter().zip(before).enumerate() {
                differences(&format!("{path}[{i}]"), now, before, lines);
            }
        }
        _ => {
            for (sign, value) in [('-', old), ('+', new)] {
                if !value.is_null() {
                    lines.push(format!("{sign} {path}: {value}"));
                }
            }
        }
    }
}
