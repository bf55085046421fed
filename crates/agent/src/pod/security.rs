//! `securityContext` of pod and container as the runtime's rights.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};
use runtime::{Capabilities, ImageInfo, Seccomp, Security, UserSpec};

use super::view::spec;

/// Where filters of system calls come from.
pub struct Filters {
    /// Folder of profiles of type Localhost.
    pub folder: PathBuf,
    /// The runtime's own also for those who name none.
    pub by_default: bool,
}

/// The rights of `container` of `pod`.
pub fn security(pod: &Pod, container: &Container, filters: &Filters) -> Security {
    let pod_context = spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let user = own.and_then(|c| c.run_as_user).or(pod_context.and_then(|c| c.run_as_user));
    let group = own.and_then(|c| c.run_as_group).or(pod_context.and_then(|c| c.run_as_group));
    let mut groups: Vec<u32> = pod_context
        .and_then(|c| c.supplemental_groups.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|g| u32::try_from(*g).ok())
        .collect();
    groups.extend(pod_context.and_then(|c| c.fs_group).and_then(|g| u32::try_from(g).ok()));
    let privileged = own.and_then(|c| c.privileged) == Some(true);
    let profile = own
        .and_then(|c| c.seccomp_profile.as_ref())
        .or(pod_context.and_then(|c| c.seccomp_profile.as_ref()));
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    let unmasked = own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked");
    let policy = pod_context.and_then(|c| c.supplemental_groups_policy.as_deref());
    Security {
        user: match user.and_then(|u| u32::try_from(u).ok()) {
            Some(uid) => UserSpec::Uid(uid),
            None => UserSpec::Image,
        },
        group: group.and_then(|g| u32::try_from(g).ok()),
        supplemental_groups: groups,
        strict_groups: policy == Some("Strict"),
        privileged,
        capabilities: Capabilities {
            add: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
            drop: capabilities.and_then(|c| c.drop.clone()).unwrap_or_default(),
        },
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        readonly_rootfs: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        masked_paths: (unmasked || privileged).then(Vec::new),
        readonly_paths: (unmasked || privileged).then(Vec::new),
        seccomp: if privileged { Seccomp::Unconfined } else { filters.seccomp(profile) },
    }
}

impl Filters {
    fn seccomp(&self, profile: Option<&SeccompProfile>) -> Seccomp {
        match profile.map(|p| p.type_.as_str()) {
            Some("RuntimeDefault") => Seccomp::RuntimeDefault,
            None if self.by_default => Seccomp::RuntimeDefault,
            Some("Localhost") => {
                let name = profile.and_then(|p| p.localhost_profile.as_deref());
                Seccomp::Localhost(self.folder.join(name.unwrap_or_default()))
            }
            _ => Seccomp::Unconfined,
        }
    }
}

/// Checks `runAsNonRoot` against the user that the container would have; the error is the
/// message of `CreateContainerConfigError`.
pub fn verify_non_root(pod: &Pod, container: &Container, image: &ImageInfo) -> Result<(), String> {
    let pod_context = spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let wanted = own
        .and_then(|c| c.run_as_non_root)
        .or(pod_context.and_then(|c| c.run_as_non_root))
        .unwrap_or(false);
    if !wanted {
        return Ok(());
    }
    let who = format!(
        "(pod: \"{}_{}({})\", container: {})",
        pod.metadata.name.as_deref().unwrap_or_default(),
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default(),
        container.name
    );
    match own.and_then(|c| c.run_as_user).or(pod_context.and_then(|c| c.run_as_user)) {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {who}")),
        Some(_) => Ok(()),
        None => match image.uid {
            Some(0) => Err(format!("container has runAsNonRoot and image will run as root {who}")),
            Some(_) => Ok(()),
            None => Err(format!(
                "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {who}",
                image.user
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filters(by_default: bool) -> Filters {
        Filters { folder: "/x".into(), by_default }
    }

    #[test]
    fn a_container_overrides_its_pod() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "securityContext": {"runAsUser": 1, "fsGroup": 7, "supplementalGroups": [5],
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {"runAsUser": 2,
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}))
        .unwrap();
        let got = security(&pod, &pod.spec.as_ref().unwrap().containers[0], &filters(false));
        assert_eq!(got.user, UserSpec::Uid(2));
        assert_eq!(got.supplemental_groups, [5, 7]);
        assert_eq!(got.seccomp, Seccomp::RuntimeDefault);
        assert!(got.no_new_privileges);
        assert_eq!(got.capabilities.drop, ["ALL"]);
    }

    #[test]
    fn the_nearest_profile_holds() {
        use Seccomp::{Localhost, RuntimeDefault, Unconfined};
        let own = |kind: &str| json!({"seccompProfile": {"type": kind}});
        let file = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}});
        let privileged = json!({"privileged": true, "seccompProfile": {"type": "RuntimeDefault"}});
        let none = json!({});
        for (of_pod, of_container, by_default, want) in [
            (&none, &none, false, Unconfined),
            (&none, &none, true, RuntimeDefault),
            (&own("RuntimeDefault"), &none, false, RuntimeDefault),
            (&own("RuntimeDefault"), &own("Unconfined"), true, Unconfined),
            (&own("Unconfined"), &none, true, Unconfined),
            (&own("Unconfined"), &file, true, Localhost("/x/a/b.json".into())),
            (&own("RuntimeDefault"), &privileged, true, Unconfined),
        ] {
            let pod: Pod = serde_json::from_value(json!({"spec": {"securityContext": of_pod,
                "containers": [{"name": "a", "securityContext": of_container}]}}))
            .unwrap();
            let container = &pod.spec.as_ref().unwrap().containers[0];
            let got = security(&pod, container, &filters(by_default)).seccomp;
            assert_eq!(got, want, "{of_pod} {of_container} {by_default}");
        }
    }
}
