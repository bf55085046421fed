//! The lease of the node: renewed every ten seconds, at the same moments as all others, it is how the cluster knows that the node
//! is alive without anybody rewriting its status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Where leases of nodes are.
const NAMESPACE: &str = "kube-node-lease";
/// Seconds after which a node that is silent counts as lost.
const DURATION_S: i32 = 40;
/// Time between two renewals: a quarter of the above, as upstream.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failure, doubling.
const RETRY: base::Backoff = base::Backoff::new(Duration::from_millis(200), Duration::from_secs(7));

/// Renews the lease of `node` until `stop`. Where the lease is gone (it goes with its Node),
/// `lost` tells so; the newest Node is its owner from then on.
pub async fn renew(
    client: Client,
    node: watch::Receiver<Node>,
    lost: Arc<Notify>,
    stop: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut failures = 0;
    let mut made = false;
    loop {
        let owner = node.borrow().clone();
        let result = match made {
            true => touch(&api, &owner).await,
            false => make(&api, &owner).await,
        };
        let pause = match result {
            Ok(()) => {
                (made, failures) = (true, 0);
                base::next_beat(Timestamp::now(), RENEW_EVERY)
            }
            Err(error) => {
                failures += 1;
                if matches!(&error, kube::Error::Api(status) if status.code == 404) {
                    lost.notify_one();
                }
                made = false;
                tracing::debug!(error = %base::chain(&error), "lease not renewed");
                RETRY.jittered(failures)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn touch(api: &Api<Lease>, node: &Node) -> kube::Result<()> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    // Who set which field is nearly half of a lease, and would be written each time.
    let patch = json!({
        "metadata": {"managedFields": [{}]},
        "spec": {"renewTime": MicroTime(Timestamp::now())},
    });
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Makes the lease, or takes over the one that is there.
async fn make(api: &Api<Lease>, node: &Node) -> kube::Result<()> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(DURATION_S),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    match api.create(&PostParams::default(), &lease).await {
        Err(kube::Error::Api(error)) if error.code == 409 => {
            let patch = Patch::Merge(&lease);
            api.patch(&name, &PatchParams::default(), &patch).await.map(drop)
        }
        other => other.map(drop),
    }
}
