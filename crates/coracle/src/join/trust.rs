//! Whom nodes trust, as the ConfigMap `kube-system/coracle-trust` says it: servers write it when
//! the cluster's secrets change, agents follow it, and each node confirms on its Node object that
//! it has certificates of the newest authorities.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Secrets;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coracle-trust";
/// The annotation by which a node confirms a generation.
pub const GENERATION: &str = "coracle.dev/trust-generation";
/// Pause after the watch broke.
const RETRY: Duration = Duration::from_millis(200);
/// Attempts while other servers write the same.
const ATTEMPTS_MAX: usize = 8;

/// Whom a node trusts, and since when its leaves must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// The generation of the cluster's secrets.
    pub generation: u64,
    /// The authorities of servers, PEM, the present one first.
    pub server_ca: String,
    /// The authorities of clients, PEM, the present one first.
    pub client_ca: String,
    /// Leaves made before this second since 1970 are to be made anew.
    pub renew_after: i64,
}

impl From<&Secrets> for Trust {
    fn from(secrets: &Secrets) -> Self {
        Trust {
            generation: secrets.generation,
            server_ca: secrets.server_ca.bundle(),
            client_ca: secrets.client_ca.bundle(),
            renew_after: secrets.renew_after,
        }
    }
}

impl Trust {
    fn to_data(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("generation".to_owned(), self.generation.to_string()),
            ("server-ca.crt".to_owned(), self.server_ca.clone()),
            ("client-ca.crt".to_owned(), self.client_ca.clone()),
            ("renew-after".to_owned(), self.renew_after.to_string()),
        ])
    }

    fn of_map(map: &ConfigMap) -> Option<Self> {
        let text = |key: &str| map.data.as_ref()?.get(key).cloned();
        Some(Trust {
            generation: text("generation")?.parse().ok()?,
            server_ca: text("server-ca.crt")?,
            client_ca: text("client-ca.crt")?,
            renew_after: text("renew-after")?.parse().ok()?,
        })
    }

    /// Tells all nodes. What a newer generation has said stays.
    pub async fn publish(&self, client: &Client) -> kube::Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let mut result = Ok(());
        for _ in 0..ATTEMPTS_MAX {
            let present = api.get_opt(NAME).await?;
            let said = present.as_ref().and_then(Trust::of_map);
            if said.is_some_and(|said| said.generation > self.generation || said == *self) {
                return Ok(());
            }
            let data = Some(self.to_data());
            let written = match present {
                Some(map) => {
                    let map = ConfigMap { data, ..map };
                    api.replace(NAME, &PostParams::default(), &map).await
                }
                None => {
                    let name = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                    let map = ConfigMap { metadata: name, data, ..ConfigMap::default() };
                    api.create(&PostParams::default(), &map).await
                }
            };
            result = match written {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    Err(kube::Error::Api(status))
                }
                other => return other.map(drop),
            };
        }
        result
    }

    /// Follows what the servers say until `stop`.
    pub async fn follow(client: Client, said: watch::Sender<Trust>, stop: CancellationToken) {
        let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        let follow = async {
            loop {
                let mut seen = std::pin::pin!(watch_object(api.clone(), NAME));
                while let Some(seen) = seen.next().await {
                    match seen {
                        Ok(map) => {
                            let Some(trust) = map.as_ref().and_then(Trust::of_map) else {
                                continue;
                            };
                            said.send_if_modified(|present| {
                                let newer = trust.generation >= present.generation;
                                let changed = newer && *present != trust;
                                if changed {
                                    *present = trust;
                                }
                                changed
                            });
                        }
                        Err(error) => {
                            tracing::debug!(error = %base::chain(&error), "watching whom to trust");
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = stop.cancelled() => {}
        }
    }

    /// Says on the Node that it has certificates of this generation.
    pub async fn confirm(&self, client: &Client, node: &str) -> kube::Result<()> {
        let patch = json!({"metadata": {"annotations": {GENERATION: self.generation.to_string()}}});
        let api: Api<Node> = Api::all(client.clone());
        api.patch_metadata(node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Whether a leaf that was got at `since` is good still: of the present authority, and not
    /// asked for anew.
    pub fn keeps(&self, leaf: &str, authority: &str, since: Timestamp) -> bool {
        crate::pki::is_issued_by(leaf, authority) && since.as_second() >= self.renew_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let trust =
            Trust { generation: 3, server_ca: "S".into(), client_ca: "C".into(), renew_after: 17 };
        let map = ConfigMap { data: Some(trust.to_data()), ..ConfigMap::default() };
        assert_eq!(Trust::of_map(&map), Some(trust));
        assert_eq!(Trust::of_map(&ConfigMap::default()), None);
    }
}
