//! The tasks by which a server keeps something in order that follows from what is stored: each
//! looks when one of a few collections has changed, and does nothing otherwise.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::select_all;

use crate::feed::Feed;
use crate::server::ApiServer;

/// Somebody who keeps something in order.
pub(crate) trait Keeper: Send + 'static {
    /// The collections whose changes it looks at.
    const COLLECTIONS: &'static [&'static str];

    /// Looks at how things are and does what is due; `Some` if it has to look again although
    /// nothing changes.
    fn look(&mut self, server: &Arc<ApiServer>) -> impl Future<Output = Option<Duration>> + Send;
}

/// Has somebody keep things in order until the server stops.
pub(crate) fn start<K: Keeper>(server: &Arc<ApiServer>, mut keeper: K) {
    let store = &server.context.store;
    let feeds = K::COLLECTIONS.iter().map(|name| Feed::new(store.clone(), *name));
    let mut feeds: Vec<Feed> = feeds.collect();
    let stopping = server.context.stopping.clone();
    // A weak reference: this task must not keep a server alive that nobody else holds.
    let server = Arc::downgrade(server);
    tokio::spawn(async move {
        let mut again = None;
        loop {
            let change = select_all(feeds.iter_mut().map(|feed| feed.next().boxed()));
            let open = tokio::select! {
                () = stopping.cancelled() => return,
                (change, _, _) = change => change.is_some(),
                () = pause(again) => true,
            };
            // Changes that came together are answered together.
            while feeds.iter_mut().any(|feed| feed.try_next().is_some()) {}
            let Some(server) = server.upgrade().filter(|_| open) else { return };
            again = keeper.look(&server).await;
        }
    });
}

async fn pause(again: Option<Duration>) {
    match again {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
