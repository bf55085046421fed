//! What the driver asks of one connection to a SQL server.
//!
//! ```text
//! coracle_meta     one row: the layout, and the counter of revisions. Who writes holds its
//!                  lock, so revisions are committed in their order and none is ever missing
//! coracle_change   the newest changes of all, and the values of all objects
//! coracle_object   the newest change of each object
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::Server;
use crate::{Change, DriverError, Key, Revision};

/// The layout of the tables; a newer version that changes it counts on.
pub(super) const LAYOUT: i32 = 1;
/// Where a new counter begins: zero means "from anywhere" to a Kubernetes client.
pub(super) const FIRST_REVISION: i64 = 1;

/// What a transaction writes.
pub struct Writes<'a> {
    /// Who writes: a number that no other transaction has.
    pub(super) batch: i64,
    /// All changes, in order.
    pub(super) changes: &'a [Change],
    /// The counter after them.
    pub(super) counter: Revision,
    /// Whether to commit.
    pub(super) commit: bool,
}

impl Writes<'_> {
    /// The last change of each object, split into those that stay and those that go.
    pub(super) fn last_states(&self) -> (Vec<&Change>, Vec<&Key>) {
        let mut last: std::collections::HashMap<&Key, &Change> = std::collections::HashMap::new();
        for change in self.changes {
            last.insert(&change.key, change);
        }
        let (put, gone): (Vec<&Change>, Vec<&Change>) =
            last.into_values().partition(|change| change.value.is_some());
        (put, gone.into_iter().map(|change| &change.key).collect())
    }
}

/// One connection. Methods are not called again after an error of theirs, but for `server`'s
/// refusals: the connection is dropped, and the server rolls back.
pub trait Link: Send + Sized + 'static {
    /// How often to look for news, if nobody tells; at first and at most.
    const POLL: Option<(Duration, Duration)>;

    /// A connection that was idle for longer is not used again.
    const IDLE_MAX: Duration;

    /// Connects, and makes the database and its tables if they are not there. `news` is told
    /// of each commit where the server can tell.
    fn connect(
        server: &Server,
        news: Option<Arc<Notify>>,
    ) -> impl Future<Output = Result<Self, DriverError>> + Send;

    /// Begins a transaction and takes the counter's lock, which waits for whoever has it.
    fn lock(&mut self) -> impl Future<Output = Result<Revision, DriverError>> + Send;

    /// Who wrote a change, within the transaction.
    fn writer_of(
        &mut self,
        revision: Revision,
    ) -> impl Future<Output = Result<Option<i64>, DriverError>> + Send;

    /// Writes, and commits if asked to.
    fn write(&mut self, writes: &Writes<'_>) -> impl Future<Output = Result<(), Unwritten>> + Send;

    /// Gives up the transaction.
    fn roll_back(&mut self) -> impl Future<Output = Result<(), DriverError>> + Send;

    /// The counter as committed.
    fn counter(&mut self) -> impl Future<Output = Result<Revision, DriverError>> + Send;

    /// The changes that are kept after a revision, in order, at most so many.
    fn changes(
        &mut self,
        after: Revision,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Change>, DriverError>> + Send;

    /// Begins to read all objects as they are now; gives the counter.
    fn begin_reading(&mut self) -> impl Future<Output = Result<Revision, DriverError>> + Send;

    /// The objects changed last after a revision, in order, at most so many.
    fn objects(
        &mut self,
        after: Revision,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Change>, DriverError>> + Send;

    /// How many objects each collection has.
    fn holdings(&mut self) -> impl Future<Output = Result<Vec<(String, i64)>, DriverError>> + Send;

    /// Forgets changes up to a revision that no object stands upon.
    fn prune(&mut self, upto: Revision) -> impl Future<Output = Result<(), DriverError>> + Send;
}

/// Why a transaction was not acknowledged.
pub struct Unwritten {
    /// Whether the commit may have been carried out all the same.
    pub(super) open: bool,
    pub(super) error: DriverError,
}

/// An error of a SQL server.
pub(super) fn remote(
    server: &Server,
    doing: &'static str,
    hint: Option<&'static str>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DriverError {
    DriverError::Remote { doing, datastore: server.to_string(), hint, source: source.into() }
}

/// The same for good: trying again changes nothing.
pub(super) fn refused(
    server: &Server,
    doing: &'static str,
    hint: Option<&'static str>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DriverError {
    DriverError::Refused { doing, datastore: server.to_string(), hint, source: source.into() }
}

/// A revision as SQL has it. The counter cannot come near the end of either.
pub(super) fn to_sql(revision: Revision) -> i64 {
    revision.cast_signed()
}
