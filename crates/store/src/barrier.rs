//! Linearizable reads: the index must have seen whatever was acknowledged before the call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::driver::Shared;
use crate::index::Index;
use crate::{BarrierError, DriverError, Revision};

/// The longest that a reader waits for the datastore and for the index.
pub const BARRIER_PATIENCE: Duration = Duration::from_secs(8);

type Answer = Arc<OnceCell<Result<Revision, Arc<DriverError>>>>;

/// Asks the datastore, one question at a time. Whoever comes while a question is on its way
/// cannot use its answer, which may be older than the call; all of them share the next one.
pub(crate) struct Barrier {
    shared: Arc<dyn Shared>,
    turn: tokio::sync::Mutex<()>,
    next: Mutex<Option<Answer>>,
}

impl Barrier {
    pub(crate) fn new(shared: Arc<dyn Shared>) -> Self {
        Self { shared, turn: tokio::sync::Mutex::default(), next: Mutex::default() }
    }

    /// Waits until the index shows everything acknowledged before the call.
    pub(crate) async fn pass(&self, index: &Index) -> Result<Revision, BarrierError> {
        let passed = tokio::time::timeout(BARRIER_PATIENCE, async {
            let revision = self.ask().await.map_err(BarrierError::Datastore)?;
            index.reached(revision).await;
            Ok(revision)
        });
        let late = |_| BarrierError::Late { patience: BARRIER_PATIENCE, newest: index.revision() };
        passed.await.map_err(late)?
    }

    async fn ask(&self) -> Result<Revision, Arc<DriverError>> {
        let answer = self.next().get_or_insert_default().clone();
        let question = || async {
            let _turn = self.turn.lock().await;
            // Whoever comes from here on needs another answer. Should a round be asked again,
            // because who asked has gone away, the round after it may be split: no harm.
            *self.next() = None;
            self.shared.newest().await.map_err(Arc::new)
        };
        answer.get_or_init(question).await.clone()
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<Answer>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
