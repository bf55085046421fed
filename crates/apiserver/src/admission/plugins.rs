//! Which admission steps there are, and what a file says of them (upstream's
//! `--enable-admission-plugins`, `--disable-admission-plugins`, `--admission-control-config-file`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::optional::{EventLimits, ImagePolicyOptions, TolerationRestriction};
use super::pod_security::PodSecurityConfig;

/// The steps that there are by upstream's names, and whether each is on by default. Some do nothing
/// here: `AlwaysAdmit` never does, and what `ClusterTrustBundleAttest`, `JobValidation`,
/// `NodeDeclaredFeatureValidator`, the `PodGroup`s and `PodResizeValidator` look at is behind
/// features that this server does not have.
const PLUGINS: [(&str, bool); 41] = [
    ("AlwaysAdmit", false),
    ("AlwaysDeny", false),
    ("AlwaysPullImages", false),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("CertificateSubjectRestriction", true),
    ("ClusterTrustBundleAttest", true),
    ("DefaultIngressClass", true),
    ("DefaultStorageClass", true),
    ("DefaultTolerationSeconds", true),
    ("DenyServiceExternalIPs", false),
    ("EventRateLimit", false),
    ("ExtendedResourceToleration", false),
    ("ImagePolicyWebhook", false),
    ("JobValidation", true),
    ("LimitPodHardAntiAffinityTopology", false),
    ("LimitRanger", true),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("NamespaceAutoProvision", false),
    ("NamespaceExists", false),
    ("NamespaceLifecycle", true),
    ("NodeDeclaredFeatureValidator", true),
    ("NodeRestriction", true),
    ("OwnerReferencesPermissionEnforcement", false),
    ("PersistentVolumeClaimResize", true),
    ("PodGroupProtection", true),
    ("PodGroupWorkloadExists", true),
    ("PodNodeSelector", false),
    ("PodSecurity", true),
    ("PodResizeValidator", true),
    ("PodTolerationRestriction", false),
    ("PodTopologyLabels", true),
    ("Priority", true),
    ("ResourceQuota", true),
    ("RuntimeClass", true),
    ("ServiceAccount", true),
    ("StorageObjectInUseProtection", true),
    ("TaintNodesByCondition", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
];
/// Steps without which parts of this server would not do what they say: they stay on.
const FIXED: [&str; 4] = [
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "NodeRestriction",
];
/// Versions of AdmissionConfiguration.
const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];

/// Which steps are on, and how each is configured.
#[derive(Clone, Debug)]
pub struct AdmissionPlugins {
    on: BTreeMap<&'static str, bool>,
    /// What holds where a namespace says nothing, and who is exempt.
    pub(super) pod_security: PodSecurityConfig,
    /// Node selectors that namespaces may ask for; `clusterDefaultNodeSelector` for all others.
    pub(super) node_selectors: BTreeMap<String, String>,
    pub(super) tolerations: TolerationRestriction,
    pub(super) events: Arc<EventLimits>,
    /// Who is asked about images.
    pub(super) images: Option<ImagePolicyOptions>,
}

impl Default for AdmissionPlugins {
    fn default() -> Self {
        AdmissionPlugins {
            on: PLUGINS.into(),
            pod_security: PodSecurityConfig::default(),
            node_selectors: BTreeMap::new(),
            tolerations: TolerationRestriction::default(),
            events: Arc::default(),
            images: None,
        }
    }
}

