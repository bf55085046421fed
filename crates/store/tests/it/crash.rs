//! A crash at every write, with what was not synced kept, lost, or torn.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use rusqlite::ffi;
use store::{
    DriverError, Expect, Key, Recovery, Revision, Sqlite, SqliteOptions, Store, WriteError,
};

use crate::support::{Json, fast_folder, key, lease, options, text, value};
use crate::vfs::{self, Done, Op};

/// What a disk keeps whole.
const SECTOR_BYTES: usize = 512;
const OPERATIONS: usize = 60;

/// Text by key.
type State = BTreeMap<Key, String>;

/// How far the workload was when so many operations had been recorded.
struct Mark {
    ops: usize,
    /// Durable states acknowledged by then; the next one may be there too.
    states: usize,
    /// The highest revision handed out by then.
    revision: Revision,
    /// The number in the volatile object at the last acknowledged checkpoint.
    flushed: Option<u32>,
}

#[derive(Default)]
struct Workload {
    states: Vec<State>,
    marks: Vec<Mark>,
    flushed: Option<u32>,
}

impl Workload {
    fn mark(&mut self, folder: &Path, revision: Revision) {
        let (ops, states) = (vfs::count(folder), self.states.len());
        self.marks.push(Mark { ops, states, revision, flushed: self.flushed });
    }
}

async fn open(folder: &Path) -> (Store, Recovery) {
    // A short log, so that it is brought over and started anew within the workload.
    let short = SqliteOptions { log_max_pages: 24, ..SqliteOptions::default() };
    let driver = Sqlite::with(folder, short);
    Store::open(driver, Arc::new(Json), options()).await.expect("the store opens")
}

/// Writes, deletes, checkpoints, closes and opens again, one after the other.
async fn work(folder: &Path, random: &mut fastrand::Rng) -> Workload {
    let mut work = Workload { states: vec![State::new()], ..Workload::default() };
    let (mut store, _) = open(folder).await;
    let mut now = State::new();
    for n in 0..OPERATIONS {
        match random.u8(..10) {
            0..6 => {
                let key = key(&format!("p{}", random.u8(..8)));
                let content = format!("{n}{}", "x".repeat(random.usize(..9000)));
                store.put(key.clone(), Expect::Any, value(&content)).await.expect("put");
                now.insert(key, content);
                work.states.push(now.clone());
            }
            6 => {
                let key = key(&format!("p{}", random.u8(..8)));
                if store.delete(&key, Expect::Any).await.is_ok() {
                    now.remove(&key);
                    work.states.push(now.clone());
                }
            }
            7 | 8 => {
                let content = value(&n.to_string());
                store.put(lease("l"), Expect::Any, content).await.expect("put");
                if random.bool() {
                    store.flush().await.expect("flush");
                    work.flushed = u32::try_from(n).ok();
                }
            }
            _ => {
                let held = store.get(&lease("l"));
                store.close().await.expect("close");
                work.flushed = held.and_then(|e| e.labels.get("text")?.parse().ok());
                store = open(folder).await.0;
            }
        }
        work.mark(folder, store.revision());
    }
    store.close().await.expect("close");
    work
}

/// A disk: what is safely on it, and what is only on its way.
#[derive(Default)]
struct Disk {
    safe: HashMap<String, Vec<u8>>,
    pending: Vec<Done>,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

impl Disk {
    fn take(&mut self, done: &Done) {
        let synced = matches!(done.op, Op::Sync);
        self.pending.push(done.clone());
        if synced {
            // Deletions ride along with any file's sync: the file system keeps their order.
            let (safe, rest): (Vec<Done>, Vec<Done>) = std::mem::take(&mut self.pending)
                .into_iter()
                .partition(|p| p.file == done.file || matches!(p.op, Op::Delete));
            self.pending = rest;
            safe.iter().for_each(|p| apply(&mut self.safe, p, usize::MAX));
        }
    }

