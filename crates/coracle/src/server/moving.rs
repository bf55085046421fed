//! Moving a cluster from one engine to another: everything at one revision is written into an
//! empty datastore, read back, and only then takes the place of the old one, which is kept.
//!
//! The server is stopped meanwhile. Moving under a running one was turned down: for as long as
//! both exist, a write that was acknowledged could be in the one that is left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Codec, DriverError, Dump, Entry, Key, OpenError, Store};

use super::datastore::{Datastore, Membership, OnDisk};
use super::opened::{self, Opened};
use super::{Settings, store_options};
use crate::etcd::{self, Etcd, Place};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;

/// What says that the new engine is about to take the old one's place, and how.
const JOURNAL: &str = "server/moving.json";
/// What the old engine's folder is moved to, followed by the time.
pub const ASIDE: &str = "moved-";
/// How long a shared datastore is watched for other servers that still write: several times as
/// long as a leader takes to renew its Lease.
const QUIET: Duration = Duration::from_secs(6);

/// Where a cluster is moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An etcd that the server supervises.
    Etcd,
    /// A file of the server.
    Sqlite,
    /// A datastore that somebody else runs.
    External(String),
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "etcd" => Ok(Target::Etcd),
            "sqlite" => Ok(Target::Sqlite),
            url if url.contains("://") => Ok(Target::External(url.to_owned())),
            _ => Err("it is none of etcd, sqlite, or the URL of a datastore".into()),
        }
    }
}

/// What a move has come to.
#[derive(Debug)]
pub struct Moved {
    /// How many objects there are.
    pub objects: usize,
    /// The revision that was the newest; later ones go on from it.
    pub revision: u64,
    /// Where the old data are, if they were on this disk.
    pub aside: Option<PathBuf>,
}

/// The renames that end a move. Until they are written down nothing has changed; from then on
/// they are carried out, if need be at the next start.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// From where to where, below the data folder.
    renames: Vec<(String, String)>,
}

/// Carries out the renames of a move that was cut short between them.
pub fn finish(data_dir: &Path) -> Outcome {
    let path = data_dir.join(JOURNAL);
    let doing = || format!("finishing the move of the datastore in {}", data_dir.display());
    let content = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.doing(doing)?,
    };
    let journal: Journal = serde_json::from_slice(&content).doing(doing)?;
    for (from, to) in &journal.renames {
        let (from, to) = (data_dir.join(from), data_dir.join(to));
        if from.exists() && !to.exists() {
            std::fs::rename(&from, &to).doing(doing)?;
        }
    }
    let sync = || std::fs::File::open(data_dir.join("server"))?.sync_all();
    sync().doing(doing)?;
    std::fs::remove_file(&path).doing(doing)?;
    sync().doing(doing)
}

/// Moves the cluster of a stopped server. The caller holds the folder's lock.
pub async fn run(settings: &Settings, target: &Target) -> Outcome<Moved> {
    let data_dir = &settings.common.data_dir;
    finish(data_dir)?;
    let disk = OnDisk::look(data_dir);
    let source = &settings.datastore;
    let same = match (source, target) {
        (Datastore::Sqlite, Target::Sqlite) | (Datastore::Etcd(_), Target::Etcd) => true,
        (Datastore::External(from), Target::External(to)) => from == to,
        _ => false,
    };
    if same {
        return Err(Failure::new("the cluster's objects are there already")
            .hint("`coracle datastore status` says where they are"));
    }
    let from_disk = match source {
        Datastore::Sqlite if disk.sqlite => Some("server/db"),
        Datastore::Etcd(Membership::Present) => Some("server/etcd"),
        Datastore::External(_) => None,
        _ => {
            return Err(Failure::new(format!("there is no cluster in {}", data_dir.display()))
                .hint("start a server first; --data-dir names another folder"));
        }
    };
    let dump = take(settings).await?;
    let (objects, revision) = (dump.entries.len(), dump.revision);
    let made = match target {
        Target::Sqlite => Some((fill_sqlite(data_dir, dump).await?, "server/db")),
        Target::Etcd => Some((fill_etcd(settings, dump).await?, "server/etcd")),
        Target::External(url) => {
            fill(&settings.options.datastore.elsewhere(url, data_dir)?, dump).await?;
            None
        }
    };
    let aside = format!("server/{ASIDE}{}", Timestamp::now().as_millisecond());
    let mut renames = Vec::new();
    renames.extend(from_disk.map(|from| (from.to_owned(), aside.clone())));
    renames.extend(made.map(|(from, to)| (from.to_owned(), to.to_owned())));
    let journal = serde_json::to_vec_pretty(&Journal { renames }).doing(|| "moving".into())?;
    let path = data_dir.join(JOURNAL);
    files::write_atomically(&path, &journal, 0o600)
        .doing(|| format!("writing {}", path.display()))?;
    finish(data_dir)?;
    if *target != Target::Etcd {
        etcd::forget(data_dir);
    }
    let aside = from_disk.map(|_| data_dir.join(aside));
    Ok(Moved { objects, revision, aside })
}

/// Everything the source holds.
async fn take(settings: &Settings) -> Outcome<Dump> {
    let opened = Opened::open(settings, &settings.bring()?, etcd::to_nobody()).await?;
    let taken = check_and_dump(settings, &opened).await;
    opened.close().await?;
    taken
}

