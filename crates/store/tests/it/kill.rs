//! kill -9 of a process that writes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use store::{Expect, Recovery, Revision, Sqlite, Store};

use crate::support::{Json, key, lease, options, value};

const ROUNDS: usize = 10;
const WRITERS: usize = 16;
const FOLDER: &str = "STORE_TEST_KILL_FOLDER";

/// Not a test of its own: the process that is killed. Prints each acknowledged write.
#[tokio::test]
async fn writer_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let driver = Sqlite::driver(folder);
    let (store, _) = Store::open(driver, Arc::new(Json), options()).await.expect("it opens");
    let write = |writer: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0u64.. {
                let key = if n % 4 == 3 { lease("l") } else { key(&format!("p{writer}")) };
                let name = key.name.clone();
                let entry = store.put(key, Expect::Any, value(&n.to_string())).await.expect("put");
                let line = format!("ack {name} {}\n", entry.revision);
                std::io::stdout().write_all(line.as_bytes()).expect("the parent reads");
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(write).collect();
    for writer in writers {
        writer.await.expect("writes until it is killed");
    }
}

/// Ends the process also when an assertion fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path) -> Killed {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command.args(["--exact", "kill::writer_process", "--nocapture"]).env(FOLDER, folder);
    Killed(command.stdout(Stdio::piped()).spawn().expect("start the writer"))
}

/// Lets a process acknowledge so many writes, kills it, and gives what it had acknowledged.
fn round(folder: &Path, lines: usize) -> BTreeMap<String, Revision> {
    let mut process = start(folder);
    let output = BufReader::new(process.0.stdout.take().expect("piped"));
    let mut lines_read = 0;
    let mut acknowledged = BTreeMap::new();
    for line in output.lines() {
        let line = line.expect("text");
        let Some((_, ack)) = line.split_once("ack ") else { continue };
        let Some((name, revision)) = ack.split_once(' ') else { continue };
        // The last line may be cut short; a shorter number is a weaker claim.
        let Ok(revision) = revision.parse() else { continue };
        acknowledged.insert(name.to_owned(), revision);
        lines_read += 1;
        if lines_read == lines {
            process.0.kill().expect("kill");
        }
    }
    acknowledged
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("data");
    let mut highest = 0;
    for _ in 0..ROUNDS {
        let acknowledged = round(&path, fastrand::usize(1..400));
        let first = acknowledged.values().min().copied().expect("something was acknowledged");
        assert!(first > highest, "{first} was handed out before ({highest})");
        let driver = Sqlite::driver(&path);
        let (store, recovery) =
            Store::open(driver, Arc::new(Json), options()).await.expect("opens");
        assert_eq!(recovery, Recovery::Unclean);
        for (name, revision) in acknowledged.iter().filter(|(name, _)| *name != "l") {
            let found = store.get(&key(name)).expect("it was acknowledged");
            assert!(found.revision >= *revision, "{name}: {} of {revision}", found.revision);
        }
        highest = acknowledged.values().copied().fold(highest, Revision::max);
        assert!(store.revision() >= highest);
        store.close().await.expect("close");
    }
}
