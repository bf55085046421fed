//! The store and the API server over it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::{ApiServer, KubeletClient, Limits, ServiceAccountConfig, User, Version};
use store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::tls::Certificates;
use crate::failure::{Failure, Hint, Outcome, While};

/// The longest that a service-account token may live: a day, as upstream's kubelets ask for at
/// most.
const MAX_TOKEN_SECONDS: u64 = 24 * 3600;

/// Opens the API server's port.
pub async fn listen(settings: &Settings) -> Outcome<TcpListener> {
    let address =
        SocketAddr::new(settings.options.bind_address, settings.options.https_listen_port);
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Err(Failure::new(format!("port {} is in use", address.port())).hint(format!(
                "`ss -ltnp sport = {}` shows by whom; stop that, or choose another port with \
             --https-listen-port",
                address.port()
            )))
        }
        other => other
            .doing(|| format!("listening on {address}"))
            .hint(|| "choose an address of this board with --bind-address".into()),
    }
}

/// How every store of ours is opened and filled.
pub fn store_options() -> store::Options {
    store::Options {
        volatile: ::api::resource::VOLATILE_COLLECTIONS.iter().map(|&c| c.to_owned()).collect(),
        ..store::Options::default()
    }
}

/// Refuses to do `what` where a server is still running in a data folder: its files must not be
/// taken from under it.
pub fn must_be_stopped(data_dir: &std::path::Path, what: &str) -> Outcome {
    match data_dir.join("server").exists() {
        true => super::Lock::take(data_dir, what).map(drop),
        false => Ok(()),
    }
}

/// Starts serving the API.
pub fn start(
    settings: &Settings,
    certificates: &Certificates,
    store: Store,
    listener: TcpListener,
    parts: &mut JoinSet<Outcome>,
    stop: &CancellationToken,
) -> Outcome<Arc<ApiServer>> {
    let options = &settings.options;
    let config = apiserver::Config {
        version: Version {
            git_version: super::version(),
            git_commit: option_env!("CORACLE_COMMIT").unwrap_or_default().to_owned(),
            build_date: option_env!("CORACLE_BUILD_DATE")
                .unwrap_or("1970-01-01T00:00:00Z")
                .to_owned(),
            compiler: "rustc".to_owned(),
        },
        advertise: settings.advertise,
        service_cidrs: vec![
            options
                .service_cidr
                .to_string()
                .parse()
                .doing(|| format!("reading the network {}", options.service_cidr))?,
        ],
        node_ports: (options.service_node_port_range.first, options.service_node_port_range.last),
        cluster_domain: options.cluster_domain.clone(),
        service_account: ServiceAccountConfig {
            issuer: format!("https://kubernetes.default.svc.{}", options.cluster_domain),
            audiences: Vec::new(),
            signing_key_pem: certificates.pki().secrets.service_account_key.clone(),
            public_keys_pem: certificates.pki().secrets.retired_service_account_keys.clone(),
            max_expiration_seconds: MAX_TOKEN_SECONDS,
        },
        kubelet: Some(KubeletClient { tls: Arc::new(certificates.to_kubelets()?) }),
        client_ca_pem: certificates.pki().client_bundle(),
        anonymous: true,
        tolerations: apiserver::Tolerations {
            not_ready_seconds: options.default_not_ready_toleration_seconds,
            unreachable_seconds: options.default_unreachable_toleration_seconds,
        },
        limits: Limits::default(),
    };
    let server = ApiServer::new(store, config).doing(|| "setting up the API server".into())?;
    let (serving, tls, stop) = (server.clone(), certificates.api_server()?, stop.clone());
    parts.spawn(async move {
        serving.serve(listener, tls, stop).await;
        Ok(())
    });
    Ok(server)
}

/// A client for controllers and scheduler: in the group that may do everything, since together
/// they need nearly that, and through the same admission and validation as anyone.
pub fn control_plane_client(server: &Arc<ApiServer>) -> kube::Client {
    let user = User::new("system:kube-controller-manager", ["system:masters"]);
    client::in_process(server.in_process(user))
}
