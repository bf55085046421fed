use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::set_life;
use crate::join::Secrets;

/// Signs approved requests with the cluster's authorities.
pub struct Signatory {
    /// The authorities.
    pub secrets: Arc<Secrets>,
    /// No certificate lives longer.
    pub life_max: Duration,
}

impl fmt::Debug for Signatory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signatory").field("life_max", &self.life_max).finish_non_exhaustive()
    }
}

impl controllers::Signer for Signatory {
    /// What the request says of usages, life and authorities does not count: that is decided by
    /// the signer's rules.
    fn sign(&self, request: &controllers::SigningRequest<'_>) -> Result<String, String> {
        let said = |error: rcgen::Error| error.to_string();
        let authority = match request.authority {
            controllers::Authority::Client => &self.secrets.client_ca,
            controllers::Authority::Serving => &self.secrets.server_ca,
        };
        // Reading it checks the request's own signature.
        let mut asked = CertificateSigningRequestParams::from_pem(request.pem).map_err(said)?;
        let params = &mut asked.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = Vec::new();
        params.extended_key_usages = Vec::new();
        for usage in request.usages {
            match usage.as_str() {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
                }
                "server auth" => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                }
                other => return Err(format!("the usage {other:?} is not signed for")),
            }
        }
        params.use_authority_key_identifier_extension = true;
        set_life(params, request.life.min(self.life_max));
        let issuer = authority.issuer().map_err(|failure| base::chain(&failure))?;
        let signed = asked.signed_by(&issuer).map_err(said)?;
        Ok(signed.pem() + &authority.chain())
    }
}
