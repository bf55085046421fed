//! `coracle server`: store, API server, controllers, scheduler and this board's agent, in one
//! process. Parts start in the order in which they lean on each other and stop in reverse.

mod access;
mod api;
mod datastore;
mod eviction;
mod keys;
mod lock;
mod members;
pub mod moving;
pub mod node;
mod opened;
pub mod preflight;
mod reload;
mod settings;
mod singletons;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use access::AccessOptions;
pub use api::{must_be_stopped, store_options};
pub use datastore::{Datastore, DatastoreOptions, EtcdOptions, Membership};
pub use eviction::EvictionOptions;
pub use lock::Lock;
pub use moving::Target;
pub use node::{remove_node_state, runtime_config};
use opened::Opened;
pub use opened::open_store;
pub use settings::{Settings, identity, is_node_name, version};
use singletons::Singletons;

use crate::commands::kubeconfig;
use crate::config::{Common, Server};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::join::Secrets;
use crate::pki::Signatory;
use crate::vip::Vip;
use crate::{etcd, files, join, manifests, notify, snapshot, upgrade};

/// How long parts may take to stop before the store is closed under them.
pub const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// DNS for the cluster is in every agent; this gives it its address and its name.
const DNS_MANIFEST: &str = include_str!("dns.yaml");

/// Runs a server until SIGTERM or SIGINT, or until a part of it fails.
pub async fn run(common: Common, options: Server) -> Outcome {
    crate::tls::install_provider();
    let _lock = prepare(&common, &options).await?;
    let settings = Settings::new(common, options)?;
    let mut terminate = signal(SignalKind::terminate()).doing(|| "waiting for SIGTERM".into())?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(|| "waiting for SIGINT".into())?;
    if settings.datastore == Datastore::Etcd(Membership::Reset) {
        return reset(&settings).await;
    }
    if !settings.options.disable_agent {
        preflight::check()?;
    }
    let stop = CancellationToken::new();
    let mut parts = JoinSet::new();
    let mut vip = Vip::default();
    let started = tokio::select! {
        started = start(settings, &mut parts, &mut vip, stop.clone()) => Some(started),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    let (opened, outcome) = match started {
        Some(Ok(mut opened)) => {
            let outcome = tokio::select! {
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
                Some(ended) = parts.join_next() => Err(ended_early(ended)),
                failure = opened.ended() => Err(failure),
            };
            (Some(opened), outcome)
        }
        Some(Err(failure)) => (None, Err(failure)),
        None => (None, Ok(())),
    };
    notify::notify("STOPPING=1");
    vip.release().await;
    stop.cancel();
    let stopped = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, stopped).await.is_err() {
        tracing::warn!("some parts did not stop in time");
        parts.abort_all();
    }
    match opened {
        Some(opened) => {
            let closed = opened.close().await;
            // Why it ends comes before what that has led to.
            outcome.and(closed)
        }
        None => outcome,
    }
}

/// Makes a cluster of one of what this server has, and ends.
async fn reset(settings: &Settings) -> Outcome {
    let opened = Opened::open(settings, &settings.bring()?, etcd::to_nobody()).await?;
    let revision = opened.store.revision();
    opened.close().await?;
    println!(
        "the cluster has one server now, {}; it goes on from revision {revision}",
        settings.node_name
    );
    println!("next: start this server without --cluster-reset");
    println!(
        "then: `kubectl delete node NAME` for each server that is lost: its name is free again"
    );
    println!(
        "      the other servers must not come back with their old data: on each, \
         `coracle uninstall`, and join it anew with --server and --token"
    );
    Ok(())
}

/// Takes the data folder, finishes a move that was cut short, and makes the one that
/// `--cluster-init` asks for where there is a cluster in sqlite already.
async fn prepare(common: &Common, options: &Server) -> Outcome<Lock> {
    let data_dir = &common.data_dir;
    files::make_folder(data_dir, false)
        .doing(|| format!("making the data folder {}", data_dir.display()))
        .hint(|| "use sudo, or name a folder that can be written with --data-dir".into())?;
    let lock = Lock::take(data_dir, "starting the server")?;
    moving::finish(data_dir)?;
    if options.datastore.cluster_init && datastore::OnDisk::look(data_dir).only_sqlite() {
        tracing::info!("moving this cluster from sqlite to etcd");
        let mut sqlite = options.clone();
        sqlite.datastore.cluster_init = false;
        let moved = moving::run(&Settings::new(common.clone(), sqlite)?, &Target::Etcd).await?;
        let kept = moved.aside.unwrap_or_default();
        tracing::info!(objects = moved.objects, kept = %kept.display(), "moved");
    }
    Ok(lock)
}

