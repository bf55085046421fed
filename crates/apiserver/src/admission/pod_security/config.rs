//! What holds where a namespace says nothing, and who is exempt (`PodSecurityConfiguration`).

use serde_json::Value;

use super::{Level, Policy, level, version};
use crate::registry::meta;

const MODES: [&str; 3] = ["enforce", "audit", "warn"];
const GROUP: &str = "pod-security.admission.config.k8s.io/";

/// The plugin's configuration.
#[derive(Clone, Debug)]
pub(in super::super) struct PodSecurityConfig {
    /// By [`MODES`].
    defaults: [Policy; 3],
    usernames: Vec<String>,
    runtime_classes: Vec<String>,
    pub namespaces: Vec<String>,
}

impl Default for PodSecurityConfig {
    fn default() -> Self {
        PodSecurityConfig {
            defaults: [Policy { level: Level::Privileged, minor: None }; 3],
            usernames: Vec::new(),
            runtime_classes: Vec::new(),
            namespaces: Vec::new(),
        }
    }
}

impl PodSecurityConfig {
    /// Reads it; one that is empty is the default.
    pub fn read(config: &Value) -> Result<Self, String> {
        if config.is_null() {
            return Ok(Self::default());
        }
        let given = |field: &str| config[field].as_str().unwrap_or_default();
        if given("kind") != "PodSecurityConfiguration" || !given("apiVersion").starts_with(GROUP) {
            let (kind, version) = (given("kind"), given("apiVersion"));
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        let mut read = Self::default();
        for (place, mode) in MODES.into_iter().enumerate() {
            let text = |field: &str| config["defaults"][field].as_str();
            if let Some(named) = text(mode) {
                read.defaults[place].level = level(named).ok_or_else(|| {
                    format!("defaults.{mode}: Invalid value: {named:?}: must be one of privileged, baseline, restricted")
                })?;
            }
            let field = format!("{mode}-version");
            if let Some(named) = text(&field) {
                read.defaults[place].minor = version(named).ok_or_else(|| {
                    format!(
                        "defaults.{field}: Invalid value: {named:?}: must be \"latest\" or \"v1.x\""
                    )
                })?;
            }
        }
        let list = |field: &str| meta::strings(&config["exemptions"][field]);
        read.usernames = list("usernames");
        read.runtime_classes = list("runtimeClasses");
        read.namespaces = list("namespaces");
        Ok(read)
    }

    /// What holds in a mode.
    pub(super) fn of_mode(&self, mode: &str) -> Policy {
        let place = MODES.iter().position(|known| *known == mode).unwrap_or_default();
        self.defaults[place]
    }

    /// Why something is exempt, if it is.
    pub fn exempt(&self, user: &str, namespace: &str, runtime: &str) -> Option<&'static str> {
        let has =
            |list: &[String], name: &str| !name.is_empty() && list.iter().any(|one| one == name);
        if has(&self.namespaces, namespace) {
            Some("namespace")
        } else if has(&self.usernames, user) {
            Some("user")
        } else {
            has(&self.runtime_classes, runtime).then_some("runtimeClass")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::pod_security::check;
    use crate::admission::testing::{Few, attributes};
    use serde_json::json;

    #[test]
    fn a_file_sets_defaults_and_exempts() {
        let mut cluster = Few::default();
        cluster.1.pod_security = PodSecurityConfig::read(&json!({
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "enforce-version": "v1.30"},
            "exemptions": {"namespaces": ["kube-system"], "runtimeClasses": ["kata"]}}))
        .unwrap();
        let refused = |namespace: &str, runtime: &str| {
            let write = attributes(&cluster, ("", "v1", "pods"), namespace);
            let pod = json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true,
                "runtimeClassName": runtime, "containers": []}});
            check(&write, &pod).err().map(|status| status.message).unwrap_or_default()
        };
        assert!(
            refused("x", "").contains("violates PodSecurity \"baseline:v1.30\""),
            "{}",
            refused("x", "")
        );
        assert_eq!(refused("kube-system", ""), "");
        assert_eq!(refused("x", "kata"), "");
    }
}
