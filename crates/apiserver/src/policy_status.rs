//! Keeps the status of ValidatingAdmissionPolicies: which of their expressions do not fit the
//! kinds that they are about. Like the count of quotas it follows the store and has nothing to do
//! in a cluster without policies.

use std::sync::Arc;

use crate::feed::{Change, Feed};
use crate::server::ApiServer;

const POLICIES: &str = "admissionregistration.k8s.io/validatingadmissionpolicies";

/// Checks policies as they are written, until the server stops.
pub(crate) fn start(server: &Arc<ApiServer>) {
    let mut feed = Feed::new(server.context.store.clone(), POLICIES);
    let stopping = server.context.stopping.clone();
    // A weak reference: this task must not keep a server alive that nobody else holds.
    let registry = Arc::downgrade(&server.registry);
    tokio::spawn(async move {
        loop {
            let change = tokio::select! {
                () = stopping.cancelled() => return,
                change = feed.next() => change,
            };
            let (Some(change), Some(registry)) = (change, registry.upgrade()) else { return };
            let entries = match change {
                Change::Reset(entries) => entries,
                Change::Put(entry) => vec![entry],
                Change::Gone(_) => Vec::new(),
            };
            for entry in entries {
                registry.check_policy(&entry).await;
            }
        }
    });
}
