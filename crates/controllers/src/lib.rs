//! The controllers. Each is a row of one table: what wakes it, and a pure function that turns
//! the caches into a printable list of actions; one driver carries them all.
//!
//! kube-runtime's `Controller` was turned down: it wants a reconciler with I/O inside, where
//! ours can be tested with a few lines of YAML and no cluster.

pub mod action;
mod bootstrap;
mod carry_out;
mod certificates;
pub mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod driver;
mod endpoints;
mod garbage;
mod hash;
mod history;
mod job;
mod namespace;
mod nodes;
mod owner;
mod podgc;
mod pods;
mod protection;
mod replicaset;
mod serviceaccount;
mod signer;
mod statefulset;
pub mod world;

#[cfg(test)]
mod fixture;

pub use cronjob::Schedule as CronSchedule;

use std::sync::Arc;

use client::Informers;
use tokio_util::sync::CancellationToken;

use crate::driver::Controller;
pub use nodes::EvictionRates;
pub use signer::{Authority, Signer, SigningRequest};

/// Prefix length of a node's part of the pod addresses, as upstream's by default.
pub const NODE_CIDR_PREFIX_BITS: u8 = 24;

/// Settings of the cluster that controllers need.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster CA's certificate, published to every namespace. Empty: not published.
    pub root_ca_pem: String,
    /// Pod addresses of the whole cluster, such as `10.42.0.0/16`; each node gets a part of
    /// it. Empty: nodes bring their own.
    pub cluster_cidr: String,
    /// Prefix length of a node's part.
    pub node_cidr_prefix_bits: u8,
    /// A node that has not renewed its lease for so long is not ready; upstream's 50 by default.
    pub node_grace_seconds: u32,
    /// How fast nodes that are not ready lose their pods.
    pub eviction_rates: EvictionRates,
    /// Finished pods kept before the oldest are deleted.
    pub terminated_pods_kept: usize,
    /// Where clients reach the API (`https://host:port`), published in `cluster-info`. Empty:
    /// not published.
    pub api_url: String,
    /// Names and addresses of API servers, which no node gets a certificate for.
    pub server_names: Vec<String>,
    /// Signs certificates that were approved. None: nobody does.
    pub signer: Option<Arc<dyn Signer>>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            root_ca_pem: String::new(),
            cluster_cidr: "10.42.0.0/16".into(),
            node_cidr_prefix_bits: NODE_CIDR_PREFIX_BITS,
            node_grace_seconds: 50,
            eviction_rates: EvictionRates::default(),
            terminated_pods_kept: 12_500,
            api_url: String::new(),
            server_names: Vec::new(),
            signer: None,
        }
    }
}

/// All controllers.
const CONTROLLERS: &[Controller] = &[
    namespace::NAMESPACE,
    serviceaccount::SERVICE_ACCOUNT,
    serviceaccount::ROOT_CA_PUBLISHER,
    deployment::DEPLOYMENT,
    replicaset::REPLICA_SET,
    replicaset::REPLICATION_CONTROLLER,
    daemonset::DAEMON_SET,
    statefulset::STATEFUL_SET,
    job::JOB,
    cronjob::CRON_JOB,
    endpoints::ENDPOINT_SLICE,
    endpoints::MIRROR,
    endpoints::ENDPOINTS,
    nodes::NODE_LIFECYCLE,
    nodes::TAINT_EVICTION,
    nodes::NODE_IPAM,
    nodes::NODE_ROLES,
    podgc::POD_GC,
    protection::CLAIM_PROTECTION,
    protection::VOLUME_PROTECTION,
    certificates::APPROVER,
    certificates::SIGNER,
    certificates::CLEANER,
    disruption::DISRUPTION,
    bootstrap::TOKEN_CLEANER,
    bootstrap::BOOTSTRAP_SIGNER,
];

/// Runs all controllers until `stop` is cancelled; what is under way is finished first.
pub async fn run(
    client: kube::Client,
    informers: Informers,
    config: Config,
    stop: CancellationToken,
) {
    tokio::join!(
        driver::run(CONTROLLERS, client.clone(), informers, config, stop.clone()),
        garbage::run(client, stop),
    );
}
