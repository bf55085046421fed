//! The agent as a whole: registers the node, follows its pods, keeps the network in step.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Informers, Recorder};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::watcher::{self, watch_object};
use kube::{Api, Client};
use runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::{Attach, Context, Parts};
use crate::evict::Relief;
use crate::manager::Manager;
use crate::network::{Network, NetworkParts, Peers};
use crate::node::machine::Machine;
use crate::node::{self, Registrar};
use crate::shutdown::{self, Leaving};
use crate::{overuse, server, volumes};

/// Pause after a watch broke.
const WATCH_RETRY: Duration = Duration::from_millis(200);
/// How often the disk is looked at, to collect images.
const LOOK_AT_DISK: Duration = Duration::from_secs(60);
/// How often memory and disk are looked at, to evict pods; as often as upstream does.
const LOOK_FOR_LACK: Duration = Duration::from_secs(10);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A folder could not be made or mounted.
    #[error("preparing {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The kubelet's port could not be opened.
    #[error(
        "listening on {address} for the kubelet API (is another kubelet running? choose another port)"
    )]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The network of the node, opened by the caller, who knows its addresses.
pub struct NodeNetwork {
    /// Attaches pods.
    pub pods: Arc<dyn Attach>,
    /// Services and names.
    pub services: NetworkParts,
}

/// Makes the Node object and gives it back, as a caller does before it waits for [`pod_cidrs`]
/// and opens the pod network. [`run`] does it again.
pub async fn register(config: &Config, client: &Client, runtime: Arc<dyn Runtime>) -> Node {
    let (leaving, recorder) = (Leaving::default(), recorder(config, client));
    Registrar::new(config.clone(), client.clone(), runtime, Machine::read(), leaving, recorder)
        .register()
        .await
}

fn recorder(config: &Config, client: &Client) -> Recorder {
    Recorder::new(client.clone(), "kubelet", &config.node_name)
}

/// Waits until the cluster has given the node its blocks of pod addresses.
pub async fn pod_cidrs(client: &Client, node: &str) -> Vec<String> {
    let api: Api<Node> = Api::all(client.clone());
    loop {
        let mut seen = std::pin::pin!(watch_object(api.clone(), node));
        while let Some(seen) = seen.next().await {
            let spec = match seen {
                Ok(node) => node.and_then(|node| node.spec),
                Err(error) => {
                    tracing::debug!(error = %base::chain(&error), "waiting for pod addresses");
                    tokio::time::sleep(WATCH_RETRY).await;
                    continue;
                }
            };
            let Some(spec) = spec else { continue };
            let one = spec.pod_cidr.filter(|cidr| !cidr.is_empty());
            let all = spec.pod_cidrs.filter(|all| !all.is_empty());
            if let Some(all) = all.or_else(|| one.map(|one| vec![one])) {
                return all;
            }
        }
        tokio::time::sleep(WATCH_RETRY).await;
    }
}

/// Runs the agent until `stop`. Running containers are left alone at the end: the next agent
/// finds them.
pub async fn run(
    config: Config,
    informers: Informers,
    runtime: Arc<dyn Runtime>,
    network: NodeNetwork,
    mut stop: CancellationToken,
) -> Result<(), AgentError> {
    let client = informers.client().clone();
    let machine = Machine::read();
    // Whole, and the node's own only: what all parts of a process share lacks what only we need.
    let selector = format!("spec.nodeName={}", config.node_name);
    let pods = informers.select::<Pod>(watcher::Config::default().fields(&selector));
    let ctx = Arc::new(Context::new(Parts {
        recorder: recorder(&config, &client),
        services: informers.of(),
        nodes: informers.of(),
        allocatable: node::allocatable(&config, &machine),
        memory_bytes: machine.memory_bytes,
        network: network.pods,
        runtime: runtime.clone(),
        client: client.clone(),
        config: config.clone(),
    }));
    prepare_folders(&ctx)?;
    let manager = Manager::new(ctx.clone());
    // When the whole machine stops, pods are ended before the parts that end them.
    let asked = std::mem::replace(&mut stop, CancellationToken::new());
    let ending = async {
        asked.cancelled().await;
        shutdown::at_stop(&manager).await;
        stop.cancel();
    };
    let listener = server::bind(&config)?;
    let registrar = {
        let leaving = ctx.leaving.clone();
        let recorder = ctx.recorder.clone();
        Registrar::new(config.clone(), client.clone(), runtime, machine, leaving, recorder)
    };
    registrar.starts();
    let seen = || ctx.node();
    let node = async {
        let (current, newest) = watch::channel(registrar.register().await);
        let lost = Arc::new(Notify::new());
        tokio::join!(
            node::renew(client.clone(), newest, lost.clone(), stop.clone()),
            registrar.keep(current, &seen, lost, stop.clone())
        );
    };
    let node = async {
        tokio::select! {
            () = node => {}
            () = stop.cancelled() => {}
        }
    };
    let peers = Peers::new(ctx.network.clone(), &config.node_name, informers.of());
    let network = Network::new(network.services, &config.node_name, &informers, pods.clone());
    tokio::join!(
        ending,
        shutdown::run(&manager, stop.clone()),
        node,
        manager.run(pods, stop.clone()),
        network.run(stop.clone()),
        peers.run(stop.clone()),
        server::serve(listener, manager.clone(), stop.clone()),
        keep_house(&manager, stop.clone()),
    );
    Ok(())
}

fn prepare_folders(ctx: &Context) -> Result<(), AgentError> {
    let failed = |path: PathBuf| move |source| AgentError::Folder { path, source };
    for path in [ctx.config.data_dir.join("pods"), ctx.config.log_dir.clone()] {
        std::fs::create_dir_all(&path).map_err(failed(path))?;
    }
    let memory = ctx.memory_root();
    volumes::ensure_tmpfs(&memory).map_err(failed(memory))
}

async fn keep_house(manager: &Manager, stop: CancellationToken) {
    let mut relief = Relief::default();
    let mut disk = tokio::time::interval_at(Instant::now() + LOOK_AT_DISK, LOOK_AT_DISK);
    let mut short = tokio::time::interval_at(Instant::now() + LOOK_FOR_LACK, LOOK_FOR_LACK);
    loop {
        tokio::select! {
            _ = disk.tick() => relief.collect_images(manager.context()).await,
            _ = short.tick() => {
                overuse::look(manager).await;
                relief.look(manager).await;
            }
            () = stop.cancelled() => return,
        }
    }
}
