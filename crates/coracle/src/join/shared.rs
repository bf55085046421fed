//! The cluster's secrets in the datastore: one entry that the API does not serve and every server
//! watches. A change on one server reaches all others by it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use store::{Expect, Key, Range, Store, WriteError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::sealed::Sealed;
use super::secrets::{Equal, Secrets};
use super::token::{self, Credential, Token, hex};
use crate::failure::{Failure, Hint, Outcome, While};

/// The collection; no resource of the API lies there.
pub const COLLECTION: &str = "coracle.internal/bootstrap";
const NAME: &str = "cluster";
/// Attempts at a change while others change the same.
const ATTEMPTS_MAX: usize = 16;
/// Pause after the watch on the entry broke.
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    api_version: String,
    kind: String,
    metadata: Metadata,
    sealed: Sealed,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    name: String,
}

/// What a server brings to the datastore when it starts.
pub struct Bring {
    /// The folder `server` of the data folder.
    pub folder: PathBuf,
    /// The settings that must be the cluster's.
    pub settings: Equal,
    /// `--token`, where it was given.
    pub token: Option<Token>,
    /// `--agent-token`, where it was given.
    pub agent_token: Option<String>,
    /// What another server has handed over.
    pub handed: Option<Secrets>,
    /// Where the members of the cluster's etcd are, as that server said.
    pub etcd: Vec<String>,
}

impl Bring {
    /// The secrets that this server has before the datastore is open: handed over or kept.
    pub fn known(&self) -> Outcome<Option<Secrets>> {
        if let Some(handed) = &self.handed {
            return Ok(Some(handed.clone()));
        }
        Ok(Secrets::read(&self.folder, &self.settings)?.map(|(secrets, _)| secrets))
    }

    /// The secrets that this server has, or those of a new cluster, kept from now on: for a
    /// datastore that cannot be opened without an authority of its own.
    pub fn known_or_new(&self) -> Outcome<Secrets> {
        if let Some(secrets) = self.known()? {
            return Ok(secrets);
        }
        let secrets = self.new_secrets()?;
        secrets.write(&self.folder, "")?;
        Ok(secrets)
    }

    /// The secrets of the cluster whose datastore this is. A new datastore gets them.
    pub async fn settle(&self, store: &Store) -> Outcome<Secrets> {
        for _ in 0..ATTEMPTS_MAX {
            let secrets = match store.get(&key()) {
                Some(entry) => self.read(&entry.value).await?,
                None => {
                    let secrets = match self.known()? {
                        Some(secrets) => secrets,
                        None => self.new_secrets()?,
                    };
                    let value = seal(&secrets, None).await?;
                    match store.put(key(), Expect::Absent, value.into()).await {
                        // Another server was first: its secrets count.
                        Err(WriteError::Conflict { .. }) => continue,
                        other => other.doing(|| "writing the cluster's secrets".into())?,
                    };
                    let kept = store.get(&key()).map(|entry| fingerprint(&entry.value));
                    secrets.write(&self.folder, &kept.unwrap_or_default())?;
                    secrets
                }
            };
            self.settings.must_be(&secrets.settings)?;
            return Ok(secrets);
        }
        Err(Failure::new("the cluster's secrets change all the time").hint("try again"))
    }

    async fn read(&self, value: &[u8]) -> Outcome<Secrets> {
        let print = fingerprint(value);
        let kept = Secrets::read(&self.folder, &self.settings).unwrap_or_else(|damaged| {
            // A power cut or a bad card: the datastore has them too, and the token opens them.
            let damage = base::chain(&damaged);
            tracing::error!("{damage}; the cluster's secrets are fetched from the datastore");
            None
        });
        let kept = match kept {
            Some((secrets, entry)) if entry == print => return Ok(secrets),
            other => other.map(|(secrets, _)| secrets),
        };
        let given = self.token.as_ref().map(|token| token.secret().to_owned());
        let tokens: Vec<String> = [&self.handed, &kept]
            .into_iter()
            .flatten()
            .map(|secrets| secrets.server_token.clone())
            .chain(given)
            .chain(noted(&self.folder))
            .collect();
        let known = !tokens.is_empty();
        let opened = unseal(value, tokens).await?.ok_or_else(|| match known {
            true => Failure::new("the datastore belongs to a cluster with another server token")
                .hint(
                    "give that cluster's token with --token (its servers keep it in server/token)",
                ),
            false => Failure::new("the datastore holds a cluster already")
                .hint("give its server token with --token (its servers keep it in server/token)"),
        })?;
        opened.write(&self.folder, &print)?;
        Ok(opened)
    }

    fn new_secrets(&self) -> Outcome<Secrets> {
        let server = match self.token.as_ref().map(|token| &token.credential) {
            None => None,
            Some(Credential::Server(secret) | Credential::Bare(secret)) => Some(secret.clone()),
            Some(Credential::Node(_) | Credential::Bootstrap { .. }) => {
                return Err(Failure::new("the token is an agent's")
                    .hint("a new cluster takes any secret as --token, or makes one by itself"));
            }
        };
        if self.token.as_ref().is_some_and(|token| token.hash.is_some()) {
            return Err(Failure::new("the token is of another cluster, but this one is new").hint(
                "join that cluster with --server, or give only the part behind the last colon",
            ));
        }
        // An empty one would let everybody in.
        self.agent_token.as_deref().map_or(Ok(()), token::must_be_plain)?;
        Secrets::new(self.settings.clone(), server, self.agent_token.clone())
    }
}

