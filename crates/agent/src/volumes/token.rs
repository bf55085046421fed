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

/// Permissions and owner of the token's file: nobody else's business where the pod has a group for
/// its volumes, or all containers run as one user.
pub fn rights(pod: &Pod, mode: i32) -> (u32, Option<u32>) {
    let grouped = spec(pod).security_context.as_ref().is_some_and(|c| c.fs_group.is_some());
    let user = only_user(pod);
    if grouped || user.is_some() {
        return (0o600, user);
    }
    (u32::try_from(mode).unwrap_or(0o644) & 0o777, None)
}

/// The user that all containers of a pod are told to run as.
fn only_user(pod: &Pod) -> Option<u32> {
    let of_pod = spec(pod).security_context.as_ref().and_then(|c| c.run_as_user);
    let containers = spec(pod).init_containers.iter().flatten().chain(&spec(pod).containers);
    let mut users = containers.map(|container| {
        let own = container.security_context.as_ref().and_then(|c| c.run_as_user);
        own.or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_belongs_to_who_runs() {
        for (pod, containers, expected) in [
            (json!({}), json!([{}]), (0o644, None)),
            (json!({"runAsUser": 1000}), json!([{}, {}]), (0o600, Some(1000))),
            (json!({"fsGroup": 7}), json!([{}]), (0o600, None)),
            (json!({"runAsUser": 1, "fsGroup": 7}), json!([{}]), (0o600, Some(1))),
            (json!({}), json!([{"securityContext": {"runAsUser": 5}}]), (0o600, Some(5))),
            (json!({}), json!([{"securityContext": {"runAsUser": 5}}, {}]), (0o644, None)),
            (
                json!({"runAsUser": 6}),
                json!([{"securityContext": {"runAsUser": 5}}, {}]),
                (0o644, None),
            ),
        ] {
            let named = |mut container: serde_json::Value| {
                container["name"] = json!("c");
                container
            };
            let containers: Vec<_> =
                containers.as_array().unwrap().iter().cloned().map(named).collect();
            let pod: Pod = serde_json::from_value(
                json!({"spec": {"securityContext": pod, "containers": containers}}),
            )
            .unwrap();
            assert_eq!(rights(&pod, 0o644), expected, "{pod:?}");
        }
    }
}
