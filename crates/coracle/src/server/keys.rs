//! Keeps everything that was made of the cluster's secrets in step with them: certificates,
//! trust, tokens, and what nodes and extension servers are told of it.

use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, FrontProxy};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::tls::Certificates;
use crate::etcd::Renewal;
use crate::failure::{Outcome, While};
use crate::join::{self, Secrets, Trust};

/// How often the age of certificates is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(12 * 3600);
/// Pause after something could not be said or renewed.
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(250), Duration::from_secs(60));
/// Tells extension API servers which client certificates count.
const EXTENSIONS: (&str, &str) = ("kube-system", "extension-apiserver-authentication");

/// What of a server depends on the cluster's secrets.
pub struct Keys {
    /// What this server was told.
    pub settings: Arc<Settings>,
    /// Its certificates.
    pub certificates: Arc<Certificates>,
    /// Its member of etcd, where it has one.
    pub etcd: Option<Renewal>,
    /// Its API.
    pub api: Arc<ApiServer>,
    /// Acts as the server itself.
    pub client: Client,
}

impl Keys {
    /// Runs until `stop`.
    pub async fn keep(
        self,
        mut secrets: watch::Receiver<Arc<Secrets>>,
        stop: CancellationToken,
    ) -> Outcome {
        let mut failures = 0;
        loop {
            let present = secrets.borrow_and_update().clone();
            let pause = match self.catch_up(present).await {
                Ok(()) => {
                    failures = 0;
                    LOOK_AGAIN
                }
                Err(failure) => {
                    failures += 1;
                    tracing::warn!(error = %base::chain(&failure), "not in step with the cluster's keys; will try again");
                    RETRY.jittered(failures)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = secrets.changed() => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Nodes are told, and this one confirms, when all of this server is in step.
    async fn catch_up(&self, secrets: Arc<Secrets>) -> Outcome {
        self.certificates.renew(&self.settings, secrets.clone())?;
        if let Some(etcd) = &self.etcd {
            etcd.renew(&self.certificates.pki())?;
        }
        let retired = &secrets.retired_service_account_keys;
        self.api
            .set_service_account_keys(&secrets.service_account_key, retired)
            .doing(|| "taking the service-account key".into())?;
        join::write_tokens(&self.settings.common.data_dir.join("server"), &secrets)?;
        let trust = Trust::from(&*secrets);
        let doing = || "telling the nodes whom to trust".to_owned();
        trust.publish(&self.client).await.doing(doing)?;
        let (namespace, name) = EXTENSIONS;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let mut patch = json!({"data": {"client-ca-file": secrets.client_ca.bundle()}});
        if let Some(ca) = &secrets.front_proxy_ca {
            for (key, value) in FrontProxy::published(&ca.bundle()) {
                patch["data"][key] = value.into();
            }
        }
        maps.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.doing(doing)?;
        if !self.settings.options.disable_agent {
            self.confirm(&trust).await?;
        }
        Ok(())
    }

    async fn confirm(&self, trust: &Trust) -> Outcome {
        let name = &self.settings.node_name;
        let doing = || format!("confirming on the node {name} whom it trusts");
        let nodes: Api<Node> = Api::all(self.client.clone());
        let said = nodes.get_metadata_opt(name).await.doing(doing)?;
        let said = said.and_then(|node| node.metadata.annotations).unwrap_or_default();
        if said.get(join::GENERATION) == Some(&trust.generation.to_string()) {
            return Ok(());
        }
        trust.confirm(&self.client, name).await.doing(doing)
    }
}
