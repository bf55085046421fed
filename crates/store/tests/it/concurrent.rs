//! Many at once: batches, watchers, order.

use std::sync::Arc;

use store::{Expect, Memory, Options, Page, Range, Revision, Sqlite, Store, WriteError};

use crate::support::{Json, Medium, key, lease, options, value};

const PODS: Range<'static> = Range { collection: "pods", namespace: None };

async fn write_many(store: &Store, writers: usize, each: usize) -> Vec<Revision> {
    let write = |writer: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0..each {
                let key = key(&format!("p{writer}-{}", n % 10));
                let entry = store.put(key, Expect::Any, value(&n.to_string())).await.unwrap();
                acknowledged.push(entry.revision);
            }
            acknowledged
        })
    };
    let tasks: Vec<_> = (0..writers).map(write).collect();
    let mut all = Vec::new();
    for task in tasks {
        let revisions = task.await.unwrap();
        assert!(revisions.is_sorted(), "one writer's revisions grow");
        all.extend(revisions);
    }
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_every_write_once_in_order() {
    for medium in Medium::all() {
        let wide = Options { window_max_events: 10_000, ..options() };
        let (store, _) = medium.open_with(wide).await;
        let from = store.revision();
        let (writers, each) = (8, 50);
        let watch = |_| {
            let mut watch = store.watch(PODS, from).unwrap();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while seen.len() < writers * each {
                    seen.push(watch.next().await.unwrap().unwrap().revision);
                }
                seen
            })
        };
        let watchers: Vec<_> = (0..10).map(watch).collect();
        let acknowledged = write_many(&store, writers, each).await;
        for watcher in watchers {
            assert_eq!(watcher.await.unwrap(), acknowledged);
        }
        let late = store.watch(PODS, acknowledged[100]).unwrap();
        let mut late = late;
        assert_eq!(late.next().await.unwrap().unwrap().revision, acknowledged[101]);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_commit_serves_many_writers() {
    let medium = Medium::sqlite();
    let (store, _) = medium.open().await;
    let before = store.stats();
    write_many(&store, 64, 20).await;
    let stats = store.stats();
    let (writes, commits) = (64 * 20, stats.commits - before.commits);
    assert_eq!(stats.durable_writes - before.durable_writes, writes);
    assert!(commits * 4 < writes, "{commits} commits for {writes} writes");
    assert!(stats.fsyncs - before.fsyncs < writes / 2);
    assert_eq!(stats.batches.iter().sum::<u64>(), commits);
}

#[tokio::test]
async fn volatile_writes_touch_no_disk() {
    let medium = Medium::sqlite();
    let (store, _) = medium.open().await;
    store.put(lease("l"), Expect::Any, value("0")).await.unwrap();
    let before = store.stats();
    for n in 0..1000 {
        store.put(lease("l"), Expect::Any, value(&n.to_string())).await.unwrap();
    }
    let after = store.stats();
    assert_eq!(after.volatile_writes, before.volatile_writes + 1000);
    assert_eq!((after.commits, after.bytes_written), (before.commits, before.bytes_written));
    store.flush().await.unwrap();
    let flushed = store.stats();
    assert_eq!(flushed.checkpoints, 1);
    assert!(flushed.bytes_written - after.bytes_written < 16 << 10);
    store.flush().await.unwrap();
    assert_eq!(store.stats(), flushed, "nothing changed, nothing is written");
}

#[tokio::test]
async fn a_checkpoint_comes_by_itself() {
    let medium = Medium::sqlite();
    let soon = Options { checkpoint_interval: std::time::Duration::from_millis(20), ..options() };
    let (store, _) = medium.open_with(soon).await;
    store.put(lease("l"), Expect::Any, value("0")).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while store.stats().checkpoints == 0 {
        assert!(std::time::Instant::now() < deadline, "no checkpoint");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn dropping_the_last_clone_closes() {
    let medium = Medium::sqlite();
    let (store, _) = medium.open().await;
    store.put(lease("l"), Expect::Any, value("0")).await.unwrap();
    let mut watch = store.watch(PODS, store.revision()).unwrap();
    drop(store);
    assert!(watch.next().await.is_none());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let store = loop {
        match Store::open(Sqlite::driver(medium.path()), Arc::new(Json), options()).await {
            Ok((store, _)) => break store,
            Err(_) => assert!(std::time::Instant::now() < deadline, "still locked"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert!(store.get(&lease("l")).is_some());
}

#[tokio::test]
async fn a_closed_store_still_reads() {
    for medium in Medium::all() {
        let (store, _) = medium.open().await;
        store.put(key("a"), Expect::Any, value("1")).await.unwrap();
        store.clone().close().await.unwrap();
        assert!(store.get(&key("a")).is_some());
        assert_eq!(store.list(PODS, Page::default()).unwrap().entries.len(), 1);
        let late = store.put(key("a"), Expect::Any, value("2")).await;
        assert!(matches!(late, Err(WriteError::Closed)));
    }
}

#[tokio::test]
async fn windows_stay_within_their_bytes() {
    let limits = Options { window_max_bytes: 20_000, windows_max_bytes: 30_000, ..options() };
    let driver = Memory::default().driver();
    let (store, _) = Store::open(driver, Arc::new(Json), limits).await.unwrap();
    for n in 0..200 {
        let key = store::Key::new(["a", "b", "c"][n % 3], "", n.to_string());
        store.put(key, Expect::Any, value(&"x".repeat(1000))).await.unwrap();
        let counts = store.counts();
        assert!(counts.iter().all(|c| c.window_bytes <= 20_000));
        assert!(counts.iter().map(|c| c.window_bytes).sum::<usize>() <= 30_000);
    }
    assert!(store.counts().iter().all(|c| c.window_events > 0));
}
