//! TLS to a SQL server, as far as it is asked for.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::link::refused;
use super::server::{Encryption, Server};
use crate::DriverError;

/// What a person can do about TLS that does not come about.
pub(super) const HINT: &str = "check the files named for TLS (--datastore-cafile, \
     --datastore-certfile, --datastore-keyfile)";

/// The configuration for a server: its certificate is checked where a CA is named, as libpq
/// has it.
pub(super) fn config(server: &Server) -> Result<ClientConfig, DriverError> {
    let bad = |error: String| refused(server, "prepare TLS to", Some(HINT), error);
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?;
    let builder = match (&server.files.ca, server.encryption) {
        (Some(path), _) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path).map_err(bad)? {
                roots.add(certificate).map_err(|e| bad(format!("{}: {e}", path.display())))?;
            }
            builder.with_root_certificates(roots)
        }
        (None, Encryption::Verify) => return Err(bad("no CA is named".into())),
        (None, _) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        }
    };
    match (&server.files.cert, &server.files.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert).map_err(bad)?;
            let read = PrivateKeyDer::from_pem_file(key);
            let key = read.map_err(|e| bad(format!("{}: {e}", key.display())))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| bad(e.to_string()))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// Whether TLS, and not the network, is why there is no connection: waiting does not help.
pub(super) fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.map(|inner| inner.is::<Error>());
        if error.is::<Error>() || inner == Some(true) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |e| format!("{}: {e}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(bad)?.collect::<Result<Vec<_>, _>>();
    match read.map_err(bad)? {
        none if none.is_empty() => Err(format!("{}: no certificate in it", path.display())),
        some => Ok(some),
    }
}

/// Takes any certificate: encryption against listeners, not against an impostor, which is
/// what `sslmode=require` without a CA means to everybody else.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
