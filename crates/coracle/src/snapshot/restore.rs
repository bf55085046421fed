//! A snapshot becomes a server's data again.
//!
//! All of it is written beside what is there, then what is there is moved aside, then the new is
//! moved into its place. A marker says from the first move to the last that this is going on: a
//! server does not start beside it, and the next restore begins anew.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use store::{Codec, Dump, Entry, FALL_BACK_LEAP, Key};

use super::folder;
use super::format::{About, BadSnapshot, Object};
use super::take::Opener;
use crate::failure::{Failure, Outcome, While};
use crate::server::moving;
use crate::upgrade::{self, Release};
use crate::{files, join};

/// Where the new data are made, in the server's folder.
const MAKING: &str = "restoring";
/// Says that the moving is under way.
const MARKER: &str = "restoring.marker";
/// What old data are moved into, followed by the time.
const ASIDE: &str = "replaced-";
/// What a restore leaves where it is: nothing of these belongs to one state of the cluster.
const STAYS: [&str; 5] = ["snapshots", "manifests", "lock", MAKING, MARKER];

/// A snapshot that was read and found to be sound.
pub struct Read {
    /// The file.
    pub path: PathBuf,
    /// What it is of.
    pub about: About,
    opener: Opener,
    objects: Vec<Object>,
}

/// What a restore has done.
pub struct Restored {
    /// How many objects there are.
    pub objects: usize,
    /// The revision that the cluster goes on from.
    pub revision: u64,
    /// Where the old data are, if there were any.
    pub aside: Option<PathBuf>,
}

/// Reads all of a snapshot file and checks it.
pub fn read(path: &Path, passphrase: Option<&str>) -> Outcome<Read> {
    let doing = || format!("reading the snapshot {}", path.display());
    let (about, opener, objects) =
        folder::read(path, passphrase).map_err(|error: BadSnapshot| {
            let hint = error.hint();
            Failure::new(format!("{}: {}", doing(), base::chain(&error))).hint(hint)
        })?;
    let opener = serde_json::from_slice(&opener).doing(doing)?;
    let release: Release = about.version.parse().doing(doing)?;
    let own = upgrade::current();
    if release > own && !release.same_minor(own) {
        return Err(Failure::new(format!(
            "the snapshot {} is of release {release}, this is {own}",
            path.display()
        ))
        .hint(format!("restore it with {}.{} or newer", release.major, release.minor)));
    }
    Ok(Read { path: path.to_owned(), about, opener, objects })
}

/// Refuses a folder that has data already, unless these shall be replaced.
pub fn may_replace(server: &Path, replace: bool) -> Outcome {
    if server.join(MARKER).exists() || replace {
        return Ok(());
    }
    let found = present(server).doing(|| format!("looking at {}", server.display()))?;
    match found.first() {
        None => Ok(()),
        Some(found) => Err(Failure::new(format!(
            "this board has a cluster already: there is {}",
            server.join(found).display()
        ))
        .hint(
            "restore on an empty board, or add --replace: what is here is then moved aside, not \
             removed",
        )),
    }
}

/// Refuses to start a server while a restore is half done.
pub fn must_be_whole(data_dir: &Path) -> Outcome {
    match data_dir.join("server").join(MARKER).exists() {
        false => Ok(()),
        true => Err(Failure::new("a restore was cut short on this board")
            .hint("restore the snapshot again; nothing is lost, and it starts from its beginning")),
    }
}

/// Puts a snapshot in the place of what is in a server's folder. `tokens` are tried on the
/// cluster's keys. The objects go into `elsewhere`, which must be empty, where that is given.
pub async fn restore(
    read: Read,
    server: &Path,
    mut tokens: Vec<String>,
    elsewhere: Option<store::Datastore>,
) -> Outcome<Restored> {
    tokens.extend(read.opener.server_token.clone());
    let making = server.join(MAKING);
    let doing = || format!("restoring in {}", server.display());
    clear(&making).doing(doing)?;
    files::make_folder(&making, true).doing(doing)?;
    let engine = elsewhere.unwrap_or_else(|| store::Datastore::Sqlite(making.join("db")));
    let made = make(read, &making, tokens, &engine).await;
    let (objects, revision) = match made {
        Ok(made) => made,
        Err(failure) => {
            // It is of no use and, on a full disk, in the way.
            let _ = clear(&making);
            return Err(failure);
        }
    };
    let aside = put_in_place(server).doing(doing)?;
    Ok(Restored { objects, revision, aside })
}

async fn make(
    read: Read,
    making: &Path,
    tokens: Vec<String>,
    engine: &store::Datastore,
) -> Outcome<(usize, u64)> {
    let keys = read.objects.iter().find(|object| object.collection == join::COLLECTION);
    let Some(keys) = keys else {
        return Err(Failure::new(format!(
            "the snapshot {} holds no keys of a cluster",
            read.path.display()
        ))
        .hint("take it from another; `coracle snapshot list` shows what there is"));
    };
    let known = !tokens.is_empty();
    if !join::adopt(&keys.value, tokens, making).await? {
        let what = "the keys of the cluster in this snapshot are sealed with its server token";
        return Err(match known {
            true => Failure::new(format!("{what}, and the token that was given is another"))
                .hint("give the token of that cluster, of the time of the snapshot"),
            false => Failure::new(what).hint(
                "give it with --token (servers keep it in server/token in their data folder)",
            ),
        });
    }
    let count = read.objects.len();
    // Whoever has seen a revision after the snapshot must not meet it again with other content.
    let revision = read.about.revision.saturating_add(FALL_BACK_LEAP);
    let dump = Dump { revision, entries: read.objects.into_iter().map(entry).collect() };
    moving::fill(engine, dump).await?;
    Ok((count, revision))
}

fn entry(object: Object) -> Arc<Entry> {
    let labels = apiserver::JsonCodec.labels(&object.value);
    Arc::new(Entry {
        key: Key::new(object.collection, object.namespace, object.name),
        created: object.created,
        revision: object.revision,
        value: object.value.into(),
        labels,
    })
}

/// What of a server's folder belongs to its present state.
fn present(server: &Path) -> std::io::Result<Vec<String>> {
    let entries = match fs::read_dir(server) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !STAYS.contains(&name.as_str()) && !name.starts_with(ASIDE) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Nothing is ever removed: what a restore that was cut short has half moved goes aside too.
fn put_in_place(server: &Path) -> std::io::Result<Option<PathBuf>> {
    let marker = server.join(MARKER);
    files::write_atomically(&marker, b"", 0o600)?;
    let old = present(server)?;
    let aside = server.join(format!("{ASIDE}{}", Timestamp::now().as_millisecond()));
    if !old.is_empty() {
        files::make_folder(&aside, true)?;
    }
    for name in &old {
        fs::rename(server.join(name), aside.join(name))?;
    }
    let making = server.join(MAKING);
    for entry in fs::read_dir(&making)? {
        let entry = entry?;
        fs::rename(entry.path(), server.join(entry.file_name()))?;
    }
    sync(server)?;
    fs::remove_dir(&making)?;
    fs::remove_file(&marker)?;
    sync(server)?;
    Ok((!old.is_empty()).then_some(aside))
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn clear(path: &Path) -> std::io::Result<()> {
    let cleared = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match cleared {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
