//! PodSecurity: the levels of the Pod Security Standards that a namespace's labels ask for,
//! enforced on pods, told in warnings and noted for the audit log on whatever makes pods.

mod checks;
mod config;

use api::status::{FieldError, Status};
use serde_json::Value;

use super::{Attributes, Operation};
use crate::notes;
use crate::registry::{Outcome, meta};
use checks::CHECKS;

pub(super) use config::PodSecurityConfig;

const PREFIX: &str = "pod-security.kubernetes.io";
/// Where the pods of kinds that make some stand.
const TEMPLATES: [(&str, &str); 8] = [
    ("apps/daemonsets", "/spec/template"),
    ("apps/deployments", "/spec/template"),
    ("apps/replicasets", "/spec/template"),
    ("apps/statefulsets", "/spec/template"),
    ("batch/cronjobs", "/spec/jobTemplate/spec/template"),
    ("batch/jobs", "/spec/template"),
    ("podtemplates", "/template"),
    ("replicationcontrollers", "/spec/template"),
];
/// How many pods of a namespace are looked at when its level is raised (as upstream).
const EXISTING_MAX: usize = 3000;

/// How much a pod may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    level: Level,
    /// Minor version; `None` for the latest.
    minor: Option<u32>,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn version(text: &str) -> Option<Option<u32>> {
    match text {
        "latest" => Some(None),
        _ => text.strip_prefix("v1.").and_then(|minor| minor.parse().ok()).map(Some),
    }
}

impl Policy {
    /// What a namespace asks for in a mode, or what holds where it says nothing. What cannot be
    /// read is taken for the strictest.
    fn of(namespace: &Value, mode: &str, config: &PodSecurityConfig) -> Self {
        let label = |name: &str| namespace["metadata"]["labels"][name].as_str();
        let text = label(&format!("{PREFIX}/{mode}"));
        let minor = label(&format!("{PREFIX}/{mode}-version"));
        let default = config.of_mode(mode);
        Policy {
            level: text.map_or(default.level, |text| level(text).unwrap_or(Level::Restricted)),
            minor: match minor {
                Some(text) => version(text).flatten(),
                None => default.minor,
            },
        }
    }

    /// How a pod violates it, `reason (detail)` by check.
    fn violations(self, pod: &Value) -> Option<String> {
        if self.level == Level::Privileged {
            return None;
        }
        let minor = self.minor.unwrap_or(u32::MAX);
        let counts = |check: &&checks::Check| {
            let stricter =
                check.replaced.is_some_and(|(level, since)| self.level >= level && minor >= since);
            check.level <= self.level && check.since <= minor && !stricter
        };
        let found: Vec<String> = CHECKS
            .iter()
            .filter(counts)
            .filter_map(|check| (check.find)(pod, minor))
            .map(|(reason, detail)| format!("{reason} ({detail})"))
            .collect();
        (!found.is_empty()).then(|| found.join(", "))
    }
}

