//! Revisioned objects: a memory index in front of a durable driver.
//!
//! Everything is kept in memory, so reads never touch the disk; writes queue up for one
//! writer thread, and one commit with one fsync serves all that queued meanwhile. The
//! revision is one counter over all collections and never goes back. The store knows
//! nothing of Kubernetes: what it must know of a value, a [`Codec`] tells it.

mod barrier;
mod datastore;
mod decide;
mod driver;
mod dump;
mod error;
mod etcd;
mod event;
mod feed;
mod index;
mod local;
mod memory;
mod object;
mod options;
mod recovery;
mod remote;
mod sql;
mod sqlite;
mod stamp;
mod stats;
mod store;
mod watch;
mod window;
mod writer;

pub use barrier::BARRIER_PATIENCE;
pub use datastore::{Datastore, EndpointError, TlsFiles};
pub use driver::{Change, Driver, Ground, Loaded, Outcome, Proposal, Shared, Verdict};
pub use dump::{Dump, fill};
pub use error::{BarrierError, Compacted, DriverError, ListError, OpenError, WriteError};
pub use etcd::{DEFAULT_PREFIX, Etcd, EtcdOptions};
pub use event::{Event, EventKind};
pub use feed::{Feed, Health};
pub use local::{Found, Local, Medium, REVISION_BLOCK, Row};
pub use memory::Memory;
pub use object::{Codec, Entry, Expect, Key, Labels, List, Page, Range, Revision, Slot};
pub use options::{Options, VALUE_MAX_BYTES};
pub use recovery::Recovery;
pub use sql::{DEFAULT_DATABASE, Encryption, Mysql, Postgres, Server};
pub use sqlite::{FALL_BACK_LEAP, Sqlite, SqliteOptions};
pub use stamp::stamp_member;
pub use stats::{BATCH_BUCKETS_WRITES, Stats};
pub use store::{Count, Store, Waker};
pub use watch::Watch;
pub use writer::GATHER;
