//! TLS with what the board can do, and certificates that are renewed under running connections.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use tokio_util::sync::CancellationToken;

use super::Settings;
use crate::failure::{Outcome, While};
use crate::pki::{Identity, LEAF_LIFE, Leaf, Pki};

/// How often the age of certificates is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(12 * 3600);
/// The name by which kubelets know the API server.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// Makes our choice of ciphers the one that every TLS connection of this process uses.
pub fn install_provider() {
    // It fails only where one is installed already, which then is this one.
    let _ = provider().install_default();
}

/// ring's ciphers, with ChaCha20 first where the processor has no instructions for AES: every
/// Raspberry Pi before the 5.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !has_aes() {
        provider.cipher_suites.sort_by_key(|suite| {
            !matches!(
                suite.suite(),
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            )
        });
    }
    provider
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// A certificate in use, replaceable while connections are open.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    fn new(leaf: &Leaf) -> Outcome<Arc<Self>> {
        Ok(Arc::new(Shown(RwLock::new(certified(leaf)?))))
    }

    fn set(&self, leaf: &Leaf) -> Outcome {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(leaf)?;
        Ok(())
    }

    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(leaf: &Leaf) -> Outcome<Arc<CertifiedKey>> {
    let doing = || "reading a certificate of our own".to_owned();
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(leaf.cert.as_bytes())
        .collect::<Result<_, _>>()
        .doing(doing)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).doing(doing)?;
    let key = CertifiedKey::from_der(chain, key, &provider()).doing(doing)?;
    Ok(Arc::new(key))
}

/// The certificates that this server shows, and the authorities that it trusts.
pub struct Certificates {
    pki: Pki,
    server: Arc<Shown>,
    kubelet: Arc<Shown>,
    kubelet_client: Arc<Shown>,
}

impl Certificates {
    /// Reads or makes the certificates.
    pub fn new(settings: &Settings, pki: Pki) -> Outcome<Self> {
        Ok(Certificates {
            server: Shown::new(&pki.leaf(server(settings))?)?,
            kubelet: Shown::new(&pki.leaf(kubelet(settings))?)?,
            kubelet_client: Shown::new(&pki.leaf(kubelet_client())?)?,
            pki,
        })
    }

    /// The keys behind the certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// TLS of the API server: a client may show a certificate of the client authority.
    pub fn api_server(&self) -> Outcome<ServerConfig> {
        self.server_config(self.server.clone(), true)
    }

    /// TLS of the kubelet's API: a client must show a certificate.
    pub fn kubelet(&self) -> Outcome<ServerConfig> {
        self.server_config(self.kubelet.clone(), false)
    }

    fn server_config(&self, shown: Arc<Shown>, anonymous: bool) -> Outcome<ServerConfig> {
        let doing = || "setting up TLS".to_owned();
        let provider = Arc::new(provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots(&self.pki.client_ca.cert)?),
            provider.clone(),
        );
        let verifier = if anonymous { verifier.allow_unauthenticated() } else { verifier };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .doing(doing)?
            .with_client_cert_verifier(verifier.build().doing(doing)?)
            .with_cert_resolver(shown);
        config.ignore_client_order = !has_aes();
        Ok(config)
    }

    /// TLS of the API server towards kubelets.
    pub fn to_kubelets(&self) -> Outcome<ClientConfig> {
        Ok(ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .doing(|| "setting up TLS towards kubelets".into())?
            .with_root_certificates(roots(&self.pki.server_ca.cert)?)
            .with_client_cert_resolver(self.kubelet_client.clone()))
    }

    /// Renews certificates before they expire, until `stop` is cancelled. The admin's kubeconfig
    /// is renewed with them.
    pub async fn keep_fresh(self, settings: Settings, stop: CancellationToken) -> Outcome {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let renewed = self.renew(&settings);
            if let Err(failure) = renewed {
                tracing::error!(error = %base::chain(&failure), "certificates not renewed; will try again");
            }
        }
    }

    fn renew(&self, settings: &Settings) -> Outcome {
        for (shown, identity) in [
            (&self.server, server(settings)),
            (&self.kubelet, kubelet(settings)),
            (&self.kubelet_client, kubelet_client()),
        ] {
            shown.set(&self.pki.leaf(identity)?)?;
        }
        super::write_kubeconfig(settings, self)
    }
}

fn roots(pem: &str) -> Outcome<RootCertStore> {
    let doing = || "reading an authority of our own".to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.doing(doing)?).doing(doing)?;
    }
    Ok(roots)
}

fn server(settings: &Settings) -> Identity<'static> {
    Identity {
        file: "serving-kube-apiserver",
        common_name: "kube-apiserver",
        organization: None,
        names: settings.server_names(),
        life: LEAF_LIFE,
    }
}

fn kubelet(settings: &Settings) -> Identity<'_> {
    Identity {
        file: "serving-kubelet",
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

fn kubelet_client() -> Identity<'static> {
    Identity {
        file: "client-kube-apiserver",
        common_name: KUBELET_CLIENT,
        organization: Some("system:masters"),
        names: Vec::new(),
        life: LEAF_LIFE,
    }
}