    /// What is found after a crash now.
    fn crash(&self, fate: Fate, random: &mut fastrand::Rng) -> HashMap<String, Vec<u8>> {
        let mut files = self.safe.clone();
        for done in &self.pending {
            let kept = match fate {
                Fate::Kept => usize::MAX,
                Fate::Lost => 0,
                Fate::Torn => [0, usize::MAX, SECTOR_BYTES * random.usize(..9)][random.usize(..3)],
            };
            // A file that was recreated was deleted first, whatever else got lost.
            apply(&mut files, done, kept);
        }
        files
    }
}

/// Does an operation to files; of a write, only the first `kept` bytes.
fn apply(files: &mut HashMap<String, Vec<u8>>, done: &Done, kept: usize) {
    match &done.op {
        Op::Write { at, data } if kept > 0 => {
            let file = files.entry(done.file.clone()).or_default();
            let data = &data[..kept.min(data.len())];
            file.resize(file.len().max(at + data.len()), 0);
            file[*at..at + data.len()].copy_from_slice(data);
        }
        Op::Truncate(size) if kept > 0 => {
            files.entry(done.file.clone()).or_default().resize(*size, 0);
        }
        Op::Delete if kept > 0 => {
            files.remove(&done.file);
        }
        _ => {}
    }
}

/// Opens what a crash has left, and compares it with what was promised by then.
async fn inspect(
    files: &HashMap<String, Vec<u8>>,
    high_water: Option<&str>,
    at: usize,
    work: &Workload,
) {
    let folder = fast_folder();
    for (name, contents) in files {
        std::fs::write(folder.path().join(name), contents).expect("write a file");
    }
    if let Some(high_water) = high_water {
        std::fs::write(folder.path().join("revision"), high_water).expect("write a file");
    }
    let (store, recovery) = open(folder.path()).await;
    assert!(!matches!(recovery, Recovery::Restored { .. }), "{recovery}");
    let range = store::Range { collection: "pods", namespace: None };
    let list = store.list(range, store::Page::default()).expect("list");
    let content = |e: &store::Entry| e.labels.get("text").unwrap_or_default().to_owned();
    let found: State = list.entries.iter().map(|e| (e.key.clone(), content(e))).collect();
    let mark = work.marks.iter().rev().find(|m| m.ops <= at);
    let (states, revision) = mark.map_or((1, 0), |m| (m.states, m.revision));
    // The acknowledged state, or the one write under way when the crash came.
    let allowed = &work.states[states - 1..work.states.len().min(states + 1)];
    assert!(allowed.contains(&found), "an acknowledged write is lost, or another half done");
    assert!(store.revision() >= revision, "{} after {revision}", store.revision());
    let held: Option<u32> = store.get(&lease("l")).and_then(|e| e.labels.get("text")?.parse().ok());
    assert!(held >= mark.and_then(|m| m.flushed), "a checkpoint is lost");
    let next = store.put(key("next"), Expect::Any, value("1")).await.expect("writes go on");
    assert!(next.revision > revision && text(&next.value).contains("\"1\""));
    store.close().await.expect("close");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_wherever_it_is_cut() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("to replay: SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = fast_folder();
    vfs::record(folder.path());
    let work = work(folder.path(), &mut random).await;
    let log = vfs::log(folder.path());
    assert!(log.iter().any(|d| d.file == "store.db-wal" && matches!(d.op, Op::Delete)));
    let mut disk = Disk::default();
    for (at, done) in log.iter().enumerate() {
        disk.take(done);
        for fate in [Fate::Kept, Fate::Lost, Fate::Torn] {
            if disk.pending.is_empty() && !matches!(fate, Fate::Kept) {
                continue;
            }
            println!("crash after {at} of {} ({fate:?}): {}", log.len(), done.file);
            let files = disk.crash(fate, &mut random);
            inspect(&files, done.high_water.as_deref(), at + 1, &work).await;
        }
    }
}

#[tokio::test]
async fn a_failing_disk_is_told_and_survived() {
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC] {
        let folder = fast_folder();
        vfs::record(folder.path());
        let (store, _) = open(folder.path()).await;
        let before = store.put(key("a"), Expect::Any, value("1")).await.expect("put");
        vfs::fail(folder.path(), Some(code));
        for n in 0..3 {
            let failed = store.put(key("a"), Expect::Any, value("2")).await;
            let Err(WriteError::Storage(error)) = failed else { panic!("{failed:?}") };
            assert_eq!(matches!(&*error, DriverError::Full { .. }), code == ffi::SQLITE_FULL);
            assert_eq!(store.get(&key("a")).map(|e| e.revision), Some(before.revision));
            store.put(lease("l"), Expect::Any, value(&n.to_string())).await.expect("volatile");
        }
        assert_eq!(store.stats().failures, 3);
        vfs::fail(folder.path(), None);
        let expect = Expect::Revision(before.revision);
        let after = store.put(key("a"), expect, value("3")).await.expect("it heals");
        assert!(after.revision > before.revision + 3, "revisions of failed writes are not reused");
        store.close().await.expect("close");
        let (store, _) = open(folder.path()).await;
        assert_eq!(store.get(&key("a")).map(|e| e.revision), Some(after.revision));
        assert!(store.get(&lease("l")).is_some());
    }
}
