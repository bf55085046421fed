//! Who holds the address, for everybody to see: the Lease `kube-system/coracle-vip`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

/// The Lease whose holder holds the address. Nobody elects by it; it only tells.
const LEASE: &str = "coracle-vip";
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Writes our name down whenever we take the address. Whoever loses it writes nothing: the next
/// holder will.
pub async fn follow(client: Client, node: String, mut active: watch::Receiver<bool>) {
    let api: Api<Lease> = Api::namespaced(client, "kube-system");
    while active.wait_for(|active| *active).await.is_ok() {
        let now = format!("{:.6}", Timestamp::now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": "kube-system"},
            "spec": {"holderIdentity": node, "acquireTime": now, "renewTime": now},
        });
        let params = PatchParams::apply("coracle-vip").force();
        match api.patch(LEASE, &params, &Patch::Apply(&lease)).await {
            Ok(_) => {
                if active.wait_for(|active| !*active).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(error = %base::chain(&error), "holder of the virtual address not noted");
                sleep(RETRY).await;
            }
        }
    }
}