async fn check_and_dump(settings: &Settings, opened: &Opened) -> Outcome<Dump> {
    if let Some(etcd) = &opened.etcd {
        let members = etcd.place.local().await?.members().await?;
        let others: Vec<&str> = members
            .iter()
            .map(etcd::Member::label)
            .filter(|label| *label != settings.node_name)
            .collect();
        if !others.is_empty() {
            return Err(Failure::new(format!(
                "the cluster has further servers: {}",
                others.join(", ")
            ))
            .hint("take them out first, one after the other: `kubectl delete node NAME`"));
        }
    }
    let before = newest(&opened.store).await?;
    if matches!(settings.datastore, Datastore::External(_)) {
        tokio::time::sleep(QUIET).await;
    }
    let dump = opened.store.dump();
    if dump.revision != before {
        return Err(Failure::new("other servers still write to the datastore")
            .hint("stop all servers of the cluster (`systemctl stop coracle`), then move"));
    }
    Ok(dump)
}

async fn newest(store: &Store) -> Outcome<u64> {
    store.barrier().await.doing(|| "reading the newest revision".into())
}

async fn fill_sqlite(data_dir: &Path, dump: Dump) -> Outcome<&'static str> {
    const MAKING: &str = "server/db.moving";
    let folder = clear(data_dir, MAKING)?;
    fill(&store::Datastore::Sqlite(folder), dump).await?;
    Ok(MAKING)
}

async fn fill_etcd(settings: &Settings, dump: Dump) -> Outcome<&'static str> {
    const MAKING: &str = "server/etcd.moving";
    let data_dir = &settings.common.data_dir;
    let folder = clear(data_dir, MAKING)?;
    let place = opened::place(settings, &settings.bring()?)?;
    let place = Place { folder, ..place };
    let etcd = Etcd::start(place, &Membership::Init, Vec::new(), etcd::to_nobody()).await?;
    let filled = fill(&opened::member_engine(&etcd.place), dump).await;
    etcd.stop().await;
    filled.map(|()| MAKING)
}

fn clear(data_dir: &Path, name: &str) -> Outcome<PathBuf> {
    let folder = data_dir.join(name);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", folder.display()))
        }
        _ => Ok(folder),
    }
}

/// Writes everything into an empty datastore and reads it back. One that holds exactly this already
/// was filled by a run that was killed after it, and is as good.
pub async fn fill(engine: &store::Datastore, dump: Dump) -> Outcome {
    let wanted = dump.clone();
    let filled = store::fill(engine.driver(), store_options(), dump).await;
    let refusal = match filled {
        Ok(()) => None,
        Err(error @ OpenError::Driver(DriverError::NotEmpty { .. })) => Some(error),
        Err(error) => return Err(opened::refused(engine, error)),
    };
    let store = opened::open_store(engine).await?;
    let found = store.dump();
    store.close().await.doing(|| format!("closing {engine}"))?;
    let differs = found.revision < wanted.revision || contents(&found) != contents(&wanted);
    match (differs, refusal) {
        (false, _) => Ok(()),
        (true, Some(refusal)) => Err(opened::refused(engine, refusal)),
        (true, None) => Err(Failure::new(format!("{engine} does not give back what was written")))
            .hint(|| "the old data are untouched; see the disk's health, and try again".into()),
    }
}

/// What is stored under which key. Another engine counts on from another number, and may give
/// the same one to several, so what an object says of its revision is left out.
fn contents(dump: &Dump) -> BTreeMap<[Arc<str>; 3], Bytes> {
    let content = |entry: &Arc<Entry>| {
        let Key { collection, namespace, name } = entry.key.clone();
        ([collection, namespace, name], apiserver::JsonCodec.stamp(&entry.value, 0))
    };
    dump.entries.iter().map(content).collect()
}

/// Removes what moves and repairs have kept. Gives the folders that are gone.
pub fn forget(data_dir: &Path) -> Outcome<Vec<PathBuf>> {
    let server = data_dir.join("server");
    let doing = || format!("looking at {}", server.display());
    let mut gone = Vec::new();
    for entry in std::fs::read_dir(&server).doing(doing)? {
        let path = entry.doing(doing)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(ASIDE) || matches!(name.as_str(), "etcd.damaged" | "etcd.removed") {
            std::fs::remove_dir_all(&path).doing(|| format!("removing {}", path.display()))?;
            gone.push(path);
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_was_cut_short_is_finished() {
        // What is there after each possible cut, and what must be there in the end.
        for there in [["db", "etcd.moving"], ["moved-1", "etcd.moving"], ["moved-1", "etcd"]] {
            let folder = tempfile::tempdir().expect("temporary folder");
            let server = folder.path().join("server");
            for name in there {
                std::fs::create_dir_all(server.join(name)).expect("made");
            }
            let renames = vec![
                ("server/db".to_owned(), "server/moved-1".to_owned()),
                ("server/etcd.moving".to_owned(), "server/etcd".to_owned()),
            ];
            let journal = serde_json::to_vec(&Journal { renames }).expect("JSON");
            std::fs::write(folder.path().join(JOURNAL), journal).expect("written");
            finish(folder.path()).expect("finished");
            let mut names: Vec<String> = std::fs::read_dir(&server)
                .expect("listed")
                .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            assert_eq!(names, ["etcd", "moved-1"], "after {there:?}");
            finish(folder.path()).expect("nothing left to do");
        }
    }

    #[test]
    fn targets() {
        for (text, expected) in [
            ("etcd", Ok(Target::Etcd)),
            ("sqlite", Ok(Target::Sqlite)),
            ("postgres://h/d", Ok(Target::External("postgres://h/d".into()))),
            ("raft", Err("it is none of etcd, sqlite, or the URL of a datastore".to_owned())),
        ] {
            assert_eq!(text.parse::<Target>(), expected);
        }
    }
}
