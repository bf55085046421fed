//! The cluster's certificates: four authorities (one that servers prove themselves with, one
//! that clients do, one for etcd's peers and clients, one for API servers towards aggregated
//! ones) and the short-lived leaves made from them.
//!
//! The layout is k3s': `server/tls/{server-ca,client-ca}.{crt,key}`, `service.key`. A leaf is
//! made anew when less than a third of its life is left, when its names have changed, when its
//! authority has, or when all were asked for anew. What is trusted is always a bundle: while an
//! authority is replaced, the old one counts beside the new one.

mod authority;
mod sign;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

pub use authority::{AuthorityKeys, Older};
pub use sign::Signatory;

use crate::failure::{Failure, Outcome, While};
use crate::files;
use crate::join::Secrets;

const DAY: Duration = Duration::from_secs(86_400);
/// As long as k3s' authorities live.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// Leaves are for this board's own use and are renewed without anyone noticing.
pub const LEAF_LIFE: Duration = DAY.saturating_mul(30);
/// The admin's certificate is copied to laptops, so it lasts as long as k3s' does.
const ADMIN_LIFE: Duration = DAY.saturating_mul(365);
/// A board without a battery-backed clock starts in the past; a certificate made a moment before
/// the clock is set must be valid to peers whose clock is right, and the other way round.
pub const CLOCK_SKEW: Duration = DAY;

/// A certificate (with its chain) and its key, as PEM.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub cert: String,
    /// Its private key, PKCS#8.
    pub key: String,
}

/// Which authority signs a leaf, and with that what the leaf is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// For what servers (API server, kubelets) show.
    Server,
    /// For what clients show.
    Client,
    /// For etcd, whose members are servers and clients of each other.
    Etcd,
    /// For what API servers show to aggregated ones.
    FrontProxy,
}

/// What a leaf certificate says.
pub struct Identity<'a> {
    /// The file it is kept in, without ending.
    pub file: &'a str,
    /// Who signs it.
    pub signer: Signer,
    /// The user name, or the server's name.
    pub common_name: &'a str,
    /// The groups of a client.
    pub organization: Option<&'a str>,
    /// The names and addresses that a server answers to.
    pub names: Vec<String>,
    /// How long it is valid.
    pub life: Duration,
}

/// The authorities, and the folder of the leaves made from them.
pub struct Pki {
    folder: PathBuf,
    /// The keys of the cluster.
    pub secrets: Arc<Secrets>,
}

impl Pki {
    /// Puts the authorities into `folder`, for people and for etcd; the leaves will be there too.
    pub fn new(folder: &Path, secrets: Arc<Secrets>) -> Outcome<Pki> {
        files::make_folder(folder, true).doing(|| format!("making {}", folder.display()))?;
        let write = |file: &str, content: &str| {
            let path = folder.join(file);
            files::write_if_changed(&path, content.as_bytes(), 0o600)
                .doing(|| format!("writing {}", path.display()))
        };
        for (name, authority) in secrets.authorities() {
            write(&format!("{name}.key"), &authority.key)?;
            write(&format!("{name}.crt"), &authority.bundle())?;
        }
        write("service.key", &secrets.service_account_key)?;
        Ok(Pki { folder: folder.to_owned(), secrets })
    }

    /// The folder of the leaves.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What proves a server.
    pub fn server_bundle(&self) -> String {
        self.secrets.server_ca.bundle()
    }

    /// What proves a client.
    pub fn client_bundle(&self) -> String {
        self.secrets.client_ca.bundle()
    }

    /// The admin's client certificate, of the group that may do everything.
    pub fn admin(&self) -> Outcome<Leaf> {
        self.leaf(Identity {
            file: "client-admin",
            signer: Signer::Client,
            common_name: "system:admin",
            organization: Some("system:masters"),
            names: Vec::new(),
            life: ADMIN_LIFE,
        })
    }