/// This board's member of etcd, as the settings have it.
pub fn place(settings: &Settings) -> Outcome<etcd::Place> {
    opened::place(settings, &settings.bring()?)
}

/// Why a part has ended that should not have.
pub fn ended_early(ended: Result<Outcome, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Err(failure)) => failure,
        Ok(Ok(())) => Failure::new("a part of the server ended by itself"),
        Err(error) => Failure::new(format!("a part of the server failed: {error}")),
    }
}

async fn start(
    settings: Settings,
    parts: &mut JoinSet<Outcome>,
    vip: &mut Vip,
    stop: CancellationToken,
) -> Outcome<Opened> {
    let data_dir = &settings.common.data_dir;
    snapshot::must_be_whole(data_dir)?;
    let mut bring = settings.bring()?;
    let joins = matches!(settings.datastore, Datastore::Etcd(Membership::Join(_)));
    let (membership, name) = (&settings.options.membership, &settings.node_name);
    join::fetch(&mut bring, membership, data_dir, name, joins).await?;
    // A port in use or a folder in use stops the start before anything has been changed.
    let mut port = api::Port::open(&settings).await?;
    let early = tls::Certificates::early(&settings, &bring);
    if let Some(certificates) = &early {
        port.serve(certificates, parts, &stop)?;
    }
    let opened = Opened::open(&settings, &bring, port.say()).await?;
    let store = opened.store.clone();
    let source = snapshot_source(&settings, &store);
    let options = &settings.options;
    let order = upgrade::order(&options.snapshot_places, &options.snapshots, data_dir)?;
    upgrade::first_start(&source, order).await?;
    let secrets = bring.settle(&store).await?;
    let secrets = Arc::new(join::complete(&store, secrets).await?);
    let certificates = tls::Certificates::of(&settings, secrets.clone(), early)?;
    port.serve(&certificates, parts, &stop)?;
    join::write_tokens(&bring.folder, &secrets)?;
    let (announce, secrets) = watch::channel(secrets);
    let server = api::new(&settings, &certificates, store.clone())?;
    server.bootstrap().await.doing(|| "making the objects that a cluster starts with".into())?;
    write_kubeconfig(&settings, &certificates)?;
    vip.start(&settings.options.vip, &settings.common.log, &settings.node_name, &server);
    let acting = api::control_plane_client(&server);
    let (name, known) = (&settings.node_name, secrets.clone());
    join::claim_name(&acting, data_dir, name).await?;
    let member = opened.etcd.as_ref().map(|etcd| etcd.place.clone());
    join::Desk::open(&server, acting, store.clone(), known, name, member);
    port.front.open(server.clone());
    let present = server.clone().announce(presence(&settings), stop.clone());
    parts.spawn(async move {
        present.await;
        Ok(())
    });

    let informers = client::Informers::new(api::control_plane_client(&server));
    let mut duties = duties(&settings, secrets.clone());
    take_snapshots(&settings, source, &server, &mut duties)?;
    let member = opened.etcd.as_ref().map(|etcd| etcd.place.clone());
    duties.add(move |informers, stop| members::keep(member.clone(), informers, stop));
    duties.add(join::keep_passwords);
    readiness(&server, &store);
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
        };
        node::start(board, informers.acting_as(client), parts, &stop).await?;
    }
    parts.spawn(join::follow(store.clone(), bring.folder, announce, stop.clone()));
    if let Some(reload) = reload::Reload::of(&settings.options.access) {
        parts.spawn(reload.keep(server.clone(), stop.clone()));
    }
    let client = api::control_plane_client(&server);
    let etcd = opened.etcd.as_ref().map(etcd::Etcd::renewal);
    let keys = keys::Keys { settings: Arc::new(settings), certificates, etcd, api: server, client };
    parts.spawn(keys.keep(secrets, stop));
    notify::notify("READY=1");
    Ok(opened)
}

/// What this server says of itself to the others.
fn presence(settings: &Settings) -> apiserver::Presence {
    let mut roles = vec!["control-plane".to_owned()];
    if matches!(settings.datastore, Datastore::Etcd(_)) {
        roles.push("etcd".to_owned());
    }
    let agent = !settings.options.disable_agent;
    apiserver::Presence { node: settings.node_name.clone(), roles, agent }
}

