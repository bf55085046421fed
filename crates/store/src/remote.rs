//! What drivers for datastores elsewhere have in common.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::DriverError;

/// How long a write may take, and finding out what became of it, before the caller hears that
/// this is not known.
pub(crate) const WRITE_PATIENCE: Duration = Duration::from_secs(12);
/// How long a question for the newest revision may take.
pub(crate) const READ_PATIENCE: Duration = Duration::from_secs(6);
/// How long loading may take, and waiting for the datastore before it.
pub(crate) const LOAD_PATIENCE: Duration = Duration::from_secs(60);

/// A driver's own runtime: one thread, so that it does not depend on who calls, and a commit
/// never waits behind requests to the API. Its tasks end with it.
pub(crate) struct Engine(Option<Runtime>);

impl Engine {
    pub(crate) fn start() -> Result<Self, DriverError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-remote")
            .enable_all()
            .build()
            .map_err(|source| DriverError::Io {
                doing: "start a runtime for",
                path: "the datastore".into(),
                source,
            })?;
        Ok(Self(Some(runtime)))
    }

    /// Runs to the end what the writer thread waits for, on that thread.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(runtime) => runtime.block_on(work),
            None => unreachable!("only dropping takes the runtime"),
        }
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(work);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A number that no other process, nor this one before a restart, has.
pub(crate) fn unique() -> u64 {
    // Each state of the standard library's hasher is seeded by the system.
    RandomState::new().hash_one(std::process::id())
}
