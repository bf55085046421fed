//! Reading everything, and writing everything into an empty etcd.

use std::time::Instant;

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, KeyValue, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use super::Core;
use super::members::Member;
use crate::dump::Holdings;
use crate::{Change, DriverError, Dump, Revision};

/// Most objects read with one request.
const PAGE_MAX_OBJECTS: i64 = 500;
/// Most objects written with one request: etcd's default is 128 operations.
const FILL_MAX_OBJECTS: usize = 100;
/// Bytes of values after which a request takes no more: etcd's default limit is 1.5 MiB.
const FILL_MAX_BYTES: usize = 1 << 20;

/// What a transaction of three reads has found.
fn states(answer: &TxnResponse) -> [Option<KeyValue>; 3] {
    let mut responses = answer.op_responses().into_iter();
    std::array::from_fn(|_| match responses.next() {
        Some(TxnOpResponse::Get(get)) => get.kvs().first().cloned(),
        _ => None,
    })
}

impl Core {
    /// Finds or makes what belongs to a cluster beside its objects.
    pub(super) async fn found(&self, until: Instant) -> Result<(), DriverError> {
        let keys = &self.layout;
        // Read first: in a full database even a write that is not carried out is refused.
        let read = |m: Member| async move {
            let gets = [&keys.base, &keys.fence, &keys.filling].map(|key| TxnOp::get(&**key, None));
            m.kv().txn(Txn::new().and_then(gets)).await
        };
        let mut found = states(&self.members.repeat("connect to", until, read).await?);
        if let [None, _, None] = found {
            let make = |m: Member| async move {
                let absent = |key: &str| Compare::version(key, CompareOp::Equal, 0);
                let puts = [(&keys.base, "0"), (&keys.fence, "")];
                let txn = Txn::new()
                    .when([absent(&keys.base), absent(&keys.filling)])
                    .and_then(puts.map(|(key, value)| TxnOp::put(&**key, value, None)));
                m.kv().txn(txn).await
            };
            self.members.repeat("connect to", until, make).await?;
            found = states(&self.members.repeat("connect to", until, read).await?);
        }
        let [base, fence, filling] = found;
        if filling.is_some() {
            return Err(DriverError::HalfFilled { datastore: self.name() });
        }
        let base = base.and_then(|kv| kv.value_str().ok()?.parse().ok());
        let (Some(base), Some(fence)) = (base, fence) else { return Err(self.not_ours()) };
        self.set_base(base);
        self.set_fence(fence.mod_revision());
        Ok(())
    }

    /// Reads all objects as of one revision, which it gives in etcd's terms.
    pub(super) async fn read_all(
        &self,
        until: Instant,
        sink: &mut impl FnMut(Change),
    ) -> Result<i64, DriverError> {
        let end = successor(&self.layout.objects);
        let mut from = self.layout.objects.clone().into_bytes();
        let mut at = 0;
        loop {
            let page = self.page(&from, &end, at, (false, until)).await?;
            if at == 0 {
                at = page.header().map_or(0, |h| h.revision());
            }
            let more = page.more();
            let mut page = page;
            let kvs = page.take_kvs();
            if let Some(last) = kvs.last() {
                from = [last.key(), &[0]].concat();
            }
            for kv in kvs {
                if let Some((change, _)) = self.layout.change(kv, self.base()) {
                    sink(change);
                }
            }
            if !more {
                return Ok(at);
            }
        }
    }

    async fn page(
        &self,
        from: &[u8],
        end: &[u8],
        at: i64,
        (keys_only, until): (bool, Instant),
    ) -> Result<GetResponse, DriverError> {
        let get = |m: Member| async move {
            let options = GetOptions::new().with_range(end).with_limit(PAGE_MAX_OBJECTS);
            let options = options.with_revision(at);
            let options = if keys_only { options.with_keys_only() } else { options };
            m.kv().get(from, Some(options)).await
        };
        self.members.repeat("load the objects of", until, get).await
    }

    /// Refuses an etcd that holds objects.
    async fn must_be_empty(&self, until: Instant) -> Result<(), DriverError> {
        let end = successor(&self.layout.objects);
        let mut from = self.layout.objects.clone().into_bytes();
        let mut holdings = Holdings::default();
        loop {
            let page = self.page(&from, &end, 0, (true, until)).await?;
            for kv in page.kvs() {
                if let Some(key) = self.layout.key(kv.key()) {
                    holdings.add(&key.collection);
                }
                from = [kv.key(), &[0]].concat();
            }
            if !page.more() {
                return holdings.must_be_empty(self.name());
            }
        }
    }

    /// Writes a dump. What was begun and not ended is removed first.
    pub(super) async fn write_all(&self, dump: &Dump, until: Instant) -> Result<(), DriverError> {
        self.clear_half_filled(until).await?;
        self.must_be_empty(until).await?;
        let keys = &self.layout;
        let begin = |m: Member| async move { m.kv().put(&*keys.filling, "", None).await };
        self.members.repeat("begin to fill", until, begin).await?;
        let mut rest = &dump.entries[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(FILL_MAX_OBJECTS).take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.value.len();
                first || bytes <= FILL_MAX_BYTES
            });
            let (now, later) = rest.split_at(fits.count());
            rest = later;
            let put = |m: Member| async move {
                let put = |entry: &std::sync::Arc<crate::Entry>| {
                    let value = self.ledger.begin().mark().put_behind(&entry.value);
                    TxnOp::put(keys.path(&entry.key), value, None)
                };
                let operations: Vec<TxnOp> = now.iter().map(put).collect();
                m.kv().txn(Txn::new().and_then(operations)).await
            };
            self.members.repeat("fill", until, put).await?;
        }
        self.end_filling(dump.revision, until).await
    }

    async fn clear_half_filled(&self, until: Instant) -> Result<(), DriverError> {
        let keys = &self.layout;
        let clear = |m: Member| async move {
            let begun = Compare::version(&*keys.filling, CompareOp::Greater, 0);
            let all = DeleteOptions::new().with_prefix();
            let clear = TxnOp::delete(&*keys.root, Some(all));
            m.kv().txn(Txn::new().when([begun]).and_then([clear])).await
        };
        self.members.repeat("look into", until, clear).await.map(|_| ())
    }

    async fn end_filling(&self, base: Revision, until: Instant) -> Result<(), DriverError> {
        let keys = &self.layout;
        let end = |m: Member| async move {
            let operations = [
                TxnOp::put(&*keys.base, base.to_string(), None),
                TxnOp::put(&*keys.fence, "", None),
                TxnOp::delete(&*keys.filling, None),
            ];
            m.kv().txn(Txn::new().and_then(operations)).await
        };
        self.members.repeat("end filling", until, end).await.map(|_| ())
    }
}

/// The first key behind all that begin with a prefix.
fn successor(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        // A prefix ends with a slash.
        *last += 1;
    }
    end
}
