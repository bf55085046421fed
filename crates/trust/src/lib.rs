//! Whom a TLS client of ours believes. Each client brings a [`Judge`] over what a server shows; the
//! handshake's signatures are checked here, as ring can. Who believes everybody is easily found:
//! it says [`anyone`].

use std::fmt::Debug;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, SignatureScheme};

/// Decides whether the server that shows a certificate is the one that is meant.
pub trait Judge: Debug + Send + Sync {
    /// An error where it is not to be believed. `chain` is what the server shows beside its own
    /// certificate, `leaf`; `ocsp` may be empty.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error>;
}

/// A verifier that believes those whom the judge does, as long as they have their certificate's
/// key.
pub fn verifier(judge: Arc<dyn Judge>) -> Arc<dyn ServerCertVerifier> {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    Arc::new(Verifier { judge, algorithms })
}

/// A verifier that believes every server: encryption against listeners, not against an impostor.
/// For a probe that only wants to know whether anybody answers, for a person who has said that a
/// certificate shall not be looked at, and where what the server says is checked by other means.
pub fn anyone() -> Arc<dyn ServerCertVerifier> {
    verifier(Arc::new(Anyone))
}

/// The TLS of a client that believes [`anyone`]; what it shows itself is to be added. An error
/// where the ciphers do not fit the protocol's versions.
pub fn client_of_anyone() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.dangerous();
    Ok(builder.with_custom_certificate_verifier(anyone()))
}

#[derive(Debug)]
struct Anyone;

impl Judge for Anyone {
    fn judge(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<(), Error> {
        Ok(())
    }
}

#[derive(Debug)]
struct Verifier {
    judge: Arc<dyn Judge>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.judge(leaf, chain, name, ocsp, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
