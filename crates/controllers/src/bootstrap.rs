//! Bootstrap tokens: the ones whose time is over go, and the ConfigMap `kube-public/cluster-info`
//! says where the cluster is, signed with each token so that whoever has one can check it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use client::Outcome;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::action::{Action, Plan};
use crate::carry_out::FIELD_MANAGER;
use crate::context::{Cx, Key};
use crate::driver::{Controller, Hub, Reconcile, Watches};

const NAMESPACE: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const CLUSTER_INFO: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// Removes tokens that have expired.
pub const TOKEN_CLEANER: Controller = Controller {
    name: "token-cleaner",
    watches: |watches| watch_tokens(watches, Key::of),
    reconcile: Reconcile::Plan(plan_removal),
};

/// Publishes where the cluster is, and signs that with each token that is meant for it.
pub const BOOTSTRAP_SIGNER: Controller = Controller {
    name: "bootstrap-signer",
    watches: |watches| {
        watch_tokens(watches, |_| info_key());
        watches.map::<Namespace>(|_, namespace| {
            (namespace.name_any() == PUBLIC).then(info_key).into_iter().collect()
        });
    },
    reconcile: Reconcile::Live(|hub, _| publish(hub).boxed()),
};

fn info_key() -> Key {
    Key::new(PUBLIC, CLUSTER_INFO)
}

fn watch_tokens(watches: &mut Watches, key: impl Fn(&Secret) -> Key + Send + Sync + 'static) {
    let selector = format!("metadata.namespace={NAMESPACE},type={TYPE}");
    let tokens = watches.select::<Secret>(watcher::Config::default().fields(&selector));
    watches.map_from(tokens, move |_, secret| vec![key(secret)]);
}

fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|value| String::from_utf8(value.0.clone()).ok()).unwrap_or_default()
}

fn plan_removal(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(secret) = cx.world.get::<Secret>(&key.namespace, &key.name) else { return plan };
    let expiration = text(&secret, "expiration");
    if expiration.is_empty() {
        return plan;
    }
    match expiration.parse::<Timestamp>() {
        Ok(until) if until > cx.now => plan.look_again(until),
        // What cannot be read has expired, as upstream sees it.
        _ => plan.push([Action::delete(secret.as_ref(), None)]),
    }
    plan
}

/// The ConfigMap's data: the way to the cluster, and a signature for each token.
fn info(
    url: &str,
    ca_pem: &str,
    tokens: &[Arc<Secret>],
    now: Timestamp,
) -> BTreeMap<String, String> {
    let config = kubeconfig(url, ca_pem);
    let mut data: BTreeMap<String, String> = tokens
        .iter()
        .filter_map(|secret| {
            let (id, key) = (text(secret, "token-id"), text(secret, "token-secret"));
            let expired = text(secret, "expiration").parse::<Timestamp>().is_ok_and(|t| t <= now);
            let fit = text(secret, "usage-bootstrap-signing") == "true"
                && secret.name_any() == format!("bootstrap-token-{id}")
                && !key.is_empty()
                && !expired;
            fit.then(|| (format!("{SIGNATURE_PREFIX}{id}"), signature(&id, &key, &config)))
        })
        .collect();
    data.insert(KUBECONFIG.to_owned(), config);
    data
}

/// A kubeconfig with a cluster and nobody to be.
fn kubeconfig(url: &str, ca_pem: &str) -> String {
    let ca = STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {url}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n"
    )
}

/// A JSON Web Signature (HS256) without its payload.
fn signature(id: &str, secret: &str, content: &str) -> String {
    let head = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = ring::hmac::sign(&key, signed.as_bytes());
    format!("{head}..{}", URL_SAFE_NO_PAD.encode(tag))
}

async fn publish(hub: Arc<Hub>) -> kube::Result<Outcome> {
    let config = &hub.config;
    if config.api_url.is_empty() || config.root_ca_pem.is_empty() {
        return Ok(Outcome::Done);
    }
    if hub.world.get::<Namespace>("", PUBLIC).is_none() {
        return Ok(Outcome::Done);
    }
    let tokens = hub.world.list::<Secret>("");
    let data = info(&config.api_url, &config.root_ca_pem, &tokens, Timestamp::now());
    let maps: Api<ConfigMap> = Api::namespaced(hub.client.clone(), PUBLIC);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
    match maps.get_opt(CLUSTER_INFO).await? {
        Some(present) if present.data.as_ref() == Some(&data) => {}
        Some(mut present) => {
            present.data = Some(data);
            maps.replace(CLUSTER_INFO, &params, &present).await?;
        }
        None => {
            let metadata = ObjectMeta { name: Some(CLUSTER_INFO.into()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            maps.create(&params, &map).await?;
        }
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{check, documents};

    fn secret(expiration: &str) -> String {
        let encode = |text: &str| STANDARD.encode(text);
        format!(
            "kind: Secret\nmetadata: {{name: bootstrap-token-abcdef, namespace: kube-system}}\ntype: {TYPE}\ndata: {{token-id: {}, token-secret: {}, usage-bootstrap-signing: {}, expiration: {}}}",
            encode("abcdef"),
            encode("0123456789abcdef"),
            encode("true"),
            encode(expiration),
        )
    }

    #[test]
    fn expired_tokens_go() {
        let key = "kube-system/bootstrap-token-abcdef";
        let gone = "delete Secret kube-system/bootstrap-token-abcdef";
        check(&TOKEN_CLEANER, key, &secret("2026-01-01T12:00:01Z"), "");
        check(&TOKEN_CLEANER, key, &secret("2026-01-01T12:00:00Z"), gone);
        check(&TOKEN_CLEANER, key, &secret("2026-01-01T13:00:00+02:00"), gone);
        check(&TOKEN_CLEANER, key, &secret("some day"), gone);
    }

    #[test]
    fn the_way_to_the_cluster_is_signed_with_each_token() {
        let now = crate::fixture::NOW.parse().unwrap();
        let signed = |expiration: &str| {
            let object = documents(&secret(expiration)).remove(0);
            let token: Secret = serde_json::from_value(object).unwrap();
            info("https://10.0.0.1:6443", "PEM", &[Arc::new(token)], now)
        };
        let data = signed("2026-01-01T13:00:00Z");
        assert!(data["kubeconfig"].contains("    server: https://10.0.0.1:6443\n"));
        let jws = &data["jws-kubeconfig-abcdef"];
        let (head, tag) = jws.split_once("..").unwrap();
        let payload = format!("{head}.{}", URL_SAFE_NO_PAD.encode(&data["kubeconfig"]));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"0123456789abcdef");
        let tag = URL_SAFE_NO_PAD.decode(tag).unwrap();
        ring::hmac::verify(&key, payload.as_bytes(), &tag).unwrap();
        assert_eq!(signed("2026-01-01T11:00:00Z").len(), 1, "an expired token signs nothing");
    }
}
