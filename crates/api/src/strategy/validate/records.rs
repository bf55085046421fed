//! Rules for what programs write down all the time: Events and Leases
//! (k8s.io/kubernetes `pkg/apis/core/validation/events.go`, `pkg/apis/coordination/validation`).

use super::at::{At, Errors};
use super::formats;
use serde_json::Value;

/// Most characters in the short texts of an Event.
const WORD_MAX_BYTES: usize = 128;
/// Most characters in its message.
const NOTE_MAX_BYTES: usize = 1024;
/// The least that makes a series.
const SERIES_MIN: i64 = 2;
const UNSET: &str = "needs to be unset";

/// An Event of either group. One without `eventTime` is of the old kind.
pub(super) fn event(object: &At<'_>, out: &mut Errors) {
    let namespace = object.get("metadata.namespace").text();
    let about = object.get("involvedObject.namespace");
    let old = !object.get("eventTime").is_set();
    let fits = match (about.text(), old) {
        ("", true) => matches!(namespace, "" | "default"),
        ("", false) => matches!(namespace, "default" | "kube-system"),
        (about, true) => about == namespace,
        (_, false) => true,
    };
    if !fits {
        out.invalid_as(&about, about.text(), "does not match event.namespace");
    }
    if !old {
        new_event(object, out);
    }
    for why in formats::dns_subdomain(namespace) {
        out.invalid_as(&object.get("namespace"), namespace, why);
    }
}

fn new_event(object: &At<'_>, out: &mut Errors) {
    let controller = object.get("reportingComponent").named(object, "reportingController");
    out.needed(&controller);
    out.all(&controller, formats::qualified_name(controller.text()));
    for field in ["reportingInstance", "action", "reason"] {
        let at = object.get(field);
        out.needed(&at);
        short(&at, WORD_MAX_BYTES, out);
    }
    short(&object.get("message"), NOTE_MAX_BYTES, out);
}

fn short(at: &At<'_>, most: usize, out: &mut Errors) {
    if at.text().len() > most {
        out.invalid_as(at, "", format!("can have at most {most} characters"));
    }
}

/// What a new Event has to obey beside that where it comes through `events.k8s.io`.
pub(super) fn event_of_group(object: &At<'_>, out: &mut Errors) {
    let name = object.get("metadata.name");
    out.all(&name, formats::dns_subdomain(name.text()));
    series(object, out);
    if !object.get("eventTime").is_set() {
        out.required(&object.get("eventTime"), "");
    }
    let kind = object.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        out.invalid_as(&kind, "", format!("has invalid value: {}", kind.text()));
    }
    for field in ["firstTimestamp", "lastTimestamp"] {
        if object.get(field).is_set() {
            out.invalid_as(&object.get(field), "", UNSET);
        }
    }
    if object.get("count").number() != 0 {
        out.invalid_as(&object.get("count"), "", UNSET);
    }
    let text = |field: &str| !object.get("source").get(field).text().is_empty();
    if text("component") || text("host") {
        out.invalid_as(&object.get("source"), "", UNSET);
    }
}

/// The same of a changed one: only the series goes on.
pub(super) fn event_of_group_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    if new.get("series").value != old.get("series").value {
        series(new, out);
    }
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingInstance",
    ] {
        out.immutable(&new.get(field), old.get(field).value);
    }
    let controller = new.get("reportingComponent").named(new, "reportingController");
    out.immutable(&controller, old.get("reportingComponent").value);
}

fn series(object: &At<'_>, out: &mut Errors) {
    let series = object.get("series");
    if !series.is_set() {
        return;
    }
    if series.get("count").number() < SERIES_MIN {
        out.invalid_as(&series.get("count"), "", "should be at least 2");
    }
    if !series.get("lastObservedTime").is_set() {
        out.required(&series.get("lastObservedTime"), "");
    }
}

/// A Lease.
pub(super) fn lease(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let (duration, strategy) = (spec.get("leaseDurationSeconds"), spec.get("strategy"));
    if duration.is_set() && duration.number() <= 0 {
        out.invalid(&duration, "must be greater than 0");
    }
    out.not_negative(&spec.get("leaseTransitions"));
    if strategy.is_set() && !strategy.text().contains('/') {
        if strategy.text() != "OldestEmulationVersion" {
            // Upstream's path names the field twice.
            out.not_supported(&strategy.named(&strategy, "strategy"), &["OldestEmulationVersion"]);
        }
    } else if let Value::String(text) = strategy.value {
        out.all(&strategy.named(&strategy, "strategy"), formats::qualified_name(text));
    }
    let preferred = spec.get("preferredHolder");
    if !preferred.text().is_empty() && strategy.text().is_empty() {
        out.forbidden(&preferred, "may only be specified if `strategy` is defined");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, created_in, updated_in};

    #[test]
    fn events() {
        created(
            "events",
            &[
                ("involvedObject: {namespace: d}", ""),
                (
                    "involvedObject: {namespace: e}",
                    r#"involvedObject.namespace: Invalid value: "e": does not match event.namespace"#,
                ),
                ("{involvedObject: {}, metadata: {namespace: default}}", ""),
                (
                    "{eventTime: '2026-01-01T00:00:00.000000Z', involvedObject: {namespace: d}}",
                    r#"reportingController: Required value
                       reportingController: Invalid value: "": name part must be non-empty
                       reportingController: Invalid value: "": name part must consist of…
                       reportingInstance: Required value
                       action: Required value
                       reason: Required value"#,
                ),
            ],
        );
        const NEW: &str = "eventTime: '2026-01-01T00:00:00.000000Z', involvedObject: {namespace: d}, reportingComponent: c, reportingInstance: i, action: a, reason: r";
        created_in(
            "events.k8s.io",
            "events",
            &[
                (&format!("{{{NEW}, type: Normal}}"), ""),
                (
                    "{involvedObject: {namespace: d}, count: 1, source: {host: h}, series: {}, lastTimestamp: '2026-01-01T00:00:00Z'}",
                    r#"series.count: Invalid value: "": should be at least 2
                       series.lastObservedTime: Required value
                       eventTime: Required value
                       type: Invalid value: "": has invalid value:…
                       lastTimestamp: Invalid value: "": needs to be unset
                       count: Invalid value: "": needs to be unset
                       source: Invalid value: "": needs to be unset"#,
                ),
            ],
        );
        let series = "series: {count: 2, lastObservedTime: '2026-01-01T00:00:00.000000Z'}";
        updated_in(
            "events.k8s.io",
            "events",
            &[
                (&format!("{{{NEW}}}"), &format!("{{{NEW}, {series}}}"), ""),
                (
                    &format!("{{{NEW}}}"),
                    &format!("{{{NEW}, message: m, type: Normal}}"),
                    r#"message: Invalid value: "m": field is immutable
                       type: Invalid value: "Normal": field is immutable"#,
                ),
            ],
        );
    }

    #[test]
    fn leases() {
        created(
            "coordination.k8s.io/leases",
            &[
                ("spec: {leaseDurationSeconds: 15, holderIdentity: a}", ""),
                (
                    "spec: {leaseDurationSeconds: 0, leaseTransitions: -1, preferredHolder: a}",
                    r#"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
                       spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0
                       spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"#,
                ),
                (
                    "spec: {strategy: Newest}",
                    r#"spec.strategy.strategy: Unsupported value: "Newest": supported values: "OldestEmulationVersion""#,
                ),
            ],
        );
    }
}
