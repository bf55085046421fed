//! Service account tokens bound to a pod, by TokenRequest.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::pod::view::spec;

/// Lifetime when nothing is said, in seconds.
const DEFAULT_LIFETIME_S: i64 = 3600;
/// A token is renewed after this share of its life, in percent.
const RENEW_AT_PERCENT: i64 = 80;
/// And in any case after this time.
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A token and its times.
pub struct Token {
    /// The token itself.
    pub value: String,
    /// When to get the next.
    pub renew_at: Timestamp,
    /// When it is of no use any more.
    pub expires: Timestamp,
}

/// Asks for a token for the pod's service account.
pub async fn request(
    client: &Client,
    pod: &Pod,
    wanted: &ServiceAccountTokenProjection,
) -> Result<Token, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = spec(pod).service_account_name.as_deref().unwrap_or("default");
    let seconds = wanted.expiration_seconds.unwrap_or(DEFAULT_LIFETIME_S);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: wanted.audience.clone().filter(|a| !a.is_empty()).map(|a| vec![a]),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = api
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .map_err(|error| format!("failed to fetch token: {}", base::chain(&error)))?;
    let status = answer.status.ok_or("failed to fetch token: the answer holds none")?;
    let (Some(value), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err("failed to fetch token: the answer is incomplete".to_owned());
    };
    let (now, expires) = (Timestamp::now(), expires.0);
    let life = expires.duration_since(now).as_secs().max(0);
    let share = SignedDuration::from_secs(life * RENEW_AT_PERCENT / 100);
    Ok(Token { value, renew_at: now + share.min(RENEW_AFTER), expires })
}

/// Permissions of the token's file: nobody else's business when all containers run as one user.
pub fn mode(pod: &Pod, mode: i32) -> u32 {
    let grouped = spec(pod).security_context.as_ref().is_some_and(|c| c.fs_group.is_some());
    if grouped { 0o600 } else { u32::try_from(mode).unwrap_or(0o644) & 0o777 }
}
