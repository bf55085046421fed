//! Rules for Ingresses (k8s.io/kubernetes `pkg/apis/networking/validation`).

use super::at::{At, Errors};
use super::formats;
use serde_json::Value;

/// The annotation by which an Ingress named its class before there was a field.
const CLASS: &str = "kubernetes.io/ingress.class";

/// An Ingress.
pub(super) fn ingress(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let backend = spec.get("defaultBackend");
    if spec.get("rules").len() == 0 && !backend.is_set() {
        let why = "either `defaultBackend` or `rules` must be specified";
        out.invalid_as(&spec, spec.value.as_object().cloned().unwrap_or_default(), why);
    }
    if backend.is_set() {
        ingress_backend(&backend, out);
    }
    for rule in spec.get("rules").items() {
        let host = rule.get("host");
        if !host.text().is_empty() {
            let ip = host.text().parse::<std::net::IpAddr>().is_ok();
            match ip {
                true => out.invalid(&host, "must be a DNS name, not an IP address"),
                false => out.all(&host, host_name(host.text())),
            }
        }
        let http = rule.get("http");
        if http.is_set() && http.get("paths").len() == 0 {
            out.required(&http.get("paths"), "");
        }
        http.get("paths").items().for_each(|path| ingress_path(&path, out));
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            out.all(&host, host_name(host.text()));
        }
        let secret = tls.get("secretName");
        if !secret.text().is_empty() {
            out.all(&secret, formats::dns_subdomain(secret.text()));
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        out.all(&class, formats::dns_subdomain(class.text()));
    }
}

/// A new Ingress: it names its class in one way only.
pub(super) fn created(object: &At<'_>, out: &mut Errors) {
    ingress(object, out);
    let class = object.get("spec.ingressClassName");
    let notes = object.get("metadata.annotations");
    let Some(annotated) = notes.value.get(CLASS).and_then(Value::as_str) else { return };
    if class.is_set() && class.text() != annotated {
        // Upstream's path begins with the annotations.
        let at = notes.named(&At::root(notes.value), "annotations");
        let at = at.named(&at, CLASS);
        out.invalid_as(&at, annotated, "must match `ingressClassName` when both are specified");
    }
}

/// A host, whose first part may be a wildcard.
fn host_name(text: &str) -> Vec<String> {
    formats::dns_subdomain(text.strip_prefix("*.").unwrap_or(text))
}

fn ingress_path(at: &At<'_>, out: &mut Errors) {
    let (kind, path) = (at.get("pathType"), at.get("path"));
    match kind.text() {
        "" => out.required(&kind, "pathType must be specified"),
        "ImplementationSpecific" => {
            if !path.text().is_empty() && !path.text().starts_with('/') {
                out.invalid(&path, "must be an absolute path");
            }
        }
        "Exact" | "Prefix" => {
            if !path.text().starts_with('/') {
                out.invalid_as(&path, path.text(), "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.text().contains(part) {
                    out.invalid(&path, format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if path.text().ends_with(end) {
                    out.invalid(&path, format!("cannot end with '{end}'"));
                }
            }
        }
        _ => out.not_supported(&kind, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    ingress_backend(&at.get("backend"), out);
}

fn ingress_backend(at: &At<'_>, out: &mut Errors) {
    let (service, resource) = (at.get("service"), at.get("resource"));
    if !service.is_set() {
        if !resource.is_set() {
            let shown = at.value.as_object().cloned().unwrap_or_default();
            out.invalid_as(at, shown, "resource or service backend is required");
        }
        return;
    }
    if resource.is_set() {
        out.invalid(at, "cannot set both resource and service backends");
        return;
    }
    let (name, port) = (service.get("name"), service.get("port"));
    if out.needed(&name) {
        out.all(&name, formats::dns_label(name.text()));
    }
    let (number, label) = (port.get("number"), port.get("name"));
    match (number.number() != 0, !label.text().is_empty()) {
        (true, true) => out.invalid(&service, "cannot set both port name & port number"),
        (false, false) => out.required(&service, "port name or number is required"),
        (true, false) => {
            if let Some(why) = formats::port_number(number.number()) {
                out.invalid(&number, why);
            }
        }
        (false, true) => out.all(&label, formats::port_name(label.text())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    #[test]
    fn ingresses() {
        created(
            "networking.k8s.io/ingresses",
            &[
                ("spec: {defaultBackend: {service: {name: a, port: {number: 80}}}}", ""),
                (
                    "{metadata: {annotations: {kubernetes.io/ingress.class: a}}, spec: {ingressClassName: b, tls: [{secretName: A, hosts: [b_c]}], defaultBackend: {service: {name: a, port: {number: 80}}}}}",
                    r#"spec.tls[0].hosts[0]: Invalid value: "b_c": a lowercase RFC 1123 subdomain…
                       spec.tls[0].secretName: Invalid value: "A": a lowercase RFC 1123 subdomain…
                       annotations.kubernetes.io/ingress.class: Invalid value: "a": must match `ingressClassName` when both are specified"#,
                ),
                (
                    "spec: {}",
                    "spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified",
                ),
                (
                    "spec: {rules: [{host: 1.2.3.4, http: {paths: [{path: x, pathType: Exact, backend: {service: {name: a}}}, {path: /, backend: {}}]}}, {host: '*.a.b', http: {}}]}",
                    r#"spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address
                       spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path
                       spec.rules[0].http.paths[0].backend.service: Required value: port name or number is required
                       spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified
                       spec.rules[0].http.paths[1].backend: Invalid value: {}: resource or service backend is required
                       spec.rules[1].http.paths: Required value"#,
                ),
            ],
        );
    }
}
