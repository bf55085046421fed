//! The cluster's keys: two authorities (one that servers prove themselves with, one that clients
//! do), the service-account key, and the short-lived certificates made from them.
//!
//! The layout is k3s': `server/tls/{server-ca,client-ca}.{crt,key}`, `service.key`. An authority
//! is never replaced here; a leaf is made anew when less than a third of its life is left, when
//! its names have changed, or when its authority has.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;

const DAY: Duration = Duration::from_secs(86_400);
/// As long as k3s' authorities live.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// Leaves are for this board's own use and are renewed without anyone noticing.
pub const LEAF_LIFE: Duration = DAY.saturating_mul(30);
/// The admin's certificate is copied to laptops, so it lasts as long as k3s' does.
const ADMIN_LIFE: Duration = DAY.saturating_mul(365);
/// A board without a battery-backed clock starts in the past; a certificate made a moment before
/// the clock is set must be valid to peers whose clock is right, and the other way round.
const CLOCK_SKEW: Duration = DAY;

/// A certificate (with its chain) and its key, as PEM.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub cert: String,
    /// Its private key, PKCS#8.
    pub key: String,
}

/// What a leaf certificate says.
pub struct Identity<'a> {
    /// The file it is kept in, without ending.
    pub file: &'a str,
    /// The user name, or the server's name.
    pub common_name: &'a str,
    /// The groups of a client.
    pub organization: Option<&'a str>,
    /// The names and addresses that a server answers to; none makes a client certificate.
    pub names: Vec<String>,
    /// How long it is valid.
    pub life: Duration,
}

/// The cluster's authorities and service-account key, read from a folder or made in it.
pub struct Pki {
    folder: PathBuf,
    /// Signs what servers (API server, kubelets) show.
    pub server_ca: Authority,
    /// Signs what clients show.
    pub client_ca: Authority,
    /// The key that signs service-account tokens, PKCS#8 PEM, P-256.
    pub service_account_key: String,
}

/// A certificate authority.
pub struct Authority {
    /// Its certificate, PEM.
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Reads what is in `folder` and makes what is missing. Half a pair is an error: a new
    /// authority in the place of a lost one would lock every node out.
    pub fn open(folder: &Path) -> Outcome<Pki> {
        files::make_folder(folder, true).doing(|| format!("making {}", folder.display()))?;
        let service_account_key =
            read_or_make(&folder.join("service.key"), || Ok(new_key()?.serialize_pem()))?;
        Ok(Pki {
            folder: folder.to_owned(),
            server_ca: Authority::open(folder, "server-ca", "coracle-server-ca")?,
            client_ca: Authority::open(folder, "client-ca", "coracle-client-ca")?,
            service_account_key,
        })
    }

    /// The admin's client certificate, of the group that may do everything.
    pub fn admin(&self) -> Outcome<Leaf> {
        self.leaf(Identity {
            file: "client-admin",
            common_name: "system:admin",
            organization: Some("system:masters"),
            names: Vec::new(),
            life: ADMIN_LIFE,
        })
    }

    /// The certificate that `identity` describes: the one on disk while it is good, else a new
    /// one.
    pub fn leaf(&self, identity: Identity<'_>) -> Outcome<Leaf> {
        let authority = if identity.names.is_empty() { &self.client_ca } else { &self.server_ca };
        let cert_path = self.folder.join(format!("{}.crt", identity.file));
        let key_path = self.folder.join(format!("{}.key", identity.file));
        if let (Ok(cert), Ok(key)) = (fs::read_to_string(&cert_path), fs::read_to_string(&key_path))
            && still_good(&cert, &key, authority, &identity)
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

impl Authority {
    fn open(folder: &Path, file: &str, name: &str) -> Outcome<Authority> {
        let cert_path = folder.join(format!("{file}.crt"));
        let key_path = folder.join(format!("{file}.key"));
        if cert_path.exists() && !key_path.exists() {
            return Err(Failure::new(format!(
                "{} is there, but its key {} is not",
                cert_path.display(),
                key_path.display()
            ))
            .hint("restore the key from a backup; a new authority would lock every node out"));
        }
        let key_pem = read_or_make(&key_path, || Ok(new_key()?.serialize_pem()))?;
        let key =
            KeyPair::from_pem(&key_pem).doing(|| format!("reading {}", key_path.display()))?;
        let cert = read_or_make(&cert_path, || {
            let params = authority_params(name);
            params.self_signed(&key).map(|cert| cert.pem()).doing(|| format!("signing {name}"))
        })?;
        let issuer = Issuer::from_ca_cert_pem(&cert, key)
            .doing(|| format!("reading {}", cert_path.display()))
            .hint(|| format!("restore {} from a backup", cert_path.display()))?;
        Ok(Authority { cert, issuer })
    }

    fn sign(&self, identity: &Identity<'_>) -> Outcome<Leaf> {
        let doing = || format!("making the certificate {}", identity.file);
        let mut params = CertificateParams::new(identity.names.clone()).doing(doing)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, identity.common_name);
        if let Some(organization) = identity.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match identity.names.is_empty() {
            true => vec![ExtendedKeyUsagePurpose::ClientAuth],
            false => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, identity.life);
        let key = new_key()?;
        let cert = params.signed_by(&key, &self.issuer).doing(doing)?;
        Ok(Leaf { cert: cert.pem(), key: key.serialize_pem() })
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // The moment makes authorities of two clusters differ in name, as k3s' do.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{name}@{}", Timestamp::now().as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    set_life(&mut params, AUTHORITY_LIFE);
    params
}

fn set_life(params: &mut CertificateParams, life: Duration) {
    let now = Duration::from_secs(Timestamp::now().as_second().max(0).unsigned_abs());
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + life;
}

fn new_key() -> Outcome<KeyPair> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).doing(|| "making a P-256 key".to_owned())
}

