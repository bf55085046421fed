//! One APIService as it was read from the store.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use crate::access::FrontProxy;
use crate::webhook::trust;

/// Which Service answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Reference {
    pub namespace: String,
    pub name: String,
    pub port: Option<u16>,
}

impl Reference {
    /// The port of the Service.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    /// The name that the server's certificate must have.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// The condition `Available` of an APIService.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// An APIService.
#[derive(Debug)]
pub(crate) struct ApiService {
    pub name: String,
    pub group: String,
    pub version: String,
    /// Groups with a higher number come first.
    pub group_priority: i64,
    /// Versions of a group with a higher number come first.
    pub version_priority: i64,
    /// Upstream's mark of those that a server makes by itself: `true` or `onstart`.
    pub automanaged: Option<String>,
    /// Who answers; this server itself without.
    pub service: Option<Reference>,
    /// The condition `Available`, where it has one.
    pub condition: Option<Condition>,
    trust: Trust,
    tls: OnceLock<Result<Arc<rustls::ClientConfig>, String>>,
}

/// How the server behind an APIService is known, and how this one makes itself known.
#[derive(Clone, Debug)]
struct Trust {
    insecure: bool,
    /// PEM in base64.
    ca_bundle: String,
    front_proxy: Option<FrontProxy>,
}

impl ApiService {
    /// The APIService in a stored object; `None` for what cannot be read.
    pub(super) fn read(value: &[u8], front_proxy: Option<&FrontProxy>) -> Option<Self> {
        let object: Object = serde_json::from_slice(value).ok()?;
        let conditions = object.status.conditions.unwrap_or_default();
        let label = object.metadata.labels.and_then(|labels| labels.automanaged);
        Some(ApiService {
            name: object.metadata.name,
            group: object.spec.group,
            version: object.spec.version,
            group_priority: object.spec.group_priority_minimum,
            version_priority: object.spec.version_priority,
            automanaged: label,
            service: object.spec.service,
            condition: conditions.into_iter().find(|condition| condition.kind == "Available"),
            trust: Trust {
                insecure: object.spec.insecure_skip_tls_verify,
                ca_bundle: object.spec.ca_bundle.unwrap_or_default(),
                front_proxy: front_proxy.cloned(),
            },
            tls: OnceLock::new(),
        })
    }

    /// The same with what was made for its older state, where that still fits.
    pub(super) fn keeping(self, before: Option<&ApiService>) -> Self {
        let fits = |before: &&ApiService| {
            before.trust.insecure == self.trust.insecure
                && before.trust.ca_bundle == self.trust.ca_bundle
        };
        match before.filter(fits) {
            Some(before) => ApiService { tls: before.tls.clone(), ..self },
            None => self,
        }
    }

    /// Whether its server was there when it was looked for last.
    pub(crate) fn is_available(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| condition.status == "True")
    }

    /// TLS to its server.
    pub(super) fn tls(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        self.tls.get_or_init(|| self.trust.client().map(Arc::new)).clone()
    }
}

impl Trust {
    fn client(&self) -> Result<rustls::ClientConfig, String> {
        let mut config = if self.insecure {
            ::trust::client_of_anyone().map_err(|error| error.to_string())?.with_no_client_auth()
        } else {
            trust::client(&self.ca_bundle)?
        };
        if let Some(proxy) = &self.front_proxy {
            config.client_auth_cert_resolver = Arc::clone(&proxy.certificate);
        }
        Ok(config)
    }
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    labels: Option<Labels>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(rename = "kube-aggregator.kubernetes.io/automanaged")]
    automanaged: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    group: String,
    version: String,
    group_priority_minimum: i64,
    version_priority: i64,
    service: Option<Reference>,
    #[serde(rename = "insecureSkipTLSVerify")]
    insecure_skip_tls_verify: bool,
    ca_bundle: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<Condition>>,
}
