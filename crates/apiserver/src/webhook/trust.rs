//! Whom a webhook's client believes: the authorities in `caBundle`, else the machine's own.
//!
//! Go takes a certificate that is itself among the trusted ones as it is, whatever it says of
//! being an authority, and self-signed webhook certificates rely on that; webpki refuses such a
//! certificate. Hence a judge in front of webpki's.

use std::sync::{Arc, OnceLock};

use ::trust::Judge;
use base64::Engine as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Trusts what webpki trusts, and the given certificates themselves.
#[derive(Debug)]
struct Believed {
    pinned: Vec<CertificateDer<'static>>,
    webpki: Arc<WebPkiServerVerifier>,
}

/// TLS of a client that trusts the certificates in a base64-coded PEM bundle, or the machine's
/// authorities where it is empty. The error says what is wrong with the bundle.
pub(crate) fn client(bundle: &str) -> Result<ClientConfig, String> {
    let pinned = if bundle.is_empty() { Vec::new() } else { parse(bundle)? };
    let roots = if bundle.is_empty() { machine_roots() } else { roots(&pinned)? };
    let provider = Arc::new(ring::default_provider());
    let webpki = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let webpki = webpki.build().map_err(|error| error.to_string())?;
    let builder = ClientConfig::builder_with_provider(provider);
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let verifier = ::trust::verifier(Arc::new(Believed { pinned, webpki }));
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn parse(bundle: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = base64::engine::general_purpose::STANDARD
        .decode(bundle)
        .map_err(|error| format!("caBundle is not base64: {error}"))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| format!("caBundle is not PEM: {error}"))?;
    if all.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".into());
    }
    Ok(all)
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    let (_, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err(format!("none of the {ignored} certificates in caBundle can be read"));
    }
    Ok(Arc::new(roots))
}

/// The machine's authorities, read once. On a machine that has none no verifier can be made, and
/// the webhook's call says so.
fn machine_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let made = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "an authority of this machine cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    });
    Arc::clone(made)
}

impl Judge for Believed {
    fn judge(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let checked = self.webpki.verify_server_cert(shown, between, name, ocsp, now).map(drop);
        if checked.is_ok() || !self.pinned.iter().any(|own| own == shown) {
            return checked;
        }
        let Ok((_, parsed)) = X509Certificate::from_der(shown) else { return checked };
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if seconds < validity.not_before.timestamp() || seconds > validity.not_after.timestamp() {
            return checked;
        }
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)
    }
}
