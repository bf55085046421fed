//! Compaction: history is kept for five to ten minutes, and one server at a time forgets the
//! rest, in the way upstream's API servers agree on it: whoever finds the record as it was left
//! at the last round notes the present revision and compacts up to the one noted before.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{CompactionOptions, Compare, CompareOp, Error, Txn, TxnOp, TxnOpResponse};

use super::Core;
use super::members::Trouble;

/// The record as this server has last seen it.
#[derive(Default)]
struct Round {
    version: i64,
    revision: i64,
}

impl Core {
    /// Takes part in compaction, for ever.
    pub(super) async fn compact(self: Arc<Self>, every: Duration) {
        let mut round = Round::default();
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = self.compact_once(&mut round).await {
                let error = error.into_error(&self.options);
                tracing::warn!(error = base::chain(&error), "compact etcd");
            }
        }
    }

    async fn compact_once(&self, round: &mut Round) -> Result<(), Trouble> {
        let (key, now) = (&*self.layout.compacted, self.newest_watched());
        let unchanged = Compare::version(key, CompareOp::Equal, round.version);
        let txn = Txn::new()
            .when([unchanged])
            .and_then([TxnOp::put(key, now.to_string(), None)])
            .or_else([TxnOp::get(key, None)]);
        let agree = |m: super::members::Member| async move { m.kv().txn(txn).await };
        let answer = self.members.request("compact", agree).await?;
        if !answer.succeeded() {
            let found = answer.op_responses().into_iter().find_map(|response| match response {
                TxnOpResponse::Get(get) => get.kvs().first().cloned(),
                _ => None,
            });
            *round = found.map_or_else(Round::default, |kv| Round {
                version: kv.version(),
                revision: kv.value_str().ok().and_then(|v| v.parse().ok()).unwrap_or(0),
            });
            return Ok(());
        }
        let upto = round.revision;
        *round = Round { version: round.version + 1, revision: now };
        if upto == 0 {
            return Ok(());
        }
        let compact = |m: super::members::Member| async move {
            let done = m.kv().compact(upto, None::<CompactionOptions>).await;
            match done {
                // Another tenant's compaction has gone further: nothing is left to do.
                Err(Error::GRpcStatus(status)) if status.message().contains("compacted") => Ok(()),
                other => other.map(|_| ()),
            }
        };
        self.members.request("compact", compact).await
    }
}