/// `/readyz` says what is missing.
fn readiness(server: &Arc<apiserver::ApiServer>, store: &store::Store) {
    // The second is upstream's name for it, whatever the datastore is.
    for name in ["datastore", "etcd-readiness"] {
        let store = store.clone();
        server.add_check(name, move || match store.health() {
            store::Health { error: Some(error), last_success } => {
                let since = last_success.map_or(0, |time| time.as_secs());
                Err(format!("{error} (the datastore was last well {since} s ago)"))
            }
            _ => Ok(()),
        });
    }
}

/// What one server does for all.
fn duties(settings: &Settings, secrets: watch::Receiver<Arc<Secrets>>) -> Singletons {
    let mut duties = Singletons::default();
    let config = controllers::Config {
        cluster_cidr: settings.options.cluster_cidr.to_string(),
        api_url: format!("https://{}", settings.advertise),
        server_names: settings.server_names(),
        node_grace_seconds: settings.options.node_monitor_grace_period.seconds(),
        eviction_rates: settings.options.eviction.rates(),
        ..controllers::Config::default()
    };
    let life_max = Duration::from_secs(settings.options.cluster_signing_duration.seconds().into());
    duties.add(move |informers, stop| {
        let (config, secrets) = (config.clone(), secrets.clone());
        async move { control(informers, config, secrets, life_max, stop).await }
    });
    duties.add(|informers, stop| async move {
        let config = scheduler::Config::default();
        scheduler::run(informers.client().clone(), informers, config, stop).await;
    });
    duties
}

/// What snapshots of this server are taken of.
fn snapshot_source(settings: &Settings, store: &store::Store) -> snapshot::Source {
    snapshot::Source {
        store: store.clone(),
        engine: settings.datastore.engine().to_owned(),
        data_dir: settings.common.data_dir.clone(),
        node: settings.node_name.clone(),
        release: upgrade::current(),
    }
}

/// Has snapshots taken by whoever asks for them, and by the leading server on schedule.
fn take_snapshots(
    settings: &Settings,
    source: snapshot::Source,
    server: &Arc<apiserver::ApiServer>,
    duties: &mut Singletons,
) -> Outcome {
    let tally = Arc::new(snapshot::Tally::default());
    let shown = tally.clone();
    server.add_metrics(move |page| shown.write(page));
    let desk = snapshot::Desk::new(source, tally);
    let options = &settings.options;
    let plan = snapshot::Plan::new(
        &options.snapshots,
        &options.snapshot_places,
        &settings.common.data_dir,
    )?;
    if let Some(plan) = plan {
        let (desk, node) = (desk.clone(), settings.node_name.clone());
        duties.add(move |informers, stop| {
            let recorder = client::Recorder::new(informers.client().clone(), "coracle", &node);
            snapshot::keep(desk.clone(), plan.clone(), recorder, stop)
        });
    }
    server.add_outside(desk);
    Ok(())
}

/// Runs the controllers, anew whenever the authorities that they publish have changed.
async fn control(
    informers: client::Informers,
    config: controllers::Config,
    mut secrets: watch::Receiver<Arc<Secrets>>,
    life_max: Duration,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let present = secrets.borrow_and_update().clone();
        let config = controllers::Config {
            root_ca_pem: present.server_ca.bundle(),
            signer: Some(Arc::new(Signatory { secrets: present, life_max })),
            ..config.clone()
        };
        let until = stop.child_token();
        let client = informers.client().clone();
        let run = controllers::run(client, informers.clone(), config, until.clone());
        let changed = async {
            match secrets.changed().await {
                Ok(()) => until.cancel(),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::join!(run, async {
            tokio::select! {
                () = changed => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn write_kubeconfig(settings: &Settings, certificates: &tls::Certificates) -> Outcome {
    let admin = certificates.pki().admin()?;
    let ca = certificates.pki().server_bundle();
    let text = kubeconfig::render(&settings.local_server(), &ca, &admin)?;
    let own = kubeconfig::path(&settings.common.data_dir);
    for path in [&own, &settings.options.write_kubeconfig] {
        let folder = path.parent().unwrap_or(std::path::Path::new("/"));
        files::make_folder(folder, path == &own)
            .and_then(|()| files::write_if_changed(path, text.as_bytes(), 0o600))
            .doing(|| format!("writing the kubeconfig {}", path.display()))?;
    }
    Ok(())
}
