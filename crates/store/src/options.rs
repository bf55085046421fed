//! What a caller may choose.

use std::time::Duration;

/// Largest value, in bytes: etcd's default request limit, which upstream's users know.
pub const VALUE_MAX_BYTES: usize = 1_572_864;

/// Options of a store; `default()` is what a cluster of small boards wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// Collections that live in memory and are checkpointed instead of written through.
    pub volatile: Vec<String>,
    /// Least time between two checkpoints of volatile collections. The default of ten
    /// minutes keeps an idle cluster's heartbeats below 1 MiB written an hour.
    pub checkpoint_interval: Duration,
    /// Collections whose updates may wait up to [`GATHER`](crate::GATHER) and a quarter for others
    /// of their kind, where the datastore is not ours alone and each write is a sync on its disks.
    pub patient: Vec<String>,
    /// Most events in one collection's window.
    pub window_max_events: usize,
    /// Most bytes of values that one collection's window may keep alive.
    pub window_max_bytes: usize,
    /// Most bytes of values that all windows together may keep alive.
    pub windows_max_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            volatile: Vec::new(),
            checkpoint_interval: Duration::from_secs(600),
            patient: Vec::new(),
            window_max_events: 8192,
            window_max_bytes: 8 << 20,
            windows_max_bytes: 16 << 20,
        }
    }
}

impl Options {
    /// Whether a collection is volatile.
    pub(crate) fn is_volatile(&self, collection: &str) -> bool {
        self.volatile.iter().any(|v| v == collection)
    }
}
