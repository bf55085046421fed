//! `coracle server`: store, API server, controllers, scheduler and this board's agent, in one
//! process. Parts start in the order in which they lean on each other and stop in reverse.

mod api;
mod datastore;
pub mod node;
mod preflight;
mod settings;
mod singletons;
pub mod tls;

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use api::must_be_stopped;
pub use datastore::{Datastore, DatastoreOptions};
pub use node::{remove_node_state, runtime_config};
pub use settings::{Settings, version};
use singletons::Singletons;

use crate::commands::kubeconfig;
use crate::config::{Common, Server};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::pki::Pki;
use crate::{files, manifests, notify};

/// How long parts may take to stop before the store is closed under them.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// DNS for the cluster is in every agent; this gives it its address and its name.
const DNS_MANIFEST: &str = include_str!("dns.yaml");

/// Runs a server until SIGTERM or SIGINT, or until a part of it fails.
pub async fn run(common: Common, options: Server) -> Outcome {
    tls::install_provider();
    let settings = Settings::new(common, options)?;
    let mut terminate = signal(SignalKind::terminate()).doing(|| "waiting for SIGTERM".into())?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(|| "waiting for SIGINT".into())?;
    if !settings.options.disable_agent {
        preflight::check()?;
    }
    let stop = CancellationToken::new();
    let mut parts = JoinSet::new();
    let started = tokio::select! {
        started = start(settings, &mut parts, stop.clone()) => Some(started),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    let (store, outcome) = match started {
        Some(Ok(store)) => {
            let outcome = tokio::select! {
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
                Some(ended) = parts.join_next() => Err(ended_early(ended)),
            };
            (Some(store), outcome)
        }
        Some(Err(failure)) => (None, Err(failure)),
        None => (None, Ok(())),
    };
    notify::notify("STOPPING=1");
    stop.cancel();
    let stopped = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, stopped).await.is_err() {
        tracing::warn!("some parts did not stop in time");
        parts.abort_all();
    }
    if let Some(store) = store {
        store.close().await.doing(|| "closing the store".into())?;
    }
    outcome
}

fn ended_early(ended: Result<Outcome, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Err(failure)) => failure,
        Ok(Ok(())) => Failure::new("a part of the server ended by itself"),
        Err(error) => Failure::new(format!("a part of the server failed: {error}")),
    }
}

async fn start(
    settings: Settings,
    parts: &mut JoinSet<Outcome>,
    stop: CancellationToken,
) -> Outcome<store::Store> {
    let data_dir = &settings.common.data_dir;
    files::make_folder(data_dir, false)
        .doing(|| format!("making the data folder {}", data_dir.display()))
        .hint(|| "use sudo, or name a folder that can be written with --data-dir".into())?;
    let tls_dir = data_dir.join("server/tls");
    let pki = Pki::open(&tls_dir)?;
    // A port in use or a folder in use stops the start before anything has been changed.
    let listener = api::listen(&settings).await?;
    let store = api::open_store(&settings).await?;
    let certificates = tls::Certificates::new(&settings, pki)?;
    let server = api::start(&settings, &certificates, store.clone(), listener, parts, &stop)?;
    server.bootstrap().await.doing(|| "making the objects that a cluster starts with".into())?;
    write_kubeconfig(&settings, &certificates)?;

    let informers = client::Informers::new(api::control_plane_client(&server));
    let duties = duties(&settings, &certificates);
    let alone = settings.datastore == Datastore::Sqlite;
    match alone {
        true => duties.run_alone(&informers, parts, &stop),
        false => duties.run_elected(&server, &settings.node_name, parts, &stop),
    }
    let folder = settings.manifests_dir();
    let dns = DNS_MANIFEST.replace("CLUSTER_DNS", &settings.cluster_dns.to_string());
    manifests::write_bundled(&folder, "coracle-dns.yaml", &dns)?;
    parts.spawn(manifests::run(informers.client().clone(), folder, stop.clone()));
    if !settings.options.disable_agent {
        let client =
            client::in_process(server.in_process(apiserver::User::node(&settings.node_name)));
        let board = node::Board {
            common: settings.common.clone(),
            options: settings.options.node.clone(),
            name: settings.node_name.clone(),
            ip: settings.node_ip,
            facts: settings.facts(),
            tls: certificates.kubelet()?,
            all_pods_cached: alone,
        };
        node::start(board, informers.acting_as(client), parts, &stop).await?;
    }
    parts.spawn(certificates.keep_fresh(settings, stop));
    notify::notify("READY=1");
    Ok(store)
}

/// What one server does for all.
fn duties(settings: &Settings, certificates: &tls::Certificates) -> Singletons {
    let mut duties = Singletons::default();
    let config = controllers::Config {
        root_ca_pem: certificates.pki().server_ca.cert.clone(),
        cluster_cidr: settings.options.cluster_cidr.to_string(),
        node_grace_seconds: settings.options.node_monitor_grace_period,
        ..controllers::Config::default()
    };
    duties.add(move |informers, stop| {
        let config = config.clone();
        async move { controllers::run(informers.client().clone(), informers, config, stop).await }
    });
    duties.add(|informers, stop| async move {
        let config = scheduler::Config::default();
        scheduler::run(informers.client().clone(), informers, config, stop).await;
    });
    duties
}

fn write_kubeconfig(settings: &Settings, certificates: &tls::Certificates) -> Outcome {
    let admin = certificates.pki().admin()?;
    let ca = &certificates.pki().server_ca.cert;
    let text = kubeconfig::render(&settings.local_server(), ca, &admin)?;
    let own = kubeconfig::path(&settings.common.data_dir);
    for path in [&own, &settings.options.write_kubeconfig] {
        let folder = path.parent().unwrap_or(std::path::Path::new("/"));
        files::make_folder(folder, path == &own)
            .and_then(|()| files::write_if_changed(path, text.as_bytes(), 0o600))
            .doing(|| format!("writing the kubeconfig {}", path.display()))?;
    }
    Ok(())
}