/// Holds pods, what makes them, and the labels themselves against the levels.
pub(super) fn check(attributes: &Attributes<'_>, object: &Value) -> Outcome<()> {
    let written = matches!(attributes.operation, Operation::Create | Operation::Update);
    let collection = attributes.resource.collection();
    if !written {
        return Ok(());
    }
    match (collection, attributes.subresource) {
        ("namespaces", "") => namespace(attributes, object),
        ("pods", "" | "ephemeralcontainers") if is_significant(attributes, object) => {
            if is_exempt(attributes, &object["spec"]) {
                return Ok(());
            }
            pod(attributes, object)
        }
        (_, "") => {
            let template = TEMPLATES.iter().find(|(kind, _)| *kind == collection);
            if let Some(template) = template.and_then(|(_, path)| object.pointer(path))
                && !is_exempt(attributes, &template["spec"])
            {
                tell(attributes, template);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether a pod is new, or changed in something that the levels are about.
fn is_significant(attributes: &Attributes<'_>, new: &Value) -> bool {
    let Some(old) = attributes.old else { return true };
    let part = |pod: &Value| {
        let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
        let all = lists.flat_map(|list| pod["spec"][list].as_array().cloned().unwrap_or_default());
        let all = all.map(|one| (one["name"].clone(), one["image"].clone()));
        all.collect::<Vec<_>>()
    };
    part(old) != part(new) || old["metadata"]["annotations"] != new["metadata"]["annotations"]
}

/// What the write's namespace asks for in a mode.
fn asked(attributes: &Attributes<'_>, mode: &str) -> Policy {
    let namespace = attributes.cluster.find("namespaces", "", attributes.namespace);
    let config = &attributes.cluster.plugins().pod_security;
    Policy::of(&namespace.unwrap_or_default(), mode, config)
}

/// Whether the configuration lets this pass whatever it is; it is noted for the audit log.
fn is_exempt(attributes: &Attributes<'_>, spec: &Value) -> bool {
    let config = &attributes.cluster.plugins().pod_security;
    let runtime = spec["runtimeClassName"].as_str().unwrap_or_default();
    let exempt = config.exempt(&attributes.user.name, attributes.namespace, runtime);
    if let Some(why) = exempt {
        notes::annotate(format!("{PREFIX}/exempt"), why);
    }
    exempt.is_some()
}

fn pod(attributes: &Attributes<'_>, pod: &Value) -> Outcome<()> {
    let policy = asked(attributes, "enforce");
    notes::annotate(format!("{PREFIX}/enforce-policy"), policy.to_string());
    if let Some(found) = policy.violations(pod) {
        note(attributes, pod);
        let why = format!("violates PodSecurity {:?}: {found}", policy.to_string());
        return Err(Status::forbidden(attributes.resource, meta::name(pod), &why));
    }
    tell(attributes, pod);
    Ok(())
}

/// Notes for the audit log what the namespace wants noted.
fn note(attributes: &Attributes<'_>, pod: &Value) {
    let policy = asked(attributes, "audit");
    if let Some(found) = policy.violations(pod) {
        let text = format!("would violate PodSecurity {:?}: {found}", policy.to_string());
        notes::annotate(format!("{PREFIX}/audit-violations"), text);
    }
}

fn tell(attributes: &Attributes<'_>, pod: &Value) {
    note(attributes, pod);
    let policy = asked(attributes, "warn");
    if let Some(found) = policy.violations(pod) {
        notes::warn(format!("would violate PodSecurity {:?}: {found}", policy.to_string()));
    }
}

/// Labels must be readable, and whoever raises a level is told which pods are above it.
fn namespace(attributes: &Attributes<'_>, namespace: &Value) -> Outcome<()> {
    let wrong = |namespace: &Value| -> Vec<FieldError> {
        let label = |name: &str| namespace["metadata"]["labels"][name].as_str();
        let mut errors = Vec::new();
        for mode in ["enforce", "audit", "warn"] {
            let (name, of_version) =
                (format!("{PREFIX}/{mode}"), format!("{PREFIX}/{mode}-version"));
            if let Some(text) = label(&name).filter(|text| level(text).is_none()) {
                let why = "must be one of privileged, baseline, restricted";
                errors.push(FieldError::invalid(format!("metadata.labels[{name}]"), text, why));
            }
            if let Some(text) = label(&of_version).filter(|text| version(text).is_none()) {
                let path = format!("metadata.labels[{of_version}]");
                errors.push(FieldError::invalid(path, text, "must be \"latest\" or \"v1.x\""));
            }
        }
        errors
    };
    let errors = wrong(namespace);
    // What was wrong before does not keep anybody from writing something else.
    if !errors.is_empty() && attributes.old.is_none_or(|old| wrong(old).is_empty()) {
        return Err(Status::invalid(("", "Namespace"), meta::name(namespace), &errors));
    }
    let Some(old) = attributes.old else { return Ok(()) };
    let config = &attributes.cluster.plugins().pod_security;
    if config.namespaces.iter().any(|one| one == meta::name(namespace)) {
        return Ok(());
    }
    let level_of = |namespace: &Value| Policy::of(namespace, "enforce", config);
    let (before, now) = (level_of(old), level_of(namespace));
    if before == now || now.level == Level::Privileged || now.level < before.level {
        return Ok(());
    }
    let mut found = Vec::new();
    for pod in attributes.cluster.within("pods", meta::name(namespace)).iter().take(EXISTING_MAX) {
        if let Some(violations) = now.violations(pod) {
            found.push(format!("{}: {violations}", meta::name(pod)));
        }
    }
    if !found.is_empty() {
        notes::warn(format!(
            "existing pods in namespace {:?} violate the new PodSecurity enforce level {:?}",
            meta::name(namespace),
            now.to_string()
        ));
        found.into_iter().for_each(notes::warn);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};
    use serde_json::json;

    fn violations(policy: &str, spec: Value) -> String {
        let (text, of_version) = policy.split_once(':').unwrap();
        let policy = Policy { level: level(text).unwrap(), minor: version(of_version).unwrap() };
        policy.violations(&json!({"metadata": {"name": "p"}, "spec": spec})).unwrap_or_default()
    }

    #[test]
    fn levels_say_what_upstream_says() {
        let plain = json!({"containers": [{"name": "c"}]});
        let good = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]});
        let wild = json!({"hostNetwork": true, "hostPID": true, "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
            "containers": [{"name": "a", "ports": [{"hostPort": 80}], "securityContext": {"privileged": true}},
                           {"name": "b", "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}}}]});
        for (policy, spec, expected) in [
            ("privileged:latest", &wild, ""),
            ("baseline:latest", &plain, ""),
            ("restricted:latest", &good, ""),
            (
                "restricted:latest",
                &plain,
                "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            ),
            (
                "restricted:v1.7",
                &plain,
                "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
            ),
            (
                "baseline:latest",
                &wild,
                "non-default capabilities (container \"b\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), hostPort (container \"a\" uses hostPort 80), privileged (containers \"a\", \"b\" must not set securityContext.privileged=true)",
            ),
        ] {
            assert_eq!(violations(policy, spec.clone()), expected, "{policy}");
        }
    }

    #[test]
    fn labels_decide() {
        let cluster = Few::default().with(
            "namespaces",
            json!({"metadata": {"name": "ns", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}),
        );
        let write = attributes(&cluster, ("", "v1", "pods"), "ns");
        let pod =
            json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true, "containers": []}});
        assert_eq!(
            check(&write, &pod).unwrap_err().message,
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
        );
        let write = attributes(&cluster, ("", "v1", "namespaces"), "x");
        let odd = json!({"metadata": {"name": "x", "labels": {"pod-security.kubernetes.io/warn": "odd"}}});
        assert_eq!(check(&write, &odd).unwrap_err().code, 422);
    }
}