fn read_or_make(path: &Path, make: impl FnOnce() -> Outcome<String>) -> Outcome<String> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let content = make()?;
            files::write_atomically(path, content.as_bytes(), 0o600)
                .doing(|| format!("writing {}", path.display()))?;
            Ok(content)
        }
        Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
    }
}

/// True where the pair on disk says what `identity` asks for, is signed by the present authority
/// and has at least a third of its life left.
fn still_good(cert: &str, key: &str, authority: &Authority, identity: &Identity<'_>) -> bool {
    let (Ok((_, pem)), Ok((_, ca_pem)), Ok(key)) = (
        parse_x509_pem(cert.as_bytes()),
        parse_x509_pem(authority.cert.as_bytes()),
        KeyPair::from_pem(key),
    ) else {
        return false;
    };
    let (Ok(cert), Ok(ca)) = (pem.parse_x509(), ca_pem.parse_x509()) else { return false };
    let names: BTreeSet<String> = cert
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|extension| extension.value.general_names.iter().filter_map(name_of).collect())
        .unwrap_or_default();
    let left = cert.validity().not_after.timestamp() - Timestamp::now().as_second();
    cert.issuer() == ca.subject()
        && cert.public_key().subject_public_key.data == key.public_key_raw()
        && names == identity.names.iter().cloned().collect()
        && left > (identity.life.as_secs() / 3) as i64
        && cert.validity().not_before.timestamp() <= Timestamp::now().as_second()
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
mod tests {
    use super::*;

    fn server(names: &[&str], life: Duration) -> Identity<'static> {
        Identity {
            file: "serving",
            common_name: "coracle",
            organization: None,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            life,
        }
    }

    #[test]
    fn a_leaf_is_kept_until_its_names_or_its_authority_change() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let pki = Pki::open(folder.path()).expect("new keys");
        let first = pki.leaf(server(&["a", "10.0.0.1"], LEAF_LIFE)).expect("leaf");
        let again = pki.leaf(server(&["10.0.0.1", "a"], LEAF_LIFE)).expect("leaf");
        assert_eq!(first.cert, again.cert, "unchanged names keep the certificate");
        let renamed = pki.leaf(server(&["a", "10.0.0.2"], LEAF_LIFE)).expect("leaf");
        assert_ne!(first.cert, renamed.cert);

        let reopened = Pki::open(folder.path()).expect("the same keys");
        assert_eq!(reopened.server_ca.cert, pki.server_ca.cert);
        assert_eq!(reopened.service_account_key, pki.service_account_key);
        let kept = reopened.leaf(server(&["a", "10.0.0.2"], LEAF_LIFE)).expect("leaf");
        assert_eq!(kept.cert, renamed.cert);
    }

    #[test]
    fn a_leaf_with_less_than_a_third_of_its_life_left_is_made_anew() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let pki = Pki::open(folder.path()).expect("new keys");
        let short = pki.leaf(server(&["a"], LEAF_LIFE / 4)).expect("leaf");
        let renewed = pki.leaf(server(&["a"], LEAF_LIFE)).expect("leaf");
        assert_ne!(short.cert, renewed.cert);
    }

    #[test]
    fn a_lost_authority_key_stops_the_start_with_a_hint() {
        let folder = tempfile::tempdir().expect("temporary folder");
        Pki::open(folder.path()).expect("new keys");
        fs::remove_file(folder.path().join("client-ca.key")).expect("removed");
        let failure = Pki::open(folder.path()).err().expect("refused");
        assert!(failure.to_string().contains("client-ca.key"), "{failure}");
    }
}
