//! Rules for APIServices.

use super::at::{At, Errors};
use super::formats;

/// An APIService.
pub(super) fn api_service(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    let name = object.get("metadata.name");
    if name.text() != wanted {
        out.invalid(&name, format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\""));
    }
    if !group.text().is_empty() {
        out.all(&group, formats::dns_subdomain(group.text()));
    } else if version.text() != "v1" {
        out.required(&group, "only v1 may have an empty group and it better be legacy kube");
    }
    out.all(&version, formats::dns1035_label(version.text()));
    let minimum = spec.get("groupPriorityMinimum");
    if !(1..=20_000).contains(&minimum.number()) {
        out.invalid_as(&minimum, minimum.number(), "must be positive and less than 20000");
    }
    let priority = spec.get("versionPriority");
    if !(1..=1000).contains(&priority.number()) {
        out.invalid_as(&priority, priority.number(), "must be positive and less than 1000");
    }
    let (bundle, insecure) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    let Some(service) = spec.get("service").set() else {
        if bundle.len() > 0 || !bundle.text().is_empty() {
            out.invalid_as(
                &bundle,
                format!("{} bytes", bundle.text().len()),
                "local APIServices may not have a caBundle",
            );
        }
        if insecure.is_true() {
            out.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    for field in ["namespace", "name"] {
        out.needed(&service.get(field));
    }
    let port = service.get("port");
    if !(1..=65_535).contains(&port.number()) {
        out.invalid_as(
            &port,
            port.number(),
            "port is not valid: must be between 1 and 65535, inclusive",
        );
    }
    if insecure.is_true() && !bundle.text().is_empty() {
        out.invalid(&insecure, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    #[test]
    fn says_what_upstream_says() {
        created(
            "apiregistration.k8s.io/apiservices",
            &[
                (
                    "{metadata: {name: v1.w.org}, spec: {group: w.org, version: v1, groupPriorityMinimum: 2000, versionPriority: 200, service: {namespace: wardle, name: api}}}",
                    "",
                ),
                (
                    "{metadata: {name: w}, spec: {group: w.org, version: V, groupPriorityMinimum: 0, versionPriority: 2000, insecureSkipTLSVerify: true}}",
                    r#"metadata.name: Invalid value: "w": must be `spec.version+"."+spec.group`: "V.w.org"
                    spec.version: Invalid value: "V": a DNS-1035 label must consist of…
                    spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000
                    spec.versionPriority: Invalid value: 2000: must be positive and less than 1000
                    spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify"#,
                ),
            ],
        );
    }
}