/// Changes the cluster's secrets for all servers. `change` may be called several times.
pub async fn change(
    store: &Store,
    present: &Secrets,
    mut change: impl FnMut(&mut Secrets) -> Outcome,
) -> Outcome<Secrets> {
    for _ in 0..ATTEMPTS_MAX {
        let entry = store.get(&key()).ok_or_else(|| {
            Failure::new("the cluster's secrets are not in the datastore").hint("start the server")
        })?;
        let tokens = vec![present.server_token.clone()];
        let mut secrets = unseal(&entry.value, tokens).await?.ok_or_else(|| {
            Failure::new("the cluster's secrets were sealed anew meanwhile").hint("try again")
        })?;
        let before = secrets.server_token.clone();
        change(&mut secrets)?;
        secrets.generation += 1;
        let value = seal(&secrets, Some(before)).await?;
        match store.put(key(), Expect::Revision(entry.revision), value.into()).await {
            Err(WriteError::Conflict { .. }) => {}
            other => {
                other.doing(|| "writing the cluster's secrets".into())?;
                return Ok(secrets);
            }
        }
    }
    Err(Failure::new("the cluster's secrets change all the time").hint("try again"))
}

/// The cluster's secrets with what an older release did not make.
pub async fn complete(store: &Store, secrets: Secrets) -> Outcome<Secrets> {
    match secrets.is_complete() {
        true => Ok(secrets),
        false => change(store, &secrets, Secrets::complete).await,
    }
}

/// Opens the entry of a datastore that a server is about to start with, and keeps it in that
/// server's folder. False where no token opens it.
pub async fn adopt(value: &[u8], tokens: Vec<String>, folder: &Path) -> Outcome<bool> {
    match unseal(value, tokens).await? {
        Some(secrets) => secrets.write(folder, &fingerprint(value)).map(|()| true),
        None => Ok(false),
    }
}

/// Follows the datastore's entry until `stop`, and keeps and announces each change.
pub async fn follow(
    store: Store,
    folder: PathBuf,
    announce: watch::Sender<Arc<Secrets>>,
    stop: CancellationToken,
) -> Outcome {
    let mut failures = 0;
    loop {
        let followed = tokio::select! {
            followed = follow_once(&store, &folder, &announce) => followed,
            () = stop.cancelled() => return Ok(()),
        };
        failures += 1;
        if let Err(failure) = followed {
            tracing::error!(error = %base::chain(&failure), "the cluster's secrets were not read");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY.jittered(failures)) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn follow_once(
    store: &Store,
    folder: &Path,
    announce: &watch::Sender<Arc<Secrets>>,
) -> Outcome {
    let revision = store.revision();
    let range = Range { collection: COLLECTION, namespace: None };
    let mut watch =
        store.watch(range, revision).doing(|| "watching the cluster's secrets".into())?;
    loop {
        if let Some(entry) = store.get(&key()) {
            take(&entry.value, folder, announce).await?;
        }
        match watch.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                return Err(error).doing(|| "watching the cluster's secrets".into());
            }
            None => return Ok(()),
        }
    }
}

async fn take(value: &[u8], folder: &Path, announce: &watch::Sender<Arc<Secrets>>) -> Outcome {
    let present = announce.borrow().clone();
    let print = fingerprint(value);
    let kept = Secrets::read(folder, &present.settings)?;
    if kept.as_ref().is_some_and(|(kept, entry)| *entry == print && *kept == *present) {
        return Ok(());
    }
    let tokens = vec![present.server_token.clone()];
    let opened = unseal(value, tokens).await?.ok_or_else(|| {
        Failure::new("the cluster's secrets are sealed with another token")
            .hint("start this server again with the new --token")
    })?;
    opened.write(folder, &print)?;
    if opened != *present {
        tracing::info!(generation = opened.generation, "the cluster's secrets have changed");
        announce.send_replace(Arc::new(opened));
    }
    Ok(())
}

/// The secret in the token file of a server's folder, if it can be read.
fn noted(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("token")).ok()?;
    text.trim().parse().ok().map(|token: Token| token.secret().to_owned())
}

fn key() -> Key {
    Key::new(COLLECTION, "", NAME)
}

/// What tells one sealed form from another. The revision that the store stamps into the value is
/// no part of it: a datastore that was moved has the same secrets.
fn fingerprint(value: &[u8]) -> String {
    let sealed = serde_json::from_slice::<Entry>(value).map(|entry| entry.sealed);
    let text = sealed.ok().and_then(|sealed| serde_json::to_vec(&sealed).ok()).unwrap_or_default();
    hex(digest(&SHA256, &text).as_ref())
}

/// Sealing takes a moment of computing, which must not hold up the runtime.
async fn seal(secrets: &Secrets, before: Option<String>) -> Outcome<Vec<u8>> {
    let secrets = secrets.clone();
    let sealed =
        tokio::task::spawn_blocking(move || Sealed::new(&secrets, before.as_deref())).await;
    let entry = Entry {
        api_version: "coracle.internal/v1".to_owned(),
        kind: "Bootstrap".to_owned(),
        metadata: Metadata { name: NAME.to_owned() },
        sealed: sealed.doing(|| "sealing the cluster's secrets".into())??,
    };
    serde_json::to_vec(&entry).doing(|| "sealing the cluster's secrets".into())
}

async fn unseal(value: &[u8], tokens: Vec<String>) -> Outcome<Option<Secrets>> {
    let entry: Entry = serde_json::from_slice(value)
        .doing(|| "reading the cluster's secrets in the datastore".into())
        .hint(|| "restore the datastore from a snapshot".into())?;
    tokio::task::spawn_blocking(move || entry.sealed.open(&tokens))
        .await
        .doing(|| "opening the cluster's secrets".into())?
}
