//! The store and the API server over it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use apiserver::{ApiServer, Front, KubeletClient, Limits, ServiceAccountConfig, User, Version};
use nix::sys::socket::{setsockopt, sockopt};
use store::Store;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::tls::Certificates;
use crate::config::Server;
use crate::etcd::Say;
use crate::failure::{Failure, Hint, Outcome, While};

/// The longest that a service-account token may live: a day, as upstream's kubelets ask for at
/// most.
const MAX_TOKEN_SECONDS: u64 = 24 * 3600;

/// Connections that wait to be taken, at most.
const BACKLOG: u32 = 1024;

/// Most of what an idle cluster writes.
const LEASES: &str = "coordination.k8s.io/leases";

/// The port of the API: open from the start, and served as soon as there is a certificate to
/// show.
pub struct Port {
    /// What answers there.
    pub front: Arc<Front>,
    listener: Option<TcpListener>,
}

impl Port {
    /// Opens it. Callers wait until it is served.
    pub async fn open(settings: &Settings) -> Outcome<Port> {
        let options = &settings.options;
        let address = SocketAddr::new(options.bind_address, options.https_listen_port);
        let opened = match address.ip().is_unspecified() {
            true => listen_everywhere(address),
            false => TcpListener::bind(address).await,
        };
        let listener = match opened {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                return Err(Failure::new(format!("port {} is in use", address.port())).hint(
                    format!(
                        "`ss -ltnp sport = {}` shows by whom; stop that, or choose another port \
                         with --https-listen-port",
                        address.port()
                    ),
                ));
            }
            other => other
                .doing(|| format!("listening on {address}"))
                .hint(|| "choose an address of this board with --bind-address".into())?,
        };
        Ok(Port { front: Front::new(Limits::default()), listener: Some(listener) })
    }

    /// Serves it from now on, unless it is served already.
    pub fn serve(
        &mut self,
        certificates: &Certificates,
        parts: &mut JoinSet<Outcome>,
        stop: &CancellationToken,
    ) -> Outcome {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let (front, tls, stop) = (self.front.clone(), certificates.api_server()?, stop.clone());
        parts.spawn(async move {
            front.serve(listener, tls, stop).await;
            Ok(())
        });
        Ok(())
    }

    /// Tells callers what is waited for.
    pub fn say(&self) -> Say {
        let front = self.front.clone();
        Arc::new(move |why| front.waits_for(why))
    }
}

/// All addresses means those of both families, as upstream has it; a kernel without IPv6 has one.
fn listen_everywhere(address: SocketAddr) -> io::Result<TcpListener> {
    let on = |socket: TcpSocket, ip: IpAddr| {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(ip, address.port()))?;
        socket.listen(BACKLOG)
    };
    match TcpSocket::new_v6() {
        Ok(socket) => {
            setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
            on(socket, Ipv6Addr::UNSPECIFIED.into())
        }
        Err(_) => on(TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
    }
}

/// How every store of ours is opened and filled.
pub fn store_options() -> store::Options {
    store::Options {
        volatile: ::api::resource::VOLATILE_COLLECTIONS.iter().map(|&c| c.to_owned()).collect(),
        patient: vec![LEASES.to_owned()],
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

/// The API over a store.
pub fn new(
    settings: &Settings,
    certificates: &Certificates,
    store: Store,
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
            issuer: options.access.issuer(&options.cluster_domain),
            audiences: audiences(options),
            signing_key_pem: certificates.pki().secrets.service_account_key.clone(),
            public_keys_pem: certificates.pki().secrets.retired_service_account_keys.clone(),
            max_expiration_seconds: MAX_TOKEN_SECONDS,
        },
        kubelet: Some(KubeletClient { tls: Arc::new(certificates.to_kubelets()?) }),
        client_ca_pem: certificates.pki().client_bundle(),
        anonymous: true,
        admission: options.access.admission()?,
        tolerations: apiserver::Tolerations {
            not_ready_seconds: options.default_not_ready_toleration_seconds,
            unreachable_seconds: options.default_unreachable_toleration_seconds,
        },
        access: options.access.access(certificates.front_proxy())?,
        limits: Limits::default(),
    };
    ApiServer::new(store, config).doing(|| "setting up the API server".into())
}

/// The audiences of tokens: the issuer, which upstream takes where none is named, and others.
fn audiences(options: &Server) -> Vec<String> {
    let named = &options.access.api_audiences;
    if named.is_empty() {
        return Vec::new();
    }
    let issuer = options.access.issuer(&options.cluster_domain);
    let others = named.iter().filter(|name| **name != issuer).cloned();
    std::iter::once(issuer.clone()).chain(others).collect()
}

/// A client for controllers and scheduler: in the group that may do everything, since together
/// they need nearly that, and through the same admission and validation as anyone.
pub fn control_plane_client(server: &Arc<ApiServer>) -> kube::Client {
    let user = User::new("system:kube-controller-manager", ["system:masters"]);
    client::in_process(server.in_process(user))
}
