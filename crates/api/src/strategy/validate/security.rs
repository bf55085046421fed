//! Rules for what pods and containers may do on their node.

use super::at::{At, Errors};
use super::formats;
use super::volume;
use std::collections::BTreeSet;

const SYSCTL_LIMIT_BYTES: usize = 253;
const PROFILE_LIMIT_BYTES: usize = 4095;
const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// `securityContext` of a pod; `spec` is the pod's.
pub(super) fn pod(at: &At<'_>, spec: &At<'_>, out: &mut Errors) {
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&at.get(name), out);
    }
    at.get("supplementalGroups").items().for_each(|group| id(&group, out));
    let share = spec.get("shareProcessNamespace");
    if share.is_true() && spec.get("hostPID").is_true() {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.invalid(&share.named(at, "shareProcessNamespace"), why);
    }
    sysctls(&at.get("sysctls"), spec, out);
    out.one_of_if_set(&at.get("fsGroupChangePolicy"), &["Always", "OnRootMismatch"]);
    seccomp(&at.get("seccompProfile"), out);
    app_armor(&at.get("appArmorProfile"), out);
    out.one_of_if_set(&at.get("supplementalGroupsPolicy"), &["Merge", "Strict"]);
    out.one_of_if_set(&at.get("seLinuxChangePolicy"), &["MountOption", "Recursive"]);
}

/// `securityContext` of a container.
pub(super) fn container(at: &At<'_>, host_users: bool, out: &mut Errors) {
    for name in ["runAsUser", "runAsGroup"] {
        id(&at.get(name), out);
    }
    let proc = at.get("procMount");
    out.one_of_if_set(&proc, &["Default", "Unmasked"]);
    if host_users && proc.text() == "Unmasked" {
        out.invalid(&proc, "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(&at.get("seccompProfile"), out);
    if at.get("allowPrivilegeEscalation").value == false {
        if at.get("privileged").is_true() {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            out.invalid(at, why);
        }
        for _ in at.get("capabilities.add").items().filter(|name| name.text() == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            out.invalid(at, why);
        }
    }
    app_armor(&at.get("appArmorProfile"), out);
}

fn id(at: &At<'_>, out: &mut Errors) {
    if let Some(why) = formats::id_number(at.number()) {
        out.invalid(at, why);
    }
}

fn sysctls(at: &At<'_>, spec: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in at.items() {
        let name = item.get("name");
        let text = name.text();
        if text.is_empty() {
            out.required(&name, "");
        } else if !is_sysctl(text) {
            out.invalid(&name, SYSCTL);
        } else if seen.contains(text) {
            out.duplicate(&name, text);
        }
        for (host, field, kinds) in [
            ("hostNetwork", "hostNetwork", &["net."][..]),
            ("hostIPC", "hostIPC", &["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."][..]),
        ] {
            let plain = text.replace('/', ".");
            if spec.get(host).is_true() && kinds.iter().any(|kind| plain.starts_with(kind)) {
                out.invalid(&name, format!("may not be specified when '{field}' is true"));
            }
        }
        seen.insert(text);
    }
}

fn is_sysctl(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= SYSCTL_LIMIT_BYTES
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|b| inner(*b))
                && bytes.last().is_some_and(|b| inner(*b))
                && bytes.iter().all(|b| inner(*b) || b"-_".contains(b))
        })
}

fn seccomp(at: &At<'_>, out: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let (kind, local) = (at.get("type"), at.get("localhostProfile"));
    match kind.text() {
        "" => out.required(&kind, "type is required when seccompProfile is set"),
        text if PROFILES.contains(&text) => {}
        _ => out.not_supported(&kind, &PROFILES),
    }
    match (kind.text() == "Localhost", local.is_set()) {
        (true, false) => out.required(&local, "must be set when seccomp type is Localhost"),
        (true, true) => volume::descending(&local, out),
        (false, true) => {
            let why = "can only be set when seccomp type is Localhost";
            out.invalid_as(&local, at.value.clone(), why);
        }
        (false, false) => {}
    }
}

fn app_armor(at: &At<'_>, out: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let (kind, local) = (at.get("type"), at.get("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            let text = local.text();
            if text.trim() != text {
                out.invalid(&local, "must not be padded with whitespace");
            } else if text.is_empty() {
                out.required(&local, "must be set when AppArmor type is Localhost");
            }
            if text.len() > PROFILE_LIMIT_BYTES {
                out.too_long(&local, PROFILE_LIMIT_BYTES);
            }
        }
        "RuntimeDefault" | "Unconfined" if local.is_set() => {
            out.invalid(&local, "can only be set when AppArmor type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => out.required(&kind, "type is required when appArmorProfile is set"),
        _ => out.not_supported(&kind, &PROFILES),
    }
}
