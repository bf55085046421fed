//! The one place that knows how to open a store in a test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::{
    Codec, Datastore, Driver, Key, Labels, Memory, Options, Recovery, Revision, Sqlite, Store,
};

use crate::etcds::Etcds;
use crate::sqls::{Kind, Sql};

/// Values are JSON with `"metadata":{` in front, as the API server writes them.
pub struct Json;

impl Codec for Json {
    fn stamp(&self, value: &[u8], revision: Revision) -> Bytes {
        store::stamp_member(value, b"\"metadata\":{", "resourceVersion", revision)
    }

    fn labels(&self, value: &[u8]) -> Labels {
        let object: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
        [("text", object["text"].as_str().unwrap_or_default())].into_iter().collect()
    }
}

/// A medium that can be opened again and again.
pub enum Medium {
    Memory(Memory),
    Sqlite(tempfile::TempDir),
    Elsewhere(Datastore),
}

impl Medium {
    /// One of each kind.
    pub fn all() -> Vec<Medium> {
        let mut all = vec![Self::Memory(Memory::default()), Self::sqlite()];
        all.extend(Self::shared());
        all
    }

    /// One of each kind that several processes can use at once.
    pub fn shared() -> Vec<Medium> {
        let etcd = Datastore::Etcd(Etcds::shared());
        let sqls = [Kind::Postgres, Kind::Mysql].map(Sql::shared);
        [etcd].into_iter().chain(sqls).map(Self::Elsewhere).collect()
    }

    pub fn sqlite() -> Medium {
        Self::Sqlite(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self) -> PathBuf {
        match self {
            Self::Sqlite(folder) => folder.path().join("data"),
            _ => panic!("only SQLite has a path"),
        }
    }

    pub async fn open_with(&self, options: Options) -> (Store, Recovery) {
        Store::open(self.driver(), Arc::new(Json), options).await.expect("the store opens")
    }

    pub fn driver(&self) -> Box<dyn Driver> {
        match self {
            Self::Memory(memory) => Box::new(memory.driver()),
            Self::Sqlite(_) => Box::new(Sqlite::driver(self.path())),
            Self::Elsewhere(datastore) => datastore.driver(),
        }
    }

    /// Whether other processes may write to it.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory(_) | Self::Sqlite(_))
    }

    pub async fn open(&self) -> (Store, Recovery) {
        self.open_with(options()).await
    }
}

/// Small windows, so that their edges are met; "leases" is volatile.
pub fn options() -> Options {
    Options {
        volatile: vec!["leases".into()],
        window_max_events: 64,
        checkpoint_interval: Duration::from_secs(3600),
        ..Options::default()
    }
}

pub fn key(name: &str) -> Key {
    Key::new("pods", "default", name)
}

pub fn lease(name: &str) -> Key {
    Key::new("leases", "default", name)
}

/// An object as the store is given it.
pub fn value(text: &str) -> Bytes {
    format!(r#"{{"kind":"A","metadata":{{"name":"x"}},"text":"{text}"}}"#).into()
}

/// The object as the store gives it back.
pub fn stamped(text: &str, revision: Revision) -> String {
    format!(
        r#"{{"kind":"A","metadata":{{"resourceVersion":"{revision}","name":"x"}},"text":"{text}"}}"#
    )
}

pub fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).expect("JSON is UTF-8")
}

/// Copies a data folder as a power cut would leave it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("make the folder");
    for file in std::fs::read_dir(from).expect("list the folder") {
        let file = file.expect("a folder entry");
        if file.file_type().expect("a file type").is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("copy a file");
        }
    }
}

/// A folder in memory where there is such: thousands of openings must not wait for a disk,
/// and what a crash leaves is simulated anyway.
pub fn fast_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary folder")
}
