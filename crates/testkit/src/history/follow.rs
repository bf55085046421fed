//! One watch at one server, followed through every interruption.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::record::{Change, Event, Revision, Segment, Stored};

/// How long the server is asked to hold a watch; a silent one is given up a little later.
const WATCH_SECONDS: u32 = 10;
const GIVE_UP_AFTER: Duration = Duration::from_secs(12);
/// Pause before a watch or a list is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a list may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Status of a revision that is no longer kept.
const GONE: u16 = 410;

/// The name and the state of an object that a workload made; none: somebody else's.
pub fn stored(object: &ConfigMap) -> Option<(String, Stored)> {
    let revision = object.metadata.resource_version.as_deref()?.parse().ok()?;
    let value = object.data.as_ref()?.get(super::caller::VALUE)?.parse().ok()?;
    Some((object.metadata.name.clone()?, Stored { revision, value }))
}

/// Follows the objects until `stop`; what was seen last is in `seen`.
pub async fn follow(
    server: String,
    api: Api<ConfigMap>,
    segments: Arc<Mutex<Vec<Segment>>>,
    seen: watch::Sender<Revision>,
    stop: CancellationToken,
) {
    let mut segment: Option<Segment> = None;
    let keep = |ended: Option<Segment>| {
        segments.lock().unwrap_or_else(PoisonError::into_inner).extend(ended);
    };
    let mut from = None;
    let following = async {
        loop {
            if from.is_none() {
                keep(segment.take());
                let after = list(&api).await;
                from = Some(after);
                seen.send_replace(after);
            }
            let after = from.unwrap_or_default();
            let current = segment.get_or_insert_with(|| Segment {
                server: server.clone(),
                after,
                ..Segment::default()
            });
            let expired = hold(&api, after, current, &seen).await;
            from = (!expired).then(|| current.seen());
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = stop.cancelled() => {}
    }
    keep(segment);
}

/// The revision of a list, tried until there is one.
async fn list(api: &Api<ConfigMap>) -> Revision {
    loop {
        let listed = tokio::time::timeout(LIST_TIMEOUT, api.list(&ListParams::default())).await;
        let revision =
            listed.ok().and_then(Result::ok).and_then(|list| list.metadata.resource_version);
        match revision.and_then(|revision| revision.parse().ok()) {
            Some(revision) => return revision,
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Holds one watch until it ends; whether its revision is no longer kept.
async fn hold(
    api: &Api<ConfigMap>,
    after: Revision,
    segment: &mut Segment,
    seen: &watch::Sender<Revision>,
) -> bool {
    let params = WatchParams::default().timeout(WATCH_SECONDS);
    let opened = tokio::time::timeout(LIST_TIMEOUT, api.watch(&params, &after.to_string())).await;
    let stream = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(kube::Error::Api(status))) => return status.code == GONE,
        Ok(Err(_)) | Err(_) => return false,
    };
    pin_mut!(stream);
    let holding = async {
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(WatchEvent::Added(object)) => note(Change::Added, &object),
                Ok(WatchEvent::Modified(object)) => note(Change::Modified, &object),
                Ok(WatchEvent::Deleted(object)) => note(Change::Deleted, &object),
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    if let Ok(revision) = bookmark.metadata.resource_version.parse() {
                        segment.bookmarks.push((revision, segment.events.len()));
                        seen.send_replace(segment.seen());
                    }
                    continue;
                }
                Ok(WatchEvent::Error(status)) => return status.code == GONE,
                Err(kube::Error::Api(status)) => return status.code == GONE,
                Err(_) => return false,
            };
            if let Some(event) = event {
                segment.events.push(event);
                seen.send_replace(segment.seen());
            }
        }
        false
    };
    // A connection that was cut without a word is given up, and the watch goes on elsewhere.
    tokio::time::timeout(GIVE_UP_AFTER, holding).await.unwrap_or(false)
}

fn note(change: Change, object: &ConfigMap) -> Option<Event> {
    let (key, Stored { revision, value }) = stored(object)?;
    Some(Event { revision, change, key, value })
}
