//! The certificates that a server shows and the authorities that it trusts, in step with the
//! cluster's secrets.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{ClientConfig, ServerConfig};

use super::{Datastore, Settings};
use crate::failure::Outcome;
use crate::join::{Bring, Secrets};
use crate::pki::{Identity, LEAF_LIFE, Pki, Signer};
use crate::tls::{Shown, TrustedClients, TrustedServers, client_config, server_config};

/// The name by which kubelets know the API server.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// The certificates that this server shows, and the authorities that it trusts.
pub struct Certificates {
    pki: RwLock<Arc<Pki>>,
    server: Arc<Shown>,
    kubelet: Arc<Shown>,
    kubelet_client: Arc<Shown>,
    front_proxy: Arc<Shown>,
    api_clients: Arc<TrustedClients>,
    kubelet_clients: Arc<TrustedClients>,
    kubelets: Arc<TrustedServers>,
}

impl Certificates {
    /// Reads or makes the certificates.
    fn new(settings: &Settings, pki: Pki) -> Outcome<Self> {
        Ok(Certificates {
            server: Shown::new(&pki.leaf(server(settings))?)?,
            kubelet: Shown::new(&pki.leaf(kubelet(settings))?)?,
            kubelet_client: Shown::new(&pki.leaf(kubelet_client())?)?,
            front_proxy: front_proxy_shown(&pki)?,
            api_clients: TrustedClients::new(&pki.client_bundle())?,
            kubelet_clients: TrustedClients::new(&pki.client_bundle())?,
            kubelets: TrustedServers::nodes(&pki.server_bundle())?,
            pki: RwLock::new(Arc::new(pki)),
        })
    }

    /// The certificates of a server whose datastore is not open yet, by the secrets that it has.
    /// Without any, or with damaged ones, there are none: opening the datastore mends it, or
    /// says what is wrong.
    pub fn early(settings: &Settings, bring: &Bring) -> Option<Arc<Self>> {
        let known = match settings.datastore {
            Datastore::Etcd(_) => Some(bring.known_or_new()),
            _ => bring.known().transpose(),
        };
        let made = known?.and_then(|secrets| Self::of(settings, Arc::new(secrets), None));
        made.inspect_err(|failure| {
            tracing::debug!(error = %base::chain(failure), "no certificates yet");
        })
        .ok()
    }

    /// The certificates by the cluster's secrets, made anew or brought up to them.
    pub fn of(
        settings: &Settings,
        secrets: Arc<Secrets>,
        early: Option<Arc<Self>>,
    ) -> Outcome<Arc<Self>> {
        match early {
            Some(early) => early.renew(settings, secrets).map(|()| early),
            None => {
                let folder = settings.common.data_dir.join("server/tls");
                Self::new(settings, Pki::new(&folder, secrets)?).map(Arc::new)
            }
        }
    }

    /// The authorities behind the certificates.
    pub fn pki(&self) -> Arc<Pki> {
        self.pki.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// TLS of the API server: a client may show a certificate of the client authority.
    pub fn api_server(&self) -> Outcome<ServerConfig> {
        server_config(self.server.clone(), self.api_clients.clone())
    }

    /// TLS of the kubelet's API: a client must show a certificate.
    pub fn kubelet(&self) -> Outcome<ServerConfig> {
        server_config(self.kubelet.clone(), self.kubelet_clients.clone())
    }

    /// TLS of the API server towards kubelets.
    pub fn to_kubelets(&self) -> Outcome<ClientConfig> {
        client_config(self.kubelets.verifier(), self.kubelet_client.clone())
    }

    /// What the API server shows to aggregated ones, and the authority that signs it; `None` while
    /// the cluster has none.
    pub fn front_proxy(&self) -> Option<apiserver::FrontProxy> {
        let ca_pem = self.pki().secrets.front_proxy_ca.as_ref()?.bundle();
        Some(apiserver::FrontProxy { ca_pem, certificate: self.front_proxy.clone() })
    }

    /// Makes leaves anew that are due, and follows the cluster's secrets. The admin's kubeconfig
    /// is renewed with them.
    ///
    /// Trust comes first: who shows a certificate of a new authority must find it trusted.
    pub fn renew(&self, settings: &Settings, secrets: Arc<Secrets>) -> Outcome {
        let pki = Arc::new(Pki::new(self.pki().folder(), secrets)?);
        *self.pki.write().unwrap_or_else(PoisonError::into_inner) = pki.clone();
        self.api_clients.set(&pki.client_bundle())?;
        self.kubelet_clients.set(&pki.client_bundle())?;
        self.kubelets.set(&pki.server_bundle())?;
        for (shown, identity) in [
            (&self.server, server(settings)),
            (&self.kubelet, kubelet(settings)),
            (&self.kubelet_client, kubelet_client()),
        ] {
            shown.set(&pki.leaf(identity)?)?;
        }
        if pki.secrets.is_complete() {
            self.front_proxy.set(&pki.leaf(front_proxy())?)?;
        }
        super::write_kubeconfig(settings, self)
    }
}

fn server(settings: &Settings) -> Identity<'static> {
    Identity {
        file: "serving-kube-apiserver",
        signer: Signer::Server,
        common_name: "kube-apiserver",
        organization: None,
        names: settings.server_names(),
        life: LEAF_LIFE,
    }
}

fn kubelet(settings: &Settings) -> Identity<'_> {
    Identity {
        file: "serving-kubelet",
        signer: Signer::Server,
        common_name: &settings.node_name,
        organization: None,
        names: vec![
            settings.node_name.clone(),
            "127.0.0.1".to_owned(),
            "localhost".to_owned(),
            settings.node_ip.to_string(),
        ],
        life: LEAF_LIFE,
    }
}

/// Nothing is shown while the cluster has no authority for it: keys of before there was any.
fn front_proxy_shown(pki: &Pki) -> Outcome<Arc<Shown>> {
    match pki.secrets.is_complete() {
        true => Shown::new(&pki.leaf(front_proxy())?),
        false => Ok(Arc::default()),
    }
}

fn front_proxy() -> Identity<'static> {
    Identity {
        file: "client-auth-proxy",
        signer: Signer::FrontProxy,
        common_name: apiserver::FrontProxy::NAME,
        organization: None,
        names: Vec::new(),
        life: LEAF_LIFE,
    }
}

fn kubelet_client() -> Identity<'static> {
    Identity {
        file: "client-kube-apiserver",
        signer: Signer::Client,
        common_name: KUBELET_CLIENT,
        organization: Some("system:masters"),
        names: Vec::new(),
        life: LEAF_LIFE,
    }
}
