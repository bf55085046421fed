//! What a server does at its start when its release is another than the last one's: looks whether
//! it may, and makes the way back before it changes anything.

use std::path::Path;

use serde::{Deserialize, Serialize};
use store::{Expect, Key, Range, Store, WriteError};

use super::{Release, server_beside};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::snapshot::{self, Folder, Order, Reason, Source};

/// The collection that the API does not serve.
const COLLECTION: &str = "coracle.internal/release";
const NAME: &str = "cluster";
/// The form in which this release keeps objects in a datastore; a change that an older release
/// could not read raises it.
const DATA_FORMAT: u32 = 1;
/// How many snapshots of earlier releases stay, apart from all schedules.
const PRE_UPGRADE_KEPT: usize = 3;
/// What a server's Node is labelled with.
const ROLE: &str = "node-role.kubernetes.io/control-plane";

/// What the datastore says of those who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    api_version: String,
    kind: String,
    metadata: Metadata,
    /// The form of its objects.
    format: u32,
    /// The newest release that has written them.
    release: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Metadata {
    name: String,
}

/// How a release meets a datastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meeting {
    /// Nobody has written down who was here.
    First,
    /// The same release, or one that others have left behind already.
    Nothing,
    /// A newer release than any before.
    Upgrade(Release),
    /// The last server goes back to an older release.
    Back(Release),
}

/// Decides whether this release may start on a datastore that `record` tells of, beside servers of
/// the releases in `others`.
fn meet(
    own: Release,
    record: Option<(u32, Release)>,
    others: &[(String, Release)],
) -> Outcome<Meeting> {
    let Some((format, last)) = record else { return Ok(Meeting::First) };
    if format > DATA_FORMAT {
        return Err(Failure::new(format!(
            "the datastore has format {format} since release {last}; this is {own}, which reads up \
             to {DATA_FORMAT}"
        ))
        .hint(format!(
            "install {last} again; or go back with `coracle snapshot restore --replace` and the \
             snapshot that was taken before the upgrade (`coracle snapshot list`)"
        )));
    }
    for (name, other) in others {
        server_beside(own, name, *other)?;
    }
    let near = own.major == last.major && own.minor.abs_diff(last.minor) <= 1;
    if !near {
        let failure =
            Failure::new(format!("the datastore was last used by release {last}; this is {own}"));
        return Err(match own > last {
            true => failure.hint("upgrade one minor release at a time, so that each can convert"),
            false => failure.hint(format!(
                "install {}.{} or newer; or restore the snapshot that was taken before the upgrade",
                last.major,
                last.minor.saturating_sub(1)
            )),
        });
    }
    let newer_beside = others.iter().any(|(_, other)| *other > own);
    Ok(match own.cmp(&last) {
        std::cmp::Ordering::Equal => Meeting::Nothing,
        std::cmp::Ordering::Greater => Meeting::Upgrade(last),
        std::cmp::Ordering::Less if newer_beside => Meeting::Nothing,
        std::cmp::Ordering::Less => Meeting::Back(last),
    })
}

/// Looks whether this server may start, takes a snapshot before the first start of a new release,
/// and writes down which release it is. `order` says where the snapshot goes; none: the operator
/// wants no snapshots.
pub async fn first_start(source: &Source, order: Option<Order>) -> Outcome {
    let store = &source.store;
    store.barrier().await.doing(|| "asking the datastore which release has used it".into())?;
    let own = source.release;
    let present = store.get(&key());
    let record = present.as_ref().map(|entry| read(&entry.value)).transpose()?;
    let others = servers(store, &source.node);
    match meet(own, record, &others)? {
        Meeting::Nothing => return Ok(()),
        Meeting::First => {}
        Meeting::Upgrade(last) => {
            tracing::info!("first start of release {own}; the last was {last}");
            before_upgrade(source, last, own, order).await?;
        }
        Meeting::Back(last) => tracing::warn!("back from release {last} to {own}"),
    }
    let expect = present.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
    let value = serde_json::to_vec(&Record {
        api_version: "coracle.internal/v1".to_owned(),
        kind: "Release".to_owned(),
        metadata: Metadata { name: NAME.to_owned() },
        format: DATA_FORMAT,
        release: own.to_string(),
    });
    let value = value.doing(|| "writing down which release this is".into())?;
    match store.put(key(), expect, value.into()).await {
        // Another server of the cluster starts at the same time, and does the same.
        Err(WriteError::Conflict { .. }) => Ok(()),
        other => other.map(drop).doing(|| "writing down which release this is".into()),
    }
}

