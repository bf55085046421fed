//! What the store has done, for /metrics.

use crate::Verdict;

/// Upper bounds of the batch size buckets, in writes; the last bucket has none.
pub const BATCH_BUCKETS_WRITES: [usize; 7] = [1, 2, 4, 8, 16, 64, 256];

/// Counters since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transactions committed to the disk, of whatever reason.
    pub commits: u64,
    /// Waits for the disk.
    pub fsyncs: u64,
    /// Bytes handed to the file system, log and database together.
    pub bytes_written: u64,
    /// Durable writes committed.
    pub durable_writes: u64,
    /// Writes to volatile collections, which touch no disk.
    pub volatile_writes: u64,
    /// Checkpoints of volatile collections.
    pub checkpoints: u64,
    /// Verified copies made.
    pub copies: u64,
    /// Batches that could not be made durable.
    pub failures: u64,
    /// Durable batches by size, not cumulative; see [`BATCH_BUCKETS_WRITES`].
    pub batches: [u64; BATCH_BUCKETS_WRITES.len() + 1],
}

impl Stats {
    /// Counts what a datastore elsewhere has made of a batch.
    pub(crate) fn remote_batch(&mut self, verdicts: &[Verdict]) {
        let applied = verdicts.iter().filter(|v| matches!(v, Verdict::Applied(_))).count();
        let failed =
            verdicts.iter().any(|v| matches!(v, Verdict::Failed(_) | Verdict::Unresolved(_)));
        self.failures += u64::from(failed);
        if applied > 0 {
            self.commits += 1;
            self.batch(applied);
        }
    }

    /// Counts a durable batch.
    pub(crate) fn batch(&mut self, writes: usize) {
        let bucket = BATCH_BUCKETS_WRITES.partition_point(|&bound| bound < writes);
        self.batches[bucket] += 1;
        self.durable_writes += writes as u64;
    }
}
