//! Signs approved requests to the cluster's own signers, through the authorities that the
//! binary holds; says so where a request breaks its signer's rules.

use std::sync::Arc;
use std::time::Duration;

use client::Outcome;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::request::{Asked, SignerName};
use crate::carry_out::FIELD_MANAGER;
use crate::context::Key;
use crate::driver::Hub;
use crate::signer::{Signer, SigningRequest};

/// The longest life of a certificate, upstream's default.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What comes of a request; `None` where there is nothing to sign.
pub fn signed(
    csr: &CertificateSigningRequest,
    signer: &dyn Signer,
    now: Timestamp,
) -> Option<Result<CertificateSigningRequestStatus, String>> {
    let mut status = csr.status.clone().unwrap_or_default();
    let has = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    if status.certificate.is_some() || !has("Approved") || has("Denied") || has("Failed") {
        return None;
    }
    let name = SignerName::of(&csr.spec.signer_name)?;
    let asked = Asked::parse(csr).and_then(|asked| asked.check(name).map(|()| asked));
    match asked {
        Ok(asked) => {
            let seconds = csr.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok());
            let life = seconds.map_or(LIFE_MAX, |s| Duration::from_secs(s).min(LIFE_MAX));
            let pem = String::from_utf8_lossy(&csr.spec.request.0);
            let authority = name.authority();
            let request = SigningRequest { pem: &pem, authority, usages: &asked.usages, life };
            match signer.sign(&request) {
                Ok(certificate) => status.certificate = Some(ByteString(certificate.into_bytes())),
                Err(why) => return Some(Err(why)),
            }
        }
        Err(why) => {
            status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                type_: "Failed".into(),
                status: "True".into(),
                reason: Some("SignerValidationFailure".into()),
                message: Some(why),
                last_update_time: Some(Time(now)),
                last_transition_time: None,
            });
        }
    }
    Some(Ok(status))
}

/// Signs a request if there is something to sign.
pub async fn reconcile(hub: Arc<Hub>, key: Key) -> kube::Result<Outcome> {
    let Some(csr) = hub.world.get::<CertificateSigningRequest>("", &key.name) else {
        return Ok(Outcome::Done);
    };
    let Some(signer) = hub.config.signer.as_deref() else { return Ok(Outcome::Done) };
    let status = match signed(&csr, signer, Timestamp::now()) {
        None => return Ok(Outcome::Done),
        Some(Ok(status)) => status,
        Some(Err(error)) => {
            tracing::warn!(csr = key.name, error, "the certificate could not be signed");
            return Ok(Outcome::Retry);
        }
    };
    let patch = json!({
        "metadata": {"resourceVersion": csr.metadata.resource_version},
        "status": status,
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
    let api: Api<CertificateSigningRequest> = Api::all(hub.client.clone());
    api.patch_status(&key.name, &params, &Patch::Merge(patch)).await?;
    Ok(Outcome::Done)
}
