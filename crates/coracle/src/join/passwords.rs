//! Who a node's name belongs to: the first board that came with it, by a password that it alone
//! knows. Its hash is kept in the Secret `kube-system/NAME.node-password.coracle`.

use std::collections::BTreeMap;

use http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use ring::digest::{SHA256, digest};

use super::checks::same;
use super::protocol::Refusal;
use super::token::{hex, random_secret};

const NAMESPACE: &str = "kube-system";
/// Behind the node's name.
const SUFFIX: &str = "node-password.coracle";
const HASH: &str = "hash";
/// Attempts while others claim or release the same name.
const ATTEMPTS_MAX: usize = 4;

/// The Secret of a node's name.
pub fn secret_name(node: &str) -> String {
    format!("{node}.{SUFFIX}")
}

/// Takes a node's name, or finds that it is the caller's already. A name whose Node was deleted
/// may be taken anew.
pub async fn claim(client: &Client, node: &str, password: &str) -> Result<(), Refusal> {
    let failed = |error: kube::Error| Refusal::internal(&error);
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    for _ in 0..ATTEMPTS_MAX {
        let Some(present) = api.get_opt(&secret_name(node)).await.map_err(failed)? else {
            let secret = secret(node, password)?;
            match api.create(&PostParams::default(), &secret).await {
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                other => return other.map(drop).map_err(failed),
            }
        };
        if fits(&present, password) {
            return Ok(());
        }
        let nodes: Api<Node> = Api::all(client.clone());
        if nodes.get_opt(node).await.map_err(failed)?.is_some() {
            return Err(taken(node));
        }
        let only_this = Preconditions {
            resource_version: present.metadata.resource_version,
            uid: present.metadata.uid,
        };
        let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
        match api.delete(&secret_name(node), &params).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            other => drop(other.map_err(failed)?),
        }
    }
    Err(taken(node))
}

/// Forgets whose a name was. Only for a board that has proved otherwise that it may.
pub async fn release(client: &Client, node: &str) -> Result<(), Refusal> {
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    match api.delete(&secret_name(node), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).map_err(|error| Refusal::internal(&error)),
    }
}

fn taken(node: &str) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        format!("the node name {node} is another board's"),
        format!(
            "choose another one with --node-name; if this board was set up anew, \
             `kubectl delete node {node}` first"
        ),
    )
}

fn secret(node: &str, password: &str) -> Result<Secret, Refusal> {
    let salt = random_secret().map_err(|failure| Refusal::internal(&failure))?;
    let text = format!("{salt}:{}", salted(&salt, password));
    Ok(Secret {
        metadata: ObjectMeta { name: Some(secret_name(node)), ..ObjectMeta::default() },
        immutable: Some(true),
        data: Some(BTreeMap::from([(HASH.to_owned(), ByteString(text.into_bytes()))])),
        ..Secret::default()
    })
}

fn fits(secret: &Secret, password: &str) -> bool {
    let text = secret.data.as_ref().and_then(|data| data.get(HASH));
    text.and_then(|text| std::str::from_utf8(&text.0).ok())
        .and_then(|text| text.split_once(':'))
        .is_some_and(|(salt, hash)| same(&salted(salt, password), hash))
}

/// A plain hash is enough: passwords are 128 random bits, which nobody finds by trying.
fn salted(salt: &str, password: &str) -> String {
    hex(digest(&SHA256, format!("{salt}:{password}").as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_password_fits() {
        let secret = secret("pi", "first").expect("a secret");
        assert!(fits(&secret, "first"));
        assert!(!fits(&secret, "second"));
        assert!(!fits(&Secret::default(), "first"));
    }
}
