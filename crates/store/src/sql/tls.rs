//! TLS to a SQL server, as far as it is asked for.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Error, RootCertStore};

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
    let builder = match (&server.files.ca, server.encryption) {
        (Some(path), _) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path).map_err(bad)? {
                roots.add(certificate).map_err(|e| bad(format!("{}: {e}", path.display())))?;
            }
            ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| bad(e.to_string()))?
                .with_root_certificates(roots)
        }
        (None, Encryption::Verify) => return Err(bad("no CA is named".into())),
        // What `sslmode=require` without a CA means to everybody else, too.
        (None, _) => trust::client_of_anyone().map_err(|e| bad(e.to_string()))?,
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
