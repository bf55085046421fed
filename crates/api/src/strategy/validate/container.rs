//! Rules for the containers of a pod.

use super::at::{At, Errors};
use super::pod::Pod;
use super::{amounts, formats, handler, security, source, volume};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Protocols of ports.
pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const RESTART_RULES_MAX_COUNT: usize = 20;
const EXIT_CODES_MAX_COUNT: usize = 255;
/// What an ephemeral container may not have.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// `containers` of a pod.
pub(super) fn regular(pod: &Pod<'_>, out: &mut Errors) {
    let at = pod.spec.get("containers");
    if at.len() == 0 {
        return out.required(&at, "");
    }
    let mut names = BTreeSet::new();
    for container in at.items() {
        common(pod, &container, out);
        out.unique(&container.get("name"), &mut names);
        handler::check(&container, pod, out);
        restart_policy(&container, out);
    }
    let mut taken = BTreeSet::new();
    at.items().for_each(|container| host_ports(&container, &mut taken, out));
}

/// `initContainers` of a pod.
pub(super) fn init(pod: &Pod<'_>, out: &mut Errors) {
    const NOT_SIDECAR: &str = "may not be set for init containers without restartPolicy=Always";
    let mut names: BTreeSet<&str> = pod.names("containers").collect();
    for container in pod.spec.get("initContainers").items() {
        common(pod, &container, out);
        restart_policy(&container, out);
        let name = container.get("name");
        if names.contains(name.text()) {
            out.duplicate(&name, name.text());
        } else if !name.text().is_empty() {
            names.insert(name.text());
        }
        host_ports(&container, &mut BTreeSet::new(), out);
        if container.get("restartPolicy").text() == "Always" {
            handler::check(&container, pod, out);
            continue;
        }
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            let at = container.get(name);
            if at.is_set() {
                out.forbidden(&at, NOT_SIDECAR);
            }
        }
    }
}

/// A container's own restart policy, and its rules by exit codes.
fn restart_policy(container: &At<'_>, out: &mut Errors) {
    let supported = |at: &At<'_>, known: &[&str], out: &mut Errors| {
        if !known.contains(&at.text()) {
            out.not_supported(at, known);
        }
    };
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    out.one_of_if_set(&policy, &RESTART_POLICIES);
    if rules.len() > 0 && !policy.is_set() {
        out.required(&policy, "must specify restartPolicy when restart rules are used");
    }
    if rules.len() > RESTART_RULES_MAX_COUNT {
        out.too_many(&rules, RESTART_RULES_MAX_COUNT);
    }
    for rule in rules.items() {
        supported(&rule.get("action"), &["Restart", "RestartAllContainers"], out);
        let codes = rule.get("exitCodes");
        if !codes.is_set() {
            out.required(&codes, "must be specified");
            continue;
        }
        supported(&codes.get("operator"), &["In", "NotIn"], out);
        if codes.get("values").len() > EXIT_CODES_MAX_COUNT {
            out.too_many(&codes.get("values"), EXIT_CODES_MAX_COUNT);
        }
    }
}

/// `ephemeralContainers` of a pod.
pub(super) fn ephemeral(pod: &Pod<'_>, out: &mut Errors) {
    const NOT_HERE: &str = "cannot be set for an Ephemeral Container";
    let others: BTreeSet<&str> =
        pod.names("containers").chain(pod.names("initContainers")).collect();
    let mut names = others.clone();
    for container in pod.spec.get("ephemeralContainers").items() {
        common(pod, &container, out);
        padded_image(&container, out);
        out.unique(&container.get("name"), &mut names);
        let target = container.get("targetContainerName");
        if !target.text().is_empty() && !others.contains(target.text()) {
            out.not_found(&target, target.text());
        }
        for name in NOT_EPHEMERAL {
            let at = container.get(name);
            if at.is_set() && at.value.as_object().is_none_or(|fields| !fields.is_empty()) {
                out.forbidden(&at, NOT_HERE);
            }
        }
        for mount in container.get("volumeMounts").items() {
            for name in ["subPath", "subPathExpr"] {
                if !mount.get(name).text().is_empty() {
                    out.forbidden(&mount.get(name), NOT_HERE);
                }
            }
        }
    }
}

/// What pods have to obey, but templates of pods need not.
pub(super) fn padded_image(container: &At<'_>, out: &mut Errors) {
    let image = container.get("image");
    if image.text().trim() != image.text() {
        out.invalid(&image, "must not have leading or trailing whitespace");
    }
}

fn common(pod: &Pod<'_>, at: &At<'_>, out: &mut Errors) {
    let name = at.get("name");
    if out.needed(&name) {
        out.all(&name, formats::dns_label(name.text()));
    }
    out.needed(&at.get("image"));
    out.one_of(&at.get("terminationMessagePolicy"), &["File", "FallbackToLogsOnError"]);
    ports(&at.get("ports"), out);
    source::env(&at.get("env"), out);
    source::env_from(&at.get("envFrom"), out);
    mounts(pod, at, out);
    devices(pod, at, out);
    out.one_of(&at.get("imagePullPolicy"), &PULL_POLICIES);
    amounts::requirements(&at.get("resources"), &|claim| pod.claims.contains(claim), out);
    resize_policy(pod, &at.get("resizePolicy"), out);
    security::container(&at.get("securityContext"), pod.host_users(), out);
}

