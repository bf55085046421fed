//! The checks of the Pod Security Standards, a row each: from when on which level has it, and
//! what it says of a pod, in upstream's words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Level;

/// Reason and detail of a violation.
type Finding = Option<(String, String)>;

/// A rule of a level. Minor versions are those of Kubernetes 1.
pub(super) struct Check {
    pub level: Level,
    /// The first minor version that has it.
    pub since: u32,
    /// The level that has a stricter rule in its place, from a minor version on.
    pub replaced: Option<(Level, u32)>,
    pub find: fn(&Value, u32) -> Finding,
}

const fn baseline(since: u32, find: fn(&Value, u32) -> Finding) -> Check {
    Check { level: Level::Baseline, since, replaced: None, find }
}

const fn replaced(since: u32, from: u32, find: fn(&Value, u32) -> Finding) -> Check {
    Check { level: Level::Baseline, since, replaced: Some((Level::Restricted, from)), find }
}

const fn restricted(since: u32, find: fn(&Value, u32) -> Finding) -> Check {
    Check { level: Level::Restricted, since, replaced: None, find }
}

/// In upstream's order: a level's checks by their names.
pub(super) const CHECKS: &[Check] = &[
    baseline(0, app_armor),
    replaced(0, 22, added_capabilities),
    baseline(0, host_namespaces),
    replaced(0, 0, host_paths),
    baseline(0, host_ports),
    baseline(34, probe_hosts),
    baseline(0, privileged),
    baseline(0, proc_mount),
    baseline(0, se_linux),
    replaced(0, 19, seccomp),
    baseline(0, sysctls),
    baseline(0, host_process),
    restricted(8, escalation),
    restricted(22, dropped_capabilities),
    restricted(0, volumes),
    restricted(0, non_root),
    restricted(23, root_user),
    restricted(19, seccomp_wanted),
];

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

fn name(container: &Value) -> String {
    container["name"].as_str().unwrap_or_default().to_owned()
}

/// The names of the containers of which something holds.
fn those(pod: &Value, bad: impl FnMut(&&Value) -> bool) -> Vec<String> {
    containers(pod).filter(bad).map(name).collect()
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn shown(names: &[String]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names))
}

fn finding(bad: bool, reason: &str, detail: impl FnOnce() -> String) -> Finding {
    bad.then(|| (reason.to_owned(), detail()))
}

/// `pod and container "a"`: whoever sets what they must not.
fn setters(pod: bool, names: &[String]) -> Vec<String> {
    let pod = pod.then(|| "pod".to_owned());
    pod.into_iter().chain((!names.is_empty()).then(|| shown(names))).collect()
}

fn is_windows(pod: &Value, minor: u32) -> bool {
    minor >= 25 && pod["spec"]["os"]["name"] == "windows"
}

/// A pod in a user namespace of its own is not root on the node, whatever it is inside.
fn is_in_user_namespace(pod: &Value, minor: u32) -> bool {
    minor >= 35 && pod["spec"]["hostUsers"] == false
}

fn app_armor(pod: &Value, _: u32) -> Finding {
    let mut values = BTreeSet::new();
    let mut bad = |holder: &Value| {
        let kind = holder["securityContext"]["appArmorProfile"]["type"].as_str();
        let bad = kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        values.extend(bad.map(str::to_owned));
        bad.is_some()
    };
    let of_pod = bad(&pod["spec"]);
    let names = those(pod, |one| bad(one));
    let mut found = setters(of_pod, &names);
    for (key, value) in pod["metadata"]["annotations"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let allowed = matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !allowed {
            found.push(format!("annotation {key:?}"));
            values.insert(value.to_owned());
        }
    }
    let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    finding(!found.is_empty(), reason, || {
        format!("{} must not set AppArmor profile type to {}", found.join(" and "), quoted(&values))
    })
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    let added = container["securityContext"]["capabilities"]["add"].as_array();
    added.into_iter().flatten().filter_map(Value::as_str)
}

fn added_capabilities(pod: &Value, _: u32) -> Finding {
    const DEFAULT: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let bad = |one: &&str| !DEFAULT.contains(one);
    let names = those(pod, |one| added(one).any(|capability| bad(&capability)));
    let all: BTreeSet<String> =
        containers(pod).flat_map(added).filter(bad).map(str::to_owned).collect();
    finding(!names.is_empty(), "non-default capabilities", || {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            shown(&names),
            quoted(&all)
        )
    })
}