    /// The certificate that `identity` describes: the one on disk while it is good, else a new
    /// one.
    pub fn leaf(&self, identity: Identity<'_>) -> Outcome<Leaf> {
        let authority = match identity.signer {
            Signer::Server => &self.secrets.server_ca,
            Signer::Client => &self.secrets.client_ca,
            Signer::Etcd => &self.secrets.etcd_ca,
            Signer::FrontProxy => self.secrets.front_proxy_ca.as_ref().ok_or_else(|| {
                Failure::new("the cluster has no authority for aggregated API servers")
                    .hint("start this server again")
            })?,
        };
        let cert_path = self.folder.join(format!("{}.crt", identity.file));
        let key_path = self.folder.join(format!("{}.key", identity.file));
        if let (Ok(cert), Ok(key)) = (fs::read_to_string(&cert_path), fs::read_to_string(&key_path))
            && still_good(&cert, &key, authority, &identity, self.secrets.renew_after)
        {
            return Ok(Leaf { cert, key });
        }
        let leaf = authority.sign(&identity)?;
        // The key goes first: a certificate whose key does not fit is made anew at the next look.
        for (path, content) in [(&key_path, &leaf.key), (&cert_path, &leaf.cert)] {
            files::write_atomically(path, content.as_bytes(), 0o600)
                .doing(|| format!("writing {}", path.display()))?;
        }
        Ok(leaf)
    }
}

fn set_life(params: &mut CertificateParams, life: Duration) {
    let now = Duration::from_secs(Timestamp::now().as_second().max(0).unsigned_abs());
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + life;
}

/// A new P-256 key.
pub fn new_key() -> Outcome<KeyPair> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).doing(|| "making a P-256 key".to_owned())
}

/// True where the pair on disk says what `identity` asks for, is signed by the present authority,
/// was not made before `renew_after`, and has at least a third of its life left.
fn still_good(
    cert: &str,
    key: &str,
    authority: &AuthorityKeys,
    identity: &Identity<'_>,
    renew_after: i64,
) -> bool {
    let (Ok((_, pem)), Ok((_, ca_pem)), Ok(key)) = (
        parse_x509_pem(cert.as_bytes()),
        parse_x509_pem(authority.cert.as_bytes()),
        KeyPair::from_pem(key),
    ) else {
        return false;
    };
    let (Ok(parsed), Ok(ca)) = (pem.parse_x509(), ca_pem.parse_x509()) else { return false };
    let names: BTreeSet<String> = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|extension| extension.value.general_names.iter().filter_map(name_of).collect())
        .unwrap_or_default();
    let now = Timestamp::now().as_second();
    let (from, until) =
        (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    parsed.issuer() == ca.subject()
        && cert.ends_with(&authority.chain())
        && parsed.public_key().subject_public_key.data == key.public_key_raw()
        && names == identity.names.iter().cloned().collect()
        && until - now > (identity.life.as_secs() / 3) as i64
        && from <= now
        && from + CLOCK_SKEW.as_secs() as i64 >= renew_after
}

/// Whether the first certificate of `authority` (PEM) names itself as the issuer of `leaf`.
pub fn is_issued_by(leaf: &str, authority: &str) -> bool {
    let (Ok((_, leaf)), Ok((_, ca))) =
        (parse_x509_pem(leaf.as_bytes()), parse_x509_pem(authority.as_bytes()))
    else {
        return false;
    };
    match (leaf.parse_x509(), ca.parse_x509()) {
        (Ok(leaf), Ok(ca)) => leaf.issuer() == ca.subject(),
        _ => false,
    }
}

/// Whether a certificate (DER) is one that the cluster signs for a node: all of those, and no
/// others of the servers' authority, name the group of nodes.
pub fn is_node(cert: &[u8]) -> bool {
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(cert) else { return false };
    cert.subject().iter_organization().any(|name| name.as_str() == Ok("system:nodes"))
}

/// When a certificate (PEM) ends.
pub fn end_of(cert: &str) -> Option<Timestamp> {
    let (_, pem) = parse_x509_pem(cert.as_bytes()).ok()?;
    Timestamp::from_second(pem.parse_x509().ok()?.validity().not_after.timestamp()).ok()
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
