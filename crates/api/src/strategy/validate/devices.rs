//! Rules for claims of devices, their classes and what drivers offer
//! (k8s.io/kubernetes `pkg/apis/resource/validation`).

use super::at::{At, Errors};
use super::{device_selectors, formats, meta, selectors};
use crate::status::FieldError;
use serde_json::Value;
use std::collections::BTreeSet;

const LIST_MAX: usize = 32;
const CHOICES_MAX: usize = 8;
const DEVICES_MAX: usize = 128;
const USERS_MAX: usize = 256;
const DRIVER_MAX_BYTES: usize = 63;
const POOL_MAX_BYTES: usize = 253;
const REFERENCE: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// At most so many items, each of another name.
fn set<'v>(
    list: &At<'v>,
    most: usize,
    key: impl Fn(&At<'v>) -> &'v str,
    out: &mut Errors,
    mut rule: impl FnMut(&At<'v>, &mut Errors),
) {
    if list.len() > most {
        out.push(FieldError::too_many(&list.path, list.len(), most));
    }
    let mut seen = BTreeSet::new();
    for item in list.items() {
        rule(&item, out);
        if !seen.insert(key(&item)) {
            out.duplicate(&item, key(&item));
        }
    }
}

fn label(at: &At<'_>, out: &mut Errors) {
    if out.needed(at) {
        out.all(at, formats::dns_label(at.text()));
    }
}

fn driver_name(at: &At<'_>, out: &mut Errors) {
    if !out.needed(at) {
        return;
    }
    if at.text().len() > DRIVER_MAX_BYTES {
        out.too_long(at, DRIVER_MAX_BYTES);
    }
    out.all(at, formats::dns_subdomain(&at.text().to_lowercase()));
}

/// A ResourceClaim.
pub(super) fn claim(object: &At<'_>, out: &mut Errors) {
    device_claim(&object.get("spec.devices"), out);
}

/// A changed ResourceClaim or template of one.
pub(super) fn fixed(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    out.immutable(&new.get("spec"), old.get("spec").value);
}

/// A ResourceClaimTemplate.
pub(super) fn template(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    meta::labels(&spec.get("metadata.labels"), out);
    meta::annotations(&spec.get("metadata.annotations"), out);
    device_claim(&spec.get("spec.devices"), out);
}

fn device_claim(at: &At<'_>, out: &mut Errors) {
    let requests = at.get("requests");
    let known = names(&requests);
    set(&requests, LIST_MAX, |item| item.get("name").text(), out, request);
    let constraints = at.get("constraints");
    if constraints.len() > LIST_MAX {
        out.push(FieldError::too_many(&constraints.path, constraints.len(), LIST_MAX));
    }
    for constraint in constraints.items() {
        references(&constraint.get("requests"), &known, out);
        let matched = ["matchAttribute", "distinctAttribute"].map(|field| constraint.get(field));
        if matched.iter().all(|at| !at.is_set()) {
            out.required(&constraint.get("matchAttribute"), "");
        }
    }
    let config = at.get("config");
    if config.len() > LIST_MAX {
        out.push(FieldError::too_many(&config.path, config.len(), LIST_MAX));
    }
    for config in config.items() {
        references(&config.get("requests"), &known, out);
        configuration(&config, out);
    }
}

/// What requests, and choices within them, are called.
fn names(requests: &At<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for request in requests.items() {
        let name = request.get("name").text();
        names.insert(name.to_owned());
        let choices = request.get("firstAvailable");
        names.extend(choices.items().map(|c| format!("{name}/{}", c.get("name").text())));
    }
    names
}

fn references(list: &At<'_>, known: &BTreeSet<String>, out: &mut Errors) {
    set(list, LIST_MAX, At::text, out, |item, out| {
        if !known.contains(item.text()) {
            out.invalid(item, REFERENCE);
        }
    });
}

fn request(at: &At<'_>, out: &mut Errors) {
    label(&at.get("name"), out);
    let (exactly, choices) = (at.get("exactly"), at.get("firstAvailable"));
    match (exactly.is_set(), choices.len() > 0) {
        (false, false) => {
            out.required(at, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (true, true) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            out.invalid_as(at, Value::Null, why);
        }
        (true, false) => wanted(&exactly, out),
        (false, true) => {
            set(
                &choices,
                CHOICES_MAX,
                |item| item.get("name").text(),
                out,
                |choice, out| {
                    label(&choice.get("name"), out);
                    wanted(choice, out);
                },
            );
        }
    }
}

/// A class of devices, what else they have to be, and how many.
fn wanted(at: &At<'_>, out: &mut Errors) {
    let class = at.get("deviceClassName");
    if out.needed(&class) {
        out.all(&class, formats::dns_subdomain(class.text()));
    }
    device_selectors::selectors(&at.get("selectors"), out);
    let (mode, count) = (at.get("allocationMode"), at.get("count"));
    match mode.text() {
        "All" if count.number() != 0 => {
            out.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count.number() <= 0 => {
            out.invalid_as(&count, count.number(), "must be greater than zero");
        }
        "All" | "ExactCount" => {}
        _ => out.not_supported(&mode, &["All", "ExactCount"]),
    }
}

fn configuration(at: &At<'_>, out: &mut Errors) {
    let opaque = at.get("opaque");
    if !opaque.is_set() {
        return out.required(&opaque, "");
    }
    driver_name(&opaque.get("driver"), out);
    if !opaque.get("parameters").is_set() {
        out.required(&opaque.get("parameters"), "");
    }
}

/// A DeviceClass.
pub(super) fn class(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    device_selectors::selectors(&spec.get("selectors"), out);
    let config = spec.get("config");
    if config.len() > LIST_MAX {
        out.push(FieldError::too_many(&config.path, config.len(), LIST_MAX));
    }
    config.items().for_each(|config| configuration(&config, out));
}

/// A ResourceSlice.
pub(super) fn slice(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    driver_name(&spec.get("driver"), out);
    pool(&spec.get("pool"), out);
    let mut set_fields = Vec::new();
    let node = spec.get("nodeName");
    if node.is_set() && node.text().is_empty() {
        out.invalid(&node, "must be either unset or set to a non-empty string");
    } else if node.is_set() {
        set_fields.push("`nodeName`");
        out.all(&node, formats::dns_subdomain(node.text()));
    }
    if let Some(selector) = spec.get("nodeSelector").set() {
        set_fields.push("`nodeSelector`");
        selectors::node_selector(&selector, out);
        let terms = selector.get("nodeSelectorTerms");
        if terms.len() != 1 {
            out.invalid(&terms, "must have exactly one node selector term");
        }
    }
    for (field, quoted) in
        [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        let at = spec.get(field);
        if at.is_true() {
            set_fields.push(quoted);
        } else if at.is_set() {
            out.invalid(&at, "must be either unset or set to true");
        }
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set_fields.len() {
        0 => out.required(&spec, ONE),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", set_fields.join(", "));
            out.invalid_as(&spec, shown, format!("{ONE}, but multiple fields are set"));
        }
    }
    if spec.get("sharedCounters").is_set() && spec.get("devices").is_set() {
        out.invalid_as(&spec, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    set(
        &spec.get("devices"),
        DEVICES_MAX,
        |item| item.get("name").text(),
        out,
        |device, out| {
            label(&device.get("name"), out);
        },
    );
}

fn pool(at: &At<'_>, out: &mut Errors) {
    let name = at.get("name");
    if out.needed(&name) {
        if name.text().len() > POOL_MAX_BYTES {
            out.too_long(&name, POOL_MAX_BYTES);
        }
        for part in name.text().split('/') {
            formats::dns_subdomain(part)
                .into_iter()
                .for_each(|why| out.invalid_as(&name, part, why));
        }
    }
    let count = at.get("resourceSliceCount");
    if count.number() <= 0 {
        out.invalid_as(&count, count.number(), "must be greater than zero");
    }
    out.not_negative(&at.get("generation"));
}

/// A changed ResourceSlice.
pub(super) fn slice_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    for field in ["pool.name", "driver", "nodeName"] {
        out.immutable(&new.get("spec").get(field), old.get("spec").get(field).value);
    }
}

/// The status of a ResourceClaim: who uses it, and what it was given, which stays.
pub(super) fn claim_status(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let status = new.get("status");
    let (users, allocation) = (status.get("reservedFor"), status.get("allocation"));
    set(
        &users,
        USERS_MAX,
        |item| item.get("uid").text(),
        out,
        |user, out| {
            for field in ["resource", "name", "uid"] {
                out.needed(&user.get(field));
            }
        },
    );
    let before = old.get("status");
    if users.len() > 0 && !allocation.is_set() {
        out.forbidden(&users, "may not be specified when `allocated` is not set");
    } else if new.get("metadata.deletionTimestamp").is_set() {
        let is_new =
            |user: &At<'_>| !before.get("reservedFor").items().any(|old| old.value == user.value);
        if users.items().any(|user| is_new(&user)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            out.forbidden(&users, why);
        }
    }
    if before.get("allocation").is_set() && allocation.is_set() {
        out.immutable(&allocation, before.get("allocation").value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, status_updated, updated};

    #[test]
    fn claims() {
        const CLAIM: &str =
            "spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}";
        created(
            "resource.k8s.io/resourceclaims",
            &[
                (CLAIM, ""),
                (
                    "spec: {devices: {requests: [{name: A}, {name: r, exactly: {allocationMode: Some}}, {name: r, exactly: {deviceClassName: c, allocationMode: All, count: 2, selectors: [{}]}}], constraints: [{requests: [x]}], config: [{}]}}",
                    r#"spec.devices.requests[0].name: Invalid value: "A": a lowercase RFC 1123 label…
                       spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required
                       spec.devices.requests[1].exactly.deviceClassName: Required value
                       spec.devices.requests[1].exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"
                       spec.devices.requests[2].exactly.selectors[0].cel: Required value
                       spec.devices.requests[2].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'
                       spec.devices.requests[2]: Duplicate value: "r"
                       spec.devices.constraints[0].requests[0]: Invalid value: "x": must be the name of a request…
                       spec.devices.constraints[0].matchAttribute: Required value
                       spec.devices.config[0].opaque: Required value"#,
                ),
            ],
        );
        updated(
            "resource.k8s.io/resourceclaims",
            &[(CLAIM, &CLAIM.replace("name: r", "name: s"), "spec: Invalid value: {…")],
        );
        status_updated(
            "resource.k8s.io/resourceclaims",
            &[(
                CLAIM,
                "status: {reservedFor: [{resource: pods, name: a}]}",
                "status.reservedFor[0].uid: Required value\nstatus.reservedFor: Forbidden: may not be specified when `allocated` is not set",
            )],
        );
    }

    #[test]
    fn classes() {
        created(
            "resource.k8s.io/deviceclasses",
            &[
                ("spec: {selectors: [{cel: {expression: 'device.driver == \"d\"'}}]}", ""),
                (
                    "spec: {selectors: [{cel: {expression: device.x}}, {cel: {expression: device.driver}}]}",
                    r#"spec.selectors[0].cel.expression: Invalid value: "device.x": compilation failed: ERROR: <input>:1:7: undefined field 'x'…
                       spec.selectors[1].cel.expression: Invalid value: "device.driver": must evaluate to bool or the unknown type, not string"#,
                ),
            ],
        );
    }

    #[test]
    fn slices() {
        created(
            "resource.k8s.io/resourceslices",
            &[
                (
                    "spec: {driver: a, nodeName: node, pool: {name: p, resourceSliceCount: 1}, devices: [{name: d}]}",
                    "",
                ),
                (
                    "spec: {pool: {}}",
                    r#"spec.driver: Required value
                       spec.pool.name: Required value
                       spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero
                       spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"#,
                ),
            ],
        );
    }
}
