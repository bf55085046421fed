//! Taking a snapshot: of a running server's store or of one that was opened for it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Dump, Store};

use super::folder::{Folder, Taken};
use super::format::{About, FORMAT, Reason};
use super::options::S3Options;
use super::{Storage, names};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::upgrade::Release;

/// What a snapshot is taken of.
#[derive(Clone)]
pub struct Source {
    /// The objects.
    pub store: Store,
    /// The engine that holds them, in a word.
    pub engine: String,
    /// This board's data folder.
    pub data_dir: PathBuf,
    /// This board's name.
    pub node: String,
    /// The release that wrote the objects.
    pub release: Release,
}

/// What somebody wants.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    /// How its name begins.
    pub prefix: String,
    /// Why.
    pub reason: Reason,
    /// Where it goes.
    pub folder: PathBuf,
    /// What to encrypt it with.
    pub passphrase: Option<String>,
    /// Where it goes too.
    pub s3: S3Options,
}

/// A snapshot and where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    /// The file.
    pub taken: Taken,
    /// The object in the storage, where one was asked for.
    pub stored: Option<String>,
}

/// What only a file that is encrypted holds beside the objects.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opener {
    /// The secret that the cluster's keys are sealed with.
    pub server_token: Option<String>,
}

/// Takes a snapshot, reads it back, and stores it.
pub async fn take(source: &Source, order: &Order) -> Outcome<Saved> {
    // A storage that is named wrongly is told before anything is written.
    let storage = order.s3.s3.then(|| Storage::new(&order.s3)).transpose()?;
    source
        .store
        .barrier()
        .await
        .doing(|| "asking the datastore for its newest state".into())
        .hint(|| "a snapshot of what is not the newest would mislead; see /readyz".into())?;
    let (source, order) = (source.clone(), order.clone());
    let write = tokio::task::spawn_blocking(move || write(&source, &order));
    let taken = write.await.doing(|| "taking a snapshot".into())??;
    let stored = match storage {
        None => None,
        Some(storage) => {
            let put = storage.put(&taken.name, &taken.path).await;
            put.map_err(|failure| {
                failure.within(format!(
                    "the snapshot is in {}, but not in the storage",
                    taken.path.display()
                ))
            })?;
            Some(storage.location(&taken.name))
        }
    };
    Ok(Saved { taken, stored })
}

fn write(source: &Source, order: &Order) -> Outcome<Taken> {
    let dump = source.store.dump();
    let created = Timestamp::now();
    let name = names::of_new(&order.prefix, &source.node, created, order.passphrase.is_some());
    let about = About {
        format: FORMAT,
        created,
        node: source.node.clone(),
        version: source.release.to_string(),
        engine: source.engine.clone(),
        cluster: cluster_of(&dump),
        revision: dump.revision,
        reason: order.reason,
    };
    let opener = match order.passphrase {
        Some(_) => Opener { server_token: Some(server_token(&source.data_dir)?) },
        None => Opener::default(),
    };
    let opener = serde_json::to_vec(&opener).doing(|| "writing the token down".into())?;
    let objects = dump.entries.iter().map(|entry| {
        let key = [&*entry.key.collection, &*entry.key.namespace, &*entry.key.name];
        (key, [entry.created, entry.revision], &*entry.value)
    });
    let passphrase = order.passphrase.as_deref();
    Folder(order.folder.clone()).write(&name, &about, &opener, passphrase, objects)
}

/// What tells clusters apart, by custom: the UID of the namespace that every cluster has.
fn cluster_of(dump: &Dump) -> String {
    let uid = |value: &[u8]| {
        let object: serde_json::Value = serde_json::from_slice(value).ok()?;
        Some(object.pointer("/metadata/uid")?.as_str()?.to_owned())
    };
    let is_it = |entry: &&std::sync::Arc<store::Entry>| {
        &*entry.key.collection == "namespaces" && &*entry.key.name == "kube-system"
    };
    dump.entries.iter().find(is_it).and_then(|entry| uid(&entry.value)).unwrap_or_default()
}

/// The secret part of the server token in a data folder.
fn server_token(data_dir: &Path) -> Outcome<String> {
    let path = data_dir.join("server/token");
    let text = std::fs::read_to_string(&path)
        .doing(|| format!("reading the server token {}", path.display()))
        .hint(|| "start the server once: it writes the file".into())?;
    match text.trim().rsplit(':').next().filter(|secret| !secret.is_empty()) {
        Some(secret) => Ok(secret.to_owned()),
        None => Err(Failure::new(format!("{} holds no token", path.display()))
            .hint("start the server again: it writes the file anew")),
    }
}
