//! Who a node's name belongs to: the first board that came with it, by a password that it alone
//! knows. Its hash is kept in the Secret `kube-system/NAME.node-password.coracle`.

use std::collections::BTreeMap;

use client::Informers;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use ring::digest::{SHA256, digest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::checks::same;
use super::protocol::Refusal;
use super::token::{hex, random_secret};

const NAMESPACE: &str = "kube-system";
/// Behind the node's name.
const SUFFIX: &str = "node-password.coracle";
const HASH: &str = "hash";
/// Nodes that went and whose passwords are not removed yet.
const GONE_MAX: usize = 256;
/// A board that has a name makes its Node within this.
const JOINING_MAX: SignedDuration = SignedDuration::from_mins(10);
/// Attempts while others claim or release the same name.
const ATTEMPTS_MAX: usize = 4;

/// The Secret of a node's name.
pub fn secret_name(node: &str) -> String {
    format!("{node}.{SUFFIX}")
}

/// What a board has shown besides the password that it comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A token, which many boards have.
    Token,
    /// That it is the node, or a server.
    Itself,
}

/// Takes a node's name, or finds that it is the caller's already. A name whose Node was deleted
/// may be taken anew. A Node without a password is one that was deleted and made itself again: its
/// name is for the board alone that can prove to be it.
pub async fn claim(
    client: &Client,
    node: &str,
    password: &str,
    proof: Proof,
) -> Result<(), Refusal> {
    let failed = |error: kube::Error| Refusal::internal(&error);
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let nodes: Api<Node> = Api::all(client.clone());
    for _ in 0..ATTEMPTS_MAX {
        let Some(present) = api.get_opt(&secret_name(node)).await.map_err(failed)? else {
            if proof == Proof::Token && nodes.get_opt(node).await.map_err(failed)?.is_some() {
                return Err(taken(node));
            }
            let secret = secret(node, password)?;
            match api.create(&PostParams::default(), &secret).await {
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                other => return other.map(drop).map_err(failed),
            }
        };
        if fits(&present, password) {
            return Ok(());
        }
        if nodes.get_opt(node).await.map_err(failed)?.is_some() {
            return Err(taken(node));
        }
        delete_just(&api, present).await.map_err(failed)?;
    }
    Err(taken(node))
}

/// Deletes a Secret, unless it has changed since.
async fn delete_just(api: &Api<Secret>, secret: Secret) -> kube::Result<()> {
    let name = secret.name_any();
    let only_this = Preconditions {
        resource_version: secret.metadata.resource_version,
        uid: secret.metadata.uid,
    };
    let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    match api.delete(&name, &params).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}

/// Removes passwords whose Node is gone, until `stop`: when it goes, and once more at the start
/// for those that went while nobody looked.
pub async fn keep(informers: Informers, stop: CancellationToken) {
    let nodes = informers.of::<Node>();
    let (gone, mut next) = mpsc::channel(GONE_MAX);
    nodes.on_change(move |change| {
        if let (Some(old), None) = (&change.old, &change.new) {
            // What does not fit is found by the sweep at the next start.
            let _ = gone.try_send(old.clone());
        }
    });
    if stop.run_until_cancelled(nodes.synced()).await.is_none() {
        return;
    }
    let api: Api<Secret> = Api::namespaced(informers.client().clone(), NAMESPACE);
    let follow = async {
        let swept = sweep(&api, |name| nodes.list().iter().any(|node| node.name_any() == name));
        if let Err(error) = swept.await {
            tracing::warn!(error = %base::chain(&error), "passwords of nodes were not looked at");
        }
        while let Some(node) = next.recv().await {
            if let Err(error) = forget(&api, &node).await {
                let node = node.name_any();
                tracing::warn!(node, error = %base::chain(&error), "its password stays");
            }
        }
    };
    stop.run_until_cancelled(follow).await;
}

/// Removes the passwords of Nodes that are not there.
async fn sweep(api: &Api<Secret>, exists: impl Fn(&str) -> bool) -> kube::Result<()> {
    let now = Timestamp::now();
    for secret in api.list(&ListParams::default()).await? {
        let name = secret.name_any();
        let node = name.strip_suffix(SUFFIX).and_then(|node| node.strip_suffix('.'));
        if node.is_some_and(|node| !exists(node)) && is_forgotten(&secret, now) {
            delete_just(api, secret).await?;
        }
    }
    Ok(())
}

/// Removes the password of a Node that was deleted.
async fn forget(api: &Api<Secret>, node: &Node) -> kube::Result<()> {
    match api.get_opt(&secret_name(&node.name_any())).await? {
        Some(secret) if is_of(&secret, node) => delete_just(api, secret).await,
        _ => Ok(()),
    }
}

/// Whether a password is the one that this Node was made with. A board makes its Node after it
/// has the name; a password that is younger is that of the next board of that name.
fn is_of(secret: &Secret, node: &Node) -> bool {
    match (&secret.metadata.creation_timestamp, &node.metadata.creation_timestamp) {
        (Some(secret), Some(node)) => secret.0 <= node.0,
        _ => false,
    }
}

/// Whether the board that took the name has not made a Node for so long that it never will.
fn is_forgotten(secret: &Secret, now: Timestamp) -> bool {
    let made = secret.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| now.duration_since(made.0) > JOINING_MAX)
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn only_the_same_password_fits() {
        let secret = secret("pi", "first").expect("a secret");
        assert!(fits(&secret, "first"));
        assert!(!fits(&secret, "second"));
        assert!(!fits(&Secret::default(), "first"));
    }

    fn made<T: Default>(at: &str, metadata: impl Fn(&mut T) -> &mut ObjectMeta) -> T {
        let mut object = T::default();
        let at = at.parse().expect("a time");
        metadata(&mut object).creation_timestamp = Some(Time(at));
        object
    }

    #[test]
    fn a_password_goes_with_its_own_node_only() {
        let node = made("2026-11-21T12:00:00Z", |node: &mut Node| &mut node.metadata);
        let now = "2026-11-21T12:10:01Z".parse().expect("a time");
        for (at, goes, is_old) in [
            ("2026-11-21T11:59:59Z", true, true),
            ("2026-11-21T12:00:00Z", true, true),
            ("2026-11-21T12:00:02Z", false, false),
        ] {
            let secret = made(at, |secret: &mut Secret| &mut secret.metadata);
            assert_eq!((is_of(&secret, &node), is_forgotten(&secret, now)), (goes, is_old), "{at}");
        }
        assert!(!is_of(&Secret::default(), &node));
    }
}
