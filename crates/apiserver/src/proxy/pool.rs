//! Connections to a host that answer one request after another: what API servers behind this one
//! are asked over, so that not every request begins with a handshake. HTTP/1.1 as everywhere in
//! the proxies; a request that switches protocols has a connection of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use super::target::Target;
use crate::request::Body;

/// Connections to one host that are kept while nobody needs them.
const IDLE_MAX: usize = 8;
/// How long one is kept; most servers close theirs later.
const IDLE: Duration = Duration::from_secs(30);

/// Host, port, the name in its certificate, and whose authority that is checked against: one
/// that was opened on other terms is not used.
type Key = (String, u16, Option<String>, usize);

/// One that is kept, and since when.
type Kept = (SendRequest<Body>, Instant);

/// Connections that are kept.
#[derive(Default)]
pub(crate) struct Pool(Mutex<HashMap<Key, Vec<Kept>>>);

fn key(target: &Target) -> Key {
    let tls = target.tls.as_ref().map_or(0, |tls| Arc::as_ptr(tls) as usize);
    (target.host.clone(), target.port, target.server_name.clone(), tls)
}

impl Pool {
    /// A connection to the target that is open as far as is known.
    pub(super) fn take(&self, target: &Target) -> Option<SendRequest<Body>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, all| {
            all.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE);
            !all.is_empty()
        });
        Some(kept.get_mut(&key(target))?.pop()?.0)
    }

    /// Keeps a connection once its answer has been read to the end.
    pub(super) fn keep(self: &Arc<Self>, target: &Target, mut sender: SendRequest<Body>) {
        // The authority is held on to, so that no other one is taken for it.
        let (pool, key, tls) = (Arc::downgrade(self), key(target), target.tls.clone());
        tokio::spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            let Some(pool) = pool.upgrade() else { return };
            let mut kept = pool.0.lock().unwrap_or_else(PoisonError::into_inner);
            let all = kept.entry(key).or_default();
            if all.len() < IDLE_MAX {
                all.push((sender, Instant::now()));
            }
            drop(tls);
        });
    }

    /// How many are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }
}