async fn before_upgrade(
    source: &Source,
    last: Release,
    own: Release,
    order: Option<Order>,
) -> Outcome {
    let Some(order) = order else {
        tracing::warn!("no snapshot is taken before the upgrade, since snapshots are disabled");
        return Ok(());
    };
    let order = Order {
        prefix: format!("{}-{last}-to-{own}", snapshot::PRE_UPGRADE),
        reason: Reason::PreUpgrade,
        ..order
    };
    // What is in it is the last release's, and that is who can restore it.
    let source = Source { release: last, ..source.clone() };
    let saved = snapshot::take(&source, &order).await.map_err(|failure| {
        let hint = failure.next_step().unwrap_or("see why").to_owned();
        failure.within("no snapshot could be taken before the upgrade").hint(format!(
            "{hint}; nothing was changed, release {last} still starts; --disable-snapshots upgrades \
             without"
        ))
    })?;
    tracing::info!(
        "the way back is in {} (`coracle snapshot restore --replace` with release {last})",
        saved.taken.path.display()
    );
    let (folder, passphrase) = (Folder(order.folder.clone()), order.passphrase.as_deref());
    let prefix = snapshot::PRE_UPGRADE;
    let pruned = snapshot::prune(&folder, None, prefix, PRE_UPGRADE_KEPT, passphrase).await;
    if let Err(failure) = pruned {
        tracing::warn!("old snapshots stay: {}", base::chain(&failure));
    }
    Ok(())
}

fn key() -> Key {
    Key::new(COLLECTION, "", NAME)
}

fn read(value: &[u8]) -> Outcome<(u32, Release)> {
    let doing = || "reading which release has used the datastore".to_owned();
    let record: Record = serde_json::from_slice(value)
        .doing(doing)
        .hint(|| "install the release that was used last".into())?;
    Ok((record.format, record.release.parse().doing(doing)?))
}

/// The releases of the cluster's other servers, as their Nodes say. A server that runs no pods has
/// no Node; it is looked at when it joins.
fn servers(store: &Store, own: &str) -> Vec<(String, Release)> {
    let range = Range { collection: "nodes", namespace: None };
    let Ok(nodes) = store.list(range, store::Page::default()) else { return Vec::new() };
    let release = |value: &[u8]| {
        let node: serde_json::Value = serde_json::from_slice(value).ok()?;
        Release::of_version(node.pointer("/status/nodeInfo/kubeletVersion")?.as_str()?)
    };
    let servers = nodes.entries.iter().filter(|entry| entry.labels.get(ROLE).is_some());
    servers
        .filter(|entry| &*entry.key.name != own)
        .filter_map(|entry| Some((entry.key.name.to_string(), release(&entry.value)?)))
        .collect()
}

/// Where a server's snapshots before upgrades go: to its disk alone, since a start must not wait
/// for a storage elsewhere.
pub fn order(
    places: &snapshot::Places,
    schedule: &snapshot::ScheduleOptions,
    data_dir: &Path,
) -> Outcome<Option<Order>> {
    if schedule.disable_snapshots {
        return Ok(None);
    }
    Ok(Some(Order {
        prefix: String::new(),
        reason: Reason::PreUpgrade,
        folder: places.folder(data_dir),
        passphrase: places.passphrase()?,
        s3: snapshot::S3Options::default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        text.parse().expect("a release")
    }

    /// What comes of `own` on a datastore of `last` beside `others`.
    fn met(own: &str, last: &str, others: &str) -> String {
        let others = others.split_whitespace().map(|other| ("pi".to_owned(), release(other)));
        let record = (!last.is_empty()).then(|| (DATA_FORMAT, release(last)));
        match meet(release(own), record, &others.collect::<Vec<_>>()) {
            Ok(Meeting::Upgrade(last)) => format!("upgrade from {last}"),
            Ok(Meeting::Back(last)) => format!("back from {last}"),
            Ok(other) => format!("{other:?}"),
            Err(failure) => format!("refused: {failure}"),
        }
    }

    #[test]
    fn a_release_goes_up_one_minor_at_a_time_and_back_as_far() {
        for (own, last, others, expected) in [
            ("0.1.0", "", "", "First"),
            ("0.1.0", "0.1.0", "0.1.0", "Nothing"),
            ("0.1.1", "0.1.0", "0.1.0", "upgrade from 0.1.0"),
            ("0.2.0", "0.1.0", "0.1.0 0.1.3", "upgrade from 0.1.0"),
            ("0.2.0", "0.2.0", "0.1.0", "Nothing"),
            // One that was not upgraded yet starts again beside one that was.
            ("0.1.0", "0.2.0", "0.2.0 0.1.0", "Nothing"),
            ("0.1.0", "0.2.0", "0.1.0", "back from 0.2.0"),
            ("0.1.0", "0.2.0", "", "back from 0.2.0"),
            (
                "0.3.0",
                "0.1.0",
                "",
                "refused: the datastore was last used by release 0.1.0; this is 0.3.0",
            ),
            (
                "0.1.0",
                "0.3.0",
                "",
                "refused: the datastore was last used by release 0.3.0; this is 0.1.0",
            ),
            (
                "0.3.0",
                "0.2.0",
                "0.1.0",
                "refused: this server is of release 0.3.0, and the server pi of 0.1.0",
            ),
        ] {
            assert_eq!(met(own, last, others), expected, "{own} after {last} beside {others:?}");
        }
    }

    #[test]
    fn a_newer_form_of_data_is_left_alone() {
        let record = Some((DATA_FORMAT + 1, release("0.2.0")));
        let failure = meet(release("0.1.0"), record, &[]).expect_err("refused");
        assert!(failure.to_string().contains("has format 2 since release 0.2.0"), "{failure}");
        assert!(failure.next_step().is_some_and(|hint| hint.contains("install 0.2.0 again")));
    }
}