fn host_namespaces(pod: &Value, _: u32) -> Finding {
    let fields = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let used: Vec<String> = fields
        .filter(|field| pod["spec"][field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    finding(!used.is_empty(), "host namespaces", || used.join(", "))
}

fn volumes_of(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["volumes"].as_array().into_iter().flatten()
}

fn host_paths(pod: &Value, _: u32) -> Finding {
    let names: Vec<String> =
        volumes_of(pod).filter(|volume| volume["hostPath"].is_object()).map(name).collect();
    finding(!names.is_empty(), "hostPath volumes", || {
        format!("{} {}", plural(names.len(), "volume", "volumes"), quoted(&names))
    })
}

fn host_ports(pod: &Value, _: u32) -> Finding {
    let ports = |container: &Value| -> Vec<String> {
        let all = container["ports"].as_array().into_iter().flatten();
        let ports = all.filter_map(|port| port["hostPort"].as_i64().filter(|port| *port != 0));
        ports.map(|port| port.to_string()).collect()
    };
    let names = those(pod, |one| !ports(one).is_empty());
    let all: BTreeSet<String> = containers(pod).flat_map(ports).collect();
    finding(!names.is_empty(), "hostPort", || {
        let listed: Vec<String> = all.iter().cloned().collect();
        format!(
            "{} {} {} {}",
            shown(&names),
            plural(names.len(), "uses", "use"),
            plural(all.len(), "hostPort", "hostPorts"),
            listed.join(", ")
        )
    })
}

fn probe_hosts(pod: &Value, _: u32) -> Finding {
    const HANDLERS: [[&str; 2]; 5] = [
        ["livenessProbe", ""],
        ["readinessProbe", ""],
        ["startupProbe", ""],
        ["lifecycle", "postStart"],
        ["lifecycle", "preStop"],
    ];
    let hosts = |container: &Value| -> Vec<String> {
        let handlers = HANDLERS.iter().map(|[first, second]| match *second {
            "" => &container[first],
            second => &container[first][second],
        });
        let hosts = handlers.flat_map(|one| [&one["httpGet"]["host"], &one["tcpSocket"]["host"]]);
        let set = hosts.filter_map(Value::as_str).filter(|host| !host.is_empty());
        set.map(str::to_owned).collect()
    };
    let mut names = those(pod, |one| !hosts(one).is_empty());
    names.sort();
    let all: BTreeSet<String> = containers(pod).flat_map(hosts).collect();
    finding(!names.is_empty(), "probe or lifecycle host", || {
        format!(
            "{} {} {} {}",
            shown(&names),
            plural(names.len(), "uses", "use"),
            plural(all.len(), "probe or lifecycle host", "probe or lifecycle hosts"),
            quoted(&all)
        )
    })
}

fn privileged(pod: &Value, _: u32) -> Finding {
    let names = those(pod, |one| one["securityContext"]["privileged"] == true);
    finding(!names.is_empty(), "privileged", || {
        format!("{} must not set securityContext.privileged=true", shown(&names))
    })
}

fn proc_mount(pod: &Value, minor: u32) -> Finding {
    let kind = |one: &Value| {
        let kind = one["securityContext"]["procMount"].as_str();
        kind.filter(|kind| *kind != "Default").map(str::to_owned)
    };
    let names = those(pod, |one| kind(one).is_some());
    let all: BTreeSet<String> = containers(pod).filter_map(kind).collect();
    finding(!names.is_empty() && !is_in_user_namespace(pod, minor), "procMount", || {
        format!("{} must not set securityContext.procMount to {}", shown(&names), quoted(&all))
    })
}

fn se_linux(pod: &Value, minor: u32) -> Finding {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |holder: &Value| {
        let options = &holder["securityContext"]["seLinuxOptions"];
        let text = |field: &str| options[field].as_str().unwrap_or_default();
        let allowed = match text("type") {
            "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
            "container_engine_t" => minor >= 31,
            _ => false,
        };
        if !allowed {
            types.insert(text("type").to_owned());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        !allowed || !text("user").is_empty() || !text("role").is_empty()
    };
    let of_pod = bad(&pod["spec"]);
    let names = those(pod, |one| bad(one));
    let found = setters(of_pod, &names);
    finding(!found.is_empty(), "seLinuxOptions", || {
        let kinds = plural(types.len(), "type", "types");
        let types = (!types.is_empty()).then(|| format!("{kinds} {}", quoted(&types)));
        let user = user.then(|| "user may not be set".to_owned());
        let role = role.then(|| "role may not be set".to_owned());
        let what: Vec<String> = [types, user, role].into_iter().flatten().collect();
        let (who, what) = (found.join(" and "), what.join("; "));
        format!("{who} set forbidden securityContext.seLinuxOptions: {what}")
    })
}

fn seccomp_type(holder: &Value) -> Option<&str> {
    holder["securityContext"]["seccompProfile"]["type"].as_str()
}

fn is_bad_seccomp(holder: &Value) -> bool {
    seccomp_type(holder).is_some_and(|kind| !matches!(kind, "Localhost" | "RuntimeDefault"))
}

fn seccomp(pod: &Value, _: u32) -> Finding {
    let names = those(pod, |one| is_bad_seccomp(one));
    let found = setters(is_bad_seccomp(&pod["spec"]), &names);
    finding(!found.is_empty(), "seccompProfile", || {
        let holders = containers(pod).chain([&pod["spec"]]).filter(|one| is_bad_seccomp(one));
        let kinds: BTreeSet<String> = holders.filter_map(seccomp_type).map(str::to_owned).collect();
        let (who, kinds) = (found.join(" and "), quoted(&kinds));
        format!("{who} must not set securityContext.seccompProfile.type to {kinds}")
    })
}

fn seccomp_wanted(pod: &Value, minor: u32) -> Finding {
    if is_windows(pod, minor) {
        return None;
    }
    seccomp(pod, minor).or_else(|| {
        let of_pod = seccomp_type(&pod["spec"]).is_some();
        let names = those(pod, |one| !of_pod && seccomp_type(one).is_none());
        finding(!names.is_empty(), "seccompProfile", || {
            format!(
                "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
                shown(&names)
            )
        })
    })
}

fn sysctls(pod: &Value, minor: u32) -> Finding {
    let since = |name: &str| api::sysctl::safe_since(name).unwrap_or(u32::MAX);
    let all = pod["spec"]["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let names = all.filter_map(|sysctl| sysctl["name"].as_str());
    let bad: Vec<&str> = names.filter(|name| since(name) > minor).collect();
    finding(!bad.is_empty(), "forbidden sysctls", || bad.join(", "))
}

fn host_process(pod: &Value, _: u32) -> Finding {
    let bad = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let found = setters(bad(&pod["spec"]), &those(pod, |one| bad(one)));
    finding(!found.is_empty(), "hostProcess", || {
        let who = found.join(" and ");
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true")
    })
}

fn escalation(pod: &Value, minor: u32) -> Finding {
    let names = those(pod, |one| one["securityContext"]["allowPrivilegeEscalation"] != false);
    let bad = !names.is_empty() && !is_windows(pod, minor);
    finding(bad, "allowPrivilegeEscalation != false", || {
        format!("{} must set securityContext.allowPrivilegeEscalation=false", shown(&names))
    })
}

fn dropped_capabilities(pod: &Value, minor: u32) -> Finding {
    if is_windows(pod, minor) {
        return None;
    }
    let drops_all = |one: &Value| {
        let dropped = one["securityContext"]["capabilities"]["drop"].as_array();
        dropped.is_some_and(|all| all.iter().any(|capability| capability == "ALL"))
    };
    let bad = |one: &&str| *one != "NET_BIND_SERVICE";
    let keeping = those(pod, |one| !drops_all(one));
    let adding = those(pod, |one| added(one).any(|capability| bad(&capability)));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let who = shown(&keeping);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !adding.is_empty() {
        let all: BTreeSet<String> =
            containers(pod).flat_map(added).filter(bad).map(str::to_owned).collect();
        let (who, what) = (shown(&adding), quoted(&all));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    finding(!details.is_empty(), "unrestricted capabilities", || details.join("; "))
}

fn volumes(pod: &Value, _: u32) -> Finding {
    const ALLOWED: [&str; 8] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let kind = |volume: &Value| {
        let mut members = volume.as_object().into_iter().flatten().map(|(key, _)| key.clone());
        let kind = members.find(|key| key != "name");
        kind.filter(|kind| !ALLOWED.contains(&kind.as_str()))
    };
    let bad = || volumes_of(pod).filter_map(|volume| Some((name(volume), kind(volume)?)));
    let names: Vec<String> = bad().map(|(name, _)| name).collect();
    let kinds: BTreeSet<String> = bad().map(|(_, kind)| kind).collect();
    finding(!names.is_empty(), "restricted volume types", || {
        format!(
            "{} {} {} {} {}",
            plural(names.len(), "volume", "volumes"),
            quoted(&names),
            plural(names.len(), "uses", "use"),
            plural(kinds.len(), "restricted volume type", "restricted volume types"),
            quoted(&kinds)
        )
    })
}

fn non_root(pod: &Value, minor: u32) -> Finding {
    if is_in_user_namespace(pod, minor) {
        return None;
    }
    let said = |holder: &Value| holder["securityContext"]["runAsNonRoot"].as_bool();
    let of_pod = said(&pod["spec"]);
    let found = setters(of_pod == Some(false), &those(pod, |one| said(one) == Some(false)));
    let reason = "runAsNonRoot != true";
    if !found.is_empty() {
        let who = found.join(" and ");
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some((reason.to_owned(), detail));
    }
    let names = those(pod, |one| said(one).is_none() && of_pod != Some(true));
    finding(!names.is_empty(), reason, || {
        format!("pod or {} must set securityContext.runAsNonRoot=true", shown(&names))
    })
}

fn root_user(pod: &Value, minor: u32) -> Finding {
    let bad = |holder: &Value| holder["securityContext"]["runAsUser"].as_i64() == Some(0);
    let found = setters(bad(&pod["spec"]), &those(pod, |one| bad(one)));
    let bad = !found.is_empty() && !is_in_user_namespace(pod, minor);
    finding(bad, "runAsUser=0", || format!("{} must not set runAsUser=0", found.join(" and ")))
}