fn ports(at: &At<'_>, out: &mut Errors) {
    let mut names = BTreeSet::new();
    for port in at.items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            let wrong = formats::port_name(name.text());
            match wrong.is_empty() {
                true => out.unique(&name, &mut names),
                false => out.all(&name, wrong),
            }
        }
        let number = port.get("containerPort");
        match number.number() {
            0 => out.required(&number, ""),
            found => {
                formats::port_number(found).into_iter().for_each(|why| out.invalid(&number, why))
            }
        }
        let host = port.get("hostPort");
        if host.number() != 0
            && let Some(why) = formats::port_number(host.number())
        {
            out.invalid(&host, why);
        }
        out.one_of(&port.get("protocol"), &PROTOCOLS);
    }
}

fn host_ports(container: &At<'_>, taken: &mut BTreeSet<String>, out: &mut Errors) {
    for port in container.get("ports").items().filter(|port| port.get("hostPort").number() != 0) {
        let host = port.get("hostPort");
        let (protocol, ip) = (port.get("protocol").text(), port.get("hostIP").text());
        let text = format!("{protocol}/{ip}/{}", host.number());
        if !taken.insert(text.clone()) {
            out.duplicate(&host, text);
        }
    }
}

/// Names of one list of a container with the paths they stand for.
fn paths<'v>(at: &At<'v>, list: &str, path: &str) -> BTreeMap<&'v str, &'v str> {
    at.get(list).items().map(|item| (item.get("name").text(), item.get(path).text())).collect()
}

fn mounts(pod: &Pod<'_>, container: &At<'_>, out: &mut Errors) {
    let devices = paths(container, "volumeDevices", "devicePath");
    let list = container.get("volumeMounts");
    let mut points = BTreeSet::new();
    for mount in list.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        out.needed(&name);
        if !pod.volumes.contains_key(name.text()) {
            out.not_found(&name, name.text());
        }
        out.needed(&path);
        if !points.insert(path.text()) {
            out.invalid_as(&path, path.text(), "must be unique");
        }
        if devices.contains_key(name.text()) {
            out.invalid(&name, "must not already exist in volumeDevices");
        }
        if devices.values().any(|other| *other == path.text()) {
            out.invalid_as(&path, path.text(), "must not already exist as a path in volumeDevices");
        }
        sub_paths(&mount, &list, out);
        propagation(&mount, container, &list, out);
    }
}

/// Upstream's paths name the list here, not the mount.
fn sub_paths(mount: &At<'_>, list: &At<'_>, out: &mut Errors) {
    let (path, template) = (mount.get("subPath"), mount.get("subPathExpr"));
    if !path.text().is_empty() {
        volume::descending(&path.named(list, "subPath"), out);
    }
    if !template.text().is_empty() {
        if !path.text().is_empty() {
            out.invalid(&template, "subPathExpr and subPath are mutually exclusive");
        }
        volume::descending(&template.named(list, "subPathExpr"), out);
    }
}

fn propagation(mount: &At<'_>, container: &At<'_>, list: &At<'_>, out: &mut Errors) {
    let at = mount.get("mountPropagation").named(list, "mountPropagation");
    out.one_of_if_set(&at, &["Bidirectional", "HostToContainer", "None"]);
    if at.text() == "Bidirectional" && !container.get("securityContext.privileged").is_true() {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        out.forbidden(&at, why);
    }
    let recursive = mount.get("recursiveReadOnly").named(list, "recursiveReadOnly");
    out.one_of_if_set(&recursive, &["Disabled", "Enabled", "IfPossible"]);
    if matches!(recursive.text(), "Enabled" | "IfPossible") {
        if !mount.get("readOnly").is_true() {
            out.forbidden(&recursive, "may only be specified when readOnly is true");
        }
        if !matches!(at.text(), "" | "None") {
            let why = "may only be specified when mountPropagation is None or not specified";
            out.forbidden(&recursive, why);
        }
    }
}

fn devices(pod: &Pod<'_>, container: &At<'_>, out: &mut Errors) {
    let mounts = paths(container, "volumeMounts", "mountPath");
    let (mut names, mut points) = (BTreeSet::new(), BTreeSet::new());
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        out.needed(&name);
        if !name.text().is_empty() && !names.insert(name.text()) {
            out.invalid(&name, "must be unique");
        }
        let claimed = |volume: &Value| {
            !volume["persistentVolumeClaim"].is_null() || !volume["ephemeral"].is_null()
        };
        match pod.volumes.get(name.text()) {
            None => out.not_found(&name, name.text()),
            Some(volume) if claimed(volume) => {}
            Some(_) => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                out.invalid(&name, why);
            }
        }
        out.needed(&path);
        if points.contains(path.text()) {
            out.invalid_as(&path, path.text(), "must be unique");
        }
        match volume::has_backsteps(path.text()) {
            true => out.invalid(&path, "can not contain backsteps ('..')"),
            false => drop(points.insert(path.text())),
        }
        if mounts.contains_key(name.text()) {
            out.invalid(&name, "must not already exist in volumeMounts");
        }
        if mounts.values().any(|other| *other == path.text()) {
            out.invalid(&path, "must not already exist as a path in volumeMounts");
        }
    }
}

fn resize_policy(pod: &Pod<'_>, at: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in at.items() {
        // Upstream's paths name the list for all but repetitions.
        let resource = item.get("resourceName").at(at);
        let policy = item.get("restartPolicy").at(at);
        if !seen.insert(resource.text()) {
            out.duplicate(&item, resource.text());
        }
        out.one_of(&resource, &["cpu", "memory"]);
        out.one_of(&policy, &["NotRequired", "RestartContainer"]);
        if pod.spec.get("restartPolicy").text() == "Never" && policy.text() != "NotRequired" {
            out.invalid(&policy, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}
