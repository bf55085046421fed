//! TLS with what the board can do, and certificates and authorities that are replaced under open
//! connections.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    RootCertStore, ServerConfig, SignatureScheme,
};
use trust::Judge;

use crate::failure::{Outcome, While};
use crate::pki::{self, Leaf};

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

/// A certificate that is shown, replaceable while connections are open. Without one nobody is
/// served, and servers see no client certificate.
#[derive(Debug, Default)]
pub struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl Shown {
    /// Shows a leaf.
    pub fn new(leaf: &Leaf) -> Outcome<Arc<Self>> {
        let shown = Shown::default();
        shown.set(leaf)?;
        Ok(Arc::new(shown))
    }

    /// Shows another one from now on.
    pub fn set(&self, leaf: &Leaf) -> Outcome {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(certified(leaf)?);
        Ok(())
    }

    fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.get()
    }

    fn has_certs(&self) -> bool {
        self.get().is_some()
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

fn roots(pem: &str) -> Outcome<Arc<RootCertStore>> {
    let doing = || "reading an authority".to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.doing(doing)?).doing(doing)?;
    }
    Ok(Arc::new(roots))
}

/// Whom the other side's certificate may come from, replaceable while connections are open.
#[derive(Debug)]
pub struct Trust<V: ?Sized>(RwLock<Arc<V>>);

/// The authorities of servers.
pub type TrustedServers = Trust<Servers>;
/// The authorities of clients, and whether a client must show a certificate.
#[derive(Debug)]
pub struct TrustedClients {
    verifier: Trust<dyn ClientCertVerifier>,
    named: RwLock<&'static [DistinguishedName]>,
}

impl<V: ?Sized> Trust<V> {
    fn get(&self) -> Arc<V> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, verifier: Arc<V>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = verifier;
    }
}

/// Which certificates are a server's.
#[derive(Debug)]
pub struct Servers {
    verifier: Arc<WebPkiServerVerifier>,
    /// Whether a node's own certificate will do, which the same authority signs.
    nodes: bool,
}

impl Servers {
    fn new(bundle: &str, nodes: bool) -> Outcome<Arc<Self>> {
        let roots = roots(bundle)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::new(provider()))
            .build()
            .doing(|| "setting up TLS".into())?;
        Ok(Arc::new(Servers { verifier, nodes }))
    }
}

impl TrustedServers {
    /// API servers of the authorities of a bundle (PEM). A node's certificate is no proof of
    /// being one: a board that was broken into could have one for a server's address.
    pub fn new(bundle: &str) -> Outcome<Arc<Self>> {
        Ok(Arc::new(Trust(RwLock::new(Servers::new(bundle, false)?))))
    }

    /// Nodes of the authorities of a bundle (PEM).
    pub fn nodes(bundle: &str) -> Outcome<Arc<Self>> {
        Ok(Arc::new(Trust(RwLock::new(Servers::new(bundle, true)?))))
    }

    /// Trusts those of another bundle from now on.
    pub fn set(&self, bundle: &str) -> Outcome {
        self.replace(Servers::new(bundle, self.get().nodes)?);
        Ok(())
    }

    /// The same, as TLS wants it.
    pub fn verifier(self: &Arc<Self>) -> Arc<dyn ServerCertVerifier> {
        trust::verifier(self.clone())
    }
}

impl TrustedClients {
    /// Trusts the authorities of a bundle (PEM). A client need not show a certificate: it may have a
    /// token.
    pub fn new(bundle: &str) -> Outcome<Arc<Self>> {
        let roots = roots(bundle)?;
        let named = RwLock::new(&*roots.subjects().leak());
        let verifier = Trust(RwLock::new(of_clients(roots)?));
        Ok(Arc::new(TrustedClients { verifier, named }))
    }

    /// Trusts those of another bundle from now on.
    ///
    /// rustls borrows the names for as long as the verifier lives, so those of before stay in
    /// memory: a hundred bytes each time the cluster's authorities are replaced.
    pub fn set(&self, bundle: &str) -> Outcome {
        let roots = roots(bundle)?;
        let subjects = roots.subjects();
        self.verifier.replace(of_clients(roots)?);
        let before = self.root_hint_subjects().iter().map(AsRef::as_ref);
        if subjects.iter().map(AsRef::<[u8]>::as_ref).ne(before) {
            *self.named.write().unwrap_or_else(PoisonError::into_inner) = subjects.leak();
        }
        Ok(())
    }
}

fn of_clients(roots: Arc<RootCertStore>) -> Outcome<Arc<dyn ClientCertVerifier>> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(provider()));
    builder.allow_unauthenticated().build().doing(|| "setting up TLS".into())
}

impl Judge for TrustedServers {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let servers = self.get();
        if !servers.nodes && pki::is_node(leaf) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        servers.verifier.verify_server_cert(leaf, chain, name, ocsp, now).map(drop)
    }
}

impl ClientCertVerifier for TrustedClients {
    /// Clients choose among their certificates by it, and browsers whether to ask their user.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        *self.named.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.get().client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier.get().verify_client_cert(leaf, chain, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.get().verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.get().verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.get().supported_verify_schemes()
    }
}

/// TLS of a server that shows a certificate to clients whom it trusts.
pub fn server_config(shown: Arc<Shown>, clients: Arc<TrustedClients>) -> Outcome<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .doing(|| "setting up TLS".into())?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shown);
    config.ignore_client_order = !has_aes();
    Ok(config)
}

/// TLS of a client that trusts some servers and shows a certificate to them.
pub fn client_config(
    servers: Arc<dyn ServerCertVerifier>,
    shown: Arc<Shown>,
) -> Outcome<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .doing(|| "setting up TLS".into())?
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_cert_resolver(shown))
}
