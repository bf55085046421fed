//! Rules for probes and lifecycle hooks of containers.

use super::at::{At, Errors};
use super::formats;
use super::pod::Pod;
use serde_json::Value;

const ONLY_ONE: &str = "may not specify more than 1 handler type";

/// Signals that ask a container to end, without what all begin with.
const SIGNALS: &str = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV \
    STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX";
/// How far those in real time go up from the first and down from the last.
const REAL_TIME: [(&str, usize); 2] = [("SIGRTMIN+", 15), ("SIGRTMAX-", 14)];

/// `lifecycle`, `livenessProbe`, `readinessProbe` and `startupProbe` of a container.
pub(super) fn check(container: &At<'_>, pod: &Pod<'_>, out: &mut Errors) {
    let grace = pod.grace;
    let lifecycle = container.get("lifecycle");
    for name in ["postStart", "preStop"] {
        if let Some(hook) = lifecycle.get(name).set() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], grace, out);
        }
    }
    if let Some(signal) = lifecycle.get("stopSignal").set() {
        stop_signal(&signal, &pod.spec.get("os"), out);
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

fn stop_signal(at: &At<'_>, os: &At<'_>, out: &mut Errors) {
    if !os.is_set() {
        return out.forbidden(at, "may not be set for containers with empty `spec.os.name`");
    }
    let mut known: Vec<String> = match os.get("name").text() {
        "windows" => vec!["SIGKILL".to_owned(), "SIGTERM".to_owned()],
        "linux" => {
            let plain = SIGNALS.split_whitespace().map(|name| format!("SIG{name}"));
            let more =
                |(base, most): (&'static str, usize)| (1..=most).map(move |n| format!("{base}{n}"));
            plain.chain(REAL_TIME.into_iter().flat_map(more)).collect()
        }
        _ => return,
    };
    known.sort();
    if !known.iter().any(|name| name == at.text()) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        out.not_supported(at, &known);
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
