use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

use super::{AUTHORITY_LIFE, Identity, Leaf, new_key, set_life};
use crate::failure::{Hint, Outcome, While};

/// The keys of a certificate authority, and those it has taken the place of.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct AuthorityKeys {
    /// The certificate of the present one, PEM.
    pub cert: String,
    /// Its private key, PKCS#8 PEM.
    pub key: String,
    /// Those that are trusted still, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<Older>,
}

/// An authority that a newer one has taken the place of, and that is trusted still.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Older {
    /// Its certificate, PEM.
    pub cert: String,
    /// The newer authority's key, certified by this older one: who knows only the older
    /// certificate finds a way to it from a leaf of the newer one.
    pub cross: String,
}

impl AuthorityKeys {
    /// A new authority. The moment in its name makes authorities of two clusters differ, as k3s'
    /// do.
    pub fn new(name: &str) -> Outcome<Self> {
        let key = new_key()?;
        let params = params(&format!("{name}@{}", Timestamp::now().as_second()));
        let cert = params.self_signed(&key).doing(|| format!("signing {name}"))?;
        Ok(AuthorityKeys { cert: cert.pem(), key: key.serialize_pem(), older: Vec::new() })
    }

    /// A new authority in the place of this one, which stays trusted.
    pub fn renewed(&self, name: &str) -> Outcome<Self> {
        let doing = || format!("signing a new {name}");
        let key = new_key()?;
        let params = params(&format!("{name}@{}", Timestamp::now().as_millisecond()));
        let cert = params.self_signed(&key).doing(doing)?;
        let cross = params.signed_by(&key, &self.issuer()?).doing(doing)?;
        let own = Older { cert: self.cert.clone(), cross: cross.pem() };
        // A cross certificate of an even older one leads to this one, so a chain passes both.
        let older = std::iter::once(own).chain(self.older.iter().cloned()).collect();
        Ok(AuthorityKeys { cert: cert.pem(), key: key.serialize_pem(), older })
    }

    /// Every certificate that is trusted, the present one first.
    pub fn bundle(&self) -> String {
        let older = self.older.iter().map(|older| older.cert.as_str());
        std::iter::once(self.cert.as_str()).chain(older).collect()
    }

    /// What a leaf's chain carries besides the leaf.
    pub fn chain(&self) -> String {
        self.older.iter().map(|older| older.cross.as_str()).collect()
    }

    pub(super) fn issuer(&self) -> Outcome<Issuer<'static, KeyPair>> {
        let hint = || "restore the cluster's keys from a backup".to_owned();
        let key = KeyPair::from_pem(&self.key).doing(|| "reading an authority's key".into());
        Issuer::from_ca_cert_pem(&self.cert, key.hint(hint)?)
            .doing(|| "reading an authority's certificate".into())
            .hint(hint)
    }

    /// Signs a new leaf.
    pub fn sign(&self, identity: &Identity<'_>) -> Outcome<Leaf> {
        let doing = || format!("making the certificate {}", identity.file);
        let mut params = CertificateParams::new(identity.names.clone()).doing(doing)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, identity.common_name);
        if let Some(organization) = identity.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match identity.signer {
            super::Signer::Client | super::Signer::FrontProxy => {
                vec![ExtendedKeyUsagePurpose::ClientAuth]
            }
            super::Signer::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            super::Signer::Etcd => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, identity.life);
        let key = new_key()?;
        let cert = params.signed_by(&key, &self.issuer()?).doing(doing)?;
        Ok(Leaf { cert: cert.pem() + &self.chain(), key: key.serialize_pem() })
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    set_life(&mut params, AUTHORITY_LIFE);
    params
}