impl AdmissionPlugins {
    /// Whether a step is taken.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.on.get(name).copied().unwrap_or(true)
    }

    /// Switches steps on and then off, by name.
    ///
    /// # Errors
    /// Names that no step has, and steps that cannot be off.
    pub fn switch(&mut self, on: &[String], off: &[String]) -> Result<(), String> {
        for (names, wanted) in [(on, true), (off, false)] {
            for name in names {
                if !wanted && FIXED.contains(&name.as_str()) {
                    return Err(format!("admission plugin {name:?} cannot be disabled here"));
                }
                match self.on.get_mut(name.as_str()) {
                    Some(one) => *one = wanted,
                    None => return Err(format!("admission plugin {name:?} is unknown")),
                }
            }
        }
        Ok(())
    }

    /// Says whether a step that is on lacks a configuration without which it can do nothing.
    ///
    /// # Errors
    /// Which it is.
    pub fn check(&self) -> Result<(), String> {
        if self.is_on("ImagePolicyWebhook") && self.images.is_none() {
            return Err("admission plugin \"ImagePolicyWebhook\": no config specified".to_owned());
        }
        Ok(())
    }

    /// Reads an AdmissionConfiguration; `read` gives the text of a file that it names.
    ///
    /// # Errors
    /// What is wrong with the file, or with one that it names.
    pub fn configure(
        &mut self,
        text: &str,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        let config = parsed(text)?;
        let given = |field: &str| config[field].as_str().unwrap_or_default();
        let (kind, version) = (given("kind"), given("apiVersion"));
        if kind != "AdmissionConfiguration" || !API_VERSIONS.contains(&version) {
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        for plugin in config["plugins"].as_array().into_iter().flatten() {
            let name = plugin["name"].as_str().unwrap_or_default();
            let inner = match (&plugin["configuration"], plugin["path"].as_str()) {
                (Value::Null, Some(path)) if !path.is_empty() => parsed(&read(path)?)?,
                (inner, _) => inner.clone(),
            };
            self.configure_one(name, &inner, &read)
                .map_err(|why| format!("plugin {name:?}: {why}"))?;
        }
        Ok(())
    }

    fn configure_one(
        &mut self,
        name: &str,
        config: &Value,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        if !self.on.contains_key(name) {
            return Err("unknown admission plugin".to_owned());
        }
        match name {
            "PodSecurity" => self.pod_security = PodSecurityConfig::read(config)?,
            "PodNodeSelector" => {
                let selectors = config["podNodeSelectorPluginConfig"].as_object();
                let texts = selectors.into_iter().flatten().map(|(namespace, selector)| {
                    (namespace.clone(), selector.as_str().unwrap_or_default().to_owned())
                });
                self.node_selectors = texts.collect();
            }
            "PodTolerationRestriction" => self.tolerations = TolerationRestriction::read(config),
            "ImagePolicyWebhook" => self.images = Some(ImagePolicyOptions::read(config, read)?),
            "EventRateLimit" => self.events = Arc::new(EventLimits::read(config)?),
            // The others have nothing to be configured here, and upstream lets it be empty.
            _ => {}
        }
        Ok(())
    }
}

fn parsed(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_switched_by_name() {
        let mut plugins = AdmissionPlugins::default();
        assert!(plugins.is_on("PodSecurity") && !plugins.is_on("AlwaysPullImages"));
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        plugins.switch(&names(&["AlwaysPullImages"]), &names(&["PodSecurity"])).unwrap();
        assert!(!plugins.is_on("PodSecurity") && plugins.is_on("AlwaysPullImages"));
        let wrong = plugins.switch(&names(&["Nothing"]), &[]).unwrap_err();
        assert_eq!(wrong, "admission plugin \"Nothing\" is unknown");
        assert!(plugins.switch(&[], &names(&["NodeRestriction"])).is_err());
    }

    #[test]
    fn a_file_configures_them() {
        let text = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline}
    exemptions: {namespaces: [kube-system]}
- name: PodNodeSelector
  path: selectors.yaml
";
        let mut plugins = AdmissionPlugins::default();
        let read = |path: &str| match path {
            "selectors.yaml" => Ok("podNodeSelectorPluginConfig: {ns: a=b}".to_owned()),
            other => Err(format!("no {other}")),
        };
        plugins.configure(text, read).unwrap();
        assert_eq!(plugins.node_selectors["ns"], "a=b");
        let mut fails =
            |text: &str| plugins.configure(text, |_| Err("none".to_owned())).unwrap_err();
        assert!(fails("kind: Other").contains("no kind \"Other\""));
        let wrong = text.replace("baseline", "odd");
        assert!(fails(&wrong).contains("defaults.enforce"), "{}", fails(&wrong));
    }
}
