//! Rules for probes and lifecycle hooks of containers.

use super::at::{At, Errors};
use super::formats;
use serde_json::Value;

const ONLY_ONE: &str = "may not specify more than 1 handler type";

/// `lifecycle`, `livenessProbe`, `readinessProbe` and `startupProbe` of a container; `grace` is
/// the pod's time to end.
pub(super) fn check(container: &At<'_>, grace: Option<i64>, out: &mut Errors) {
    let lifecycle = container.get("lifecycle");
    for name in ["postStart", "preStop"] {
        if let Some(hook) = lifecycle.get(name).set() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], grace, out);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(at) = container.get(name).set() else { continue };
        probe(&at, grace, out);
        if name == "readinessProbe" {
            let seconds = at.get("terminationGracePeriodSeconds");
            if seconds.is_set() {
                out.invalid(&seconds, "must not be set for readinessProbes");
            }
        } else if at.get("successThreshold").number() != 1 {
            out.invalid(&at.get("successThreshold"), "must be 1");
        }
    }
}

fn probe(at: &At<'_>, grace: Option<i64>, out: &mut Errors) {
    handler(at, &["exec", "httpGet", "tcpSocket", "grpc"], grace, out);
    for name in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        out.not_negative(&at.get(name));
    }
    let seconds = at.get("terminationGracePeriodSeconds");
    if seconds.is_set() && seconds.number() <= 0 {
        out.invalid(&seconds, "must be greater than 0");
    }
}

fn handler(at: &At<'_>, names: &[&str], grace: Option<i64>, out: &mut Errors) {
    let mut found = false;
    for name in names {
        let Some(action) = at.get(name).set() else { continue };
        if found {
            out.forbidden(&action, ONLY_ONE);
            continue;
        }
        found = true;
        match *name {
            "exec" if action.get("command").len() == 0 => {
                out.required(&action.get("command"), "");
            }
            "exec" => {}
            "httpGet" => http(&action, out),
            "sleep" => sleep(&action, grace, out),
            _ => port(&action.get("port"), out),
        }
    }
    if !found {
        out.required(at, "must specify a handler type");
    }
}

fn http(at: &At<'_>, out: &mut Errors) {
    out.needed(&at.get("path"));
    port(&at.get("port"), out);
    let scheme = at.get("scheme");
    if !matches!(scheme.text(), "HTTP" | "HTTPS") {
        out.not_supported(&scheme, &["HTTP", "HTTPS"]);
    }
    for header in at.get("httpHeaders").items() {
        let name = header.get("name").text();
        for why in formats::header_name(name) {
            out.invalid_as(&at.get("httpHeaders"), name, why);
        }
    }
}

fn sleep(at: &At<'_>, grace: Option<i64>, out: &mut Errors) {
    let seconds = at.get("seconds").number();
    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
        let why =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        out.invalid_as(at, seconds, why);
    }
}

/// A port's number or name.
pub(super) fn port(at: &At<'_>, out: &mut Errors) {
    match at.value {
        Value::String(name) => out.all(at, formats::port_name(name)),
        _ => {
            if let Some(why) = formats::port_number(at.number()) {
                out.invalid_as(at, at.number(), why);
            }
        }
    }
}
